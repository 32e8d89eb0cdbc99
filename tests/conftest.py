"""Fixtures for all tests: a tiny ViT, mmengine's log, and data that lies beside the checkout and may be absent."""

import gc
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import TCPServer

import pytest
import torch
from filelock import FileLock
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch import nn

from mmseg_gpt.models import GatedPromptViT

TINY = dict(embed_dims=32, num_layers=4, num_heads=4, mlp_ratio=4)
ROOT = Path(__file__).parents[1]
BESIDE = ROOT.parent / 'shared'


def pytest_configure(config: pytest.Config) -> None:
    """Gives each process one thread, as two run side by side, and lets Ctrl-C work in what the tests start.

    A shell ignores Ctrl-C in what runs in the background. Only ``-m cuda`` leaves GPUs in sight: all other tests, and
    what they start, expect to run on the CPU.
    """
    asked = config.option.markexpr or ''
    if not re.search(r'\bcuda\b', asked) or re.search(r'\bnot cuda\b', asked):
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    torch.set_num_threads(1)
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the tests that need a GPU where there is none in sight."""
    for item in items:
        if item.get_closest_marker('cuda') and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason='needs a GPU, and to be asked for by -m cuda'))


def environment_of(root: Path = ROOT, **more: str) -> dict[str, str]:
    """Returns the environment of a command that finds the package in the folder ``root``, and has ``more`` in it.

    What PYTHONPATH had before stays behind it: packages may be installed there.
    """
    path = os.pathsep.join(filter(None, [str(root), os.environ.get('PYTHONPATH')]))
    return {**os.environ, 'PYTHONPATH': path, **more}


@contextmanager
def serving(server: TCPServer) -> Iterator[TCPServer]:
    """Lets a server answer in a thread, as long as the block runs."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01, ), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope='module', autouse=True)
def default_scope() -> None:
    """Ends the default scope that a run of another file has left, in which this file's modules are not found."""
    DefaultScope._instance_dict.clear()


frozen_modules = 0


@pytest.fixture(autouse=True)
def frozen() -> None:
    """Lets the garbage collector, which MMEngine starts for each dataset, pass over what is imported."""
    global frozen_modules
    if len(sys.modules) > frozen_modules + 50:
        gc.collect()
        gc.freeze()
        frozen_modules = len(sys.modules)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def tf32() -> Iterator[None]:
    """Puts back, after a test that changes it, what a GPU may multiply as TF32."""
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


@pytest.fixture
def tiny_vit() -> Callable[..., GatedPromptViT]:
    """A factory of float64 ViTs of 4 blocks, width 32 and 4x4 patches, in eval mode.

    All weights are drawn at random, norms, biases and gates too, so that none of them is without effect.
    """

    def make(**options) -> GatedPromptViT:
        vit = GatedPromptViT(**{**dict(arch=TINY, img_size=32, patch_size=8), **options}).double().eval()
        return randomise(vit)

    return make


def randomise(vit: nn.Module) -> nn.Module:
    """Draws all weights anew, at a scale where attention is neither uniform nor one-hot."""
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            if ('norm' in name and name.endswith('weight')) or name == 'temperature':
                parameter.uniform_(0.5, 1.5)
            elif name != 'prompt.gate_prior' and parameter.ndim > 1:
                parameter.normal_(std=0.3)
            else:
                parameter.normal_()
    return vit


@pytest.fixture
def log() -> Iterator[list[logging.LogRecord]]:
    """The records that mmengine's current logger gets during the test."""
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


@pytest.fixture(scope='session')
def golden_file() -> Path:
    """The authors' numbers. They are not part of this project."""
    path = Path(os.environ.get('MMSEG_GPT_GOLDEN', BESIDE / 'golden/authors_mae.npz'))
    if not path.is_file():
        pytest.skip(f"the authors' numbers are not at {path}; set MMSEG_GPT_GOLDEN to where they are")
    return path


@pytest.fixture(scope='session')
def layouts_folder() -> Path:
    """Names and shapes of released checkpoints, as JSON files. They are not part of this project."""
    path = Path(os.environ.get('MMSEG_GPT_LAYOUTS', BESIDE / 'facts/checkpoint_layouts'))
    if not path.is_dir():
        pytest.skip(f'the layouts of released checkpoints are not at {path}; set MMSEG_GPT_LAYOUTS to where they are')
    return path


def run_demo(*arguments: str | Path, timeout: int = 600) -> subprocess.CompletedProcess:
    """Runs tools/demo.py."""
    return subprocess.run([sys.executable, ROOT / 'tools/demo.py', *arguments], env=environment_of(),
                          capture_output=True, text=True, cwd='/', timeout=timeout)


@pytest.fixture(scope='session')
def quick_demo(tmp_path_factory) -> tuple[Path, str]:
    """What the quick demo has left, and what it has printed: a model, its ViT and its data. It takes a minute.

    Test processes that run side by side share it: the first one makes it, the others wait.
    """
    home = tmp_path_factory.getbasetemp()
    home = home.parent if 'PYTEST_XDIST_WORKER' in os.environ else home
    work_dir, printed = home / 'quick_demo', home / 'quick_demo.txt'
    with FileLock(home / 'quick_demo.lock'):
        if not printed.exists():
            result = run_demo('--quick', '--work-dir', work_dir)
            assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
            printed.write_text(result.stdout)
    return work_dir, printed.read_text()
