"""A checksum that travels inside a torch file, as the comment of the zip archive that such a file is.

``torch.load`` reads a file with a flipped bit as if nothing were wrong, and a zip archive's own checksums cover
its parts, not the table that says where they are. The seal is the SHA-256 of every byte before it.
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
    """Seals a file that ``torch.save`` wrote; everything that reads zip archives still reads it.

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
    """Whether a zip archive has a seal, which is then checked; False for one that was never sealed.

    Raises:
        ValueError: the seal is not that of the content, or the end of the archive is damaged.
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
    """Whether the last bytes are those of a zip archive that has no comment."""
    size = file.seek(0, 2)
    file.seek(max(0, size - END_LENGTH))
    end = file.read()
    return end.startswith(END) and end.endswith(NO_COMMENT)
