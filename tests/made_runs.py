"""Work directories as trained and tested runs leave them, without training: made-up numbers under real settings.

And the tools that read them, in this process.
"""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmseg_gpt.engine.config import find_config
from mmseg_gpt.settings import settings_of

ROOT = Path(__file__).parents[1]


def make_run(folder: Path, config: str | Config, number: float, seed: int = 0, log: tuple[dict, ...] = (),
             per_class: dict | None = None, tta: float | None = None, parameters: tuple[int, int] = (200, 1000),
             iterations: int = 100, **settings) -> Path:
    """Writes checkpoint, metrics and log of a run into ``folder``.

    Args:
        folder: Its work directory.
        config: Of its settings: a config, or the name of a file in configs/ or of an experiment.
        number: Its score, in percent.
        seed: Of the run.
        log: Lines of its log; no log if there are none.
        per_class: The IoU of each class.
        tta: The multi-scale score.
        parameters: Trained, and in all.
        iterations: That it was trained for.
        **settings: Other settings, with ``__`` for dots.
    """
    folder.mkdir(parents=True)
    if isinstance(config, str):
        file = ROOT / f'configs/{config}.py'
        config = find_config(str(file) if file.is_file() else config)
    config.merge_from_dict({key.replace('__', '.'): value for key, value in settings.items()})
    torch.save(dict(meta=dict(settings=settings_of(config), seed=seed, iter=iterations), state_dict={}),
               folder / 'last.pth')
    (folder / 'last_checkpoint').write_text(str(folder / 'last.pth'))
    name = 'accuracy/top1' if config.default_scope == 'mmpretrain' else 'mIoU'
    for file, value in (('metrics.json', number), ('metrics_tta.json', tta)):
        if value is not None:
            (folder / file).write_text(json.dumps({
                'checkpoint': 'elsewhere/last.pth', name: value, 'per_class': per_class or {},
                'parameters': dict(zip(('trained', 'total'), parameters))}))
    if log:
        (folder / '20260101_000000/vis_data').mkdir(parents=True)
        (folder / '20260101_000000/vis_data/scalars.json').write_text(
            '\n'.join(json.dumps(dict(line, iter=i, step=i)) for i, line in enumerate(log, 1)))
    return folder


def run_tool(monkeypatch: pytest.MonkeyPatch, tool: str, *arguments: object) -> None:
    """Runs a tool."""
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    monkeypatch.setattr(sys, 'argv', [f'tools/{tool}.py', *map(str, arguments)])
    runpy.run_path(str(ROOT / f'tools/{tool}.py'), run_name='__main__')
