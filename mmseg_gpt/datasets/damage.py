"""What happened to a file that is no image any more, by its first bytes."""

from pathlib import Path

AS_TEXT = 'mark such files as binary in .gitattributes (`*.png -text`, `*.jpg -text`)'
# The beginning of a file, and what it says. A PNG begins with \x89PNG\r\n\x1a\n to show such damage.
BEGINNINGS = {
    b'\x89PNG\n\x1a': 'was damaged as if it were text, by Git or in a transfer: every CRLF in it has become LF, so '
                      'bytes are lost, and images beside it may have lost some too. Get the files anew from their '
                      f'source, not from this repository; in Git, {AS_TEXT}',
    b'\x89PNG\r\r\n\x1a': 'was damaged as if it were text, by Git or in a transfer: every LF in it has become CRLF. '
                          f'Get it anew; in Git, {AS_TEXT} and check it out again',
    b'\xef\xbf\xbdPNG': 'was damaged as if it were text: bytes that are not UTF-8 are lost. Get it anew from its '
                        'source',
    b'version https://git-lfs': 'is a pointer of Git LFS, not the file itself; run `git lfs pull`',
    b'<!doctype html': 'is a web page, not an image: the download failed. Get it anew',
    b'<html': 'is a web page, not an image: the download failed. Get it anew',
    b'<': 'is XML, not an image',
    b'{': 'is JSON, not an image',
    b'[': 'is JSON, not an image',
}
HEIF = (b'heic', b'heix', b'mif1')  # brands of ISO/IEC 23008-12, which OpenCV and Pillow do not read


def damage(path: str | Path) -> str:
    """Says what a file is if it is no image, as the end of a sentence that begins with its name; empty if unknown."""
    with open(path, 'rb') as file:
        start = file.read(64)
    start = start.lstrip() if start[:1].isspace() else start
    small = start.lower()
    if start[4:8] == b'ftyp' and start[8:12] in HEIF:
        return 'is a HEIC image, as phones take them, whatever its suffix says: save it as JPEG or PNG'
    return next((words for begin, words in BEGINNINGS.items() if small.startswith(begin.lower())), '')
