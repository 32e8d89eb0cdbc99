"""One frozen ViT in memory, and the adapters and heads of many tasks around it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.structures import BaseDataElement

from ..checkpoints import CheckpointError
from ..wording import listed
from .memory import storage_bytes
from .sharing import find_shared, lower_precision, replace_weights
from .task import Image, ServedTask, load_task

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class AdapterPool:
    """Answers tasks of segmentation and of classification that were trained on the same frozen ViT.

    Each task is the ordinary model of its config, with prompts, gates, temperatures and head of its own; the ViT's
    weights are the same tensors in all of them. So going from task to task costs nothing, and an answer is what the
    model alone would give::

        pool = AdapterPool()
        pool.add('ade', 'configs/setr_pup_gpt_mae_ade20k.py', 'ade.pth')
        pool.add('cub', 'configs/cls_gpt_mae_cub.py', 'cub.pth')
        segmented, classified = pool.predict([('ade', 'street.jpg'), ('cub', 'bird.jpg')])

    While a task is added its own copy of the ViT is in memory for a moment.

    Args:
        device: Where the models are; by default the GPU, if there is one.
        dtype: ``torch.bfloat16`` or ``torch.float16`` keeps the ViT in half the memory and computes under autocast,
            with the numbers of ``tools/test.py --amp``.

    Raises:
        ValueError: the ``dtype`` is none of these and not float32, or it is float16 on a CPU.
    """

    def __init__(self, device: str | torch.device | None = None, dtype: torch.dtype = torch.float32) -> None:
        if dtype not in DTYPES:
            raise ValueError(f'dtype {dtype} is none of {", ".join(map(str, DTYPES))}')
        self.device = torch.device(device or get_device())
        self.dtype = dtype
        if dtype == torch.float16 and self.device.type == 'cpu':
            raise ValueError('float16 needs a GPU; on a CPU use bfloat16')
        self._tasks: dict[str, ServedTask] = {}

    @property
    def tasks(self) -> Mapping[str, ServedTask]:
        """The tasks by name, in the order they were added."""
        return MappingProxyType(self._tasks)

    @property
    def num_parameters(self) -> int:
        """Parameters of all tasks; what they share counts once."""
        return sum({id(p): p.numel() for task in self._tasks.values() for p in task.model.parameters()}.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all weights and buffers; what tasks share counts once."""
        return storage_bytes(task.model for task in self._tasks.values())

    def add(self, name: str, config: str | Path | Config, checkpoint: str | Path) -> None:
        """Adds a task, whose ViT must be that of the tasks in the pool.

        Args:
            name: What requests call it.
            config: The config it was trained with: a file, or what ``Config.fromfile`` gave.
            checkpoint: A checkpoint of this project, whole or with adapters only.

        Raises:
            CheckpointError: the checkpoint cannot be used, or was trained on another ViT. Nothing is changed then.
            ValueError: the name is taken, the model is fully fine-tuned, or the config has no test pipeline.
        """
        if name in self._tasks:
            raise ValueError(f'there is a task "{name}" in the pool already: remove it first, or choose another name')
        task = load_task(name, config, checkpoint)
        if self.dtype != torch.float32:
            lower_precision(task.vit, self.dtype)
        shared, different = find_shared(task.vit, [other.vit for other in self._tasks.values()])
        if different:
            origin = next(iter(self._tasks.values())).origin
            raise CheckpointError(
                f'task "{name}" belongs to another ViT, {task.origin}, than the pool with {", ".join(self._tasks)}, '
                f'which has {origin}: {len(different)} weights differ ({listed(different)}). Give it a pool of its own')
        replace_weights(task.vit, shared)
        task.model.to(self.device)
        task.vit.register_load_state_dict_pre_hook(refuse_to_load)
        self._tasks[name] = task

    def remove(self, name: str) -> None:
        """Forgets a task; the ViT stays if other tasks need it.

        Args:
            name: What requests call the task.

        Raises:
            ValueError: there is no such task.
        """
        self._find(name)
        del self._tasks[name]

    def predict(self, requests: Sequence[tuple[str, Image]]) -> list[BaseDataElement]:
        """Answers requests of any tasks. Those of one task whose images have the same size run as one batch.

        Args:
            requests: Names of tasks and images: files, or arrays (H, W, 3) of uint8 with blue first.

        Returns:
            list: What the models of the tasks give, in the order of the requests: mmsegmentation's SegDataSample with
            ``pred_sem_seg``, or mmpretrain's DataSample with ``pred_label`` and ``pred_score``.

        Raises:
            ValueError: there is no such task, or an array is no image.
            SampleError: an image cannot be read.
        """
        tasks = [self._find(name) for name, _ in requests]
        prepared = [task.prepare(image) for task, (_, image) in zip(tasks, requests)]
        batches = defaultdict(list)
        for place, (name, _) in enumerate(requests):
            batches[name, prepared[place]['inputs'].shape].append(place)
        answers: dict[int, BaseDataElement] = {}
        with torch.no_grad(), torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            for (name, _), places in batches.items():
                answers.update(zip(places, self._tasks[name].predict([prepared[i] for i in places]), strict=True))
        return [answers[place] for place in range(len(requests))]

    def _find(self, name: str) -> ServedTask:
        if name not in self._tasks:
            raise ValueError(f'there is no task "{name}" in the pool, which has {", ".join(self._tasks) or "none"}')
        return self._tasks[name]


def refuse_to_load(*_) -> None:
    """Keeps weights from being loaded into a ViT that all tasks share.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError('the ViT of this task is shared by all tasks of its pool, so nothing can be loaded into it: '
                       'remove the task and add it again with the other checkpoint')
