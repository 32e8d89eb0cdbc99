"""What a run tells the visualizer while it trains, and that it trains as if nobody watched."""

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook, LoggerHook
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper
from mmengine.visualization import LocalVisBackend, Visualizer
from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator
from tiny_run import differing, run, saved, tiny_config
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_gpt.analysis import read_checkpoint, read_history
from mmseg_gpt.engine import Runner, TrackingHook, ValidationPicturesHook, set_tracking, trackers
from mmseg_gpt.engine.hooks import tracking
from mmseg_gpt.engine.hooks import validation_pictures as pictures
from mmseg_gpt.engine.hooks.tracking import group_of
from mmseg_gpt.environment import peak_resident_bytes
from mmseg_gpt.lab.scalars import read_scalars
from mmseg_gpt.models import GatedPromptViT

TOOLS = Path(__file__).parents[1] / 'tools'
DEPTH = 12  # of tiny runs
OPTIONS = dict(train_cfg__max_iters=5, train_cfg__val_interval=3, default_hooks__logger__interval=2,
               optim_wrapper__optimizer__lr=1., model__backbone__prompt__gate_init=1.,
               optim_wrapper__clip_grad=dict(max_norm=2.))

# --- a run -----------------------------------------------------------------------------------------


class Gradients(Hook):
    """Keeps, by iteration, the squares of what the optimizer gets, summed for each parameter."""

    def __init__(self) -> None:
        self.squares: dict[int, dict[str, float]] = {}

    def before_train(self, runner: Runner) -> None:
        runner.optim_wrapper.optimizer.register_step_pre_hook(lambda *_: self.squares.update({runner.iter + 1: {
            name: p.grad.double().square().sum().item() for name, p in runner.model.named_parameters()
            if p.requires_grad}}))


@pytest.fixture(scope='module')
def tracked(tmp_path_factory) -> SimpleNamespace:
    """A run that validates twice, with TensorBoard: its folder, runner and gradients."""
    folder = tmp_path_factory.mktemp('tracked')
    cfg = tiny_config(folder, **OPTIONS, custom_hooks__2__images=2)
    set_tracking(cfg, ['tensorboard'])
    gradients = Gradients()
    runner = run(cfg, gradients)
    return SimpleNamespace(folder=folder, runner=runner, squares=gradients.squares)


def test_the_run_is_bit_by_bit_that_without_tracking(tracked, tmp_path):
    run(tiny_config(tracked.folder, **OPTIONS, custom_hooks=[], work_dir=str(tmp_path / 'run')))
    assert differing(saved(tracked.folder, 5), saved(tmp_path, 5)) == []


def test_what_is_logged_and_when(tracked):
    lines, validation = read_scalars(tracked.folder / 'run')
    assert [line['step'] for line in lines] == [0, 2, 4, 5]
    assert [line['step'] for line in validation] == [3, 5] and all('mIoU' in line for line in validation)
    of_blocks = {f'{name}/block_{block:02d}' for name, last in (
        ('gates', DEPTH - 1), ('selection_ratio', DEPTH - 1), ('temperatures', DEPTH)) for block in range(1, last + 1)}
    assert of_blocks == lines[0].keys() - {'iter', 'step'}
    more = {f'gradient_norm/{name}' for name in ('prompts', 'gates', 'temperatures', 'head')}
    more |= {f'progress/{name}' for name in ('images_per_second', 'peak_memory_mib', 'seconds_left')}
    for line in lines[1:]:
        assert {key for key in line if '/' in key} == of_blocks | more and line['iter'] == line['step']
    text, = (tracked.folder / 'run').glob('*/*.log')
    assert 'gradient_norm' not in text.read_text()


def test_gates_and_temperatures_are_those_of_the_checkpoint(tracked):
    history = read_history(read_scalars(tracked.folder / 'run')[0], 'run')
    report = read_checkpoint(tracked.folder / 'run/iter_5.pth', 'run')
    for quantity, values in (('gates', report.gates), ('temperatures', report.temperatures)):
        logged = [history.series[quantity][block][-1] for block in sorted(history.series[quantity])]
        np.testing.assert_allclose(logged, values, rtol=1e-12)
    assert report.prior == -1 and np.ptp(report.gates) > 1e-4, 'the gates have not moved, so this shows nothing'
    ratio = [values for block, values in sorted(history.series['selection_ratio'].items())]
    np.testing.assert_allclose(np.sum(ratio, axis=0), 1)


def test_norms_are_those_of_the_clipped_gradients(tracked):
    lines, _ = read_scalars(tracked.folder / 'run')
    for line in lines[1:]:
        squares = tracked.squares[line['step']]
        for group in ('prompts', 'gates', 'temperatures', 'head'):
            expected = sum(s for name, s in squares.items() if group_of(name) == group)**.5
            assert line[f'gradient_norm/{group}'] == pytest.approx(expected, rel=1e-5)
        assert sum(squares.values())**.5 <= 2.001
    assert len({line['gradient_norm/gates'] for line in lines[1:]}) == 3


def test_progress_is_that_of_the_clock_and_of_the_system(tracked):
    lines, _ = read_scalars(tracked.folder / 'run')
    seconds = tracked.runner.message_hub.get_scalar('train/time').data[0]
    batch = tracked.runner.train_dataloader.batch_size
    for line, taken in zip(lines[1:], (seconds[:2], seconds[2:4], seconds[4:5])):
        assert line['progress/images_per_second'] == pytest.approx(batch * len(taken) / sum(taken))
        assert 0.5 < line['progress/peak_memory_mib'] * 2**20 / peak_resident_bytes() <= 1
    assert lines[1]['progress/seconds_left'] == pytest.approx(np.mean(seconds[:2]) * 3)
    assert lines[3]['progress/seconds_left'] == 0


# --- TensorBoard and pictures ----------------------------------------------------------------------


@pytest.fixture(scope='module')
def events(tracked) -> EventAccumulator:
    file, = (tracked.folder / 'run').rglob('events.out.tfevents.*')
    return EventAccumulator(str(file), size_guidance={IMAGES: 0}).Reload()


def test_tensorboard_has_what_the_log_has(tracked, events):
    lines, _ = read_scalars(tracked.folder / 'run')
    assert [(event.step, event.value) for event in events.Scalars('gates/block_03')] == [
        (line['step'], pytest.approx(line['gates/block_03'])) for line in lines]
    assert {key for line in lines for key in line} - {'step'} <= set(events.Tags()['scalars'])
    assert [event.step for event in events.Scalars('mIoU')] == [3, 5]


def test_tensorboard_has_the_same_images_at_each_validation(tracked, events):
    dataset = tracked.runner.val_dataloader.dataset
    files = [Path(dataset.get_data_info(i)['img_path']) for i in (0, 1)]  # of 3, evenly spaced
    names = [f'val_{i}_{file.name}' for i, file in enumerate(files, 1)]
    assert sorted(events.Tags()['images']) == names
    for name, file, sample in zip(names, files, (dataset[0], dataset[1])):
        shown = events.Images(name)
        assert [event.step for event in shown] == [3, 5]
        labels, predicted = np.hsplit(cv2.imdecode(np.frombuffer(shown[0].encoded_image_string, np.uint8), 1), 2)
        assert min(labels.shape[:2]) >= 224
        expected = overlay(cv2.imread(str(file)), sample['data_samples'].gt_sem_seg.data[0], dataset.metainfo)
        times = labels.shape[0] // expected.shape[0]
        alike = (np.abs(labels[::times, ::times].astype(int) - expected) <= 2).all(axis=2)
        assert alike.mean() > 0.7, 'but for the words, these are the labels'
        assert not np.array_equal(labels, predicted)
        again = cv2.imdecode(np.frombuffer(shown[1].encoded_image_string, np.uint8), 1)
        assert np.array_equal(np.hsplit(again, 2)[0], labels)


def overlay(image: np.ndarray, labels: torch.Tensor, metainfo: dict) -> np.ndarray:
    """The image (H, W, 3), in BGR, a fifth as strong, under the colours of its labels."""
    colours = np.zeros((256, 3))
    colours[:len(metainfo['palette'])] = np.array(metainfo['palette'])[:, ::-1]
    return 0.2 * image + 0.8 * colours[labels.numpy()]


class Shown(Visualizer):
    """Keeps the pictures that it gets; without a back end, nothing is written."""

    def add_image(self, name: str, image: np.ndarray, step: int = 0) -> None:
        self.got = name, image, step


def test_a_classified_image_is_shown_with_its_classes(tmp_path):
    from mmpretrain.structures import DataSample
    from mmpretrain.visualization import UniversalVisualizer

    class Classified(Shown, UniversalVisualizer):
        """Draws as mmpretrain does."""

    cv2.imwrite(str(tmp_path / 'bird.png'), np.full((40, 50, 3), (200, 0, 0), np.uint8))  # blue
    sample = DataSample(metainfo=dict(img_path=str(tmp_path / 'bird.png'))).set_gt_label(1).set_pred_label(0)
    visualizer = Classified('shown')
    visualizer.dataset_meta = dict(classes=('crow', 'jay'))
    pictures.draw(visualizer, sample.set_pred_score(torch.tensor([.75, .25])), 2, 7)
    name, image, step = visualizer.got
    assert (name, step) == ('val_2_bird.png', 7) and image.shape == (224, 280, 3)
    assert (image[-60:] == (0, 0, 200)).all() and (image[5:60, 10:200] != (0, 0, 200)).any(axis=2).mean() > .3


@pytest.mark.parametrize('wanted, there, chosen', [(4, 10, [0, 2, 5, 7]), (4, 3, [0, 1, 2]), (0, 3, []), (4, 0, [])])
def test_pictures_are_evenly_spaced(monkeypatch, wanted, there, chosen):
    drawn = []
    monkeypatch.setattr(pictures, 'draw', lambda _, sample, number, *rest: drawn.append((sample, number)))
    hook, runner = ValidationPicturesHook(wanted), SimpleNamespace(
        val_dataloader=SimpleNamespace(sampler=range(there)), visualizer=None, iter=1)
    for _ in range(2):
        hook.before_val_epoch(runner)
        for start in range(0, there, 4):
            hook.after_val_iter(runner, start // 4, {}, list(range(there))[start:start + 4])
    assert drawn == [(sample, number) for number, sample in enumerate(chosen, 1)] * 2
    monkeypatch.setattr(pictures, 'is_main_process', lambda: False)
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, {}, list(range(there)))
    assert len(drawn) == 2 * len(chosen), 'all processes draw'


def test_what_cannot_be_drawn_is_left_out(tmp_path):
    from mmengine.structures import BaseDataElement
    visualizer = Shown('none')
    pictures.draw(visualizer, BaseDataElement(metainfo=dict(img_path='cifar.bin/17')), 1, 1)
    pictures.draw(visualizer, BaseDataElement(), 1, 1)
    assert not hasattr(visualizer, 'got')


# --- every method ----------------------------------------------------------------------------------


class Told:
    """A visualizer that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[dict] = []

    def add_scalars(self, scalars: dict, step: int) -> None:
        assert scalars['iter'] == step
        self.lines.append(scalars)


def small(**backbone) -> nn.Module:
    """A ViT of 3 blocks, and a head."""
    model = nn.Module()
    model.backbone = GatedPromptViT(arch=dict(embed_dims=8, num_layers=3, num_heads=2, mlp_ratio=2), img_size=16,
                                    patch_size=8, out_type='cls_token', **backbone)
    model.head = nn.Linear(8, 2)
    return model


def watch(model: nn.Module, iterations: int = 1, done: int = 0, interval: int = 1, counts: int = 1,
          loss: Callable | None = None, epoch: int = 1000) -> list[dict]:
    """Trains for some iterations with the hook alone, and gives what it told, each line without 'iter'.

    Args:
        model: With a backbone and a head, unless there is a loss.
        iterations: How many.
        done: Before, in a run that is resumed.
        interval: Of the LoggerHook.
        counts: Iterations of a step.
        loss: Of the model.
        epoch: Its iterations.
    """
    loss = loss or (lambda: model.head(model.backbone(torch.randn(2, 3, 16, 16))[-1]).square().sum())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=.1)
    hub = SimpleNamespace(log_scalars={'train/time': HistoryBuffer()}, runtime_info=dict(eta=5.), get_info=lambda _: 5.)
    runner = SimpleNamespace(
        model=model, optim_wrapper=OptimWrapper(optimizer, accumulative_counts=counts), iter=done, max_iters=100,
        hooks=[LoggerHook(interval=interval)], train_dataloader=range(epoch), message_hub=hub, visualizer=Told())
    hook = TrackingHook()
    hook.before_train(runner)
    for runner.iter in range(done, done + iterations):
        hook.before_train_iter(runner, runner.iter % epoch)
        runner.optim_wrapper.update_params(loss())
        hub.log_scalars['train/time'].update(.5)
        hook.after_train_iter(runner, runner.iter % epoch, dict(data_samples=[None, None]))
    hook.release(runner)
    return [{key: value for key, value in line.items() if key != 'iter'} for line in runner.visualizer.lines]


def names(line: dict) -> list[str]:
    """What was told, apart from progress, and without numbers of blocks."""
    return sorted({key.partition('/block_')[0].removeprefix('gradient_norm/') for key in line
                   if not key.startswith('progress')})


GATED = dict(type='GatedPrompt', num_tokens=2)


@pytest.mark.parametrize('backbone, told', [
    (dict(prompt=GATED, temperature=True),
     ['gates', 'head', 'prompts', 'selection_ratio', 'temperatures']),
    (dict(prompt=dict(GATED, type='HardGatedPrompt')), ['gates', 'head', 'prompts', 'selection_ratio']),
    (dict(prompt=dict(type='ShallowPrompt', num_tokens=2), temperature=True), ['head', 'prompts', 'temperatures']),
    (dict(prompt=dict(type='DeepPrompt', num_tokens=2)), ['head', 'prompts']),
    (dict(prompt=GATED, start_block=2), ['head', 'prompts']),  # no block is left for a gate to mix
    (dict(), ['head']),
    (dict(frozen=False), ['head', 'vit']),
], ids=str)
def test_every_method_is_told_of(backbone, told):
    before, line = watch(small(**backbone))
    assert names(line) == told and line['progress/images_per_second'] == 4
    assert names(before) == [name for name in told if name not in ('head', 'prompts', 'vit')]


def test_only_blocks_that_are_used_are_told_of():
    line = watch(small(prompt=GATED, temperature=True, start_block=1))[-1]
    assert [key for key in line if key.startswith(('gates', 'selection'))] == [
        'gates/block_02', 'selection_ratio/block_02']
    line = watch(small(prompt=GATED, temperature=True, out_indices=(1, )))[-1]
    assert [key for key in line if '/block_' in key] == [
        'gates/block_01', 'selection_ratio/block_01', 'temperatures/block_01', 'temperatures/block_02']


def test_models_of_others_are_told_of():
    """As MAE, whose backbone has neither prompts nor frozen parts, or a model without a backbone."""
    model = nn.ModuleDict(dict(backbone=nn.Linear(2, 2), neck=nn.Linear(2, 2)))
    before, line = watch(model, loss=lambda: model.neck(model.backbone(torch.ones(2))).sum())
    assert names(line) == ['head', 'vit'] and before == {}
    model = nn.Linear(2, 1)
    assert names(watch(model, loss=lambda: model(torch.ones(2)).sum())[1]) == ['head']


def test_a_resumed_run_is_told_of_from_its_next_iteration():
    assert len(watch(small(prompt=GATED), iterations=4, interval=2)) == 3
    assert len(watch(small(prompt=GATED), iterations=4, interval=2, done=6)) == 2


def test_a_run_over_an_earlier_one_ends_its_log(tmp_path):
    """Also where nothing has gates or temperatures: its first line is that of iteration 0."""
    for start, (iteration, scalars) in enumerate(((50, dict(loss=1.)), (0, tracking.learnt(small().backbone, {})))):
        log = LocalVisBackend(str(tmp_path / str(start) / 'vis_data'))
        tracking.tell(SimpleNamespace(visualizer=log), iteration, scalars)
    assert read_scalars(tmp_path)[0] == [dict(iter=0, step=0)]


def test_epochs_shorter_than_the_interval_are_told_of_at_their_ends():
    assert len(watch(small(), iterations=7, interval=4, epoch=3)) == 1 + 2
    assert len(watch(small(), iterations=7, interval=2, epoch=3)) == 1 + 2, 'after iterations 2 and 5'


def test_the_memory_of_validation_is_not_counted(monkeypatch):
    peak = 0

    def use(memory: int) -> None:
        nonlocal peak
        peak = max(peak, memory)

    def forget() -> None:
        nonlocal peak
        peak = 0

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda: peak)
    monkeypatch.setattr(torch.cuda, 'reset_peak_memory_stats', forget)
    hook = TrackingHook()
    for of_training in (100, 120):
        use(of_training)
        hook.after_train_iter(None, 0, dict(data_samples=[None]))
        hook.before_val(None)
        use(900)
        hook.after_val(None)
    assert hook.peak == 120


def test_accumulated_gradients_are_those_of_the_last_step():
    model = nn.Linear(1, 1, bias=False)
    losses = iter(model(torch.tensor([float(10**i)])).sum() for i in range(6))
    lines = watch(model, iterations=6, interval=3, counts=2, loss=lambda: next(losses))
    # Steps after iterations 2, 4 and 6; each gradient is half the input.
    assert [line['gradient_norm/head'] for line in lines[1:]] == pytest.approx([5.5, 55_000])


def test_a_step_is_told_of_once():
    model = nn.Linear(1, 1)
    lines = watch(model, iterations=4, counts=2, loss=lambda: model(torch.ones(1)).sum())
    assert ['gradient_norm/head' in line for line in lines] == [False, False, True, False, True]


def test_scaled_gradients_of_a_fused_optimizer_are_told_unscaled():
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3., 4.]) * 128
    optimizer = torch.optim.SGD([parameter], lr=1.)
    optimizer.grad_scale = torch.tensor(128.)
    assert tracking.gradient_norms(optimizer, {id(parameter): 'head'}) == {'gradient_norm/head': 5}


def test_what_is_not_finite_is_left_out_of_the_log():
    model = nn.Linear(1, 1, bias=False)
    _, line = watch(model, loss=lambda: model(torch.tensor([torch.inf])).sum())
    assert 'gradient_norm/head' not in line and 'progress/seconds_left' in line


def test_only_the_first_process_tells_and_for_all(monkeypatch):
    monkeypatch.setattr(tracking, 'get_world_size', lambda: 8)
    assert watch(small(prompt=GATED))[-1]['progress/images_per_second'] == 8 * 4
    monkeypatch.setattr(tracking, 'is_main_process', lambda: False)
    assert watch(small(prompt=GATED), iterations=2) == []


def test_without_any_interval_it_says_so():
    with pytest.raises(ValueError, match='needs an interval'):
        TrackingHook().before_train(SimpleNamespace(hooks=[]))


class Waits(TorchDispatchMode):
    """Counts where Python asks for numbers of a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_the_device_is_waited_for_once_in_a_logged_iteration_and_else_never(monkeypatch):
    lists = []
    original = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, 'tolist', lambda tensor: lists.append(1) or original(tensor))
    model = small(prompt=GATED, temperature=True)
    with Waits() as waits:
        assert len(watch(model, iterations=5, done=1, interval=3)) == 2
    assert len(lists) == 2 and waits.count == 0


# --- trackers --------------------------------------------------------------------------------------


def test_a_tracker_is_added_to_what_there_is():
    cfg = Config(dict(work_dir='work_dirs/mine', visualizer=dict(
        type='Mine', vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])))
    set_tracking(cfg, ['tensorboard'])
    set_tracking(cfg, None)
    assert [b.type for b in cfg.visualizer.vis_backends] == ['LocalVisBackend', 'TensorboardVisBackend']
    cfg = Config(dict(work_dir='work_dirs/mine'))
    set_tracking(cfg, ['tensorboard'])
    assert cfg.visualizer == dict(type='Visualizer', vis_backends=[
        dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])


def test_trackers_are_told_project_and_run(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, 'find_spec', lambda name: name)
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    cfg = Config(dict(work_dir='/runs/mine'))
    set_tracking(cfg, list(trackers.BACKENDS))
    _, _, wandb, mlflow, clearml, aim = cfg.visualizer.vis_backends
    assert wandb.init_kwargs == dict(project='mmseg_gpt', name='mine')
    assert mlflow.tracking_uri == 'sqlite:////runs/mlflow.db' and mlflow.run_name == 'mine'
    assert clearml.init_kwargs == dict(project_name='mmseg_gpt', task_name='mine')
    assert aim.init_kwargs == dict(experiment='mine')
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://server')
    cfg = Config(dict(work_dir='/runs/mine'))
    set_tracking(cfg, ['mlflow'])
    assert cfg.visualizer.vis_backends[1].tracking_uri == 'http://server'


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, 'find_spec', lambda name: name if name == 'tensorboard' else None)
    with pytest.raises(SystemExit, match='pip install wandb aim'):
        set_tracking(Config(dict(work_dir='mine')), ['tensorboard', 'wandb', 'aim'])


def test_the_command_line_knows_all_trackers():
    arguments = runpy.run_path(str(TOOLS / 'arguments.py'))
    assert arguments['TRACKERS'] == tuple(trackers.BACKENDS)
