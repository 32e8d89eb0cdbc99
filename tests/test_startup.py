"""What is imported when: nothing heavy before the arguments are right, nothing that a segmentation does not need."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from tiny import write_run

from mmseg_gpt.checkpoints.export import EXPORTS
from mmseg_gpt.convert import AS_IS

ROOT = Path(__file__).parents[1]
TOOLS = sorted(path for path in (ROOT / 'tools').glob('*.py') if path.stem != 'arguments')
HEAVY = ('torch', 'numpy', 'cv2', 'matplotlib', 'mmengine', 'mmseg', 'mmseg_gpt')

# Runs a tool, then prints which of the named modules have been imported.
RUN = """
import json, runpy, sys
tool, names, *sys.argv[1:] = sys.argv[1:]
sys.path.insert(0, tool.rpartition('/')[0])
code = 0
try:
    runpy.run_path(tool, run_name='__main__')
except SystemExit as end:
    code = end.code
facts = dict(code=code, imported=[name for name in json.loads(names) if sys.modules.get(name)])
"""
PRINT = "print('FACTS' + json.dumps(facts))"


def run(code: str, tool: Path, names: tuple[str, ...], *arguments: str, folder: Path = ROOT) -> dict:
    """Runs ``code`` on a tool in an interpreter of its own, and gives the facts it prints."""
    done = subprocess.run([sys.executable, '-c', code + PRINT, str(tool), json.dumps(names), *arguments], cwd=folder,
                          text=True, capture_output=True, env={**os.environ, 'OMP_NUM_THREADS': '1'}, check=False)
    assert 'FACTS' in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(done.stdout.rpartition('FACTS')[2])


@pytest.mark.parametrize('arguments, code', [(('--help', ), 0), (('a.py', 'b.pth', '--no-such-option'), 2)])
@pytest.mark.parametrize('tool', TOOLS, ids=lambda path: path.stem)
def test_arguments_are_parsed_before_anything_heavy_is_imported(tool, arguments, code):
    assert run(RUN, tool, HEAVY, *arguments) == dict(code=code, imported=[])


def test_a_setting_without_a_value_is_refused_at_once():
    assert run(RUN, ROOT / 'tools/train.py', HEAVY, 'a.py', '--cfg-options', 'x.y') == dict(code=2, imported=[])


def test_the_layouts_a_tool_offers_are_those_that_can_be_written():
    known = f'import convert_checkpoint as tool; assert tool.LAYOUTS == {(*EXPORTS, AS_IS)}'
    subprocess.run([sys.executable, '-c', known], cwd=ROOT / 'tools', check=True)


COUNT_FORMATTING = """
import yapf.yapflib.yapf_api as api
original, calls = api.FormatCode, []
api.FormatCode = lambda *args, **options: calls.append(1) or original(*args, **options)
""" + RUN + """
facts['formatted'] = len(calls)
"""


def test_a_segmentation_run_imports_no_other_library_and_formats_its_config_once(tmp_path):
    others = ('torchvision', 'mmpretrain', 'timm', 'mmseg.models', 'torch')
    facts = run(COUNT_FORMATTING, ROOT / 'tools/train.py', others, 'small.py', '--work-dir', 'run',
                folder=write_run(tmp_path))
    assert facts == dict(code=0, imported=['mmseg.models', 'torch'], formatted=1)
    dumped, = (tmp_path / 'run').rglob('vis_data/config.py')
    text = dumped.read_text()
    assert (tmp_path / 'run/small.py').read_text() == text and max(map(len, text.splitlines())) < 120
    assert Config.fromfile(dumped).model == Config.fromfile(tmp_path / 'small.py').model
    checkpoint, = (tmp_path / 'run').glob('*.pth')
    assert torch.load(checkpoint)['meta']['cfg'] == text
