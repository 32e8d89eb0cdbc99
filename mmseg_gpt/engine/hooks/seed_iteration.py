"""The seed of each training iteration; :mod:`..reproducible` says why it is set anew every time."""

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ..reproducible import ITERATION, seed_generators


@HOOKS.register_module()
class SeedIterationHook(Hook):
    """Seeds each training iteration, for what is drawn on this device: dropout, hard gates, mixing of images."""

    priority = 'HIGHEST'

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        seed_generators(runner.seed, ITERATION, runner.iter, get_rank())
