"""How the work of a run is handed to the device: compiled, recorded, and in which precision float32 is multiplied."""

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
