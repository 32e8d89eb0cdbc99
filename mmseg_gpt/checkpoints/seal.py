"""A checksum inside a torch file, which is a zip archive: the seal is the archive's comment.

``torch.load`` reads a file with a flipped bit as if nothing were wrong. A zip archive's own checksums cover
its parts, but not the table that says where they are. The seal is the SHA-256 of every byte before it.
"""

from pathlib import Path
from typing import BinaryIO

from ..files import sha256_of

PREFIX = b'mmseg_gpt sha256 '
LENGTH = len(PREFIX) + 64
# The last record of a zip archive without a comment: its signature, and at its end the comment's length.
END, END_LENGTH = b'PK\x05\x06', 22
NO_COMMENT = b'\0\0'


def seal(path: str | Path) -> None:
    """Seals a file that ``torch.save`` wrote. All readers of zip archives can still read it.

    Raises:
        ValueError: the file is not a zip archive, or has a comment already.
    """
    with open(path, 'r+b') as file:
        if not ends_without_comment(file):
            raise ValueError(f'{path} is not a zip archive without a comment, so it cannot be sealed')
        file.seek(-len(NO_COMMENT), 2)
        file.write(LENGTH.to_bytes(2, 'little'))
        digest = sha256_of(file, file.tell())
        file.seek(0, 2)
        file.write(PREFIX + digest.encode())


def check_seal(path: str | Path) -> bool:
    """Says whether a zip archive has a seal, and checks the seal if so.

    Raises:
        ValueError: the seal does not agree with the content, or the end of the archive is damaged.
    """
    with open(path, 'rb') as file:
        if ends_without_comment(file):
            return False
        size = file.seek(0, 2)
        file.seek(max(0, size - LENGTH))
        comment = file.read()
        if not comment.startswith(PREFIX):
            raise ValueError('the end of the file is damaged')
        if comment != PREFIX + sha256_of(file, size - LENGTH).encode():
            raise ValueError('its content is not what was saved: the checksum (SHA-256) is another')
    return True


def ends_without_comment(file: BinaryIO) -> bool:
    """Says whether a file ends as a zip archive without a comment does."""
    size = file.seek(0, 2)
    file.seek(max(0, size - END_LENGTH))
    end = file.read()
    return end.startswith(END) and end.endswith(NO_COMMENT)
