"""The notebook, executed from its first cell to its last on the model that the quick demo leaves."""

import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest

NOTEBOOK = Path(__file__).parents[1] / 'docs/tour.ipynb'


# In a process of its own: what a kernel leaves behind would disturb tests that measure time.
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
nbformat.write(NotebookClient(notebook, timeout=300, resources=dict(metadata=dict(path='.'))).execute(), sys.argv[2])
"""


@pytest.fixture(scope='module')
def executed(quick_demo, tmp_path_factory) -> nbformat.NotebookNode:
    """The notebook with its outputs; an error in a cell is one here."""
    elsewhere = tmp_path_factory.mktemp('notebook')  # it must not depend on the folder it is started in
    done = subprocess.run([sys.executable, '-c', EXECUTE, NOTEBOOK, 'executed.ipynb'], cwd=elsewhere, text=True,
                          capture_output=True, env={**os.environ, 'MMSEG_GPT_DEMO': str(quick_demo[0])})
    assert done.returncode == 0, done.stderr[-3000:]
    return nbformat.read(elsewhere / 'executed.ipynb', as_version=4)


def outputs(notebook: nbformat.NotebookNode, title: str) -> list[nbformat.NotebookNode]:
    """What the cells of a section have given."""
    section, found = '', []
    for cell in notebook.cells:
        if cell.cell_type == 'markdown':
            section = cell.source.splitlines()[0].lstrip('# ') if cell.source.startswith('#') else section
        elif section == title:
            found += cell.outputs
    return found


def printed(notebook: nbformat.NotebookNode, title: str) -> str:
    """What a section has printed."""
    return ''.join(output.text for output in outputs(notebook, title) if output.output_type == 'stream')


def pictures(notebook: nbformat.NotebookNode, title: str) -> list[np.ndarray]:
    """The pictures (H, W, 3) of a section."""
    found = [output.data['image/png'] for output in outputs(notebook, title) if 'image/png' in output.get('data', {})]
    return [cv2.imdecode(np.frombuffer(base64.b64decode(each), np.uint8), cv2.IMREAD_COLOR) for each in found]


@pytest.mark.parametrize('title, number', [('Predict', 1), ('Gates', 1), ('Attention', 1), ('Exchange adapters', 1)])
def test_each_section_shows_pictures_with_something_in_them(executed, title, number):
    found = pictures(executed, title)
    assert len(found) == number
    for picture in found:
        for part in np.array_split(picture, 2, axis=1):
            assert part.std() > 15, 'half of it is blank'


def test_it_counts_what_is_trained(executed):
    assert 'backbone.prompt' in printed(executed, 'Load') and '| total' in printed(executed, 'Load')


def test_a_second_adapter_costs_only_what_is_its_own(executed):
    first, both = (float(line.split()[1]) for line in printed(executed, 'Exchange adapters').splitlines()[:2])
    assert first < both < 1.5 * first


def test_it_is_committed_with_its_outputs():
    """So that it can be read without being run, and nothing of the machine it was run on is in it."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    text = re.sub(r'"image/png": ".*?"', '', NOTEBOOK.read_text())
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == 'code')
    assert pictures(notebook, 'Attention') and not re.findall(r'(?<![\w.<:/])/\w.*', text)  # no absolute path at all
