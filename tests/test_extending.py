"""Configs that users extend in MMEngine's ways: modules of their own, and the new style with imported classes."""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mmseg import registry as registries
from tiny import ROOT, small_config, write_run

from mmseg_gpt.checkpoints.read import read_file, settings_in
from mmseg_gpt.lab.finished import decisive

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
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.run([sys.executable, ROOT / 'tools' / f'{name}.py', *map(str, arguments)], env=environment,
                          capture_output=True, text=True)


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
