"""The HTTP service answers real clients over the loopback address, and refuses what it cannot answer."""

import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.registry import DefaultScope
from PIL import Image
from test_passes import served
from tiny import ROOT, small_config, write_run

from mmseg_gpt.apis import AdapterPool, RequestQueue
from mmseg_gpt.apis.queue import FAILED
from mmseg_gpt.apis.task import build_model
from mmseg_gpt.recipes.methods import options

pytest.importorskip('uvicorn')
pytest.importorskip('fastapi')
import uvicorn

from mmseg_gpt.apis.http import make_app

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def as_file(pixels: np.ndarray, suffix: str = '.png') -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


@pytest.fixture(scope='module')
def pool() -> AdapterPool:
    pool = AdapterPool('cpu', one_pass=True)
    for i, (name, kind) in enumerate(dict(scene='mmseg', scene2='mmseg', bird='mmpretrain').items()):
        task = served(kind, options('gpt', 4, 0.), i)
        task.reader = LoadImageFromFile()
        pool._take_in(name, task)
    pool.tasks['bird'].classes = ('owl', 'jay', 'kiwi', 'wren')
    return pool


@pytest.fixture(scope='module')
def service(pool) -> Iterator[tuple[str, RequestQueue]]:
    """The address of a service that runs, and its queue."""
    queue = RequestQueue(pool, capacity=3, batch=3, wait=0.3)
    app = make_app(queue, most_bytes=30_000, most_pixels=10_000)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level='warning'))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f'http://127.0.0.1:{port}', queue
    server.should_exit = True
    thread.join()
    queue.close()


def ask(address: str, body: bytes | None = None, headers: dict | None = None) -> tuple[int, bytes, dict]:
    """Asks as a client does; returns status, body and headers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers or {}), timeout=20) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def error_of(answer: tuple[int, bytes, dict]) -> tuple[int, str]:
    return answer[0], json.loads(answer[1])['error']


def test_tasks_and_health(service):
    address, _ = service
    assert json.loads(ask(f'{address}/tasks')[1]) == dict(
        scene=dict(kind='segmentation', classes=None), scene2=dict(kind='segmentation', classes=None),
        bird=dict(kind='classification', classes=['owl', 'jay', 'kiwi', 'wren']))
    assert json.loads(ask(f'{address}/health')[1]) == dict(status='ok', waiting=0, capacity=3)


def test_answers_are_those_of_the_pool(service, pool):
    address, _ = service
    scene, bird = pool.predict([('scene', PICTURE), ('bird', PICTURE)])
    status, png, headers = ask(f'{address}/tasks/scene?answer=png', as_file(PICTURE))
    assert status == 200 and headers['content-type'] == 'image/png'
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), scene.pred_sem_seg.data[0].numpy())
    shares = json.loads(ask(f'{address}/tasks/scene', as_file(PICTURE, '.tiff'))[1])['shares']
    assert shares == {str(i): pytest.approx(float((scene.pred_sem_seg.data == i).double().mean()), abs=1e-6)
                      for i in scene.pred_sem_seg.data.unique().tolist()}
    found = json.loads(ask(f'{address}/tasks/bird?probabilities=true', as_file(PICTURE))[1])
    assert found['class'] == pool.tasks['bird'].classes[int(bird.pred_label)] and set(found['probabilities']) == {
        'owl', 'jay', 'kiwi', 'wren'}
    assert list(found['probabilities'].values()) == pytest.approx(bird.pred_score.tolist(), abs=1e-6)


def test_images_of_several_tasks_go_through_the_vit_together(service, pool):
    address, _ = service
    passes = []
    handles = [task.vit.blocks[0].register_forward_hook(lambda *_: passes.append(1)) for task in pool.tasks.values()]
    ask(f'{address}/tasks/scene', as_file(PICTURE))
    passes.clear()
    threads = [threading.Thread(target=ask, args=(f'{address}/tasks/{name}', as_file(PICTURE)))
               for name in ('scene', 'scene2')]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for handle in handles:
        handle.remove()
    assert len(passes) == 1


def test_what_cannot_be_answered_is_refused_in_a_sentence(service):
    address, queue = service
    image, half = as_file(PICTURE), as_file(PICTURE, '.jpg')[:-400]
    assert error_of(ask(f'{address}/tasks/cats', image)) == (
        404, 'there is no task "cats"; the tasks are scene, scene2, bird')
    assert error_of(ask(f'{address}/tasks/bird?answer=png', image)) == (
        400, 'task "bird" classifies images, so that there is no label map')
    assert error_of(ask(f'{address}/tasks/scene?probabilities=true', image)) == (
        400, 'task "scene" labels pixels, and probabilities are given of classifications only: leave probabilities out')
    assert error_of(ask(f'{address}/tasks/scene?answer=gif', image)) == (400, 'answer must be json or png, not "gif"')
    assert error_of(ask(f'{address}/tasks/scene?answers=png', image)) == (
        400, 'there is no option "answers"; the options are answer, probabilities')
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + image + b'\r\n--b--\r\n'
    status, why = error_of(ask(f'{address}/tasks/bird', form, {'Content-Type': 'multipart/form-data; boundary=b'}))
    assert status == 400 and why.startswith('the body is a form: send the image file alone')
    assert error_of(ask(f'{address}/tasks/bird', b'')) == (
        400, 'there is no image: send the file as the body of the request')
    assert error_of(ask(f'{address}/tasks/bird', b'no image at all')) == (
        400, 'the file that was sent is not an image, or its beginning is damaged')
    for body, words in ((image[:20], 'the file that was sent cannot be decoded, it is truncated or damaged: '),
                        (half, 'the file that was sent cannot be decoded, it is truncated or damaged: '),
                        (b'II*\0' * 40, 'that was sent'), (image[:60], 'that was sent')):
        status, why = error_of(ask(f'{address}/tasks/bird', body))
        assert status == 400 and words in why and '/' not in why.replace('and/or', ''), why
    assert error_of(ask(f'{address}/tasks/bird', image * 10)) == (413, 'the file has more than 30,000 bytes')
    large = as_file(np.zeros((200, 200, 3), np.uint8))
    assert error_of(ask(f'{address}/tasks/bird', large)) == (413, 'the image has 40,000 pixels, and may have 10,000')
    assert queue.waiting == 0


def test_what_the_framework_refuses_is_said_in_a_sentence_too(service, pool, monkeypatch):
    address, _ = service
    assert error_of(ask(f'{address}/tasks/bird?probabilities=maybe', as_file(PICTURE))) == (
        400, 'probabilities must be true or false, not "maybe"')
    answer = ask(f'{address}/tasks/bird')
    assert error_of(answer) == (405, '/tasks/bird does not take GET: ask for POST /tasks/bird')
    assert answer[2]['allow'] == 'POST'
    for path in '/', '/tasks/a%2Fb':
        status, why = error_of(ask(address + path, as_file(PICTURE)))
        assert status == 404 and why.startswith(f'there is nothing at {path.replace("%2F", "/")}: ask for GET /health')
    monkeypatch.setattr('mmseg_gpt.apis.http.as_numbers', lambda *_: {}['class'])
    assert error_of(ask(f'{address}/tasks/bird', as_file(PICTURE))) == (500, 'the service failed; its log says why')


def test_a_body_without_a_length_is_limited_too(service):
    import http.client
    address, _ = service
    connection = http.client.HTTPConnection(address.removeprefix('http://'), timeout=20)
    connection.request('POST', '/tasks/bird', iter([b'0' * 20_000] * 3), encode_chunked=True,
                       headers={'Transfer-Encoding': 'chunked'})
    assert connection.getresponse().status == 413
    connection.close()


def test_a_file_that_stops_coming_is_given_up(service, monkeypatch):
    address, queue = service
    monkeypatch.setattr('mmseg_gpt.apis.http.SILENCE', 0.1)
    host, _, port = address.removeprefix('http://').partition(':')
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b'POST /tasks/bird HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nabc')
        said = connection.recv(2**16)
    assert said.startswith(b'HTTP/1.1 408 ') and queue.waiting == 0


def test_under_load_it_says_when_to_come_again(service, pool, monkeypatch):
    address, queue = service
    gate, begun = threading.Event(), threading.Event()
    answer = pool.answer

    def slow(prepared: list) -> list:
        begun.set()
        gate.wait(20)
        return answer(prepared)

    monkeypatch.setattr(pool, 'answer', slow)
    found = []
    threads = [threading.Thread(target=lambda: found.append(ask(f'{address}/tasks/bird', as_file(PICTURE))))
               for _ in range(6)]
    for i, thread in enumerate(threads):
        thread.start()
        if i == 2:
            assert begun.wait(20)  # a batch of three is computed; three more fill the queue
    while queue.waiting < 3:
        time.sleep(0.01)
    status, why = error_of(busy := ask(f'{address}/tasks/bird', as_file(PICTURE)))
    assert status == 503 and '3 requests wait already' in why and int(busy[2]['retry-after']) >= 1
    gate.set()
    for thread in threads:
        thread.join()
    assert [status for status, _, _ in found] == [200] * 6


def test_a_full_or_dead_queue_refuses_before_the_file_is_received(service, monkeypatch):
    address, queue = service
    received = []
    monkeypatch.setattr('mmseg_gpt.apis.http.receive', lambda *_: received.append(1))
    with monkeypatch.context() as patch:
        patch.setattr(queue, '_taken', queue.capacity)
        status, _, headers = ask(f'{address}/tasks/bird', as_file(PICTURE))
        assert status == 503 and int(headers['retry-after']) >= 1
    monkeypatch.setattr(queue, '_has_failed', True)
    status, body, _ = ask(f'{address}/health')
    assert status == 503 and json.loads(body)['status'] == 'failed'
    assert error_of(ask(f'{address}/tasks/bird', as_file(PICTURE))) == (503, FAILED) and not received


def test_a_model_that_fails_is_said(service, pool, monkeypatch):
    address, _ = service
    monkeypatch.setattr(pool, 'answer', lambda _: torch.zeros(2) @ torch.zeros(3))
    status, why = error_of(ask(f'{address}/tasks/bird', as_file(PICTURE)))
    assert status == 500 and why.startswith('the model failed: inconsistent tensor size')


def test_an_address_that_cannot_be_is_refused_before_anything_is_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / 'tools')
    import serve
    command = ['serve', '--task', 'a', 'no config', str(ROOT / 'README.md'), '--port']
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(sys, 'argv', [*command, str(port)])
        with pytest.raises(SystemExit, match=f'--host 127.0.0.1 --port {port}: .*; give another --port$'):
            serve.main()
    monkeypatch.setattr(sys, 'argv', [*command, '99999'])
    with pytest.raises(SystemExit, match='2'):
        serve.main()
    assert '--port must be from 0 to 65535, got 99999' in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_serves_until_it_is_interrupted(tmp_path):
    torch.manual_seed(0)
    write_run(tmp_path)
    cfg = small_config()
    cfg.dump(tmp_path / 'small.py')
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = build_model(cfg)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    process = subprocess.Popen([sys.executable, ROOT / 'tools/serve.py', '--task', 'scene', 'small.py', 'model.pth',
                                '--port', '0', '--device', 'cpu'], cwd=tmp_path, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r'http://127\.0\.0\.1:\d+', line):
            break
    assert list(json.loads(ask(f'{found[0]}/tasks')[1])) == ['scene'], ''.join(said)
    status, png, _ = ask(f'{found[0]}/tasks/scene?answer=png', as_file(PICTURE))
    assert status == 200 and Image.open(io.BytesIO(png)).size == (56, 40)
    process.send_signal(signal.SIGINT)
    said.append(process.communicate(timeout=30)[0])
    assert process.returncode == 0 and 'Traceback' not in ''.join(said), ''.join(said)
