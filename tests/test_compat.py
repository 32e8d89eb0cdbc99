"""Each shim is there where the plain import fails without it, and nowhere else."""

import copy
import importlib.util
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.utils.dl_utils import mmcv_full_available

from mmseg_gpt import compat

WITHOUT_OPS = compat.allow_mmcv_without_ops()
WITHOUT_TORCHVISION_BINARY = compat.allow_torchvision_beside_cpu_torch()
needs_torchvision = pytest.mark.skipif(importlib.util.find_spec('torchvision') is None, reason='no torchvision')


YAPF = dict(style_config=dict(based_on_style='pep8', blank_line_before_nested_class_or_def=True,
                              split_before_expression_after_opening_paren=True))


def check_shim(is_there: bool, module: str, error: str, before: str = '') -> None:
    """The import works here, and fails in an interpreter without the shims exactly where one says it is needed."""
    importlib.import_module(module)
    code = f'{before}import {module}'
    bare = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=300)
    assert (bare.returncode != 0) == is_there, bare.stderr
    if is_there:
        assert error in bare.stderr


def test_mmseg_imports_with_or_without_ops():
    check_shim(WITHOUT_OPS, 'mmseg.models', "No module named 'mmcv._ext'",
               before='import sys; sys.modules["torchvision"] = None; ')  # mmseg tries timm, which has it; not at issue


@needs_torchvision
def test_torchvision_imports_beside_this_torch():
    check_shim(WITHOUT_TORCHVISION_BINARY, 'torchvision', 'operator torchvision::nms does not exist')


@pytest.mark.skipif(not WITHOUT_OPS, reason='this mmcv has its ops, or this mmseg guards their imports')
def test_a_missing_op_fails_only_when_called():
    from mmcv.ops import nms

    boxes = torch.tensor([[0., 0., 1., 1.]])
    with pytest.raises(RuntimeError, match='compiled mmcv op "nms" is not there'):
        nms(boxes, torch.ones(1), iou_threshold=0.5)
    assert not mmcv_full_available()
    assert importlib.util.find_spec('mmcv._ext') is None


@needs_torchvision
def test_torchvision_ops_run_or_say_that_they_cannot():
    from torchvision.ops import nms

    boxes = torch.tensor([[0., 0., 1., 1.], [0., 0., 1., 1.]])
    if WITHOUT_TORCHVISION_BINARY:
        with pytest.raises(RuntimeError, match="Couldn't load custom C\\+\\+ ops"):
            nms(boxes, torch.tensor([1., 0.5]), 0.5)
    else:
        assert nms(boxes, torch.tensor([1., 0.5]), 0.5).tolist() == [0]


def test_a_shim_is_applied_once():
    from mmcv.utils import ext_loader

    load_ext = ext_loader.load_ext
    assert compat.allow_mmcv_without_ops() == WITHOUT_OPS
    assert compat.allow_torchvision_beside_cpu_torch() == WITHOUT_TORCHVISION_BINARY
    assert ext_loader.load_ext is load_ext


def test_missing_mmcv_is_named_in_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r'^mmcv is missing\. .*pip install "mmcv-lite==2\.1\.0".*$'):
        compat.allow_mmcv_without_ops()


def test_unloadable_opencv_names_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv2', None)
    with pytest.raises(ImportError, match='opencv-python-headless'):
        compat.check_opencv()


def test_mmseg_imports_timm_when_a_backbone_of_it_is_asked_for():
    code = """
import sys, mmseg_gpt, mmseg.models
assert not {'timm', 'torchvision', 'scipy', 'torch._dynamo', 'torch.distributed.fsdp', 'sympy'} & sys.modules.keys()
backbone = mmseg.models.backbones.TIMMBackbone('resnet10t', pretrained=False)
assert 'timm' in sys.modules and backbone.timm_model.feature_info
from mmseg.models.assigners import hungarian_assigner
from mmseg.models.backbones import beit
assert hungarian_assigner.linear_sum_assignment([[2., 1.], [1., 2.]])[1].tolist() == [1, 0]
assert beit.interpolate.interp1d([0., 2.], [0., 4.])(1.) == 2
from timm.models import create_model
"""
    pytest.importorskip('timm')
    subprocess.run([sys.executable, '-c', code], check=True)


def test_what_divides_a_model_is_left_out_unless_it_was_imported_before():
    from mmengine.model import MMFullyShardedDataParallel
    from torch.distributed.fsdp import FullyShardedDataParallel

    with pytest.raises(RuntimeError, match=r'MMFullyShardedDataParallel needs torch\.distributed\.fsdp'):
        MMFullyShardedDataParallel(torch.nn.Linear(2, 2))
    spec = importlib.util.find_spec(MMFullyShardedDataParallel.__module__)
    module = importlib.util.module_from_spec(spec)
    with pytest.raises(KeyError, match='MMFullyShardedDataParallel is already registered'):  # now of torch's class
        spec.loader.exec_module(module)
    assert module.FullyShardedDataParallel is FullyShardedDataParallel


def test_a_config_is_formatted_once_and_as_mmengine_does(monkeypatch):
    calls = []

    def format_code(text: str, **options: object) -> tuple[str, bool]:
        calls.append(text)
        return f'{options} {text}', True

    monkeypatch.setattr(compat.formatter_module(), 'FormatCode', format_code)
    shim = compat.format_config_once()
    first, second = Config(dict(a=1)), Config(dict(a=2))
    assert first.pretty_text == first.pretty_text == format_code(calls[0], **YAPF)[0]
    assert second.pretty_text != first.pretty_text and len(calls) == 4  # with the one of this test
    assert compat.format_config_once() is shim


def by_sorting(mask: np.ndarray) -> list[int]:
    """What mmsegmentation's SegLocalVisualizer._get_center_loc does."""
    places = sorted(np.argwhere(mask == 1).tolist())
    rows, counts = np.unique([y for y, _ in places], return_counts=True)
    fullest = [place for place in places if place[0] == rows[counts.argmax()]]
    return fullest[len(fullest) // 2][::-1]


def test_names_of_classes_are_written_where_mmsegmentation_does():
    from mmseg.visualization import SegLocalVisualizer

    import mmseg_gpt.segmentation  # noqa: F401
    random = np.random.default_rng(0)
    for share in (0.01, 0.2, 0.5, 1.):
        for _ in range(20):
            mask = (random.random((13, 17)) < share).astype(np.uint8)
            if mask.any():
                assert SegLocalVisualizer._get_center_loc(None, mask).tolist() == by_sorting(mask)


def by_copying(histories: tuple[np.ndarray, np.ndarray], value: float, count: int, longest: int) -> tuple:
    """What MMEngine's HistoryBuffer.update does."""
    return tuple(np.append(history, new)[-longest:] for history, new in zip(histories, (value, count)))


@pytest.mark.parametrize('longest', [1000, 20])
@pytest.mark.parametrize('start', [[], [1, 2], [0.5]])
def test_histories_grow_as_by_copying(start, longest):
    buffer = HistoryBuffer(start, [1] * len(start), max_length=longest)
    expected = buffer.data
    for i in range(100):
        value = i if i < 5 else i / 7  # integers become floats at the first that is none
        buffer.update(value, i % 3)
        expected = by_copying(expected, value, i % 3, longest)
        if i == 50:
            branch, half = copy.copy(buffer), expected[0].tolist()
    for mine, theirs in zip(buffer.data, expected):
        assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
    branch.update(-1.)
    assert branch.data[0].tolist() == [*half, -1.][-longest:] and buffer.data[0].tolist() == expected[0].tolist()
    assert pickle.loads(pickle.dumps(buffer)).data[0].tolist() == expected[0].tolist()
    with pytest.raises(TypeError, match='takes numbers'):
        buffer.update('1')
