"""The page: what it shows are the answers of predict, and it keeps to itself. Its numbers need no gradio."""

import asyncio
import dataclasses
import inspect
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, environment_of
from made_tasks import CLASSES, PALETTE, drawn, made_task, write_geotiff
from mmcv.transforms import CenterCrop, RandomFlip, Resize
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from PIL import Image

from mmseg_gpt.analysis.attention import attended, attention_maps, query_map, visit_attention
from mmseg_gpt.apis import AdapterPool, ServedTask
from mmseg_gpt.apis.answers import overlay
from mmseg_gpt.apis.task import build_model
from mmseg_gpt.apis.tiles import Tiling
from mmseg_gpt.app import Desk, Limits, block_numbers, seen_at, server
from mmseg_gpt.app.looking import place_in_view, region_around
from mmseg_gpt.app.pictures import captioned, heat, shown_size
from mmseg_gpt.app.server import Guard, address_of, names_address, password_check
from mmseg_gpt.models.prompts import GatedPrompt


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A folder with a segmentation, and a photograph."""
    folder = tmp_path_factory.mktemp('app')
    made_task(folder)
    Image.fromarray(drawn(75, 97)).save(folder / 'street.png')
    return folder


@pytest.fixture(scope='module')
def pool(folder) -> AdapterPool:
    pool = AdapterPool('cpu')
    pool.add('street', folder / 'config.py', folder / 'model.pth')
    return pool


@pytest.fixture
def desk(pool, tmp_path) -> Desk:
    return Desk(pool, tmp_path)


@pytest.mark.parametrize('prompt', [None, dict(type='GatedPrompt', num_tokens=3)], ids=str)
@pytest.mark.parametrize('options', [{}, dict(rotary='float32')], ids=str)
def test_what_one_token_attends_to_is_its_row_of_all_attention(prompt, options, tiny_vit):
    vit, image = tiny_vit(prompt=prompt, temperature=True, start_block=1, **options), torch.randn(1, 3, 32, 40).double()
    orders = {}
    visit_attention(vit, image, range(4), lambda block, _, tokens: orders.update({block: tokens}))
    weights = attention_maps(vit, image, range(4))
    for query in ('cls', '17,9', *(['prompt:2'] if prompt else [])):
        found = attended(vit, image, query)
        assert list(found) == ([1, 2, 3] if 'prompt' in query else [0, 1, 2, 3])
        for block, each in found.items():
            expected = query_map(weights[block], orders[block], query)[0].mean(0)
            torch.testing.assert_close(each.patches, expected, rtol=1e-9, atol=1e-12)
            rest = each.patches.sum() / len(orders[block]) + each.prompt_share + each.cls_share
            assert float(rest) == pytest.approx(1) and bool(each.prompt_share) == bool(prompt and block)


def test_blocks_have_the_numbers_that_the_model_computes_with(tiny_vit):
    vit = tiny_vit(prompt=dict(type='GatedPrompt', num_tokens=3), temperature=True, start_block=1)
    vit.temperature.data[2] = 50  # above the range
    found = block_numbers(vit)
    assert [each.block for each in found] == [1, 2, 3, 4] and [each.gate is None for each in found] == [1, 0, 0, 1]
    assert isinstance(vit.prompt, GatedPrompt) and found[1].gate == float(vit.prompt.gate(1))
    assert found[2].temperature == 10 and found[0].temperature == float(vit.temperature[0])


@pytest.mark.parametrize('steps, expected', [
    ([Resize(scale=(160, 160), keep_ratio=True)], (120, 32)),
    ([Resize(scale=(100, 100)), CenterCrop(crop_size=(40, 60))], (45, 0)),
    ([RandomFlip(prob=1., direction='horizontal')], (19, 16)),
    ([CenterCrop(crop_size=(20, 20))], (30, -14))], ids=['larger', 'cropped', 'mirrored', 'outside'])
def test_a_place_is_found_in_what_the_transforms_make(steps, expected, pool):
    task = pool.tasks['street']
    moved = dataclasses.replace(task, transform=Compose([*steps, *task.transform.transforms]))
    found = place_in_view(moved, (80, 80), (60, 16))
    assert np.abs(np.subtract(found, expected)).max() <= 1


def test_a_model_that_slides_is_shown_the_window_around_the_place(pool):
    image = drawn(75, 97)
    seen = seen_at(pool.tasks['street'], image, (40, 30))
    assert seen.picture.shape == (32, 32, 3) and seen.inputs.shape == (1, 3, 32, 32) and seen.query == '16,16'
    assert np.array_equal(seen.picture, image[14:46, 24:56, ::-1])
    assert seen_at(pool.tasks['street'], image, (96, 74)).point == (31, 31)


def test_an_image_to_classify_is_shown_whole_also_where_others_are_cut_into_tiles():
    task = ServedTask(SimpleNamespace(), None, '', None, None)
    assert region_around(task, (75, 97), (40, 30), Tiling(40)) == (slice(0, 75), slice(0, 97))


def test_pictures_show_what_they_are_told():
    picture, labels = drawn(4, 6), np.array([[0, 1, 2] * 2] * 4)
    found = overlay(picture, labels, PALETTE, {1}, 1)
    assert np.array_equal(found[:, 1], [PALETTE[1]] * 4) and np.array_equal(found[:, 0], picture[:, 0])
    assert np.array_equal(overlay(picture, labels, PALETTE, None, 0), picture)
    warm = heat(np.full((32, 40, 3), 100, np.uint8), np.eye(4, 5), 8, (39, 31))
    assert warm.shape == (32, 40, 3) and warm[2, 2].sum() > 2 * warm[2, 12].sum() and tuple(warm[31, 39]) == (255, ) * 3
    assert captioned(warm, ['block 1', 'gate']).shape == (32 * 8 + 2 * 26 + 10, 320, 3)
    assert shown_size((2000, 4000)) == (800, 1600) and shown_size((20, 40)) == (20, 40)


def test_attention_is_that_of_full_precision_where_the_vit_is_in_half_of_it(desk, folder, tmp_path):
    half = AdapterPool('cpu', torch.bfloat16)
    half.add('street', folder / 'config.py', folder / 'model.pth')
    photograph = desk.lay(folder / 'street.png')
    for ours, theirs in zip(*(each.attention(photograph, 'street', (40, 30)) for each in (desk, Desk(half, tmp_path)))):
        assert np.abs(ours[:320].astype(int) - theirs[:320]).mean() < 5


def test_the_desk_gives_the_answers_of_the_pool(desk, pool, folder, tmp_path):
    photograph = desk.lay(folder / 'street.png')
    found = photograph.segmented['street']
    answer, = pool.predict([('street', str(folder / 'street.png'))], True)
    labels = answer.pred_sem_seg.data[0].numpy()
    assert np.array_equal(Image.open(found.label_map), labels) and np.array_equal(found.labels, labels)
    assert photograph.pixel(40, 30) == (40, 30) and len(found.shares) > 2
    likely = desk.probabilities(photograph, 'street', (40, 30))
    column = answer.seg_probabilities.data[:, 30, 40].float().numpy()
    assert next(iter(likely.items())) == pytest.approx((CLASSES[labels[30, 40]], float(column.max())))
    assert len(desk.attention(photograph, 'street', (40, 30))) == 3
    assert len(desk.attention(photograph, 'street', None, 'prompt:2')) == 3
    with pytest.raises(ValueError, match='prompts are counted from 1 to 2'):
        desk.attention(photograph, 'street', None, 'prompt:3')
    drawn_file = desk.write_overlay(photograph, 'street', ())
    assert np.array_equal(Image.open(drawn_file), drawn(75, 97))
    copy = tmp_path / 'mine.png'
    shutil.copy(folder / 'street.png', copy)
    photograph.file = copy
    desk.clear(photograph)
    assert list(tmp_path.iterdir()) == []
    tiled = Desk(pool, tmp_path, tiling=Tiling(40)).lay(folder / 'street.png')
    assert len(desk.attention(tiled, 'street', (0, 0))) == 3 and tiled.segmented['street'].labels.shape == (75, 97)
    desk.close()
    assert list(tmp_path.iterdir()) == []


def test_a_classification_shows_probabilities_and_what_its_crop_attends_to(folder, tmp_path):
    pytest.importorskip('mmpretrain')
    from mmseg_gpt.recipes import read_experiment
    cfg = read_experiment('cls_gpt_mae_cub')
    cfg.model.backbone.update(arch=dict(embed_dims=24, num_layers=3, num_heads=2, mlp_ratio=2), img_size=32,
                              patch_size=8, init_cfg=None)
    cfg.model.head.update(in_channels=24, num_classes=3)
    steps = [dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=40), dict(type='CenterCrop', crop_size=32),
             dict(type='PackInputs')]
    cfg.test_dataloader = dict(dataset=dict(type='CustomDataset', pipeline=steps))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        state = build_model(cfg.copy()).state_dict()
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=['a', 'b', 'c']))), tmp_path / 'birds.pth')
    pool = AdapterPool('cpu')
    pool.add('birds', cfg, tmp_path / 'birds.pth')
    desk = Desk(pool, tmp_path)
    photograph = desk.lay(folder / 'street.png')
    found = desk.probabilities(photograph, 'birds', (0, 0))
    assert set(found) == {'a', 'b', 'c'} and sum(found.values()) == pytest.approx(1, abs=1e-5)
    for place, query in ((48, 37), 'patch'), (None, 'cls'):
        assert len(desk.attention(photograph, 'birds', place, query)) == 3
    with pytest.raises(ValueError, match='birds does not see this place'):
        desk.attention(photograph, 'birds', (1, 1))


def test_labels_of_a_geotiff_on_the_desk_keep_its_place(desk, pool, tmp_path):
    rasterio = pytest.importorskip('rasterio')
    place = write_geotiff(tmp_path / 'scene.tif', drawn(75, 97), photometric='rgb')
    photograph = desk.lay(tmp_path / 'scene.tif')
    found = photograph.segmented['street']
    expected = pool.predict([('street', drawn(75, 97)[..., ::-1].copy())])[0].pred_sem_seg.data[0].numpy()
    with rasterio.open(found.label_map) as labels:
        assert labels.crs == place['crs'] and np.array_equal(labels.read(1), expected)
    assert np.array_equal(found.labels, expected) and len(desk.attention(photograph, 'street', (90, 70))) == 3
    assert next(iter(desk.probabilities(photograph, 'street', (40, 30)))) == CLASSES[expected[30, 40]]


def test_the_desk_refuses_what_is_too_large_or_no_image(pool, folder, tmp_path):
    for limits, why in (Limits(1e-6), 'MiB'), (Limits(32, 1e-6), 'million are allowed'):
        with pytest.raises(ValueError, match=why):
            Desk(pool, tmp_path, limits).lay(folder / 'street.png')
    with pytest.raises(ValueError, match=r'config\.py is not an image'):
        Desk(pool, tmp_path).lay(folder / 'config.py')
    assert list(tmp_path.iterdir()) == []


# --- the server ------------------------------------------------------------------------------------


def ask(headers: dict[str, str], body: bytes, method: str = 'POST', path: str = '/') -> tuple[int, dict]:
    """Returns the status and the headers of the guard's answer; 200 if the request comes through with its body."""
    sent = []

    async def application(scope: dict, receive, send) -> None:
        assert method == 'GET' or (await receive())['body'] == body
        await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'Referrer-Policy', b'origin')]})

    async def receive() -> dict:
        return {'type': 'http.request', 'body': body, 'more_body': False}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = dict(type='http', method=method, path=path, headers=[(k.encode(), v.encode()) for k, v in headers.items()])
    asyncio.run(Guard(application, 1000)(scope, receive, send))
    return sent[0]['status'], {k.decode(): v.decode() for k, v in sent[0]['headers']}


def test_the_guard_lets_no_large_request_and_no_address_in():
    small = json.dumps(dict(data=[dict(path='/a/b.png', url=None)])).encode()
    status, headers = ask({'content-length': str(len(small))}, small)
    assert status == 200 and headers['referrer-policy'] == 'no-referrer' and "default-src 'self'" in headers[
        'content-security-policy'] and 'Referrer-Policy' not in headers
    for origin, status in ('http://here:1', 200), ('http://elsewhere', 403), ('null', 403):
        assert ask(dict(origin=origin, host='here:1'), b'', 'GET')[0] == status
    assert ask({}, b'', 'GET')[0] == 200 and ask({}, small)[0] == 411
    assert ask({'content-length': '70000', 'content-type': 'multipart/form-data'}, b'')[0] == 413
    assert ask({'content-length': '66000', 'content-type': 'multipart/form-data'}, b'a')[0] == 200
    assert ask({'content-length': str(2**21)}, b'')[0] == 413
    address = json.dumps([[dict(a=dict(path='http://there/b.png'))]]).encode()
    assert names_address(address) and not names_address(small) and not names_address(b'{')
    assert ask({'content-length': str(len(address))}, address)[0] == 400
    for path, status in ('file=/a/b.png', 200), ('file=http://1.2.3.4/b.png', 400), ('proxy=https://a/b', 400), (
            'file/https://a/b.png', 400):
        for method in 'GET', 'HEAD':
            assert ask({}, b'', method, f'/gradio_api/{path}')[0] == status


def test_wrong_passwords_wait_beside_each_other_and_not_in_front_of_the_page(monkeypatch):
    monkeypatch.setattr(server, 'WRONG', 0.2)
    waiting, most = 0, 0

    async def sleep(seconds: float) -> None:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await asleep(seconds)
        waiting -= 1

    async def tried() -> tuple[list[bool], bool]:
        is_right = password_check('open sesame')
        assert inspect.iscoroutinefunction(is_right)  # gradio awaits no others
        wrong = asyncio.gather(*[is_right('anyone', f'guess {i}') for i in range(2 * server.GUESSES)])
        await asleep(0)  # others are served
        assert not wrong.done()
        return await wrong, await is_right('anyone', 'open sesame')

    asleep = asyncio.sleep
    monkeypatch.setattr(asyncio, 'sleep', sleep)
    assert asyncio.run(tried()) == ([False] * 2 * server.GUESSES, True) and most == server.GUESSES


def test_a_browser_opens_the_address_that_is_printed():
    assert address_of('127.0.0.1', 7860) == 'http://127.0.0.1:7860' and address_of('::1', 1) == 'http://[::1]:1'


def test_a_password_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tools')
    monkeypatch.delitem(sys.modules, 'app', raising=False)
    import app
    file = tmp_path / 'password'
    file.write_text('open sesame\nand more\n')
    monkeypatch.setenv(app.VARIABLE, 'from there')
    assert [app.read_password(said) for said in (None, str(file), '-')] == [None, 'open sesame', 'from there']
    file.write_text('\n')
    for said in file, tmp_path / 'none':
        with pytest.raises(SystemExit, match='--password'):
            app.read_password(str(said))
    monkeypatch.delenv(app.VARIABLE)

    def nobody(_: str) -> str:
        raise EOFError
    monkeypatch.setattr(app.getpass, 'getpass', nobody)
    with pytest.raises(SystemExit, match=f'--password.*{app.VARIABLE}'):
        app.read_password('-')


def test_what_cannot_work_is_refused_before_anything_is_loaded(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / 'tools')
    monkeypatch.delitem(sys.modules, 'app', raising=False)
    import app
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        for host, port in ('127.0.0.1', taken.getsockname()[1]), ('no.such.host.invalid', 7860):
            with pytest.raises(SystemExit, match=f'--host {host} --port {port}: .'):
                app.check_address(host, port)
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit, match=r'--folder .*file: .'), app.own_folder(tmp_path / 'file'):
        pass
    for option, value in ('--port', 99999), ('--tile', 0):
        monkeypatch.setattr(sys, 'argv', ['app', '--task', 'street', 'c.py', str(folder / 'model.pth'), option,
                                          str(value)])
        with pytest.raises(SystemExit, match='2'):
            app.parse_args()
        assert f'{option} must be' in capsys.readouterr().err


@pytest.mark.parametrize('given', [{}, dict(HF_HOME='h'), dict(HF_HOME='h', HF_HUB_CACHE='c'),
                                   dict(XDG_CACHE_HOME='x')], ids=str)
def test_models_pulled_before_are_found(given, tmp_path):
    pytest.importorskip('huggingface_hub')
    read = 'from huggingface_hub import constants; print(constants.HF_HUB_CACHE)'
    own = f'import app\nfrom pathlib import Path\nwith app.own_folder(Path("own")): {read}'
    names = ('HF_HOME', 'HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE', 'XDG_CACHE_HOME')
    env = environment_of(f'{ROOT / "tools"}:{ROOT}')
    env = {name: value for name, value in env.items() if name not in names} | given
    usual, ours = (subprocess.run([sys.executable, '-c', text], capture_output=True, text=True, check=True, env=env,
                                  cwd=tmp_path).stdout for text in (read, own))
    assert ours == usual


@pytest.mark.parametrize('given', [{}, dict(TORCH_HOME='t'), dict(XDG_CACHE_HOME='x')], ids=str)
def test_vits_fetched_before_are_found(given, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tools')
    import app
    rest = {name: value for name, value in os.environ.items() if name not in ('TORCH_HOME', 'XDG_CACHE_HOME')}
    monkeypatch.setattr(os, 'environ', {**rest, **given})
    usual = torch.hub.get_dir()
    with app.own_folder(tmp_path / 'own'):
        assert torch.hub.get_dir() == usual


@pytest.fixture
def page(folder, tmp_path) -> Iterator[tuple[str, Path]]:
    """The address of a page that asks for a password, and its folder; the home folder stays empty."""
    pytest.importorskip('gradio')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    for name in ('home', 'here', 'own'):
        (tmp_path / name).mkdir()
    (tmp_path / 'password').write_text('open sesame\n')
    arguments = [sys.executable, ROOT / 'tools/app.py', '--task', 'street', folder / 'config.py', folder / 'model.pth',
                 '--port', str(port), '--folder', tmp_path / 'own', '--password', tmp_path / 'password', '--device',
                 'cpu', '--max-megabytes', '1']
    log = (tmp_path / 'log').open('w+')
    process = subprocess.Popen(arguments, cwd=tmp_path / 'here', stdout=log, stderr=log, env=environment_of(
        HOME=str(tmp_path / 'home'), PYTHONDONTWRITEBYTECODE='1'))
    try:
        for _ in range(600):
            if 'open http' in (tmp_path / 'log').read_text():
                break
            assert process.poll() is None, (tmp_path / 'log').read_text()
            time.sleep(0.2)
        yield f'http://127.0.0.1:{port}', tmp_path
    finally:
        process.terminate()
        process.wait(30)
    assert process.returncode == 0  # so that the folder is cleared


def open_browser():
    """Starts Chromium.

    Raises:
        Skipped: it is not there.
    """
    playwright = pytest.importorskip('playwright.sync_api')
    browser = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if not browser:
        pytest.skip('there is no Chromium')
    started = playwright.sync_playwright().start()
    return started, started.chromium.launch(executable_path=browser, args=['--no-sandbox', '--disable-gpu'])


@pytest.mark.slow
def test_in_a_browser_the_mask_is_that_of_predict(page, folder):
    httpx = pytest.importorskip('httpx')
    playwright, browser = open_browser()
    address, place = page
    for method, path in ('POST', '/gradio_api/upload'), ('GET', '/gradio_api/file=/etc/passwd'), ('GET', '/config'):
        assert httpx.request(method, address + path, files=dict(files=b'x') if method == 'POST' else None
                             ).status_code in (401, 403)
    for path in 'file=http://192.0.2.1/a.png', 'file=http%3A%2F%2F192.0.2.1/a.png', 'proxy=https://a.hf.space/b':
        found = httpx.get(f'{address}/gradio_api/{path}')
        assert found.status_code == 400 and found.text == 'files are taken from this computer only'
    assert httpx.get(address, headers=dict(host='elsewhere.example')).status_code == 400
    try:
        view = browser.new_page(viewport=dict(width=1200, height=1300))
        outside = []
        view.on('request', lambda request: outside.append(request.url) if not request.url.startswith(
            (address, 'data:', 'blob:')) else None)
        view.goto(address)
        for password in ('wrong', 'open sesame'):
            assert not view.query_selector('#upload')
            view.fill('input[type=password]', password)
            view.fill('input:not([type=password])', 'anyone')
            with view.expect_response('**/login'):
                view.click('button')
        view.wait_for_selector('#upload input[type=file]', state='attached')
        view.set_input_files('#upload input[type=file]', folder / 'street.png')
        view.wait_for_selector('#attention img', timeout=60000)
        assert len(view.query_selector_all('#attention img')) == 3
        picture = view.query_selector('#overlay img').bounding_box()
        view.mouse.click(picture['x'] + 40.5 * picture['width'] / 97, picture['y'] + 30.5 * picture['height'] / 75)
        view.wait_for_selector('#probabilities h2', timeout=60000)
        with view.expect_download() as download:
            view.click('#mask')
        download.value.save_as(place / 'mask.png')
        labels = np.asarray(Image.open(place / 'mask.png'))
        assert view.inner_text('#probabilities h2').strip() == CLASSES[labels[30, 40]]
        switches = view.query_selector_all('#classes label')
        assert len(switches) == len(np.unique(labels))
        before = view.get_attribute('#overlay img', 'src')
        switches[0].click()
        view.wait_for_function(f'document.querySelector("#overlay img").src != "{before}"', timeout=60000)
        with view.expect_download() as download:
            view.wait_for_timeout(2000)
            view.click('#drawn')
        download.value.save_as(place / 'overlay.png')
        first = np.bincount(labels.ravel()).argmax()  # the class of the switch: it is the largest
        drawn_picture = np.asarray(Image.open(place / 'overlay.png'))
        assert np.array_equal(drawn_picture[labels == first], drawn(75, 97)[labels == first])
        assert not outside
    finally:
        browser.close()
        playwright.stop()
    subprocess.run([sys.executable, ROOT / 'tools/predict.py', '--task', 'street', folder / 'config.py',
                    folder / 'model.pth', '--images', folder / 'street.png', '--out', place / 'out', '--device', 'cpu'],
                   check=True, capture_output=True, env=environment_of())
    assert (place / 'mask.png').read_bytes() == (place / 'out/street/labels/street.png').read_bytes()
    assert not [*(place / 'home').rglob('*'), *(place / 'here').rglob('*')] and [*(place / 'own').iterdir()]
