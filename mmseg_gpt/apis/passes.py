"""Which images of a batch go through the ViT together, whatever their tasks, and which do not, and why."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from mmengine.structures import BaseDataElement

from ..models.mixed import answered, one_pass
from ..wording import listed
from .task import Image, ServedTask

# Tokens of an image, prompts among them, up to which one pass is faster on a CPU than one for each task. Measured in
# docs/many_tasks.md. A GPU is not filled by one image.
CPU_TOKENS = 400
# Tokens of all images of a pass; more images are divided among passes. It bounds the memory of features.
MOST_TOKENS = 2**15
MOST_WINDOWS = 8  # of an image that goes through the ViT together with images of other tasks
MOST_SIZES = 1000  # of images whose shapes are remembered


@dataclass(eq=False)
class Prepared:
    """An image that is ready for the model of a task.

    Attributes:
        name: Name of the task.
        task: The task.
        prepared: What :meth:`ServedTask.prepare` returned.
    """
    name: str
    task: ServedTask
    prepared: dict

    @classmethod
    def of(cls, name: str, task: ServedTask, image: Image, asked: dict) -> 'Prepared':
        """Reads and prepares an image.

        Args:
            name: Name of the task.
            task: The task.
            image: As for :meth:`ServedTask.prepare`.
            asked: What is noted in the samples, see :class:`LeanEncoderDecoder`; paths become text.
        """
        prepared = task.prepare(image)
        noted = {key: value if value is True else str(value) for key, value in asked.items() if value}
        views = prepared['data_samples']
        for sample in views if isinstance(views, list) else [views]:
            sample.set_metainfo(noted)
        return cls(name, task, prepared)

    @property
    def size(self) -> tuple[int, ...] | int:
        """Shape of the image, (C, H, W); of several views a number that no other image has."""
        inputs = self.prepared['inputs']
        return id(self) if isinstance(inputs, list) else tuple(inputs.shape)

    @property
    def crops(self) -> tuple[int, ...]:
        """Shape (n, C, h, w) of what the model will give to its backbone, computed once for each size of images."""
        known = self.task.shapes
        if self.size not in known:
            if len(known) == MOST_SIZES:
                known.clear()
            known[self.size] = tuple(self.task.crops(self.task.normalise([self.prepared])).shape)
        return known[self.size]

    @property
    def tokens(self) -> int:
        """Number of tokens of each crop in the ViT, prompts among them."""
        vit = self.task.vit
        rows, columns = (-(-side // vit.patch_embed.patch_size) for side in self.crops[2:])
        return vit.first_patch + rows * columns + (self.task.program['number of prompts'] or 0)

    @property
    def obstacle(self) -> str:
        """Why the image cannot go through the ViT together with those of other tasks; empty if it can."""
        model = self.task.model
        test_cfg = getattr(model, 'test_cfg', None) or {}
        if self.task.program is None:
            return 'its backbone or its prompts are of a class of their own'
        if self.task.augmented is not None:
            return 'it is answered by several views of the image'
        if test_cfg.get('mode') != 'slide':
            return ''
        if not hasattr(model, 'crops') or test_cfg.get('keep_logits', False):
            return 'its windows are cut out by mmsegmentation'
        number = len(model.windows(self.size[1:]).places)
        return f'the image has {number} windows, which fill passes of their own' if number > MOST_WINDOWS else ''


@dataclass(frozen=True)
class Pass:
    """Images that are computed together.

    Attributes:
        places: Their indices in the list of requests.
        tasks: Names of their tasks. A name occurs twice if its task was removed and another one added under the same
            name while images waited.
        together: Whether the ViT runs once for the images of all these tasks. If not, there is one task, whose model
            runs as it does alone.
        reason: Why they are computed so, in words.
    """
    places: tuple[int, ...]
    tasks: tuple[str, ...]
    together: bool
    reason: str

    def __str__(self) -> str:
        return f'{len(self.places)} of {", ".join(self.tasks)}: {self.reason}'


def make_plan(requests: Sequence[Prepared], device: torch.device, wanted: bool | None) -> list[Pass]:
    """Divides images into passes.

    Images of several tasks go together if their tasks have one :attr:`ServedTask.program`, nothing in the way of each
    image, and crops of the same size; and, unless ``wanted`` is True, if that pays: on a GPU always, on a CPU for
    images of at most ``CPU_TOKENS`` tokens.

    Args:
        requests: The images.
        device: Device of the models.
        wanted: True for one pass wherever it is possible, False for none, None where it pays.
    """
    reasons, groups = {}, defaultdict(list)
    programs = defaultdict(set)
    for request in requests:
        programs[program_of(request.task)].add(request.task)
    for place, request in enumerate(requests):
        reason = 'passes of several tasks are switched off' if wanted is False else request.obstacle
        if not reason and len(programs[program_of(request.task)]) == 1:
            reason = what_differs(request, requests)
        if not reason and wanted is None and device.type == 'cpu' and request.tokens > CPU_TOKENS:
            reason = (f'an image has {request.tokens} tokens, and above {CPU_TOKENS} a CPU is no faster with images of '
                      'several tasks')
        if reason:
            reasons[place] = reason
        else:
            groups[program_of(request.task), request.crops[1:]].append(place)
    plan = []
    for (_, shape), places in groups.items():
        tasks = list(dict.fromkeys(requests[place].task for place in places))
        size = f'images of {shape[1]}x{shape[2]} pixels'
        if len(tasks) == 1:
            reasons.update(dict.fromkeys(places, f'no other task has {size} here'))
            continue
        places.sort(key=lambda place: tasks.index(requests[place].task))
        for part in divided(places, [requests[place].tokens * requests[place].crops[0] for place in places]):
            names = {requests[place].task: requests[place].name for place in part}
            plan.append(Pass(part, tuple(names.values()), True, f'one pass of {size}'))
    return plan + list(task_by_task(reasons, requests))


def divided(places: Sequence[int], tokens: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yields places in parts of at most ``MOST_TOKENS`` tokens, but of one place at least."""
    part, total = [], 0
    for place, more in zip(places, tokens):
        if part and total + more > MOST_TOKENS:
            yield tuple(part)
            part, total = [], 0
        part.append(place)
        total += more
    yield tuple(part)


def task_by_task(reasons: dict[int, str], requests: Sequence[Prepared]) -> Iterator[Pass]:
    """Yields a pass for the images of each task that have the same size; several views of an image are a pass."""
    batches = defaultdict(list)
    for place in sorted(reasons):
        batches[requests[place].task, requests[place].size].append(place)
    for places in batches.values():
        yield Pass(tuple(places), (requests[places[0]].name, ), False, reasons[places[0]])


def program_of(task: ServedTask) -> tuple | None:
    """Returns the program of a task as something that can be looked up."""
    return None if task.program is None else tuple(task.program.items())


def what_differs(request: Prepared, requests: Sequence[Prepared]) -> str:
    """Says in what a task differs from the one that is most like it, of those that an image is for."""
    others = {other.name: other.task.program for other in requests
              if other.task is not request.task and other.task.program is not None}
    if not others:
        return 'there is no image for another task'
    own = request.task.program
    name, differ = min(((name, [key for key in own if own[key] != program[key]]) for name, program in others.items()),
                       key=lambda pair: len(pair[1]))
    return f'it differs from {name} in {listed(differ)}'


def run_together(requests: Sequence[Prepared]) -> list[BaseDataElement]:
    """Answers images of several tasks with one pass of the ViT; heads run task by task.

    Args:
        requests: Images of one program and with crops of one size, those of a task next to each other.
    """
    batches = [list(batch) for _, batch in groupby(requests, lambda request: (request.task, request.size))]
    data = [batch[0].task.normalise([request.prepared for request in batch]) for batch in batches]
    crops = [batch[0].task.crops(each) for batch, each in zip(batches, data)]
    outputs = one_pass([batch[0].task.vit for batch, each in zip(batches, crops) for _ in each], torch.cat(crops))
    parts = zip(*(output.split(list(map(len, crops))) for output in outputs))
    answers = []
    for batch, each, images, own in zip(batches, data, crops, parts):
        with answered(batch[0].task.vit, images, own):
            answers += batch[0].task.answer(each)
    return answers
