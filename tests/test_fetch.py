"""Pretrained files from an address: fetched once, whole and checked, and never run."""

import functools
import hashlib
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from conftest import serving
from vit_files import assert_filled, build, random_vit, save

from mmseg_gpt.checkpoints import CheckpointError, PretrainedViT, fetch, is_remote, locate


class Server(HTTPServer):
    """Serves ``files`` by name; ``cut`` bytes are missing at the end of each answer."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cut = 0
        super().__init__(('127.0.0.1', 0), Handler)

    def address(self, name: str) -> str:
        return f'http://127.0.0.1:{self.server_port}/a/b/{name}'


class Handler(BaseHTTPRequestHandler):

    def do_GET(self) -> None:
        name = self.path.split('?')[0].rsplit('/', 1)[1]
        self.server.asked.append(name)
        content = self.server.files.get(name)
        self.send_response(404 if content is None else 200)
        self.send_header('Content-Length', str(len(content or b'')))
        self.end_headers()
        self.wfile.write((content or b'')[:len(content or b'') - self.server.cut])

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as running:
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """torch.hub's cache, empty; its files."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    return tmp_path / 'torch/hub/checkpoints'


def kept(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != '.lock')


@pytest.fixture
def state() -> dict:
    return random_vit()


@pytest.fixture
def content(state, tmp_path) -> bytes:
    return save(dict(model=state), tmp_path / 'source.pth').read_bytes()


@pytest.mark.parametrize('name', ['vit.pth', 'vit.pth.tar', 'vit.bin', 'vit.pth?download=1'])
def test_an_address_is_fetched_once_and_loaded(name, server, content, state, cache):
    server.files[name.split('?')[0]] = content
    address = server.address(name)
    vit = build(init_cfg=dict(type='PretrainedViT', checkpoint=address))
    path = locate(address)
    assert path.parent == cache and path.name.endswith(name.split('?')[0]) and not path.exists() and is_remote(address)
    assert server.asked == []  # asking where it is fetches nothing
    vit.init_weights()
    assert_filled(vit, state, vit.state_dict())
    assert kept(cache) == [path.name]
    fetch(address)
    assert len(server.asked) == 1


def test_files_of_one_name_from_two_addresses_are_two_files(server, content, tmp_path):
    server.files['model.pth'] = content
    other = server.address('model.pth').replace('/a/', '/other/')
    assert fetch(server.address('model.pth')) != fetch(other)
    assert server.asked == ['model.pth'] * 2


def test_the_hash_in_a_name_is_checked(server, content, cache):
    digest = hashlib.sha256(content).hexdigest()
    good, bad = f'vit-{digest[:8]}.pth', 'vit-0123abcd.pth'
    server.files |= {good: content, bad: content}
    assert fetch(server.address(good)) == cache / good
    with pytest.raises(CheckpointError, match=r'vit-0123abcd\.pth cannot be fetched.*(?s:.*)invalid hash value'):
        fetch(server.address(bad))
    assert kept(cache) == [good]
    assert fetch(server.address(bad), sha256=digest) == cache / bad  # what the config says counts more


def test_the_sha256_of_the_config_is_checked_for_addresses_and_files(server, content, cache, tmp_path):
    digest, wrong = hashlib.sha256(content).hexdigest(), 64 * '0'
    server.files['vit.pth'] = content
    with pytest.raises(CheckpointError, match='invalid hash value'):
        fetch(server.address('vit.pth'), sha256=wrong)
    assert kept(cache) == []
    fetch(server.address('vit.pth'), sha256=digest)
    with pytest.raises(CheckpointError, match=f'SHA-256 is {digest}, and sha256 asks for {wrong}. Delete it'):
        fetch(server.address('vit.pth'), sha256=wrong)
    assert fetch(tmp_path / 'source.pth', digest.upper()) == tmp_path / 'source.pth'
    with pytest.raises(CheckpointError, match=f'SHA-256 is {digest}, and sha256 asks for {wrong}.$'):
        PretrainedViT(str(tmp_path / 'source.pth'), sha256=wrong)(build())
    with pytest.raises(CheckpointError, match='must be the 64 hexadecimal digits'):
        fetch(tmp_path / 'source.pth', sha256=digest[:8])


@pytest.mark.parametrize('suffix', ['.pth', '.npz', '.safetensors'])
def test_a_broken_download_is_not_kept_and_fetched_again(suffix, server, state, cache, tmp_path):
    from test_checkpoints import file_bytes
    server.files[f'vit{suffix}'] = file_bytes(suffix, tmp_path / f'good{suffix}')
    address = server.address(f'vit{suffix}')
    server.cut = 1000
    with pytest.raises(CheckpointError, match=f'{address} cannot be fetched, and nothing of it was kept'):
        fetch(address)
    assert kept(cache) == []
    server.cut = 0
    assert fetch(address).read_bytes() == server.files[f'vit{suffix}']


def test_a_web_page_is_not_kept(server, cache):
    server.files['vit.pth'] = b'<!DOCTYPE html><html>sign in</html>'
    with pytest.raises(CheckpointError, match='a web page saved in its place'):
        fetch(server.address('vit.pth'))
    assert kept(cache) == []


def test_nothing_is_run_of_what_is_fetched(server, cache, tmp_path):
    class Evil:

        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / 'trap'), )

    torch.save({**random_vit(), 'x': Evil()}, tmp_path / 'evil.pth')
    server.files |= {'vit.pth': (tmp_path / 'evil.pth').read_bytes(), 'vit.pkl': pickle.dumps(Evil(), 2)}
    for name in server.files:
        with pytest.raises(CheckpointError, match='they can run code'):
            PretrainedViT(server.address(name))(build())
    assert kept(cache) == [] and not (tmp_path / 'trap').exists()


def test_without_a_network_the_error_says_where_to_put_the_file(server, cache):
    closed = Server()
    address = closed.address('vit.pth')
    closed.server_close()
    for unreachable in (address, server.address('missing.pth')):
        with pytest.raises(CheckpointError, match=r'cannot be fetched(?s:.*)put the file at ') as error:
            fetch(unreachable)
        assert unreachable in str(error.value) and str(locate(unreachable)) in str(error.value)
    save(random_vit(), locate(address))
    assert fetch(address) == locate(address)  # put there by hand


@pytest.mark.parametrize('checkpoint', ['s3://a/vit.pth', 'file:///etc/passwd', 'http://host/', 'ftp://a/b.pth',
                                        'timm://', 'timm://hf-hub:a/b', 'timm://../x', 'timm://a/b'])
def test_other_addresses_are_refused(checkpoint, cache):
    with pytest.raises(CheckpointError, match=r'give a path, an address that begins with http') as error:
        fetch(checkpoint)
    assert checkpoint in str(error.value) and not cache.exists()


@pytest.mark.parametrize('name', ['..%2f..%2fvit.pth', '..%5cvit.pth', '%2e%2e/vit.pth'])
def test_no_address_leads_out_of_the_cache(name, cache):
    assert locate(f'http://host/{name}').resolve().parent == cache.resolve()


def test_what_a_killed_process_left_is_cleared_away(server, content, cache):
    server.files['vit.pth'] = content
    path = locate(server.address('vit.pth'))
    cache.mkdir(parents=True)
    for name in (f'partial-{path.name}', f'partial-{path.name}.0123.partial'):
        (cache / name).write_bytes(b'half')
    fetch(server.address('vit.pth'))
    assert kept(cache) == [path.name]


def test_a_cache_that_cannot_be_written_is_named(server, content, cache):
    server.files['vit.pth'] = content
    cache.parent.mkdir(parents=True)
    cache.write_text('a file in its place')
    with pytest.raises(CheckpointError, match=rf'vit\.pth cannot be kept in {cache}: .*\. The variable TORCH_HOME'):
        fetch(server.address('vit.pth'))


def test_of_several_processes_one_downloads_and_all_get_the_file(server, content):
    server.files['vit.pth'] = content
    context = multiprocessing.get_context('spawn')
    with context.Pool(3) as pool:
        paths = pool.map(fetch, [server.address('vit.pth')] * 3)
    assert len(server.asked) == 1
    assert [path.read_bytes() == content for path in paths] == [True] * 3


def test_a_path_is_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert locate('a/b.pth') == Path('a/b.pth') and not is_remote('a/b.pth')
    assert locate('~/b.pth') == tmp_path / 'b.pth'
    with pytest.raises(FileNotFoundError, match=r'b\.pth does not exist'):
        fetch('~/b.pth')


# --- timm://NAME ---


def test_a_model_of_timm_is_fetched_by_timm_once(state, cache, monkeypatch):
    timm = pytest.importorskip('timm')
    create, asked = functools.partial(timm.models.VisionTransformer, img_size=32, patch_size=8, embed_dim=16, depth=3,
                                      num_heads=4), []

    def pretrained(name: str, pretrained: bool, num_classes: int) -> torch.nn.Module:
        asked.append((name, pretrained))
        model = create(num_classes=num_classes)
        model.load_state_dict(state)
        return model

    monkeypatch.setattr(timm, 'create_model', pretrained)
    vit = build(init_cfg=dict(type='PretrainedViT', checkpoint='timm://vit_tiny.mine'))
    vit.init_weights()
    assert_filled(vit, state, vit.state_dict())
    PretrainedViT('timm://vit_tiny.mine')(vit)
    assert asked == [('vit_tiny.mine', True)]
    assert kept(cache) == ['timm-vit_tiny.mine.safetensors']


def test_what_timm_says_is_said(cache):
    pytest.importorskip('timm')
    with pytest.raises(CheckpointError, match=r'timm://no_such_vit cannot be fetched.*Unknown model(?s:.*)put the'):
        fetch('timm://no_such_vit')
    assert kept(cache) == []


def test_without_timm_the_error_says_what_to_install(cache, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'timm', None)
    with pytest.raises(CheckpointError, match='needs "pip install timm"'):
        fetch('timm://vit_base_patch16_224')
