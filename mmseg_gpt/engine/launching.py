"""How the work of a run is handed to the device: compiled, recorded, and in which precision float32 is multiplied."""

from collections.abc import Sequence

import torch
from mmengine.config import Config

from ..settings import type_name


def set_launching(cfg: Config, compiled: bool = False, graphed: bool = False) -> None:
    """Adds hooks that make a run compile its model, or replay its training step as a CUDA graph.

    Args:
        cfg: Its ``custom_hooks`` are changed.
        compiled: Whether to add CompileHook.
        graphed: Whether to add CudaGraphHook.
    """
    hooks = list(cfg.get('custom_hooks') or [])
    present = set(map(type_name, hooks))
    wanted = [name for name, flag in dict(CompileHook=compiled, CudaGraphHook=graphed).items() if flag]
    cfg.custom_hooks = [*hooks, *(dict(type=name) for name in wanted if name not in present)]


def set_tf32(allowed: bool | None) -> None:
    """Says whether a GPU may multiply float32 as TF32, which rounds to 10 bits and is several times as fast.

    Args:
        allowed: For matrix products and convolutions alike. None leaves torch's choice: convolutions may, matrix
            products may not.
    """
    if allowed is not None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def set_usual_kernels(cfg: Config, options: Sequence[str] = ()) -> None:
    """Lets cuDNN take its usual kernels in a test, whose windows come in too many shapes to search for the best.

    Args:
        cfg: Its ``env_cfg.cudnn_benchmark`` is changed.
        options: Settings that the user has asked for, as ``KEY=VALUE``; one of this setting stays.
    """
    if not any(option.startswith('env_cfg.cudnn_benchmark=') for option in options):
        cfg.env_cfg = dict(cfg.get('env_cfg') or {}, cudnn_benchmark=False)
