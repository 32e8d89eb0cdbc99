"""What a user asks for when a ViT is adapted to their own images."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path

from ..datasets.found.splits import HELD_OUT
from ..files import LITTER
from ..recipes.heads import HEADS
from ..recipes.losses import LOSSES
from ..recipes.methods import METHODS
from ..recipes.vits import VITS

Names = str | Path | Sequence[str]
# What may be another when the same command goes on, because it changes no number.
FREE = ('workers', 'work_dir')
SMALLEST = 8  # pixels of the short side of an image


class OwnDataError(ValueError):
    """What was asked for, or what was found, cannot be used. The message says what to do."""


@dataclass(frozen=True)
class Request:
    """What is asked for; None stands for what follows from the data and the machine.

    Attributes:
        folder: The folder of the images and of their masks or classes.
        images: The folder of the images, in its place or inside it.
        masks: The folder of the masks, or a pattern of their names.
        task: 'segmentation' or 'classification'; None for what the folder shows.
        classes: Names of the classes, or a file that says what values or colours stand for.
        ignore: Values, colours or names of classes that are not learned.
        vit: The ViT, one of ``recipes.vits.VITS``.
        weights: The file of its weights, or an address; None for where it was published.
        method: How it is adapted, one of ``recipes.methods.METHODS``.
        head: The segmentation head, one of ``configs/_base_/heads``.
        iterations: Steps of the training.
        batch: Images in a step.
        crop: Side in pixels of the squares that are trained on.
        size: Short side in pixels to which images are scaled first, 8 or more.
        loss: One of ``recipes.losses.LOSSES``.
        class_weights: 'auto' lets pixels of rare classes count more; None for all alike.
        bands: The bands of an image to use, counted from 1, such as '3,2,1'.
        scale: The values that become black and white, such as '0:3000'.
        val: Share of the training images that is kept for validation, where the folder has no such split; None for a
            fifth.
        seed: Seed of the splits and of the training.
        amp: 'bf16' or 'fp16' for mixed precision.
        workers: Processes that read files.
        work_dir: Where all is written.
    """
    folder: str | None = None
    images: str | None = None
    masks: str | None = None
    task: str | None = None
    classes: str | None = None
    ignore: tuple[str, ...] = ()
    vit: str = 'dinov2-s'
    weights: str | None = None
    method: str = 'lora'  # on all photographs of docs/photographs.md the best that keeps the ViT frozen, or as good
    head: str | None = None
    iterations: int | None = None
    batch: int | None = None
    crop: int | None = None
    size: int | None = None
    loss: str | None = None
    class_weights: str | None = None
    bands: str | None = None
    scale: str | None = None
    val: float | None = None
    seed: int = 0
    amp: str | None = None
    workers: int | None = None
    work_dir: str | None = None

    @classmethod
    def of(cls, **given: object) -> 'Request':
        """Makes options of what a user gave, and brings spellings and paths into one form.

        Raises:
            OwnDataError: one of them is not known, or not there.
        """
        unknown = given.keys() - {field.name for field in fields(cls)}
        if unknown:
            name = sorted(unknown)[0]
            raise OwnDataError(f'there is no option {name}{meant(name, [field.name for field in fields(cls)])}')
        given = {name: value for name, value in given.items() if value is not None}
        for name in ('folder', 'images', 'weights', 'work_dir', 'masks', 'classes'):
            if name in given:
                given[name] = in_text(given[name])
        if 'ignore' in given:
            several = given['ignore']
            given['ignore'] = tuple(map(str, several)) if isinstance(several, (list, tuple)) else (str(several), )
        options = cls(**given)
        dashed = {name: getattr(options, name).replace('_', '-') for name in ('vit', 'method')}
        options = replace(options, **dashed)
        options.check()
        return options

    def check(self) -> None:
        """Refuses what is not known or not there.

        Raises:
            OwnDataError: the message names the option and the choices.
        """
        for name, value, known in (('task', self.task, ('segmentation', 'classification')), ('vit', self.vit, VITS),
                                   ('method', self.method, METHODS), ('head', self.head, HEADS),
                                   ('loss', self.loss, LOSSES), ('class-weights', self.class_weights, ('auto', )),
                                   ('amp', self.amp, ('bf16', 'fp16'))):
            if value is not None and value not in known:
                raise OwnDataError(f'--{name} {value} is none of {", ".join(known)}{meant(value, known)}')
        if not (self.folder or self.images):
            raise OwnDataError('give the FOLDER with images and masks, or --images and --masks')
        for place in (self.folder, self.images):
            if place and not Path(place).is_dir():
                said = 'is a file, not a folder' if Path(place).exists() else 'does not exist'
                if not (Path(place).is_file() and self.task != 'segmentation'):
                    raise OwnDataError(f'{place} {said}')
        if self.weights and '://' not in self.weights and not Path(self.weights).is_file():
            raise OwnDataError(f'--weights: there is no file {self.weights}')
        for name in ('iterations', 'batch', 'crop', 'workers'):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OwnDataError(f'--{name} must be at least 1, got {value}')
        if self.size is not None and self.size < SMALLEST:
            raise OwnDataError(f'--size must be at least {SMALLEST} pixels, got {self.size}')
        if self.seed < 0:
            raise OwnDataError(f'--seed must be at least 0, got {self.seed}')
        for place in filter(None, (self.folder, self.images, self.masks)):
            if self.work_dir and Path(place).is_dir() and Path(self.work_dir).absolute().is_relative_to(
                    Path(place).absolute()) and not LITTER & {part.lower() for part in Path(
                        os.path.relpath(self.work_dir, place)).parts}:
                raise OwnDataError(f'--work-dir {self.work_dir} is inside {place}, so its pictures would be taken for '
                                   'images: give a folder outside of it')
            written = Path(self.work_dir, 'data') if self.work_dir else None
            if written and Path(place).exists() and Path(place).resolve().is_relative_to(written.resolve()):
                raise OwnDataError(f'--work-dir {self.work_dir}: lists and masks would be written into {written}, '
                                   f'among the files of {place}: give another folder')
        if self.val is not None and not 0 < self.val < 1:
            raise OwnDataError(f'--val is a share between 0 and 1, got {self.val}')

    def differences(self, other: 'Request') -> list[str]:
        """Says which options another start of the same command had, those aside that change no number."""
        own, others = (asdict(request) | dict(val=request.val or HELD_OUT) for request in (self, other))
        return [f'--{name.replace("_", "-")}: {others[name]} before, {own[name]} now' for name in own
                if name not in FREE and own[name] != others[name]]


def in_text(value: Names) -> str:
    """Returns a path or names as text: paths absolute where they exist, several names joined by commas."""
    if isinstance(value, (list, tuple)):
        return ','.join(map(str, value))
    return os.path.abspath(os.path.expanduser(value)) if Path(value).expanduser().exists() else str(value)


def meant(word: str, known: Sequence[str]) -> str:
    """Returns a question after the nearest of the known words, or ''."""
    near = get_close_matches(str(word), [*known], 1)
    return f'. Did you mean {near[0]}?' if near else ''
