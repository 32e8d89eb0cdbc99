"""MMEngine's runner, where it takes a batch to be that of one process, and several processes to need CUDA."""

import mmengine.runner
import torch
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from torch import nn


class Runner(mmengine.runner.Runner):
    """The runner of our tools; two things differ from MMEngine 0.10.7's.

    * ``train_dataloader.batch_size`` is the batch of all processes together, so that a learning rate means
      the same on one GPU and on eight. The config that is saved keeps it.
    * On a machine without CUDA, torchrun starts gloo processes, with BN in the place of SyncBN, which trains
      on GPUs only. Each process then has batch statistics of its own.
    """

    def build_train_loop(self, loop: dict) -> mmengine.runner.BaseLoop:
        if isinstance(self._train_dataloader, dict):
            self._train_dataloader = share_batch(self._train_dataloader, self.world_size)
        return super().build_train_loop(loop)

    def setup_env(self, env_cfg: dict) -> None:
        if self.launcher == 'pytorch' and not torch.cuda.is_available() and not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        if self.distributed and not torch.cuda.is_available():
            model = revert_sync_batchnorm(model)
            # The runner would set device_ids, which CPU modules must not have.
            model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=True)
        return super().wrap_model(model_wrapper_cfg, model)


def share_batch(train_dataloader: dict, processes: int) -> dict:
    """A copy of a data loader config with the share of one process in the batch.

    Raises:
        SystemExit: the batch cannot be divided among the processes.
    """
    total = train_dataloader['batch_size']
    if total % processes:
        raise SystemExit(f'the batch of {total} images cannot be divided among {processes} processes: use a divisor, '
                         'or another batch with --cfg-options train_dataloader.batch_size=N')
    share = train_dataloader.copy()
    share['batch_size'] = total // processes
    print_log(f'batch: {total} images in all, {total // processes} in each of {processes} processes', logger='current')
    return share
