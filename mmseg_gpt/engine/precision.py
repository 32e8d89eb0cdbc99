"""Mixed precision for training and for evaluation, on CUDA and on CPU."""

from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from ..settings import type_name


@OPTIM_WRAPPERS.register_module()
class Bf16OptimWrapper(OptimWrapper):
    """Runs the forward under bfloat16 autocast; it needs no loss scaling and works on a CPU too.

    MMEngine's own AmpOptimWrapper refuses to run without a GPU.
    """

    @contextmanager
    def optim_context(self, model: nn.Module):
        with super().optim_context(model), torch.autocast(get_device(), dtype=torch.bfloat16):
            yield


def set_precision(cfg: Config, amp: str | None) -> None:
    """Makes a config train in mixed precision.

    Args:
        cfg: Its optimizer wrapper is changed.
        amp: 'bf16', 'fp16', or None, which changes nothing.

    Raises:
        SystemExit: fp16 without a GPU, or a config whose wrapper is not the plain one.
    """
    if amp is None:
        return
    wanted = {'bf16': 'Bf16OptimWrapper', 'fp16': 'AmpOptimWrapper'}[amp]
    present = type_name(cfg.optim_wrapper, 'OptimWrapper')
    if present not in ('OptimWrapper', wanted):
        raise SystemExit(f'--amp {amp} cannot replace the optim_wrapper "{present}" of this config')
    check_fp16(amp)
    cfg.optim_wrapper.type = wanted
    if amp == 'fp16':
        cfg.optim_wrapper.update(loss_scale='dynamic', dtype='float16')


def set_test_precision(cfg: Config, amp: str | None) -> None:
    """Makes a config test in mixed precision.

    Args:
        cfg: Its ``test_cfg`` is changed.
        amp: 'bf16', 'fp16', or None, which changes nothing.

    Raises:
        SystemExit: fp16 without a GPU.
    """
    if amp is None:
        return
    check_fp16(amp)
    cfg.test_cfg.fp16 = True  # MMEngine's name for autocast, which on a GPU takes the type set here, else bfloat16
    torch.set_autocast_dtype('cuda', dict(bf16=torch.bfloat16, fp16=torch.float16)[amp])


def check_fp16(amp: str) -> None:
    """Raises SystemExit where fp16 is asked for without a GPU."""
    if amp == 'fp16' and get_device() == 'cpu':
        raise SystemExit('--amp fp16 needs a GPU, and none is visible; on a CPU use --amp bf16')
