"""Configs that users extend in MMEngine's ways: modules of their own, and the new style with imported classes."""

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment_of
from mmengine.config import Config
from mmseg import registry as registries
from tiny import ROOT, small_config, write_run

from mmseg_gpt import engine
from mmseg_gpt.apis import load_task
from mmseg_gpt.checkpoints.read import read_file, settings_in
from mmseg_gpt.checks import keys
from mmseg_gpt.engine.config import find_config, load_config
from mmseg_gpt.lab.finished import decisive
from mmseg_gpt.settings import settings_of, type_name

CHILD = '''
from mmengine.config import read_base
from mmengine.optim import OptimWrapper
import torch.optim as optim

with read_base():
    from .base import *

optim_wrapper.merge(dict(type=OptimWrapper, optimizer=dict(type=optim.SGD, lr=0.01, weight_decay=0., _delete_=True)))
train_cfg.update(max_iters=2, val_interval=2)
default_hooks['checkpoint'].update(interval=1, save_optimizer=True, filename_tmpl='iter_{}.pth')
'''


def class_of(name: str) -> type | None:
    """Finds the class that is registered under a name, if it can be imported by that name too."""
    found = (getattr(registries, r).get(name) for r in ('MODELS', 'DATASETS', 'TRANSFORMS', 'HOOKS', 'LOOPS', 'METRICS',
                                                       'DATA_SAMPLERS', 'OPTIM_WRAPPERS', 'VISUALIZERS', 'VISBACKENDS'))
    return next((each for each in found if inspect.isclass(each) and each.__name__ == name), None)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A tiny run in the current folder, with ``new.py``, its config in the new style, on top of ``base.py``."""
    monkeypatch.chdir(write_run(tmp_path))
    monkeypatch.setattr(sys, 'path', [*sys.path])
    return tmp_path


def write_new_style(folder: Path) -> Path:
    """Writes small.py once more, with classes that are imported in the place of their names."""
    import mmseg.datasets
    import mmseg.engine
    import mmseg.evaluation
    import mmseg.models
    import mmseg.visualization  # noqa: F401
    cfg = small_config()
    text, imports = cfg.pretty_text, []
    for name in sorted(set(re.findall(r"type='(\w+)'", text))):
        if found := class_of(name):
            imports.append(f'from {found.__module__} import {name}')
            text = re.sub(rf"type='{name}'", f'type={name}', text)
    assert len(imports) > 20
    (folder / 'base.py').write_text('\n'.join([*imports, text]))
    (folder / 'new.py').write_text(CHILD)
    return folder / 'new.py'


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ROOT / 'tools' / f'{name}.py', *map(str, arguments)], env=environment_of(),
                          capture_output=True, text=True)


@pytest.mark.slow
def test_a_config_of_the_new_style_trains_resumes_and_is_tested(folder):
    new = write_new_style(folder)
    done = tool('train', new, '--work-dir', 'run')
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    settings = settings_in(read_file(folder / 'run/iter_2.pth'))
    assert settings['model']['type'] == 'LeanEncoderDecoder' and settings['optim_wrapper']['optimizer']['type'] == 'SGD'
    assert decisive(settings)['train_dataloader.dataset.type'] == 'BaseSegDataset'
    (folder / 'run/last_checkpoint').write_text('run/iter_1.pth')
    (folder / 'run/iter_2.pth').unlink()
    done = tool('train', new, '--work-dir', 'run', '--resume')
    assert done.returncode == 0 and 'resumed from run/iter_1.pth' in done.stdout, done.stderr[-3000:]
    for config in (new, 'run/new.py'):  # the second is what MMEngine has written: places, not classes
        done = tool('test', config, 'run/iter_2.pth', '--work-dir', 'run', '--show-dir', 'shown', '--tta')
        assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((folder / 'run/metrics_tta.json').read_text())['tested']['model_test_cfg']['mode'] == 'whole'
    done = tool('train', 'run/new.py', '--work-dir', 'run', '--resume')
    assert done.returncode == 0, done.stderr[-3000:]


def with_imports(folder: Path, imports: str) -> Path:
    """Writes a config on top of one of ours, with ``custom_imports`` in the place of ours."""
    (folder / 'mine.py').write_text(f"_base_ = '{ROOT / 'configs/setr_pup_gpt_mae_ade20k.py'}'\n"
                                    f'custom_imports = dict(imports={imports}, allow_failed_imports=False)\n')
    return folder / 'mine.py'


def test_imports_of_a_config_are_added_to_ours_and_found_beside_it(folder):
    (folder / 'beside_the_config.py').write_text(
        'from mmseg.registry import MODELS\nclass Mine: pass\nMODELS.register_module(module=Mine, force=True)\n')
    cfg = find_config(str(with_imports(folder, ['beside_the_config'])))
    assert cfg.custom_imports.imports == ['mmseg_gpt', 'mmseg_gpt.segmentation', 'beside_the_config']
    assert registries.MODELS.get('Mine') and registries.MODELS.get('LeanEncoderDecoder')


def test_imports_that_name_ours_stay_as_they_are(folder):
    own = find_config(str(ROOT / 'configs/setr_pup_gpt_mae_ade20k.py'))
    assert own.custom_imports == dict(imports=['mmseg_gpt', 'mmseg_gpt.segmentation'])
    assert find_config(str(with_imports(folder, ['mmseg_gpt', 'json']))).custom_imports.imports == ['mmseg_gpt', 'json']


@pytest.mark.parametrize('module, text, words', [
    ('absent_module', None, "custom_imports names absent_module, which cannot be imported: ModuleNotFoundError"),
    ('needs_absent', 'import nowhere', "needs_absent, which cannot be imported: ModuleNotFoundError(\"No module named "
     "'nowhere'"),
    ('broken', 'def (', 'broken, which cannot be imported: SyntaxError'),
    ('fails', '1 / 0', 'fails, which cannot be imported: ZeroDivisionError'),
])
def test_an_import_that_fails_says_which_and_why(module, text, words, folder):
    if text:
        (folder / f'{module}.py').write_text(text)
    with pytest.raises(SystemExit) as error:
        find_config(str(with_imports(folder, [module])))
    assert words in str(error.value) and 'mmpretrain' not in str(error.value)


@pytest.mark.parametrize('text, words', [
    ('from mmengine.optim import Nowhere\nmodel = dict(type=Nowhere)', 'Nowhere'),
    ('from nowhere_at_all import Thing\nmodel = dict(type=Thing)', 'nowhere_at_all'),
    ('model = dict(', 'cannot be read as a config'),
    ("with open('x'):\n    pass", 'cannot be read as a config'),
])
def test_a_new_config_that_fails_says_why(text, words, folder):
    (folder / 'wrong.py').write_text(text)
    with pytest.raises(SystemExit, match=words):
        find_config('wrong.py')


def test_classes_in_a_config_are_written_as_places_and_compared_by_names(folder):
    cfg = load_config(write_new_style(folder))
    assert inspect.isclass(cfg.model.type) and type_name(cfg.model) == 'LeanEncoderDecoder'
    assert not cfg.keys() & {'OptimWrapper', 'optim', 'read_base'}
    assert keys.misspelt_keys(cfg) == []
    assert json.loads(settings_of(cfg))['optim_wrapper']['optimizer']['type'] == 'SGD'
    cfg.dump('written.py')
    written = Config.fromfile('written.py')
    assert written.optim_wrapper.optimizer.type == 'torch.optim.SGD'
    assert written.model.type == 'mmseg_gpt.segmentation.LeanEncoderDecoder'


def test_a_task_is_served_from_a_config_of_the_new_style(folder):
    new = write_new_style(folder)
    cfg = load_config(new)
    cfg.work_dir = 'served'
    runner = engine.Runner.from_cfg(cfg)
    runner.train()
    task = load_task('mine', new, 'served/iter_2.pth')
    image = next((folder / 'data/images/validation').iterdir())
    assert task.predict([task.prepare(image)])[0].pred_sem_seg.data.shape == (1, 37, 45)


# --- a test without the data of the training -----------------------------------------------------------------


@pytest.mark.slow
def test_a_test_with_pictures_needs_no_training_data(folder):
    done = tool('train', 'small.py', '--work-dir', 'run', '--auto-scale-lr')
    assert done.returncode and 'auto_scale_lr.base_batch_size=N' in done.stderr
    done = tool('train', 'small.py', '--work-dir', 'run', '--auto-scale-lr', '--cfg-options',
                'auto_scale_lr.base_batch_size=4')
    assert done.returncode == 0 and 'Scaling the original LR by 0.5' in done.stdout, done.stderr[-2000:]
    shutil.rmtree('data/images/training')
    shutil.rmtree('data/annotations/training')
    done = tool('test', 'small.py', 'run/adapted.pth', '--work-dir', 'run', '--show-dir', 'shown', '--out', 'labels')
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(Path('shown').rglob('*.png'))) == 2 and len(list(Path('labels').rglob('*.png'))) == 2
