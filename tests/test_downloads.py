"""Downloads that break off, lie, or are hostile; from a server on the loopback address."""

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path, PurePosixPath

import pytest
from conftest import serving

from mmseg_gpt import downloads
from mmseg_gpt.downloads import DownloadError, download, unpack

CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Server(HTTPServer):
    """Serves CONTENT.

    Attributes:
        cuts: How many bytes of each of the next answers are sent; after these, all.
        ranges: Whether it can go on with a file.
        sized: Whether it says how long an answer is.
        tag: Tells this version of the file from others.
        asked: The Range of each request.
    """

    def __init__(self) -> None:
        self.cuts, self.ranges, self.sized, self.asked, self.tag = [], True, True, [], '"1"'
        super().__init__(('127.0.0.1', 0), Handler)
        self.address = f'http://127.0.0.1:{self.server_port}/file.bin'


class Handler(BaseHTTPRequestHandler):

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get('Range')
        server.asked.append(asked)
        if self.path != '/file.bin':
            self.send_error(404)
            return
        same = self.headers.get('If-Range', server.tag) == server.tag
        start = int(asked[6:-1]) if asked and server.ranges and same else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(CONTENT)}')
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}')
        self.send_header('ETag', server.tag)
        if server.sized:
            self.send_header('Content-Length', str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:][:server.cuts.pop(0) if server.cuts else None])

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as running:
        yield running


SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize('sized', [True, False])
def test_a_file_is_fetched_once(server, tmp_path, sized, capsys):
    server.sized = sized
    path = tmp_path / 'new/file.bin'
    for _ in range(2):
        assert download(server.address, path, SHA256) == path and path.read_bytes() == CONTENT
    assert server.asked == [None] and [file.name for file in path.parent.iterdir()] == ['file.bin']
    assert re.search(r'fetching file\.bin: 1 (of 1 )?MB, [\d.]+ MB/s', capsys.readouterr().out)


def test_what_breaks_off_is_gone_on_with(server, tmp_path):
    server.cuts = [300_000, 200_000]
    assert download(server.address, tmp_path / 'file.bin', SHA256).read_bytes() == CONTENT
    assert server.asked == [None, 'bytes=300000-', 'bytes=500000-']


def test_a_later_start_goes_on_too(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, 'ATTEMPTS', 1)
    server.cuts = [300_000]
    with pytest.raises(DownloadError, match=r'broke off 1 times; what has come .*file\.bin\.part\. Run it again'):
        download(server.address, tmp_path / 'file.bin', SHA256)
    assert not (tmp_path / 'file.bin').exists()
    download(server.address, tmp_path / 'file.bin', SHA256)
    assert server.asked == [None, 'bytes=300000-'] and (tmp_path / 'file.bin').read_bytes() == CONTENT


def test_versions_of_a_file_are_not_mixed(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, 'ATTEMPTS', 1)
    server.cuts = [300_000]
    with pytest.raises(DownloadError, match='broke off'):
        download(server.address, tmp_path / 'file.bin')
    (tmp_path / 'file.bin.part').write_bytes(b'x' * 300_000)  # as if CONTENT had been this then
    server.tag = '"2"'
    assert download(server.address, tmp_path / 'file.bin').read_bytes() == CONTENT
    assert [file.name for file in tmp_path.iterdir()] == ['file.bin']


def test_a_server_that_cannot_go_on_starts_over(server, tmp_path):
    server.cuts, server.ranges = [300_000], False
    assert download(server.address, tmp_path / 'file.bin', SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize('left, requests', [(CONTENT, 1), (CONTENT + b'more', 2)])
def test_a_part_that_is_whole_or_too_long(server, tmp_path, left, requests):
    (tmp_path / 'file.bin.part').write_bytes(left)
    assert download(server.address, tmp_path / 'file.bin', SHA256).read_bytes() == CONTENT
    assert len(server.asked) == requests


def test_another_file_is_refused_and_removed(server, tmp_path):
    (tmp_path / 'file.bin.part').write_bytes(b'x' * 1000)  # of an older file, say
    with pytest.raises(DownloadError, match=f'should be {SHA256}. It was removed. Run it again .* Or --data'):
        download(server.address, tmp_path / 'file.bin', SHA256, remedy='Or --data DIR')
    assert list(tmp_path.iterdir()) == []
    download(server.address, tmp_path / 'file.bin', SHA256)


def test_no_server_no_file_no_room(server, tmp_path, monkeypatch):
    with pytest.raises(DownloadError, match='the server answers 404'):
        download(server.address + 's', tmp_path / 'file.bin')
    with pytest.raises(DownloadError, match=r'cannot be reached: .* Without internet: give it'):
        download('http://127.0.0.1:9/file.bin', tmp_path / 'file.bin', remedy='Without internet: give it')
    monkeypatch.setattr(downloads, 'SPARE', 10**18)
    with pytest.raises(DownloadError, match='Make room, or choose another folder'):
        download(server.address, tmp_path / 'file.bin')
    assert list(tmp_path.iterdir()) == []


# --- archives ---------------------------------------------------------------------------------------------------------


def archive(folder: Path, files: dict[str, bytes], link: str = '') -> Path:
    """Writes a .zip archive; the name ``link`` is that of a symbolic link."""
    path = folder / 'archive.zip'
    with zipfile.ZipFile(path, 'w') as opened:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name == link else 0o100644) << 16
            opened.writestr(info, content)
    return path


def all_of_it(path: PurePosixPath) -> PurePosixPath:
    return path


def test_some_files_are_unpacked(tmp_path):
    path = archive(tmp_path, {'top/a/1.png': b'one', 'top/b/2.png': b'two', 'top/README': b'no'})
    assert unpack(path, tmp_path / 'out', lambda p: PurePosixPath(*p.parts[1:]) if len(p.parts) == 3 else None) == 2
    assert (tmp_path / 'out/a/1.png').read_bytes() == b'one' and not (tmp_path / 'out/README').exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ['archive.zip', 'out']


@pytest.mark.parametrize('name', ['../outside', 'a/../../outside', '/outside', 'C:/outside', '..\\outside', 'link',
                                  '.'])
def test_a_hostile_archive_is_refused(tmp_path, name):
    path = archive(tmp_path, {'good': b'1', name: b'/etc/passwd'}, link='link')
    with pytest.raises(DownloadError, match='lies outside of the archive'):
        unpack(path, tmp_path / 'out', all_of_it)
    assert not (tmp_path / 'out').exists() and not (tmp_path.parent / 'outside').exists()


def test_a_damaged_archive_is_removed(tmp_path):
    path = archive(tmp_path, {'good': b'12345' * 1000})
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    for broken in (content, content[:-200]):
        path.write_bytes(broken)
        with pytest.raises(DownloadError, match=r'is damaged .* Run it again to fetch it anew'):
            unpack(path, tmp_path / 'out', all_of_it)
        assert not path.exists() and not (tmp_path / 'out').exists()


def test_an_archive_larger_than_the_disk(tmp_path, monkeypatch):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, 'w', zipfile.ZIP_DEFLATED) as opened:
        opened.writestr('zeros', bytes(10**6))
    (tmp_path / 'bomb.zip').write_bytes(bomb.getvalue())
    monkeypatch.setattr(downloads.shutil, 'disk_usage', lambda _: type('Usage', (), dict(free=downloads.SPARE + 10**5)))
    with pytest.raises(DownloadError, match=r'needs 0\.00 GB'):
        unpack(tmp_path / 'bomb.zip', tmp_path / 'out', all_of_it)
