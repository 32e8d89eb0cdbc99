"""What a run tells the process that has started it: events as JSON, in a file."""

import json
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import HOOKS
from tiny_run import At, run, tiny_config
from torch.utils._python_dispatch import TorchDispatchMode

import mmseg_gpt.engine  # noqa: F401  which registers
from mmseg_gpt.checkpoints import CheckpointError
from mmseg_gpt.datasets import SampleError
from mmseg_gpt.engine import ProgressHook, RunStopped, errors_in_words
from mmseg_gpt.engine.hooks import progress
from mmseg_gpt.events import VARIABLE, read_events, report
from mmseg_gpt.resources import TOOLS


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """The file that events go to in this test."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / 'events.jsonl'))
    return tmp_path / 'events.jsonl'


# --- the file --------------------------------------------------------------------------------------


def test_events_are_lines_of_json(file):
    report('progress', phase='train', done=1, loss=float('nan'))
    report('metrics', **{'accuracy/top1': 5., 'per_class': dict(a=float('inf'), b=[1, float('nan')])})
    first, second = map(json.loads, file.read_text().splitlines())
    assert first == dict(event='progress', phase='train', done=1, loss=None)
    assert second == {'event': 'metrics', 'accuracy/top1': 5., 'per_class': dict(a=None, b=[1, None])}


@pytest.mark.parametrize('change', [
    lambda patch: patch.delenv(VARIABLE), lambda patch: patch.setenv('RANK', '1'),
    lambda patch: patch.setenv('SLURM_PROCID', '3')])
def test_nothing_is_written_where_nobody_listens_or_by_other_processes(file, monkeypatch, change):
    change(monkeypatch)
    report('progress', done=1)
    assert not file.exists()


def test_a_file_that_cannot_be_written_ends_no_run(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / 'absent/events.jsonl'))
    report('progress', done=1)


def test_events_are_read_as_the_file_grows(file):
    assert read_events(file) == ([], 0), 'it is not there yet'
    report('one', said='ä')
    events, start = read_events(file)
    assert events == [dict(event='one', said='ä')] and start == file.stat().st_size
    assert read_events(file, start) == ([], start)
    report('two')
    with open(file, 'a') as stream:
        stream.write('{"event": "thr')
    events, start = read_events(file, start)
    assert events == [dict(event='two')]
    with open(file, 'a') as stream:
        stream.write('ee"}\n{"event": "bro\n{"event": "four"}\n')
    events, start = read_events(file, start)
    assert events == [dict(event='three'), dict(event='four')] and start == file.stat().st_size


# --- a training ------------------------------------------------------------------------------------


class Waits(TorchDispatchMode):
    """Counts where Python asks for a number of a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_a_training_tells_its_parameters_its_progress_and_its_scores(tmp_path, file):
    cfg = tiny_config(tmp_path, train_cfg__max_iters=3, train_cfg__val_interval=2)
    losses = {}
    runner = run(cfg, At(2, lambda runner, batch: losses.update(first=last_loss(runner))))
    events = read_events(file)[0]
    table, = (event for event in events if event['event'] == 'parameters')
    model = list(runner.model.parameters())
    assert table['trained'] == sum(p.numel() for p in model if p.requires_grad)
    assert table['total'] == sum(p.numel() for p in model) == sum(part['total'] for part in table['parts'].values())
    assert table['parts']['backbone.blocks']['trained'] == 0 < table['parts']['backbone.prompt']['trained']
    train, val = ([event for event in events if event['event'] == 'progress' and event['phase'] == phase]
                  for phase in ('train', 'val'))
    assert (train[0]['done'], train[0]['total']) == (1, 3) and train[0]['loss'] == pytest.approx(losses['first'])
    assert train[-1]['done'] == 3 and train[-1]['seconds_left'] == 0 and train[0]['seconds_left'] > 0
    assert val[-1]['done'] == val[-1]['total'] == len(runner.val_dataloader)
    validated = [event for event in events if event['event'] == 'validated']
    assert [event['iteration'] for event in validated] == [2, 3]
    scores = [value for value, _ in zip(*runner.message_hub.get_scalar('val/mIoU').data)]
    assert [event['metrics']['mIoU'] for event in validated] == scores
    assert train[-1]['mIoU'] == scores[0] and 'mIoU' not in train[0]


def last_loss(runner) -> float:
    return runner.message_hub.get_scalar('train/loss').current()


def test_to_report_costs_no_waiting_for_the_device(tmp_path, monkeypatch):
    cfg, counts = tiny_config(tmp_path, train_cfg__max_iters=2), []
    for listening in (False, True):
        if listening:
            monkeypatch.setenv(VARIABLE, str(tmp_path / 'events.jsonl'))
            monkeypatch.setattr(progress, 'SECONDS', 0)
        with Waits() as waits:
            run(cfg)
        counts.append(waits.count)
    events = read_events(tmp_path / 'events.jsonl')[0]
    assert counts[0] == counts[1] and [event['done'] for event in events if event.get('phase') == 'train'] == [1, 2]


def test_progress_is_reported_some_times_a_second_and_at_the_end(file, monkeypatch):
    hook, clock = ProgressHook(), iter(range(1000))
    monkeypatch.setattr(progress.time, 'monotonic', lambda: next(clock) / 16)
    runner = SimpleNamespace(iter=0, max_iters=42, message_hub=SimpleNamespace(runtime_info={}))
    for runner.iter in range(42):
        hook.after_train_iter(runner, 0, outputs=dict(loss=1., maps=torch.zeros(2)))
    events = read_events(file)[0]
    assert [event['done'] for event in events] == [*range(1, 42, 4), 42]
    assert events[0] == dict(event='progress', phase='train', done=1, total=42, loss=1.)


# --- the end ---------------------------------------------------------------------------------------


def end(error: BaseException | None) -> BaseException | None:
    """Ends as a tool would, and returns the error it ends with."""
    try:
        with errors_in_words():
            if error:
                raise error
    except BaseException as raised:
        return raised


@pytest.mark.parametrize('error, code, message', [
    (RunStopped('not-finite', 'stopped:\ndo this'), 'not-finite', 'stopped:\ndo this'),
    (CheckpointError('a.pth is damaged'), 'checkpoint', 'a.pth is damaged'),
    (SampleError('Caught in worker\nTraceback\nSampleError: a.jpg is broken'), 'sample', 'a.jpg is broken'),
    (SystemExit('nothing was started'), 'refused', 'nothing was started'),
    (SystemExit(1), 'refused', 'exit status 1'),
    (SystemExit(255), 'refused', 'exit status 255'),
    (SystemExit(128 + signal.SIGTERM), 'signal', 'SIGTERM'),
    (KeyboardInterrupt(), 'signal', 'SIGINT'),
    (RuntimeError('CUDA error\nout of memory'), 'crashed', 'out of memory'),
    (ZeroDivisionError(), 'crashed', 'ZeroDivisionError'),
])
def test_an_end_is_told_with_its_reason(file, error, code, message):
    raised = end(error)
    assert read_events(file)[0] == [dict(event='stopped', code=code, message=message)]
    in_words = code in ('not-finite', 'checkpoint', 'sample')
    assert (str(raised) == message and isinstance(raised, SystemExit)) if in_words else raised is error


@pytest.mark.parametrize('line', ['5', 'null', '"metrics"', '{"done": 3}', '{"event": 3}', '[{"event": "metrics"}]'])
def test_lines_that_are_no_events_are_passed_over(file, line):
    file.write_text(f'{line}\n{{"event": "metrics"}}\n')
    assert read_events(file) == ([dict(event='metrics')], file.stat().st_size)


@pytest.mark.parametrize('error', [None, SystemExit(), SystemExit(0)])
def test_success_needs_no_reason(file, error):
    end(error)
    assert not file.exists()


def test_a_run_that_diverges_says_so(tmp_path, file):
    def spoil(runner, batch: dict) -> None:
        runner.model.decode_head.conv_seg.bias.register_hook(lambda gradient: gradient * torch.nan)

    with pytest.raises(SystemExit), errors_in_words():
        run(tiny_config(tmp_path, train_cfg__max_iters=3), At(2, spoil))
    stopped = read_events(file)[0][-1]
    assert (stopped['event'], stopped['code']) == ('stopped', 'not-finite')
    assert stopped['message'].startswith('stopped at iteration 2: the gradient is not finite')


@pytest.mark.parametrize('tool, rest', [('train.py', []), ('test.py', ['checkpoint.pth'])])
def test_a_tool_that_refuses_to_begin_says_why(file, monkeypatch, tool, rest):
    monkeypatch.syspath_prepend(str(TOOLS))  # as for a script
    monkeypatch.setattr(sys, 'argv', [tool, 'absent.py', *rest])
    with pytest.raises(SystemExit) as refused:
        runpy.run_path(str(TOOLS / tool), run_name='__main__')
    assert read_events(file)[0] == [dict(event='stopped', code='refused', message=refused.value.code)]
    assert refused.value.code.startswith('there is no config absent.py')


# --- names -----------------------------------------------------------------------------------------


def test_hooks_are_registered_under_the_names_that_configs_have():
    names = {'AgreeHook', 'AtomicCheckpointHook', 'HalfFrozenHook', 'IgnoredBatchHook', 'MissedValidationHook',
             'NonFiniteHook', 'ParameterTableHook', 'ProgressHook', 'SameBuffersHook', 'SeedIterationHook',
             'StopOnSignalHook', 'TrackingHook', 'ValidationPicturesHook'}
    for name in names:
        hook = HOOKS.get(name)
        assert hook.__name__ == name and hook.__module__.startswith('mmseg_gpt.engine.hooks.'), name
