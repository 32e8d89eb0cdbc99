"""A pool of tasks: one frozen ViT in memory, with the adapters and heads of many tasks around it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import RLock
from types import MappingProxyType

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.structures import BaseDataElement

from ..models.half import round_weights
from .memory import storage_bytes
from .passes import Pass, Prepared, make_plan, run_together
from .sharing import share_vit
from .task import Image, ServedTask, load_task

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class AdapterPool:
    """A pool of segmentation and classification tasks that were trained on the same frozen ViT.

    Each task is the ordinary model of its config, with its own prompts, gates, temperatures and head. The ViT's
    weights are the same tensors in all of them, so switching tasks costs nothing, and each answer is the one that the
    model alone would give::

        pool = AdapterPool()
        pool.add('ade', 'configs/setr_pup_gpt_mae_ade20k.py', 'ade.pth')
        pool.add('cub', 'configs/cls_gpt_mae_cub.py', 'cub.pth')
        segmented, classified = pool.predict([('ade', 'street.jpg'), ('cub', 'bird.jpg')])

    While a task is added, its own copy of the ViT is briefly in memory. Images of several tasks go through the ViT
    in one pass where that is possible and pays, see :meth:`plan`; the answers are the same up to rounding. All
    methods may be called by several threads.

    Args:
        device: Device of the models; by default the GPU, if there is one.
        dtype: ``torch.bfloat16`` or ``torch.float16`` keeps the ViT in half the memory and computes under autocast,
            with the same results as ``tools/test.py --amp``.
        one_pass: Whether images of several tasks go through the ViT together: True for wherever it is possible, False
            for never, None for where it pays: always on a GPU, and on a CPU for images of few tokens.

    Raises:
        ValueError: ``dtype`` is none of these and not float32, or it is float16 on a CPU.
    """

    def __init__(self, device: str | torch.device | None = None, dtype: torch.dtype = torch.float32,
                 one_pass: bool | None = None) -> None:
        if dtype not in DTYPES:
            raise ValueError(f'dtype {dtype} is none of {", ".join(map(str, DTYPES))}')
        self.device = torch.device(device or get_device())
        self.dtype = dtype
        self.one_pass = one_pass
        self._lock = RLock()
        if dtype == torch.float16 and self.device.type == 'cpu':
            raise ValueError('float16 needs a GPU; on a CPU use bfloat16')
        self._tasks: dict[str, ServedTask] = {}

    @property
    def tasks(self) -> Mapping[str, ServedTask]:
        """Tasks by name, in the order in which they were added."""
        return MappingProxyType(self._tasks)

    @property
    def num_parameters(self) -> int:
        """Number of parameters of all tasks; shared ones count once."""
        return sum({id(p): p.numel() for task in self._tasks.values() for p in task.model.parameters()}.values())

    @property
    def nbytes(self) -> int:
        """Bytes of the weights and buffers of all tasks; shared memory counts once."""
        return storage_bytes(task.model for task in self._tasks.values())

    def add(self, name: str, config: str | Path | Config, checkpoint: str | Path, tta: bool = False) -> None:
        """Adds a task, which must have the same ViT as the other tasks in the pool.

        Args:
            name: Name of the task in requests.
            config: The config with which it was trained: a file, or a loaded ``Config``.
            checkpoint: A checkpoint of this project, whole or with adapters only.
            tta: Whether to answer by the mean of several views of an image, by the config's ``tta_pipeline``.

        Raises:
            CheckpointError: the checkpoint cannot be used, or was trained on another ViT. The pool is then as it was.
            ValueError: the name is taken, the model is fully fine-tuned, or the config has no test pipeline.
        """
        with self._lock:
            if name in self._tasks:
                raise ValueError(f'there is a task "{name}" in the pool already: remove it first, or choose another '
                                 'name')
            self._take_in(name, load_task(name, config, checkpoint, tta=tta))

    def _take_in(self, name: str, task: ServedTask) -> None:
        if self.dtype != torch.float32:
            round_weights(task.vit, self.dtype)
        share_vit(name, task, list(self._tasks.items()))
        task.model.to(self.device)
        task.vit.register_load_state_dict_pre_hook(refuse_to_load)
        self._tasks = {**self._tasks, name: task}  # another dict, as somebody may go through the tasks right now

    def remove(self, name: str) -> None:
        """Removes a task. The weights that other tasks share with it stay.

        Args:
            name: Name of the task in requests.

        Raises:
            ValueError: there is no such task.
        """
        with self._lock:
            self._find(name)
            self._tasks = {other: task for other, task in self._tasks.items() if other != name}

    def predict(self, requests: Sequence[tuple[str, Image]],
                probabilities: bool | Sequence[Path | None] = False, confidence: bool = False,
                small: bool = False) -> list[BaseDataElement]:
        """Answers requests to any tasks. Those of one task with images of one size run as one batch.

        Args:
            requests: Pairs of a task's name and an image: a file, or an array (H, W, 3) of uint8, BGR.
            probabilities: Whether segmentations also have ``seg_probabilities.data`` (C, H, W), float16 on the CPU. Or,
                for each request, the .npy file to which they are written a few rows at a time, or None. Their folders
                must be there.
            confidence: Whether segmentations also have ``seg_confidence.data`` (1, H, W), uint8 on the CPU: 255 times
                the probability of the predicted class of each pixel.
            small: Whether labels are uint8 if the model supports it, which takes an eighth of the memory.

        Returns:
            list: The answers of the tasks' models, in the order of the requests: mmsegmentation's SegDataSample with
            ``pred_sem_seg``, or mmpretrain's DataSample with ``pred_label`` and ``pred_score``, the probabilities.

        Raises:
            ValueError: there is no such task, or an array is not an image.
            SampleError: an image cannot be read.
        """
        for name, _ in requests:
            self._find(name)
        asked = [probabilities] * len(requests) if isinstance(probabilities, bool) else probabilities
        return self.answer([self.prepare(name, image, wanted, confidence, small)
                            for (name, image), wanted in zip(requests, asked, strict=True)])

    def prepare(self, name: str, image: Image, probabilities: bool | Path | None = False, confidence: bool = False,
                small: bool = False) -> Prepared:
        """Reads and prepares an image for :meth:`answer`, which needs no GPU.

        Args:
            name: Name of the task.
            image: As for :meth:`predict`.
            probabilities: True, or the .npy file, as for :meth:`predict`.
            confidence: As for :meth:`predict`.
            small: As for :meth:`predict`.

        Raises:
            ValueError: there is no such task, or an array is not an image.
            SampleError: the image cannot be read.
        """
        asked = dict(probabilities=probabilities, confidence=confidence, small=small)
        return Prepared.of(name, self._find(name), image, asked)

    def plan(self, requests: Sequence[tuple[str, Image]]) -> list[Pass]:
        """Says which requests :meth:`predict` computes together, and why.

        Args:
            requests: As for :meth:`predict`.
        """
        with self._lock:
            return make_plan([self.prepare(*request) for request in requests], self.device, self.one_pass)

    def answer(self, requests: Sequence[Prepared]) -> list[BaseDataElement]:
        """Answers images of :meth:`prepare`, as :meth:`predict` does.

        Args:
            requests: The images.
        """
        answers: dict[int, BaseDataElement] = {}
        with self._lock, torch.no_grad(), self.computing():
            for each in make_plan(requests, self.device, self.one_pass):
                batch = [requests[place] for place in each.places]
                found = run_together(batch) if each.together else batch[0].task.predict(
                    [request.prepared for request in batch])
                answers.update(zip(each.places, found, strict=True))
        return [answers[place] for place in range(len(requests))]

    def computing(self) -> torch.autocast:
        """Returns the context in which models of the pool compute, whose ViT may be in half precision."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _find(self, name: str) -> ServedTask:
        if name not in self._tasks:
            raise ValueError(f'there is no task "{name}" in the pool, which has {", ".join(self._tasks) or "none"}')
        return self._tasks[name]


def refuse_to_load(*_) -> None:
    """Refuses to load weights into a ViT that all tasks share.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError('the ViT of this task is shared by all tasks of its pool, so nothing can be loaded into it: '
                       'remove the task and add it again with the other checkpoint')
