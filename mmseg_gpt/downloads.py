"""Files from an address: gone on with after an interruption, checked, and unpacked without trust."""

import shutil
import stat
import sys
import time
import zipfile
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from .files import file_sha256
from .wording import reason

PART = '.part'  # the end of the name of a file that is not whole yet
VERSION = '.version'  # the end of the name of what says which version of a file a part is of
CHUNK = 1 << 18  # bytes
TIMEOUT = 30  # seconds without an answer
ATTEMPTS = 5  # after connections that broke off
SPARE = 5 * 10**8  # bytes of the disk that stay free
EVERY = 5  # seconds between two lines where there is no terminal


class DownloadError(RuntimeError):
    """A file cannot be fetched or unpacked; the message says why, and what to do."""


def download(address: str, path: Path, sha256: str = '', about: int = 0, remedy: str = '') -> Path:
    """Fetches a file, unless it is there.

    What an interrupted attempt has left in ``path`` + '.part' is gone on with, where the server can do that and still
    has that version. The file gets its name when it is whole and checked.

    Args:
        address: An http or https address.
        path: Where to.
        sha256: The SHA-256 that the file must have; '' for any.
        about: Its size in bytes, as far as it is known, for servers that do not say it.
        remedy: What to do without a network, in a sentence.

    Raises:
        DownloadError: it cannot be fetched, there is no room for it, or it is another file.
    """
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part, attempts = path.with_name(path.name + PART), ATTEMPTS
    while not attempt(address, part, about, remedy):
        attempts -= 1
        if not attempts:
            raise DownloadError(f'{address}: the connection broke off {ATTEMPTS} times; what has come so far is kept '
                                f'in {part}. Run it again to go on. {remedy}'.rstrip())
    version_of(part).unlink(missing_ok=True)
    if sha256 and (found := file_sha256(part)) != sha256:
        part.unlink()
        raise DownloadError(f'{address} gave another file than is expected: its SHA-256 is {found}, and should be '
                            f'{sha256}. It was removed. Run it again to fetch it anew. {remedy}'.rstrip())
    part.replace(path)
    return path


def attempt(address: str, part: Path, about: int, remedy: str) -> bool:
    """Goes on with a file, and returns whether it is whole now.

    Raises:
        DownloadError: the server refuses or cannot be reached, or the disk is full.
    """
    start = part.stat().st_size if part.is_file() else 0
    headers, version = {'Range': f'bytes={start}-'} if start else {}, version_of(part)
    if start and version.is_file() and (known := version.read_text()):
        headers['If-Range'] = known  # of another version, a server sends all
    try:
        with urlopen(Request(address, headers=headers), timeout=TIMEOUT) as answer:
            goes_on = answer.status == 206 and str(answer.headers.get('Content-Range')).startswith(f'bytes {start}-')
            start = start if goes_on else 0
            length = answer.headers.get('Content-Length')
            total = start + int(length) if length else None
            check_room(part.parent, (total or about) - start, address)
            if not goes_on:
                tag = answer.headers.get('ETag', 'W/')  # a weak one may be that of several versions
                version.write_text(answer.headers.get('Last-Modified', '') if tag.startswith('W/') else tag)
            done = receive(answer, part, start, total or about, name_of(address))
            return total is None or done == total
    except HTTPError as error:
        if error.code == 416 and start:  # nothing is left to send, or the file has become another one
            whole = error.headers.get('Content-Range') == f'bytes */{start}'
            if not whole:
                part.unlink()
            return whole
        raise DownloadError(f'{address}: the server answers {error.code} {error.reason}. {remedy}'.rstrip()) from error
    except (URLError, TimeoutError, ConnectionError, HTTPException) as error:
        if part.is_file() and part.stat().st_size > start:
            return False  # it broke off
        why = getattr(error, 'reason', None) or error
        raise DownloadError(f'{address} cannot be reached: {why}. {remedy}'.rstrip()) from error
    except OSError as error:
        raise DownloadError(f'{part} cannot be written: {reason(error)}') from error


def version_of(part: Path) -> Path:
    """Returns the file that says which version of a file a part is of, in the words of its server."""
    return part.with_name(part.name + VERSION)


def receive(answer: HTTPResponse, part: Path, start: int, total: int, name: str) -> int:
    """Writes what a server sends behind the first ``start`` bytes, and returns how many bytes there are then."""
    say, began = progress(name), time.monotonic()
    with open(part, 'r+b' if part.is_file() else 'wb') as file:
        file.truncate(start)
        file.seek(start)
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            say(file.tell(), total, (file.tell() - start) / max(time.monotonic() - began, 1e-9), False)
        say(file.tell(), total, (file.tell() - start) / max(time.monotonic() - began, 1e-9), True)
        return file.tell()


def progress(name: str) -> Callable[[int, int, float, bool], None]:
    """Returns a function that shows how far a file is: in one line that changes, or in a line now and then."""
    changes, shown = sys.stdout.isatty(), time.monotonic()

    def say(done: int, total: int, speed: float, is_last: bool) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown < (0.2 if changes else EVERY) and not is_last:
            return
        shown = now
        of = f' of {max(total, done) / 1e6:.0f}' if total else ''
        line = f'fetching {name}: {done / 1e6:.0f}{of} MB, {speed / 1e6:.1f} MB/s'
        print(f'\r{line:<100}' if changes else line, end='\n' if is_last or not changes else '', flush=True)
    return say


def name_of(address: str) -> str:
    """Returns the last part of an address."""
    return PurePosixPath(address).name


def check_room(folder: Path, needed: int, what: str) -> None:
    """Refuses what a disk has no room for.

    Raises:
        DownloadError: with the sizes.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise DownloadError(f'{what} needs {needed / 1e9:.2f} GB, and {folder} has {free / 1e9:.2f} GB free, of which '
                            f'{SPARE / 1e9:.1f} GB are left alone. Make room, or choose another folder')


def unpack(archive: Path, folder: Path, chosen: Callable[[PurePosixPath], PurePosixPath | None]) -> int:
    """Unpacks some files of a .zip archive into a folder, which appears whole or not at all.

    Args:
        archive: The archive.
        folder: Where to; it must not exist.
        chosen: Returns for the path of a file in the archive its path below ``folder``, or None to leave it out.

    Returns:
        int: Number of files.

    Raises:
        DownloadError: the archive is damaged, which removes it; or it holds a path that leaves the folder, or a link;
            or there is no room.
    """
    unfinished = folder.with_name(folder.name + PART)
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [(member, place) for member in opened.infolist() if not member.is_dir()
                       and (place := chosen(safe_path(member, archive))) is not None]
            check_room(folder.parent, sum(member.file_size for member, _ in members), str(archive))
            for member, place in members:
                file = unfinished / place
                file.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as source, open(file, 'wb') as written:
                    shutil.copyfileobj(source, written)
    except (zipfile.BadZipFile, EOFError) as error:
        archive.unlink()
        raise DownloadError(f'{archive} is damaged ({error}) and was removed. Run it again to fetch it anew') from error
    unfinished.mkdir(parents=True, exist_ok=True)
    unfinished.replace(folder)
    return len(members)


def safe_path(member: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    """Returns the path of a file in an archive.

    Raises:
        DownloadError: it would lie outside of where it is unpacked, is a link, or has no name.
    """
    path = PurePosixPath(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if not path.parts or path.is_absolute() or '..' in path.parts or '\\' in member.filename or (
            ':' in path.parts[0]) or kind not in (0, stat.S_IFREG):
        raise DownloadError(f'{archive} is not what it should be: it holds {member.filename!r}, which is no file, is '
                            'a link, or lies outside of the archive. Nothing was unpacked; remove it')
    return path
