"""A resumed run is the run that was not interrupted, bit for bit; and what cannot be resumed is refused."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, get_priority
from tiny_run import At, differing, next_name, run, saved, tiny_config

import mmseg_gpt.engine as engine
from mmseg_gpt.checkpoints import CheckpointError, read_file
from mmseg_gpt.checkpoints.write import write_checkpoint
from mmseg_gpt.engine import AtomicCheckpointHook, Runner
from mmseg_gpt.engine.hooks.missed_validation import is_due
from mmseg_gpt.engine.reproducible import PlaceSampler, SeededDataset, seed_generators
from mmseg_gpt.engine.resume import check_same_start, newest_checkpoint

EPOCHS = dict(  # 3 iterations each
    train_cfg=dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=2, val_interval=100),
    train_dataloader__sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    default_hooks__checkpoint__by_epoch=True, log_processor__by_epoch=True)
FINITE = dict(train_dataloader__sampler=EPOCHS['train_dataloader__sampler'])  # restarted every 3 iterations


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> Path:
    """A folder with a run of 6 iterations."""
    folder = tmp_path_factory.mktemp('whole')
    run(tiny_config(folder))
    return folder


@pytest.fixture
def part(whole, tmp_path) -> Path:
    """A copy of it, interrupted after iteration 4."""
    shutil.copytree(whole, tmp_path / 'copy')
    (tmp_path / 'copy/run/iter_6.pth').unlink()
    (tmp_path / 'copy/run/last_checkpoint').write_text(str(tmp_path / 'copy/run/iter_4.pth'))
    return tmp_path / 'copy'


# --- bit for bit -----------------------------------------------------------------------------------


@pytest.mark.parametrize('workers', [0, 2])
def test_resumed_equals_uninterrupted(whole, part, workers):
    run(tiny_config(part, resume=True, train_dataloader__num_workers=workers))
    assert differing(saved(whole, 6), saved(part, 6)) == []
    assert multiprocessing.active_children() == []


def test_the_last_iterations_changed_something(whole):
    """Or else the test above would show nothing."""
    changed = differing(saved(whole, 4), saved(whole, 6))
    assert {'state_dict.backbone.prompt.tokens', 'state_dict.decode_head.conv_seg.weight'} <= set(changed)
    assert any(name.startswith('optimizer') for name in changed)


def stop_and_go(folder: Path, at: int = 4, stops: int | None = None, **options) -> list[str]:
    """Trains, trains again with SIGTERM in iteration ``at``, resumes, and says in what the two ends differ."""
    stops = stops or at
    kind, last = ('epoch', 2) if options.get('default_hooks__checkpoint__by_epoch') else ('iter', 6)
    seed = run(tiny_config(folder, work_dir=str(folder / 'whole'), **options)).seed
    for going_on in (False, True):
        # Without a seed in the config, the second run draws one of its own; for the comparison it gets the first's.
        again = tiny_config(folder, resume=going_on, **({} if going_on else dict(randomness__seed=seed)), **options)
        if going_on:
            run(again)
        else:
            with pytest.raises(SystemExit) as stopped:
                run(again, At(at, lambda runner, batch: os.kill(os.getpid(), signal.SIGTERM)))
            assert stopped.value.code == 128 + signal.SIGTERM
            assert (folder / 'run/last_checkpoint').read_text() == str(folder / f'run/iter_{stops}.pth')
            assert saved(folder, stops)['meta']['iter'] == stops
    one, other = (read_file(folder / where / f'{kind}_{last}.pth') for where in ('whole', 'run'))
    return differing(one, other)


@pytest.mark.parametrize('options', [
    dict(optim_wrapper__optimizer=dict(_delete_=True, type='AdamW', lr=1e-3)),
    dict(model__backbone__prompt__type='HardGatedPrompt', model__backbone__prompt__gate_init=0.),
    pytest.param(dict(FINITE, train_dataloader__num_workers=1), marks=pytest.mark.slow),
    EPOCHS,
], ids=['AdamW', 'hard gates', 'finite sampler', 'inside an epoch'])
def test_stopped_by_a_signal_and_resumed(tmp_path, options):
    assert stop_and_go(tmp_path, **options) == []


EMA = dict(custom_hooks=[dict(type='EMAHook')])


@pytest.mark.parametrize('options', [
    dict(EPOCHS, at=3),
    dict(at=3, stops=4, optim_wrapper__accumulative_counts=2),
    dict(EMA, at=4),
], ids=['end of an epoch', 'accumulating', 'EMA'])
def test_stopped_where_something_is_under_way(tmp_path, options):
    assert stop_and_go(tmp_path, **options) == []


class SignalInValidation(Hook):
    def before_val_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_stopped_in_a_validation_of_averaged_weights(tmp_path):
    """It is made first when the run goes on, so that the best checkpoint is chosen among the same ones."""
    options = dict(EMA, train_cfg__val_interval=3, default_hooks__checkpoint__interval=100)
    whole = run(tiny_config(tmp_path, work_dir=str(tmp_path / 'whole'), **options))
    with pytest.raises(SystemExit):
        run(tiny_config(tmp_path, **options), SignalInValidation())
    assert not list((tmp_path / 'run').glob('best_*.pth'))
    again = run(tiny_config(tmp_path, resume=True, **options))
    assert differing(read_file(tmp_path / 'whole/iter_6.pth'), saved(tmp_path, 6)) == []
    scores, others = (each.message_hub.get_scalar('val/mIoU').data[0].tolist() for each in (whole, again))
    assert len(scores) == 2 and scores == others
    best, other = ([path.name for path in (tmp_path / place).glob('best_*.pth')] for place in ('whole', 'run'))
    assert len(best) == 1 and best == other


def test_stopping_early_counts_on_where_a_run_was_interrupted():
    runner = SimpleNamespace(message_hub=MessageHub('early'), train_loop=SimpleNamespace(stop_training=False),
                             logger=logging.getLogger())
    stopped = []
    for scores in ((5., 4.), (5., )):  # of a run and of its resumption
        hook = HOOKS.build(dict(type='EarlyStoppingHook', monitor='mIoU', patience=2))
        hook.before_train(runner)
        for score in scores:
            hook.after_val_epoch(runner, dict(mIoU=score))
            stopped.append(runner.train_loop.stop_training)
    assert stopped == [False, False, True]
    assert get_priority(hook.priority) < get_priority(AtomicCheckpointHook.priority)


@pytest.mark.parametrize('kind, done, iteration, due', [
    (IterBasedTrainLoop, 0, 0, False), (IterBasedTrainLoop, 0, 3, False), (IterBasedTrainLoop, 0, 4, True),
    (IterBasedTrainLoop, 0, 7, True), (EpochBasedTrainLoop, 4, 20, True), (EpochBasedTrainLoop, 4, 22, False),
    (EpochBasedTrainLoop, 5, 25, False), (EpochBasedTrainLoop, 7, 35, True), (EpochBasedTrainLoop, 0, 0, False)])
def test_where_a_validation_is_due(kind, done, iteration, due):
    """Every 4 iterations or epochs of 5 iterations, and at the end, which is after 7."""
    loop = object.__new__(kind)
    vars(loop).update(_epoch=done, _iter=iteration, _max_iters=7, _max_epochs=7, val_begin=1, val_interval=4,
                      dynamic_milestones=[0], dynamic_intervals=[4, 4], dataloader=range(5))
    assert is_due(loop) == due


def test_resumed_without_a_seed_in_the_config(tmp_path):
    folder = tmp_path
    no_seed = dict(randomness__seed=None)
    run(tiny_config(folder, **no_seed))
    end = saved(folder, 6)
    for name in ('iter_6.pth', 'last_checkpoint'):
        (folder / 'run' / name).unlink()
    runner = run(tiny_config(folder, resume=True, **no_seed))
    assert runner.seed == end['meta']['seed']
    assert differing(end, saved(folder, 6)) == []


def test_another_seed_draws_something_else(whole, tmp_path):
    run(tiny_config(tmp_path, randomness__seed=1))
    assert differing(saved(whole, 2), saved(tmp_path, 2))


def test_resuming_reads_no_data_again(part, monkeypatch):
    read = []
    original = SeededDataset.__getitem__
    monkeypatch.setattr(SeededDataset, '__getitem__', lambda self, place: read.append(place) or original(self, place))
    run(tiny_config(part, resume=True))
    assert [place.position for place in read] == [8, 9, 10, 11]  # iterations 5 and 6 of two images


class Numbers(torch.utils.data.Dataset):
    """A dataset of random numbers, as an augmentation draws them."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple:
        import random
        return index, random.random(), np.random.rand(), torch.rand(()).item()


def numbers(workers: int, skipped: int = 0, count: int = 12) -> list[tuple]:
    """The first samples of a loader over :class:`Numbers` after those skipped."""
    sampler = PlaceSampler(dict(type='InfiniteSampler'), Numbers(), seed=3)
    sampler.skip_to(0, skipped)
    loader = torch.utils.data.DataLoader(SeededDataset(Numbers(), 3), 2, sampler=sampler, num_workers=workers,
                                         collate_fn=list)
    batches = iter(loader)
    return [sample for _ in range(count // 2) for sample in next(batches)]


def test_samples_depend_on_their_place_alone():
    expected = numbers(workers=0)
    assert numbers(workers=3) == expected
    assert numbers(workers=2, skipped=4, count=8) == expected[4:]
    drawn = [value for sample in expected for value in sample[1:]]
    assert len(set(drawn)) == len(drawn), 'a number was drawn twice'


def test_neighbouring_places_are_independent():
    first = []
    for place in range(2000):
        seed_generators(0, 1, place)
        first.append((np.random.rand(), torch.rand(()).item()))
    first = np.array(first)
    assert np.abs(first.mean(0) - 0.5).max() < 0.03 and np.abs(first.std(0) - 12**-0.5).max() < 0.02
    assert abs(np.corrcoef(first[:-1, 0], first[1:, 0])[0, 1]) < 0.08
    assert abs(np.corrcoef(first.T)[0, 1]) < 0.08


# --- from which checkpoint -------------------------------------------------------------------------


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize('change, expected', [
    (lambda run: None, 'iter_6'),
    (lambda run: (run / 'last_checkpoint').unlink(), 'iter_6'),
    (lambda run: (run / 'last_checkpoint').write_text(''), 'iter_6'),
    (lambda run: (run / 'last_checkpoint').write_bytes(b'\0\xff\0'), 'iter_6'),
    (lambda run: (run / 'last_checkpoint').write_text('/gone/iter_8.pth'), 'iter_6'),
    (lambda run: [(run / 'last_checkpoint').write_text('elsewhere/iter_4.pth'),
                  os.utime(run / 'iter_6.pth', (2e9, 2e9))], 'iter_6'),  # killed before the pointer
    (lambda run: damage(run / 'iter_6.pth'), 'iter_4'),
    (lambda run: (run / 'iter_6.pth').write_bytes(b''), 'iter_4'),
    (lambda run: [damage(run / f'iter_{i}.pth') for i in (4, 6)], 'iter_2'),
    (lambda run: shutil.copy(run / 'iter_6.pth', run / 'best_mIoU_iter_9.pth'), 'iter_6'),
])
def test_the_newest_whole_checkpoint_is_found(whole, tmp_path, log, change, expected):
    place = shutil.copytree(whole / 'run', tmp_path / 'run')
    change(place)
    assert newest_checkpoint(place).stem == expected
    warned = [r.getMessage() for r in log if r.levelno == logging.WARNING]
    assert bool(warned) == (expected != 'iter_6' or not (place / 'last_checkpoint').exists()
                            or b'iter_' not in (place / 'last_checkpoint').read_bytes()
                            or b'gone' in (place / 'last_checkpoint').read_bytes())


def test_an_older_run_with_higher_numbers_is_not_taken(whole, tmp_path):
    place = shutil.copytree(whole / 'run', tmp_path / 'run')
    shutil.copy(place / 'iter_6.pth', place / 'iter_900.pth')
    os.utime(place / 'iter_900.pth', (1, 1))
    assert newest_checkpoint(place).stem == 'iter_6'


def test_no_checkpoint_is_a_first_start_and_none_whole_is_an_error(whole, tmp_path):
    assert newest_checkpoint(tmp_path) is None
    place = shutil.copytree(whole / 'run', tmp_path / 'run')
    for i in (2, 4, 6):
        damage(place / f'iter_{i}.pth')
    with pytest.raises(CheckpointError, match=r'(?s)no checkpoint in .*iter_6.pth is damaged.*iter_2.pth is damaged'):
        newest_checkpoint(place)
    cfg = tiny_config(whole, work_dir=str(place))
    with pytest.raises(SystemExit, match='no checkpoint'):
        engine.set_resume(cfg, True)


def test_a_pointer_without_any_checkpoint_is_no_first_start(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('/gone/iter_4.pth')
    with pytest.raises(CheckpointError, match='no checkpoint in'):
        newest_checkpoint(tmp_path)


def test_a_copy_of_a_run_does_not_go_on_with_the_original(whole, tmp_path):
    place = shutil.copytree(whole / 'run', tmp_path / 'run')
    (place / 'iter_6.pth').unlink()  # last_checkpoint names that of the original, by its whole path
    assert newest_checkpoint(place) == place / 'iter_4.pth'


def test_checkpoints_in_another_folder_are_found(whole, tmp_path):
    shutil.copytree(whole / 'run', tmp_path / 'elsewhere/run')
    (tmp_path / 'elsewhere/run/last_checkpoint').unlink()
    found = newest_checkpoint(tmp_path / 'run', tmp_path / 'elsewhere')
    assert found == tmp_path / 'elsewhere/run/iter_6.pth'


def test_of_two_runs_in_a_folder_the_later_one_is_resumed(whole, tmp_path):
    place = shutil.copytree(whole / 'run', tmp_path / 'run')
    shutil.copy(place / 'iter_6.pth', place / 'iter_900.pth')
    os.utime(place / 'iter_900.pth', (1, 1))
    damage(place / 'iter_6.pth')
    assert newest_checkpoint(place).stem == 'iter_4'


def test_a_run_that_was_killed_before_it_saved_leaves_nothing_of_an_earlier_one_to_resume(whole, tmp_path):
    """Started over, and gone back to an older checkpoint."""
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    folder = shutil.copytree(whole, tmp_path / 'copy')
    with pytest.raises(KeyboardInterrupt):
        run(tiny_config(folder), At(1, die))
    assert newest_checkpoint(folder / 'run') is None
    with pytest.raises(KeyboardInterrupt):
        run(tiny_config(folder, resume=True, load_from=str(folder / 'run/iter_2.pth')), At(3, die))
    assert newest_checkpoint(folder / 'run').name == 'iter_2.pth'


def test_the_runner_resumes_the_file_it_is_given(whole):
    cfg = tiny_config(whole)
    cfg.experiment_name = next_name()
    runner = Runner.from_cfg(cfg)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    runner.resume(str(whole / 'run/iter_2.pth'))
    assert runner.iter == 2


def test_weights_loaded_by_hand_are_kept(whole, tmp_path):
    cfg = tiny_config(tmp_path, train_cfg__max_iters=1, optim_wrapper__optimizer__lr=0.)
    cfg.experiment_name = next_name()
    runner = Runner.from_cfg(cfg)
    runner.load_checkpoint(str(whole / 'run/iter_6.pth'))
    runner.train()
    name = 'decode_head.conv_seg.weight'
    assert torch.equal(saved(tmp_path, 1)['state_dict'][name], saved(whole, 6)['state_dict'][name])


def test_another_number_of_samples(part, tmp_path, capsys):
    shutil.copytree(part, tmp_path / 'epochs')
    for folder in (part, tmp_path / 'epochs'):
        for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
            sorted((folder / f'data/{kind}/training').glob(f'*.{suffix}'))[0].unlink()
    run(tiny_config(part, resume=True))
    assert 'had 6 training samples, and now there are 5' in capsys.readouterr().out
    checkpoint = saved(tmp_path / 'epochs', 4)
    settings = json.loads(checkpoint['meta']['settings'])
    settings['train_dataloader']['sampler'] = dict(type='DefaultSampler', shuffle=True)
    checkpoint['meta']['settings'] = json.dumps(settings)
    write_checkpoint(checkpoint, tmp_path / 'epochs/run/iter_4.pth')
    (tmp_path / 'epochs/run/last_checkpoint').unlink()
    with pytest.raises(CheckpointError, match=r'its place in the epochs is lost'):
        run(tiny_config(tmp_path / 'epochs', resume=True, **FINITE))


def test_a_pretrained_file_cannot_be_resumed(whole):
    with pytest.raises(CheckpointError, match=r'lacks .*optimizer.*load_from'):
        run(tiny_config(whole, resume=True, load_from=str(whole / 'vit.pth')))


def test_a_new_run_does_not_overwrite_an_old_one(whole):
    cfg = tiny_config(whole)
    copy = shutil.copy(whole / 'run/iter_2.pth', whole / 'iter_2.pth')
    for resume in (False, str(copy)):
        with pytest.raises(SystemExit, match=r'earlier run.*--resume.*--overwrite'):
            engine.set_resume(cfg.copy(), resume)
    engine.set_resume(cfg, False, overwrite=True)
    assert not cfg.resume
    engine.set_resume(cfg, str(whole / 'run/iter_2.pth'))
    assert cfg.resume


# --- with another config ---------------------------------------------------------------------------


@pytest.mark.parametrize('options, named', [
    (dict(optim_wrapper__optimizer__lr=0.5), r'optim_wrapper\.optimizer\.lr: 0\.001 -> 0\.5'),
    (dict(train_dataloader__batch_size=3), r'train_dataloader\.batch_size: 2 -> 3'),
    (dict(param_scheduler__0__power=1.), r'param_scheduler\.0\.power: 0\.9 -> 1\.0'),
    (dict(optim_wrapper__optimizer=dict(_delete_=True, type='AdamW', lr=1e-3)), r'type: "SGD" -> "AdamW"'),
    (dict(model__backbone__arch__num_layers=11, model__backbone__out_indices=(4, 8, 10)), r'num_layers: 12 -> 11'),
    (dict(model__backbone__prompt__num_tokens=5), r'num_tokens: 4 -> 5'),
    (dict(model__decode_head__num_classes=151), r'decode_head\.num_classes: 150 -> 151'),
    (dict(model__decode_head__dropout_ratio=0.), r'dropout_ratio: 0\.1 -> 0\.0'),
], ids=str)
def test_settings_that_cannot_change_within_a_run(part, options, named):
    with pytest.raises(CheckpointError, match=f'(?s)cannot be resumed with this config.*{named}.*load_from'):
        run(tiny_config(part, resume=True, **options))


def test_other_classes_are_refused(part):
    with pytest.raises(CheckpointError, match=r'cannot be resumed: its run had 150 classes.* has 2 classes'):
        run(tiny_config(part, resume=True, train_dataloader__dataset__metainfo=dict(classes=('wall', 'sky'))))


def test_other_changes_are_said(part, capsys):
    run(tiny_config(part, resume=True, default_hooks__checkpoint__interval=3, train_cfg__max_iters=5))
    said = capsys.readouterr().out
    assert 'default_hooks.checkpoint.interval: 2 -> 3' in said and 'train_cfg.max_iters: 6 -> 5' in said
    assert saved(part, 5)['meta']['iter'] == 5


def test_a_checkpoint_runs_no_code_of_its_meta(part, monkeypatch):
    """MMEngine 0.10.7 executes ``meta['config']`` when it resumes."""
    canary = part / 'canary'
    checkpoint = saved(part, 4)
    checkpoint['meta']['config'] = checkpoint['meta']['cfg'] = f'open({str(canary)!r}, "w")'
    write_checkpoint(checkpoint, part / 'run/iter_4.pth')
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    run(tiny_config(part, resume=True))
    assert saved(part, 6) and not canary.exists()


def test_processes_that_find_other_checkpoints_are_stopped(monkeypatch):
    """As on machines whose work directories have the same name and are not the same folder."""
    monkeypatch.setattr('mmseg_gpt.engine.resume.all_gather_object', lambda mine: [mine, 0])
    check_same_start(None, 'run')
    with pytest.raises(CheckpointError, match='run must be the same folder'):
        check_same_start(dict(meta=dict(iter=4)), 'run')
