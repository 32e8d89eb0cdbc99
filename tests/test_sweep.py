"""Heads that are swept side by side become what runs of their own make of them, bit for bit."""

import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import environment_of
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from test_configs import HEADS
from test_heads import small
from tiny_run import At, next_name, run, saved, tiny_config

import mmseg_gpt.engine as engine
from mmseg_gpt.checkpoints import CheckpointError, read_file
from mmseg_gpt.engine import Runner, RunStopped, SweepHook
from mmseg_gpt.engine.config import find_config
from mmseg_gpt.engine.sweep import combinations, config_of, swept
from mmseg_gpt.models import GatedPromptViT
from mmseg_gpt.models.sweep import SharedViT, not_finite

GRID = ['lr=0.01,0.1', 'weight_decay=0.01']
NAMES = list(combinations(GRID))
LINEAR = dict(
    model__backbone__prompt=None, model__backbone__temperature=False, model__decode_head__dropout_ratio=0.5,
    optim_wrapper__clip_grad=dict(max_norm=0.5), train_cfg__max_iters=4, train_cfg__val_interval=2, custom_hooks=[],
    train_dataloader__batch_size=3)


class Scores(Hook):
    """Keeps the metrics of all validations."""

    def __init__(self) -> None:
        self.metrics = {}

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        self.metrics[runner.iter] = {name: float(value) for name, value in metrics.items()}


class Passes(Hook):
    """Counts how often the ViT runs."""

    def before_train(self, runner) -> None:
        self.count = 0
        runner.model.backbone.register_forward_pre_hook(lambda *_: setattr(self, 'count', self.count + 1))


def build(model: dict) -> BaseModel:
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(model)


def heads_of(state: dict) -> dict:
    return {name: value for name, value in state.items() if not name.startswith('backbone.')}


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope='module')
def sweep(tmp_path_factory) -> Path:
    """A folder with a sweep of two heads, and with a run of each of them alone."""
    folder = tmp_path_factory.mktemp('sweep')
    passes, scores = Passes(), Scores()
    run(swept(tiny_config(folder, **LINEAR), GRID, 'tiny'), passes, scores)
    folder.joinpath('facts.json').write_text(json.dumps(dict(
        passes=passes.count, scores=scores.metrics)))
    for name, changes in combinations(GRID).items():
        alone = tiny_config(folder, work_dir=str(folder / name), **LINEAR)
        alone.merge_from_dict(changes)
        scores, passes = Scores(), Passes()
        run(alone, scores, passes)
        (folder / name / 'facts.json').write_text(json.dumps(dict(scores=scores.metrics, passes=passes.count)))
    return folder


def test_each_head_is_that_of_a_run_of_its_own(sweep):
    together = saved(sweep, 4)['state_dict']
    pretrained = torch.load(sweep / 'vit.pth')
    assert all(torch.equal(together[f'backbone.{name}'], weight) for name, weight in pretrained.items())
    for i, name in enumerate(NAMES):
        own = {key.removeprefix(f'members.{i}.'): value for key, value in together.items()
               if key.startswith(f'members.{i}.')}
        alone = heads_of(read_file(sweep / name / 'iter_4.pth')['state_dict'])
        assert len(alone) > 20 and equal(own, alone), name
    assert not torch.equal(together['members.0.decode_head.conv_seg.weight'],
                           together['members.1.decode_head.conv_seg.weight'])


def test_optimizers_and_schedules_are_those_of_runs_of_their_own(sweep):
    together = saved(sweep, 4)
    for i, name in enumerate(NAMES):
        alone = read_file(sweep / name / 'iter_4.pth')
        own, expected = together['optimizer'][name], alone['optimizer']
        assert own['param_groups'] == expected['param_groups']
        for key, state in expected['state'].items():
            assert torch.equal(own['state'][key]['momentum_buffer'], state['momentum_buffer'])
        assert together['param_schedulers'][i] == alone['param_schedulers'][0]


def test_all_are_validated_in_one_pass(sweep):
    facts = json.loads((sweep / 'facts.json').read_text())
    single = [json.loads((sweep / name / 'facts.json').read_text()) for name in NAMES]
    for iteration in ('2', '4'):
        together = facts['scores'][iteration]
        for name, alone in zip(NAMES, single):
            expected = {f'{name}/{key}': value for key, value in alone['scores'][iteration].items()}
            assert len(expected) >= 3 and expected.items() <= together.items()
        assert together['mIoU'] == max(alone['scores'][iteration]['mIoU'] for alone in single)
    assert facts['passes'] == single[0]['passes'] > 4


def test_the_best_head_is_an_ordinary_checkpoint(sweep):
    table = json.loads((sweep / 'run/sweep.json').read_text())
    scores = {(name, int(iteration)): metrics['mIoU'] for name, head in table['heads'].items()
              for iteration, metrics in head['validations'].items()}
    assert [*table['heads']] == NAMES and table['metric'] == 'mIoU' and len(scores) == 4
    assert scores[table['best'], table['iteration']] == max(scores.values())
    best, own = (read_file(sweep / place) for place in (
        'run/best_head.pth', f'{table["best"]}/iter_{table["iteration"]}.pth'))
    assert equal(best['state_dict'], own['state_dict'])
    settings, expected = (json.loads(checkpoint['meta']['settings']) for checkpoint in (best, own))
    for key in ('work_dir', 'experiment_name', 'visualizer'):
        settings.pop(key, None), expected.pop(key, None)
    assert settings == expected
    cfg = Config.fromfile(sweep / 'run/best_head.py')
    cfg.update(experiment_name=next_name(), load_from=str(sweep / 'run/best_head.pth'), work_dir=str(sweep / 'test'))
    metrics = Runner.from_cfg(cfg).test()
    assert metrics['mIoU'] == max(scores.values())  # the drawn data are validated and tested on the same images


def test_stopped_and_resumed(sweep, tmp_path):
    (tmp_path / 'data').symlink_to(sweep / 'data')
    (tmp_path / 'vit.pth').symlink_to(sweep / 'vit.pth')
    options = dict(LINEAR, optim_wrapper__accumulative_counts=2, train_cfg__max_iters=5, train_cfg__val_interval=3)
    run(swept(tiny_config(tmp_path, work_dir=str(tmp_path / 'whole/run'), **options), GRID, 'tiny'))
    with pytest.raises(SystemExit):
        run(swept(tiny_config(tmp_path, **options), GRID, 'tiny'),
            At(4, lambda runner, batch: os.kill(os.getpid(), signal.SIGTERM)))
    run(swept(tiny_config(tmp_path, resume=True, **options), GRID, 'tiny'))
    assert equal(saved(tmp_path / 'whole', 5)['state_dict'], saved(tmp_path, 5)['state_dict'])
    one, other = ((tmp_path / place / 'sweep.json').read_text() for place in ('whole/run', 'run'))
    assert one == other and list(json.loads(one)['heads'][NAMES[0]]['validations']) == ['3', '5']
    # The gradients of accumulated iterations are scaled as in a run of its own.
    alone = tiny_config(tmp_path, work_dir=str(tmp_path / 'alone'), **options)
    alone.merge_from_dict(combinations(GRID)[NAMES[0]])
    run(alone)
    own = {key.removeprefix('members.0.'): value for key, value in saved(tmp_path, 5)['state_dict'].items()
           if key.startswith('members.0.')}
    assert equal(own, heads_of(read_file(tmp_path / 'alone/iter_5.pth')['state_dict']))
    with pytest.raises(CheckpointError, match='cannot be resumed with this config'):
        run(swept(tiny_config(tmp_path, resume=True, **options), ['lr=0.01,0.2'], 'tiny'))


class NotFinite(Hook):
    """Spoils the heads of these members before iteration 2, and the gradients of others."""

    def __init__(self, *members: int, gradients: tuple[int, ...] = ()) -> None:
        self.members, self.gradients = members, gradients

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        for i in self.members if runner.iter == 1 else ():
            with torch.no_grad():
                runner.model.members[i].decode_head.conv_seg.bias[0] = float('inf')
        for i in self.gradients if runner.iter == 1 else ():
            runner.model.members[i].decode_head.conv_seg.bias.register_hook(lambda gradient: gradient * float('nan'))


def after_backward(loss: torch.Tensor, due: bool = True, scaled: bool = False) -> SimpleNamespace:
    """What an optimizer's wrapper has after a backward, in which all gradients become the loss."""
    weight = torch.zeros(2, requires_grad=True)
    weight.grad = loss.detach().expand(2)
    wrapper = SimpleNamespace(optimizer=torch.optim.SGD([weight]), should_update=lambda: due)
    if scaled:
        wrapper.loss_scaler = torch.amp.GradScaler(loss.device.type)
    return wrapper


def test_a_scaler_decides_itself_about_a_loss_that_is_not_finite():
    for scaled in (False, True):
        loss = torch.tensor(float('inf'))
        assert not_finite(dict(one=loss), dict(one=after_backward(loss, scaled=scaled))) == ([] if scaled else ['one'])


def test_all_heads_are_looked_at_with_one_wait(monkeypatch):
    """A GPU was waited for twice a head."""
    values = dict(one=1., two=float('nan'), three=2., four=3., five=3.)
    losses = {name: torch.tensor(value) for name, value in values.items()}
    wrappers = {name: after_backward(loss, due=name != 'three') for name, loss in losses.items()}
    for name in ('three', 'four'):  # that of three is not due
        wrappers[name].optimizer.param_groups[0]['params'][0].grad = torch.tensor([1., float('inf')])
    wrappers['five'].optimizer.param_groups[0]['params'][0].grad = torch.full((2, ), 3e38)  # whose norm is infinite
    assert not_finite(losses, wrappers) == ['two', 'four']
    reads = []
    for name in ('item', 'tolist', '__bool__', '__float__'):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name,
                            lambda tensor, original=original: reads.append(tensor.shape) or original(tensor))
    fine = {name: loss for name, loss in losses.items() if name in ('one', 'three')}
    assert not_finite(fine, wrappers) == [] and reads == [(2, 2)]


def test_the_best_head_of_an_earlier_validation_is_kept(tmp_path, monkeypatch):
    hook = SweepHook({'one': dict(lr=1.), 'two': dict(lr=2.)})
    hook.validations, hook.diverged, kept = {'one': {}, 'two': {}}, {}, []
    monkeypatch.setattr(hook, 'save', lambda runner, name: kept.append((runner.iter, name)))
    for iteration, one, two in ((1, 10., 20.), (2, 15., 12.), (3, 30., 5.)):
        evaluator = SimpleNamespace(results={'one': dict(mIoU=one), 'two': dict(mIoU=two)})
        runner = SimpleNamespace(val_loop=SimpleNamespace(evaluator=evaluator), iter=iteration, work_dir=str(tmp_path),
                                 logger=logging.getLogger('test'))
        hook.after_val_epoch(runner)
    assert kept == [(1, 'two'), (3, 'one')]
    table = json.loads((tmp_path / 'sweep.json').read_text())
    assert (table['best'], table['iteration']) == ('one', 3)


def test_a_head_that_diverges_stays_behind(sweep, tmp_path):
    (tmp_path / 'data').symlink_to(sweep / 'data')
    (tmp_path / 'vit.pth').symlink_to(sweep / 'vit.pth')
    options = dict(LINEAR, default_hooks__checkpoint__adapter_only=True)
    run(swept(tiny_config(tmp_path, **options), GRID, 'tiny'), NotFinite(1))
    table = json.loads((tmp_path / 'run/sweep.json').read_text())
    assert [head['diverged'] for head in table['heads'].values()] == [None, 2]
    assert table['best'] != NAMES[1] and not table['heads'][NAMES[1]]['validations']
    end, expected = (saved(place, 4)['state_dict'] for place in (tmp_path, sweep))
    rest = {key: value for key, value in end.items() if not key.startswith('members.1.')}
    assert rest and all(torch.equal(expected[key], value) for key, value in rest.items())
    best = read_file(tmp_path / 'run/best_head.pth')
    assert best['meta']['frozen']['source'] == 'vit.pth' and not any('backbone' in key for key in best['state_dict'])
    (tmp_path / 'run/iter_4.pth').unlink()
    (tmp_path / 'run/last_checkpoint').write_text(str(tmp_path / 'run/iter_2.pth'))
    before = (tmp_path / 'run/sweep.json').read_text()
    run(swept(tiny_config(tmp_path, resume=True, **options), GRID, 'tiny'))
    assert (tmp_path / 'run/sweep.json').read_text() == before
    with pytest.raises(RunStopped, match='every head of the sweep'):
        run(swept(tiny_config(tmp_path, work_dir=str(tmp_path / 'none'), **options), GRID, 'tiny'),
            NotFinite(0, gradients=(1, )))


@pytest.mark.skipif(importlib.util.find_spec('mmpretrain') is None, reason='needs mmpretrain')
def test_classifiers(tmp_path):
    from test_classification_runs import tiny
    options = {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1}
    run(swept(tiny('cls_linear_mae_cub', tmp_path, **options), ['lr=0.1,1.0'], 'cub'))
    together = read_file(tmp_path / 'run/epoch_1.pth')['state_dict']
    for i, lr in enumerate((0.1, 1.0)):
        run(tiny('cls_linear_mae_cub', tmp_path, **options, **{
            'work_dir': str(tmp_path / str(i)), 'optim_wrapper.optimizer.lr': lr}))
        alone = read_file(tmp_path / str(i) / 'epoch_1.pth')['state_dict']
        own = {key: together[key if key.startswith('backbone.') else f'members.{i}.{key}'] for key in alone}
        assert equal(own, alone)
    table = json.loads((tmp_path / 'run/sweep.json').read_text())
    assert table['metric'] == 'accuracy/top1' and list(table['heads']) == ['lr_0.1', 'lr_1.0']


@pytest.mark.parametrize('head', HEADS)
def test_every_head_of_the_configs(tmp_path, head):
    """Two steps and a prediction in two windows; the second of two heads is compared with a model of its own."""
    cfg = find_config(str(small(tmp_path, 'dinov2_s', head)))
    cfg.model.backbone.update(init_cfg=None, prompt=None, temperature=False)
    grid = combinations(['lr=0.1,1.0'])
    step = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9), clip_grad=dict(max_norm=0.1),
                constructor='TrainedPartsConstructor')
    wrapper = dict(step, constructor='SweepConstructor', constructor_of_each=step['constructor'],
                   heads={name: {'optimizer.lr': changes['optim_wrapper.optimizer.lr']}
                          for name, changes in grid.items()})
    made = []
    for model, optimizer in ((dict(type='SweepModel', model=cfg.model, heads={name: {} for name in grid}), wrapper),
                             (cfg.model, dict(step, optimizer=dict(step['optimizer'], lr=1.)))):
        torch.manual_seed(0)
        built = revert_sync_batchnorm(build(model))
        torch.manual_seed(1)
        built.init_weights()
        optimizer = build_optim_wrapper(built, optimizer)
        for i in range(2):
            torch.manual_seed(2 + i)
            built.train().train_step(batch(70, 70), optimizer)
        with torch.no_grad():
            made.append((built, built.eval().val_step(batch(70, 90))))
    (sweep, samples), (alone, expected) = made
    state = sweep.members[1].state_dict()
    assert state and all(torch.equal(value, state[name]) for name, value in heads_of(alone.state_dict()).items())
    for one, other in zip(samples.by_name['lr_1.0'], expected):
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)
    assert sweep.state_dict().keys() == {*(f'backbone.{name}' for name in alone.backbone.state_dict()),
                                         *(f'members.{i}.{name}' for i in (0, 1) for name in state)}


def batch(height: int, width: int) -> dict:
    from mmseg.structures import SegDataSample
    generator = torch.Generator().manual_seed(height + width)
    samples = [SegDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width)), gt_sem_seg=PixelData(
        data=torch.randint(9, (1, height, width), generator=generator))) for _ in range(2)]
    images = torch.randint(256, (2, 3, height, width), dtype=torch.uint8, generator=generator)
    return dict(inputs=list(images), data_samples=samples)


@pytest.mark.slow
def test_under_amp_too(sweep, tmp_path):
    (tmp_path / 'data').symlink_to(sweep / 'data')
    (tmp_path / 'vit.pth').symlink_to(sweep / 'vit.pth')
    options = dict(LINEAR, optim_wrapper__type='Bf16OptimWrapper', train_cfg__max_iters=2)
    kinds = []
    run(swept(tiny_config(tmp_path, **options), ['lr=0.1,0.001'], 'tiny'), At(2, lambda runner, _: kinds.append(
        runner.model.backbone.blocks[0].mlp.fc1.weight.dtype)))
    alone = tiny_config(tmp_path, work_dir=str(tmp_path / 'alone'), optim_wrapper__optimizer__lr=0.001, **options)
    run(alone)
    together = saved(tmp_path, 2)['state_dict']
    own = {key.removeprefix('members.1.'): value for key, value in together.items() if key.startswith('members.1.')}
    assert kinds == [torch.bfloat16]
    assert equal(own, heads_of(read_file(tmp_path / 'alone/iter_2.pth')['state_dict']))


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize('grid, said', [
    (['lr=0.1'], 'needs two values or more'),
    (['lr=0.1,0.1'], 'needs two values or more, which differ'),
    (['model.backbone.patch_size=8,16'], 'model.backbone.patch_size is not a setting in which heads can differ'),
    (['train_cfg.max_iters=1,2'], 'train_cfg.max_iters is not a setting'),
    (['lr=0.1,-1'], 'optim_wrapper.optimizer.lr is -1'),
    (['model.decode_head.dropout_ration=0.1,0.2'], 'dropout_ration'),
])
def test_grids_that_cannot_be_used(tmp_path, grid, said):
    with pytest.raises(SystemExit, match=said):
        swept(tiny_config(tmp_path, **LINEAR), grid, 'tiny')


@pytest.mark.parametrize('options, said', [
    (dict(model__backbone__prompt=dict(_delete_=True, type='ShallowPrompt', num_tokens=2)),
     r'this one trains 1 .*prompt\.tokens'),
    (dict(model__backbone__lora=dict(rank=2)), r'only be swept on a ViT that trains nothing.*lora_a'),
    (dict(model__backbone__frozen=False), 'this config trains the ViT itself'),
    (dict(val_dataloader=None), 'this config does not validate'),
    (dict(launcher='pytorch'), 'without torchrun'),
    (dict(custom_hooks=[dict(type='EMAHook')]), 'EMAHook cannot decide for several heads'),
    (dict(param_scheduler=[dict(type='ReduceOnPlateauLR', monitor='mIoU')]), 'ReduceOnPlateauLR cannot decide'),
])
def test_configs_that_train_more_than_heads(tmp_path, options, said):
    with pytest.raises(SystemExit, match=f'(?s)--sweep-heads: .*{said}'):
        swept(tiny_config(tmp_path, **{**LINEAR, **options}), GRID, 'tiny')


def test_the_config_of_each_head_is_that_of_a_run_of_its_own(tmp_path):
    cfg = tiny_config(tmp_path, **LINEAR)
    grid = ['model.decode_head.dropout_ratio=0,0.5', 'optim_wrapper.clip_grad.max_norm=1,2']
    together = swept(cfg, grid, 'tiny')
    for name, changes in combinations(grid).items():
        alone = cfg.copy()
        alone = Config(alone._cfg_dict.to_dict())
        alone.merge_from_dict(changes)
        found = config_of(together, name)._cfg_dict.to_dict()
        assert {k: v for k, v in found.items() if k not in ('resume', 'load_from')} == {
            k: v for k, v in alone._cfg_dict.to_dict().items() if k not in ('resume', 'load_from')}
    assert [m.decode_head.dropout is None for m in build(together.model).members] == [True, True, False, False]


def test_a_vit_is_asked_once_for_each_image(tiny_vit):
    vit = tiny_vit()
    shared, images = SharedViT(vit), [torch.randn(1, 3, 32, 32).double() for _ in range(3)]
    calls = []
    vit.register_forward_pre_hook(lambda *_: calls.append(1))
    expected = [shared(image) for image in images[:2]]
    shared.rewind()
    assert shared(images[0].clone())[0] is expected[0][0]
    other = shared(images[2])[0]  # another image in this place
    assert len(calls) == 3 and not torch.equal(other, expected[1][0])
    shared.rewind()
    assert shared(images[0])[0] is expected[0][0] and shared(images[1])[0] is expected[1][0]
    expected[0][0].relu_()
    with pytest.raises(RuntimeError, match='writes into the features'):
        shared.rewind()
    assert list(shared.state_dict()) == [] and isinstance(vit, GatedPromptViT)


@pytest.mark.slow
def test_the_tool_refuses_at_once(tmp_path):
    root = Path(engine.__file__).parents[2]
    command = [sys.executable, root / 'tools/train.py', 'setr_pup_gpt_mae_ade20k', '--sweep-heads', 'lr=1e-3,1e-2']
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path,
                            env=environment_of(root))
    assert result.returncode == 1 and 'trains 3 of its tensors (temperature, ...)' in result.stderr
