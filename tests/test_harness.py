"""The tests themselves: what they see of the machine, and of packages that are installed elsewhere."""

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from conftest import environment_of

TESTS = Path(__file__).parent


def test_tests_see_no_gpu_unless_they_ask_for_one():
    """On a machine with a GPU, what is not marked ``cuda`` would fail by where its tensors are."""
    assert os.environ['CUDA_VISIBLE_DEVICES'] == '' and not torch.cuda.is_available()


@pytest.mark.cuda
def test_a_test_that_asks_for_a_gpu_has_one():
    assert torch.ones(2, device='cuda').sum().item() == 2


def test_commands_keep_the_path_that_tests_were_given(monkeypatch):
    monkeypatch.setenv('PYTHONPATH', '/packages')
    assert environment_of(Path('/program'))['PYTHONPATH'] == os.pathsep.join(['/program', '/packages'])
    replaced = re.compile(r"""['"]PYTHONPATH['"]\s*:|setenv\('PYTHONPATH', str\([^)]*\)\)$""", re.MULTILINE)
    files = [file.name for file in TESTS.glob('*.py') if replaced.search(file.read_text())]
    assert files == ['conftest.py'], 'environment_of puts a folder before what is there'


def test_each_file_of_tests_finds_what_the_commands_share():
    """Whichever runs alone: the folder is not left behind by a test of another file."""
    assert str(TESTS.parent / 'tools') in sys.path
