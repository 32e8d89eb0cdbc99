"""What processes send each other: gradients of what is trained, frozen weights once, a small message an iteration."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from several import in_processes
from slurm_nodes import free_port
from tiny_run import run, tiny_config

from mmseg_gpt.checkpoints import read_file
from mmseg_gpt.engine import AgreeHook, IgnoredBatchHook, Runner, RunStopped, StopOnSignalHook, nodes
from mmseg_gpt.engine.hooks import agree
from mmseg_gpt.settings import flatten

ITERATIONS = 3


def size(tensors: Iterator[torch.Tensor]) -> int:
    """Bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.fixture
def group(tmp_path, monkeypatch) -> Iterator[None]:
    """A group of one process: what it would send does not depend on how many there are."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/group', rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


class CountGradients(Hook):
    """Counts the bytes of gradients that are reduced, by iteration."""

    def __init__(self) -> None:
        self.sent: Counter[int] = Counter()

    def before_train(self, runner: Runner) -> None:
        def reduce(state: None, bucket: torch.distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
            self.sent[runner.iter] += size([bucket.buffer()])
            done = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        runner.model.register_comm_hook(None, reduce)


def test_only_gradients_of_what_is_trained_are_sent_and_frozen_weights_once(tmp_path, group, monkeypatch):
    send, sent = torch.distributed._broadcast_coalesced, []

    def count(processes: object, tensors: list[torch.Tensor], *rest: object) -> None:
        sent.append(size(tensors))
        send(processes, tensors, *rest)

    monkeypatch.setattr(torch.distributed, '_broadcast_coalesced', count)
    gradients = CountGradients()
    model = run(tiny_config(tmp_path, launcher='pytorch', train_cfg__max_iters=ITERATIONS), gradients).model
    trained, frozen = ([p for p in model.parameters() if p.requires_grad is flag] for flag in (True, False))
    assert gradients.sent == dict.fromkeys(range(ITERATIONS), size(trained)) and size(frozen) > size(trained)
    assert sent == [size(model.parameters()) + size(model.buffers())] + [size(model.buffers())] * ITERATIONS
    assert model.find_unused_parameters is False


@pytest.mark.parametrize('options, unused, static', [
    (dict(find_unused_parameters=True), True, False),
    (dict(model_wrapper_cfg=dict(static_graph=True)), False, True),
    (dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', static_graph=True), find_unused_parameters=True),
     True, True),
    (dict(model_wrapper_cfg=dict(find_unused_parameters=False), find_unused_parameters=True), False, False),
])
def test_options_of_data_parallel_training_hold_without_a_gpu(options, unused, static, tmp_path, group):
    runner = Runner.from_cfg(tiny_config(tmp_path, launcher='pytorch', **options))
    assert (runner.model.find_unused_parameters, runner.model.static_graph) == (unused, static)


def all_hooks(monkeypatch, of_others: list[int]) -> tuple[SimpleNamespace, list]:
    """A runner with the hooks that vote, beside another process whose votes are ``of_others``; and all exchanges."""
    exchanges = []

    def highest(numbers: torch.Tensor, operation: str, processes: None) -> None:
        assert operation == 'max'
        exchanges.append(numbers.tolist())
        numbers.copy_(torch.maximum(numbers, torch.tensor(of_others)))

    monkeypatch.setattr(agree, 'get_world_size', lambda: 2)
    monkeypatch.setattr(agree, 'all_reduce', highest)
    return SimpleNamespace(hooks=[AgreeHook(), IgnoredBatchHook(), StopOnSignalHook()], iter=0,
                           model=torch.nn.Identity(), distributed=True), exchanges


def ignored_batch() -> dict:
    class Sample(SimpleNamespace):
        def __contains__(self, name: str) -> bool:
            return name in vars(self)

    return dict(data_samples=[Sample(gt_sem_seg=SimpleNamespace(data=torch.full((1, 4, 4), 255)), img_path='a.jpg')])


@pytest.mark.parametrize('mine, theirs', [(0, 15), (15, 0), (15, 15)])
def test_processes_agree_on_a_signal_with_one_exchange_an_iteration(monkeypatch, mine, theirs):
    runner, exchanges = all_hooks(monkeypatch, [1, theirs])
    stop = runner.hooks[2]
    stop.received = mine
    for hook in runner.hooks:
        hook.before_train_iter(runner, 0, ignored_batch())  # which is learnt from in the other process
    assert exchanges == [[0, mine]] and stop.agreed == 15


def test_a_batch_without_a_label_in_any_process_is_refused(monkeypatch):
    runner, _ = all_hooks(monkeypatch, [0, 0])
    with pytest.raises(RunStopped, match=r'every pixel of this batch is ignored.*a\.jpg'):
        runner.hooks[0].before_train_iter(runner, 0, ignored_batch())


def test_a_signal_stops_a_process_in_the_iteration_that_all_begin_with_it(monkeypatch):
    runner, _ = all_hooks(monkeypatch, [1, 0])
    runner.optim_wrapper, runner.max_iters, runner.epoch, runner.train_loop = (
        SimpleNamespace(_accumulative_counts=1), 9, 0, None)
    agree, _, stop = runner.hooks
    stopped = []
    monkeypatch.setattr(stop, 'save_and_stop', lambda runner, number, epoch, done: stopped.append((number, done)))
    agree.before_train_iter(runner, 0, {})
    stop.received = 15  # in the middle of iteration 1
    stop.after_train_iter(runner, 0)
    assert stopped == []
    runner.iter = 1
    agree.before_train_iter(runner, 1, {})
    stop.after_train_iter(runner, 1)
    assert stopped == [(15, 2)]


def tiny_training(folder: Path, work_dir: Path, **options) -> Config:
    """A run in which nothing is drawn for each process by itself: the processes together are one with all images."""
    return tiny_config(folder, work_dir=str(work_dir), model__backbone__prompt__dropout=0.,
                       model__decode_head__dropout_ratio=0., **options)


def in_two(folder: Path, cfg: Config) -> None:
    """Trains in two processes."""
    folder.mkdir(exist_ok=True)
    in_processes(folder, lambda rank: run(Config(dict(cfg, launcher='pytorch'))) and None)


def assert_close(one: Path, other: Path) -> None:
    """Compares two checkpoints: weights, statistics of batch norm and momentum."""
    (one, other) = ({**checkpoint['state_dict'], **flatten(checkpoint['optimizer'], 'optimizer')}
                    for checkpoint in map(read_file, (one, other)))
    assert one.keys() == other.keys() and any('running_var' in name for name in one)
    for name, tensor in one.items():
        if torch.is_tensor(tensor):
            assert torch.allclose(tensor.double(), other[name].double(), rtol=1e-4, atol=1e-5), name


def test_two_processes_train_as_one_does_and_either_resumes_the_other(tmp_path):
    one, two = tmp_path / 'one', tmp_path / 'two'
    run(tiny_training(tmp_path, one))
    in_two(tmp_path / 'group', tiny_training(tmp_path, two))
    assert_close(one / 'iter_6.pth', two / 'iter_6.pth')
    for name, source, start in (('by_two', one, in_two), ('by_one', two, lambda _, cfg: run(cfg))):
        cfg = tiny_training(tmp_path, tmp_path / name, resume=True, load_from=str(source / 'iter_4.pth'))
        start(tmp_path / 'again', cfg)
        assert_close(tmp_path / name / 'iter_6.pth', one / 'iter_6.pth')


def test_an_epoch_that_is_longer_in_one_process_is_refused(tmp_path):
    cfg = tiny_training(tmp_path, tmp_path / 'run', param_scheduler=[])
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=False, round_up=False)
    cfg.train_dataloader.dataset.indices = 5  # 3 and 2 images
    cfg.custom_hooks = []

    def said(rank: int) -> str:
        with pytest.raises(SystemExit) as refusal:
            run(Config(dict(cfg, launcher='pytorch')))
        return str(refusal.value)

    assert said_by_both(in_processes(tmp_path, said)).startswith('an epoch has [3, 2] batches in the 2 processes')


class Failing(torch.nn.Module):
    """A model that cannot be initialised, for a reason that nobody has thought of."""

    def init_weights(self) -> None:
        raise AssertionError


def test_whatever_goes_wrong_while_one_process_reads_stops_all(tmp_path):
    def said(rank: int) -> str:
        with pytest.raises(SystemExit) as refusal:
            nodes.read_once_a_node(Failing())
        return str(refusal.value)

    first, other = in_processes(tmp_path, said)
    assert 'in init_weights' in first and first.rstrip().endswith('AssertionError') and other == '1'


def said_by_both(said: list[str]) -> str:
    """What both processes have said."""
    one, other = said
    assert one == other
    return one


def test_processes_wait_long_for_each_other_and_float32_is_as_the_config_says(tmp_path, group, monkeypatch, tf32):
    found = {}
    monkeypatch.setattr(Runner.__base__, 'setup_env', lambda self, cfg: found.update(cfg))
    for allowed in (True, False):
        runner = Runner.__new__(Runner)
        runner._launcher, runner._work_dir, runner._timestamp = 'pytorch', str(tmp_path), '20260101_000000'
        runner.setup_env(dict(tf32=allowed, dist_cfg=dict(backend='nccl')))
        assert found['dist_cfg'] == dict(backend='nccl', timeout=3600)
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == allowed


@pytest.mark.parametrize('given, seconds', [(None, 3600), (dict(backend='nccl'), 3600), (dict(timeout=60), 60)])
@pytest.mark.parametrize('backend', ['gloo', 'nccl'])
def test_processes_that_join_wait_as_long(backend, given, seconds, tmp_path, monkeypatch):
    start, found = torch.distributed.init_process_group, []

    def note(backend: str, timeout: timedelta) -> None:
        found.append((backend, timeout.total_seconds()))
        start('gloo', timeout=timeout)

    places = dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=1, MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
    for name, value in places.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.distributed, 'init_process_group', note)
    if backend == 'nccl':
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
        monkeypatch.setattr(torch.cuda, 'set_device', lambda number: None)
    monkeypatch.setattr(nodes, 'check_work_dir', lambda folder: None)  # NCCL's would send from the GPU
    try:
        nodes.join(Config(dict(launcher='pytorch', work_dir=str(tmp_path), env_cfg=dict(dist_cfg=given))))
    finally:
        torch.distributed.destroy_process_group()
    assert found == [(backend, seconds)]
