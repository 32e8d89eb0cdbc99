"""What a run writes: whole files or none, plain types, no NaN, and files without the frozen ViT."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import OrderedDict, defaultdict
from enum import IntEnum
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS
from tiny_run import At, differing, next_name, run, saved, tiny_config

import mmseg_gpt.checkpoints.write as write
from mmseg_gpt.adapters import load_model_state, unwrap
from mmseg_gpt.checkpoints import CheckpointError, read_file
from mmseg_gpt.checkpoints.plain_types import from_plain, to_plain
from mmseg_gpt.checkpoints.write import write_checkpoint
from mmseg_gpt.engine import AtomicCheckpointHook, Runner
from mmseg_gpt.engine.resume import newest_checkpoint
from mmseg_gpt.files import replacing

CONTENT = dict(state_dict=dict(a=torch.arange(1e5), b=torch.zeros(3)), meta=dict(iter=1))


# --- atomic ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_random_moments_of_saving(tmp_path):
    kills = 200
    done = subprocess.run([sys.executable, Path(__file__).with_name('kill_saving.py'), tmp_path, str(kills)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    left = json.loads(done.stdout.splitlines()[-1])
    assert len(left) == kills
    assert all(each['whole'] and not each['lost'] for each in left)
    assert len({each['iteration'] for each in left}) > kills / 4, 'it was hardly ever killed while it saved'
    # One is kept; the one before it and an unfinished one can be left, and the next start removes both.
    assert max(each['files'] for each in left) <= 3
    run(tiny_config(tmp_path, resume=True, train_cfg__max_iters=left[-1]['iteration'] + 1,
                    default_hooks__checkpoint__max_keep_ckpts=1))


@pytest.fixture
def good(tmp_path) -> Path:
    """A checkpoint that is there already."""
    write_checkpoint(CONTENT, tmp_path / 'run/good.pth')
    return tmp_path / 'run/good.pth'


def too_large(limit: int):
    """Lets the operating system refuse files over ``limit`` bytes."""

    def set_up(monkeypatch, path):
        former = resource.getrlimit(resource.RLIMIT_FSIZE)
        monkeypatch.callback(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, former))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, former[1]))
        return os.strerror(errno.EFBIG)

    return set_up


def no_space(monkeypatch, path):
    """The device /dev/full, where the operating system finds no space."""
    monkeypatch.setattr('mmseg_gpt.files.token_hex', lambda size: 'full')
    path.with_name(path.name + '.full.unfinished').symlink_to('/dev/full')
    return os.strerror(errno.ENOSPC)


def failing(module, function: str, number: int, call: int = 1):
    """Lets the given call of an operating system function fail."""

    def set_up(monkeypatch, path):
        original, calls = getattr(module, function), []

        def fail(*args, **kwargs):
            calls.append(args)
            if len(calls) == call:
                raise OSError(number, os.strerror(number))
            return original(*args, **kwargs)

        monkeypatch.setattr(module, function, fail)
        return os.strerror(number)

    return set_up


def is_a_folder(monkeypatch, path):
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / 'file').touch()
    return 'irectory'


FAILURES = [
    *(too_large(limit) for limit in (0, 1, 100, 1000, 4096, 30_000, 100_000, 300_000, 399_999, 400_500)),
    no_space,
    failing(os, 'fsync', errno.ENOSPC), failing(os, 'fsync', errno.EIO), failing(os, 'fsync', errno.EDQUOT),
    failing(os, 'replace', errno.EACCES), failing(os, 'replace', errno.EROFS), failing(os, 'replace', errno.ENOSPC),
    failing(write, 'seal', errno.EIO), failing(write, 'seal', errno.ENOSPC),
    failing(torch, 'save', errno.EACCES), failing(torch, 'save', errno.ENOSPC),
    failing(os, 'open', errno.EMFILE),
]


class Patch(pytest.MonkeyPatch):
    """A monkeypatch that also calls functions when it is undone."""

    def __init__(self) -> None:
        super().__init__()
        self.callbacks = []

    def callback(self, function) -> None:
        self.callbacks.append(function)

    def undo(self) -> None:
        for function in self.callbacks:
            function()
        super().undo()


@pytest.mark.parametrize('new', [False, True], ids=['overwriting', 'another name'])
@pytest.mark.parametrize('failure', FAILURES)
def test_a_write_that_fails_leaves_what_was_there(good, failure, new):
    path = good.with_name('next.pth') if new else good
    before = good.read_bytes()
    patch = Patch()
    try:
        cause = failure(patch, path)
        with pytest.raises(CheckpointError, match=r'could not be written.*intact.*--resume') as error:
            write_checkpoint(dict(CONTENT, more=torch.ones(10)), path)
    finally:
        patch.undo()
    assert cause in str(error.value)
    assert good.read_bytes() == before and [f.name for f in good.parent.iterdir()] == ['good.pth']


def test_two_writers_of_one_file_do_not_share_what_is_unfinished(tmp_path):
    with replacing(tmp_path / 'a.txt') as one:
        one.write_text('half of')
        with replacing(tmp_path / 'a.txt') as other:
            other.write_text('the other')
        assert (tmp_path / 'a.txt').read_text() == 'the other'
        one.write_text('all of the one')
    assert (tmp_path / 'a.txt').read_text() == 'all of the one' and len([*tmp_path.iterdir()]) == 1


def test_what_a_killed_writer_has_left_goes_when_no_writer_can_be_at_it_any_more(tmp_path):
    names = ['a.txt.00c0ffee.unfinished', 'b.pth.00c0ffee.unfinished', 'novel.unfinished', 'c.txt.00c0ffee.unfinished']
    for name in names:
        (tmp_path / name).touch()
    for name in names[:3]:
        os.utime(tmp_path / name, (time.time() - 25 * 3600, ) * 2)
    with replacing(tmp_path / 'a.txt') as one:
        one.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.txt', *names[:1:-1]]


def test_a_folder_in_the_way(good):
    is_a_folder(None, good.with_name('next.pth'))
    with pytest.raises(CheckpointError, match='could not be written'):
        write_checkpoint(CONTENT, good.with_name('next.pth'))
    assert read_file(good)


def test_the_disk_fills_during_a_run(tmp_path, monkeypatch):
    """The run ends with the reason, and what it had saved is resumed."""
    fill = At(3, lambda runner, batch: no_space(monkeypatch, tmp_path / 'run/iter_4.pth'))
    with pytest.raises(CheckpointError, match=f'iter_4.pth could not be written: {os.strerror(errno.ENOSPC)}'):
        run(tiny_config(tmp_path), fill)
    assert newest_checkpoint(tmp_path / 'run').name == 'iter_2.pth'
    assert run(tiny_config(tmp_path, resume=True)).iter == 6


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_never_written(good, value):
    before = good.read_bytes()
    with pytest.raises(CheckpointError, match='1 of its weights are not finite: b'):
        write_checkpoint(dict(state_dict=dict(a=torch.ones(2), b=torch.tensor([1., value]))), good)
    assert good.read_bytes() == before


def test_pruning_and_the_best_checkpoint(tmp_path):
    runner = run(tiny_config(
        tmp_path, default_hooks__checkpoint__max_keep_ckpts=2, default_hooks__checkpoint__interval=1,
        default_hooks__checkpoint__save_best='mIoU', train_cfg__val_interval=2))
    names = sorted(f.name for f in (tmp_path / 'run').glob('*.pth'))
    assert [n for n in names if n.startswith('iter')] == ['iter_5.pth', 'iter_6.pth']
    best = runner.message_hub.get_info('best_ckpt')
    assert [n for n in names if n.startswith('best')] == [Path(best).name]
    assert Path((tmp_path / 'run/last_checkpoint').read_text()).name == 'iter_6.pth'


def test_the_best_is_kept_without_being_asked_for_and_through_a_resumption(tmp_path):
    options = dict(train_cfg__val_interval=2, default_hooks__checkpoint__interval=2)
    first = run(tiny_config(tmp_path, train_cfg__max_iters=4, **options))
    again = run(tiny_config(tmp_path, resume=True, load_from=str(tmp_path / 'run/iter_4.pth'), **options))
    scores = again.message_hub.get_scalar('val/mIoU').data[0]
    assert len(scores) == 3 and again.message_hub.get_info('best_score') == max(scores)
    best, = (tmp_path / 'run').glob('best_*.pth')
    assert best.name == f'best_mIoU_iter_{2 + 2 * int(np.argmax(scores))}.pth'
    assert first.message_hub.get_info('best_score') == max(scores[:2])


@pytest.mark.parametrize('options', [
    dict(train_cfg__val_interval=6), dict(train_cfg__val_interval=2, default_hooks__checkpoint__save_best=None)])
def test_no_best_is_kept_of_a_single_validation_or_where_none_is_wanted(options, tmp_path):
    run(tiny_config(tmp_path, **options))
    assert not list((tmp_path / 'run').glob('best_*.pth'))


def test_the_new_best_is_written_before_the_old_is_removed(tmp_path, monkeypatch):
    """Two validations, the second better; at its write the first's file must be there still."""
    cfg = tiny_config(tmp_path)
    cfg.experiment_name = next_name()
    cfg.default_hooks.checkpoint.save_best = 'mIoU'
    runner = Runner.from_cfg(cfg)
    runner.train()
    hook = next(h for h in runner.hooks if isinstance(h, AtomicCheckpointHook))
    hook._save_best_checkpoint(runner, dict(mIoU=200.))
    first = Path(hook.best_ckpt_path)
    monkeypatch.setattr(runner.train_loop, '_iter', 7)
    seen = []
    original = runner.save_checkpoint
    monkeypatch.setattr(runner, 'save_checkpoint', lambda *a, **k: (seen.append(first.exists()), original(*a, **k)))
    hook._save_best_checkpoint(runner, dict(mIoU=300.))
    assert seen[0] and not first.exists() and Path(hook.best_ckpt_path).exists()
    hook._save_best_checkpoint(runner, dict(mIoU=400.))  # under the same name
    assert Path(hook.best_ckpt_path).exists()


def test_the_best_of_another_run_is_not_removed(tmp_path):
    best = dict(default_hooks__checkpoint__save_best='mIoU')
    first = run(tiny_config(tmp_path, **best)).message_hub.get_info('best_ckpt')
    cfg = tiny_config(tmp_path, resume=True, load_from=str(tmp_path / 'run/iter_6.pth'),
                      work_dir=str(tmp_path / 'branch'), train_cfg__max_iters=7, **best)
    runner = run(cfg)
    hook = next(h for h in runner.hooks if isinstance(h, AtomicCheckpointHook))
    hook._save_best_checkpoint(runner, dict(mIoU=300.))
    assert Path(first).exists() and Path(hook.best_ckpt_path).parent == tmp_path / 'branch'


# --- plain types -----------------------------------------------------------------------------------


def test_message_hub_survives_as_plain_types(tmp_path):
    buffer = HistoryBuffer()
    for value in range(5):
        buffer.update(float(value), 2)
    hub = dict(log_scalars=dict(loss=buffer), runtime_info=dict(iter=5), resumed_keys=dict(loss=True))
    torch.save(to_plain(hub), tmp_path / 'hub.pth')
    back = from_plain(torch.load(tmp_path / 'hub.pth'))  # torch's default, safe load
    assert back['runtime_info'] == dict(iter=5) and back['resumed_keys'] == dict(loss=True)
    for ours, theirs in zip(back['log_scalars']['loss'].data, buffer.data):
        assert ours.tolist() == theirs.tolist()
    assert back['log_scalars']['loss'].mean(3) == buffer.mean(3)


class Level(IntEnum):
    HIGH = 3


def test_everything_else_becomes_plain_or_is_left_out(tmp_path, log):
    view = torch.arange(1e6)[:3]
    value = dict(array=np.arange(3), scalar=np.float32(0.5), ordered=OrderedDict(a=1), default=defaultdict(list, b=[2]),
                 level=Level.HIGH, parameter=torch.nn.Parameter(torch.ones(2)), view=view, nested=[(1, {'x'})],
                 long=np.longdouble(0.5), big_endian=np.arange(3, dtype='>i4'), sparse=torch.eye(2).to_sparse(),
                 stranger=dict(path=Path('x')))
    write_checkpoint(value, tmp_path / 'a.pth')
    back = torch.load(tmp_path / 'a.pth')  # torch's default, safe load
    assert back['array'].tolist() == [0, 1, 2] and back['scalar'] == 0.5 and type(back['scalar']) is float
    assert back['ordered'] == dict(a=1) and back['default'] == dict(b=[2]) and type(back['default']) is dict
    assert back['long'] == 0.5 and back['big_endian'].tolist() == [0, 1, 2] and back['sparse'].to_dense()[1, 1] == 1
    assert back['level'] == 3 and type(back['level']) is int and back['nested'] == [(1, {'x'})]
    assert type(back['parameter']) is torch.Tensor and back['view'].tolist() == [0, 1, 2]
    assert (tmp_path / 'a.pth').stat().st_size < 10_000, 'the whole tensor behind the view was saved'
    assert back['stranger']['path'] is None
    assert any('checkpoint.stranger.path is left out' in r.getMessage() for r in log)


def test_stock_message_hub_does_not_load_safely(tmp_path):
    """The reason for all this: it can go when this fails."""
    torch.save(dict(hub=HistoryBuffer([1.], [1.])), tmp_path / 'hub.pth')
    with pytest.raises(Exception, match=r'[Ww]eights.only'):
        torch.load(tmp_path / 'hub.pth')


class Keeps(Hook):
    """A hook of the user's that saves an object of its own."""

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['mine'] = self


def test_a_run_s_checkpoint_loads_with_torch_s_defaults(tmp_path):
    run(tiny_config(tmp_path, train_cfg__max_iters=2), Keeps())
    checkpoint = torch.load(tmp_path / 'run/iter_2.pth')
    assert checkpoint['meta']['iter'] == 2 and checkpoint['mine'] is None
    assert checkpoint['meta']['dataset_meta']['classes'][:2] == ('wall', 'building')


# --- without the frozen ViT ------------------------------------------------------------------------


@pytest.fixture(scope='module')
def adapters(tmp_path_factory) -> Path:
    """A run that saves adapters only."""
    folder = tmp_path_factory.mktemp('adapters')
    run(tiny_config(folder, default_hooks__checkpoint__adapter_only=True))
    return folder


def test_adapter_only_holds_what_was_trained_and_the_buffers(adapters, tmp_path):
    checkpoint = saved(adapters, 6)
    model = unwrap(MODELS.build(tiny_config(adapters).model))
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert set(checkpoint['state_dict']) == set(model.state_dict()) - frozen and len(frozen) > 100
    assert checkpoint['meta']['frozen']['source'] == 'vit.pth' and len(checkpoint['meta']['frozen']['sha256']) == 64


def test_adapter_only_resumes_and_loads_like_a_whole_one(adapters, tmp_path):
    folder = shutil.copytree(adapters, tmp_path / 'copy')
    for name in ('iter_6.pth', 'last_checkpoint'):
        (folder / 'run' / name).unlink()
    adapter_only = dict(default_hooks__checkpoint__adapter_only=True)
    run(tiny_config(folder, resume=True, **adapter_only))
    assert differing(saved(adapters, 6), saved(folder, 6)) == []
    whole = tmp_path / 'whole'
    run(tiny_config(whole))
    cfg = tiny_config(adapters)
    cfg.load_from, cfg.experiment_name = str(adapters / 'run/iter_6.pth'), next_name()
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()  # as tools/test.py does: nobody has called init_weights
    for name, value in saved(whole, 6)['state_dict'].items():
        assert torch.equal(runner.model.state_dict()[name], value), name


def fresh_model(folder: Path, **options) -> torch.nn.Module:
    return MODELS.build(tiny_config(folder, **options).model)


def test_adapters_of_another_vit_are_refused(adapters, tmp_path):
    other = {k: v + 1e-3 for k, v in read_file(adapters / 'vit.pth').items()}
    torch.save(other, tmp_path / 'other.pth')
    torch.save(dict(model=read_file(adapters / 'vit.pth')), tmp_path / 'same.pth')  # another file, the same weights
    path, key = adapters / 'run/iter_6.pth', 'model__backbone__init_cfg__checkpoint'
    with pytest.raises(CheckpointError, match=r'adapters of another ViT than .*other\.pth.* vit\.pth \(SHA-256'):
        load_model_state(fresh_model(adapters, **{key: str(tmp_path / 'other.pth')}), read_file(path), path)
    load_model_state(fresh_model(adapters, **{key: str(tmp_path / 'same.pth')}), read_file(path), path)
    state = read_file(path)
    state['meta']['frozen']['pos_embed'] = [1, 65, 24]
    with pytest.raises(CheckpointError, match=r'another img_size .* \[1, 65, 24\]'):
        load_model_state(fresh_model(adapters), state, path)
    with pytest.raises(CheckpointError, match='init_cfg'):
        load_model_state(fresh_model(adapters, model__backbone__init_cfg=None), read_file(path), path)
    with pytest.raises(CheckpointError, match='this config has 0'):
        load_model_state(fresh_model(adapters, model__backbone__frozen=False), read_file(path), path)


def test_adapter_only_of_something_else_than_the_source_is_refused_at_the_start(adapters, tmp_path):
    run(tiny_config(tmp_path, train_cfg__max_iters=2))
    checkpoint = saved(tmp_path, 2)
    checkpoint['state_dict']['backbone.cls_token'] += 1
    write_checkpoint(checkpoint, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match='the frozen ViT is not the one in'):
        run(tiny_config(tmp_path, load_from=str(tmp_path / 'other.pth'), default_hooks__checkpoint__adapter_only=True))
    with pytest.raises(ValueError, match='EMAHook'):
        run(tiny_config(tmp_path, custom_hooks=[dict(type='EMAHook')], default_hooks__checkpoint__adapter_only=True))
    with pytest.raises(CheckpointError, match='needs one frozen'):
        run(tiny_config(tmp_path, model__backbone__frozen=False, default_hooks__checkpoint__adapter_only=True))
