"""Requests of many threads become batches; too many are refused; nothing that was taken is forgotten."""

import runpy
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from tiny import ROOT

from mmseg_gpt.apis import QueueClosed, RequestQueue, TooBusy
from mmseg_gpt.apis.queue import FAILED

PATIENCE = 10  # seconds after which something hangs


class Pool:
    """A pool whose answers are the images in capitals, once its gate is open."""

    def __init__(self) -> None:
        self.gate, self.batches, self.begun = threading.Event(), [], threading.Event()

    def prepare(self, name: str, image: str, *_: object) -> str:
        if image == 'broken':
            raise ValueError('no image')
        return f'{name}:{image}'

    def answer(self, prepared: list[str]) -> list[str]:
        self.batches.append(prepared)
        self.begun.set()
        assert self.gate.wait(PATIENCE)
        if any('bad' in each for each in prepared):
            raise RuntimeError('it is bad')
        return [each.upper() for each in prepared]


@pytest.fixture
def pool():
    pool = Pool()
    yield pool
    pool.gate.set()


def busy(pool: Pool, **options) -> RequestQueue:
    """A queue whose thread computes the request ``a:first`` until the gate is open."""
    queue = RequestQueue(pool, **options)
    queue.submit('a', 'first')
    assert pool.begun.wait(PATIENCE)
    return queue


def test_requests_that_wait_are_answered_together_in_their_order(pool):
    queue = busy(pool, batch=3, wait=0)
    futures = [queue.submit('a', str(i)) for i in range(5)]
    assert queue.waiting == 5
    pool.gate.set()
    assert [future.result(PATIENCE) for future in futures] == [f'A:{i}' for i in range(5)]
    assert pool.batches == [['a:first'], ['a:0', 'a:1', 'a:2'], ['a:3', 'a:4']]
    assert queue.waiting == 0
    queue.close()


def test_the_first_of_a_batch_waits_for_others_but_not_for_ever(pool):
    pool.gate.set()
    with RequestQueue(pool, batch=2, wait=PATIENCE) as queue:
        start = time.monotonic()
        first = queue.submit('a', '1')
        time.sleep(0.05)
        assert not first.done()
        assert queue.submit('a', '2').result(PATIENCE) == 'A:2' and time.monotonic() - start < PATIENCE / 2
    assert pool.batches == [['a:1', 'a:2']]
    with RequestQueue(pool, batch=2, wait=0.05) as queue:
        start = time.monotonic()
        assert queue.submit('a', '3').result(PATIENCE) == 'A:3' and time.monotonic() - start >= 0.05


def test_more_than_may_wait_are_refused_with_a_hint(pool):
    queue = busy(pool, capacity=2, wait=0)
    futures = [queue.submit('a', str(i)) for i in range(2)]
    with pytest.raises(TooBusy, match=r'2 requests wait already, and no more may: try again in \d+ s') as refused:
        queue.submit('a', 'more')
    assert refused.value.retry_after > 0
    pool.gate.set()
    assert [future.result(PATIENCE) for future in futures] == ['A:0', 'A:1']
    assert queue.submit('a', 'again').result(PATIENCE) == 'A:AGAIN'
    queue.close()


def test_a_cancelled_request_is_not_computed_and_frees_its_place(pool):
    queue = busy(pool, capacity=2, wait=0)
    kept, dropped = queue.submit('a', 'kept'), queue.submit('a', 'dropped')
    assert dropped.cancel() and queue.waiting == 1
    other = queue.submit('a', 'other')
    pool.gate.set()
    assert [kept.result(PATIENCE), other.result(PATIENCE)] == ['A:KEPT', 'A:OTHER']
    queue.close()
    assert ['a:kept', 'a:other'] in pool.batches


def test_a_request_that_fails_fails_alone(pool):
    queue = busy(pool, capacity=4, wait=0)
    with pytest.raises(ValueError, match='no image'):
        queue.submit('a', 'broken')
    futures = [queue.submit('a', name) for name in ('good', 'bad', 'fine')]
    assert queue.waiting == 3
    pool.gate.set()
    assert futures[0].result(PATIENCE) == 'A:GOOD' and futures[2].result(PATIENCE) == 'A:FINE'
    with pytest.raises(RuntimeError, match='it is bad'):
        futures[1].result(PATIENCE)
    queue.close()


@pytest.mark.parametrize('drain', [True, False])
def test_closing_answers_or_cancels_what_waits(pool, drain):
    queue = busy(pool, batch=2, wait=0)
    futures = [queue.submit('a', str(i)) for i in range(3)]
    closing = threading.Thread(target=queue.close, args=(drain, ))
    closing.start()
    while not queue.is_closed:
        time.sleep(0.001)
    with pytest.raises(QueueClosed, match='takes no more requests'):
        queue.submit('a', 'late')
    if not drain:
        assert wait(futures, PATIENCE).not_done == set()
    pool.gate.set()
    closing.join(PATIENCE)
    assert not closing.is_alive() and queue.waiting == 0
    assert [future.cancelled() for future in futures] == [not drain] * 3
    assert not drain or [future.result(0) for future in futures] == ['A:0', 'A:1', 'A:2']


def test_many_threads_get_their_own_answers(pool):
    pool.gate.set()
    with RequestQueue(pool, capacity=400, batch=7, wait=0.001) as queue, ThreadPoolExecutor(16) as threads:
        futures = list(threads.map(lambda i: queue.submit('a', str(i)), range(300)))
        assert [future.result(PATIENCE) for future in futures] == [f'A:{i}' for i in range(300)]
    assert max(map(len, pool.batches)) <= 7 and queue.waiting == 0


def test_nothing_of_a_request_stays_in_memory_once_it_is_answered(pool, monkeypatch):

    class Picture:
        def upper(self) -> 'Picture':
            return Picture()

        def __contains__(self, _: str) -> bool:
            return False

    pictures = []

    def prepare(*_: object) -> Picture:
        pictures.append(weakref.ref(picture := Picture()))
        return picture

    monkeypatch.setattr(pool, 'prepare', prepare)
    pool.gate.set()
    with RequestQueue(pool, wait=0) as queue:
        pictures.append(weakref.ref(queue.submit('a', 'picture').result(PATIENCE)))
        pool.batches.clear()
        end = time.monotonic() + 2
        while any(picture() is not None for picture in pictures) and time.monotonic() < end:
            time.sleep(0.01)
        assert [picture() for picture in pictures] == [None, None]


@pytest.mark.parametrize('wrong, raised, said', [
    (sys.exit, RuntimeError, 'the model raised SystemExit'), (lambda _: [], ValueError, 'shorter')])
def test_whatever_a_model_does_the_queue_goes_on(pool, wrong, raised, said, monkeypatch):
    pool.gate.set()
    with RequestQueue(pool, wait=0) as queue:
        with monkeypatch.context() as patch:
            patch.setattr(pool, 'answer', wrong)
            with pytest.raises(raised, match=said):
                queue.submit('a', '1').result(PATIENCE)
        assert queue.submit('a', '2').result(PATIENCE) == 'A:2' and not queue.has_failed


def test_if_the_thread_ends_nobody_waits_for_ever(pool):
    queue = RequestQueue(pool, batch=2, wait=0, capacity=5)
    first = queue.submit('a', 'first')
    assert pool.begun.wait(PATIENCE)
    futures = [queue.submit('a', str(i)) for i in range(4)]
    first.add_done_callback(sys.exit)  # is called in the thread
    pool.gate.set()
    assert wait(futures, PATIENCE).not_done == set()
    assert {str(future.exception(0)) for future in futures} == {FAILED} and first.result(0) == 'A:FIRST'
    assert queue.has_failed and queue.is_closed and queue.waiting == 0
    with pytest.raises(QueueClosed, match='start the service again'):
        queue.submit('a', 'late')
    queue.close()


@pytest.mark.parametrize('options', [dict(capacity=0), dict(batch=0), dict(wait=-1), dict(wait=float('inf'))], ids=str)
def test_numbers_out_of_range_are_refused(pool, options):
    with pytest.raises(ValueError, match='must be at least'):
        RequestQueue(pool, **options)


def test_without_the_framework_one_sentence_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'uvicorn', None)
    (tmp_path / 'a.pth').touch()
    monkeypatch.setattr(sys, 'argv', ['serve', '--task', 'a', 'a.py', str(tmp_path / 'a.pth'), '--port', '0'])
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    with pytest.raises(SystemExit, match=r'uvicorn is missing: pip install "mmseg_gpt\[serve\]"'):
        runpy.run_path(str(ROOT / 'tools/serve.py'), run_name='__main__')
