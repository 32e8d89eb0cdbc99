"""Writing a task as a file, which is kept only if it computes what the model computes."""

import json
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import mmseg_gpt

from ..apis.task import ServedTask
from ..environment import installed_versions
from ..files import replacing
from ..settings import unwrapped_datasets
from . import onnx_file
from .program import Program

KINDS = ('.onnx', '.pt2')
# The largest difference of a logit from the model's that is accepted, as a share of the largest logit.
BOUNDS = {'float32': 1e-3, 'float16': 3e-2, 'int8': 1e-1}
AXES = {'nchw': (2, 3), 'nhwc': (1, 2)}  # of height and width


@dataclass(frozen=True)
class Choices:
    """What a file shall be like.

    Attributes:
        output: 'labels', 'probabilities' or 'logits', see :class:`Program`.
        preprocess: Whether it takes images of uint8, see :class:`Program`.
        layout: 'nchw' or 'nhwc', see :class:`Program`.
        size: Height and width of images in pixels, or None to leave them open where the model allows.
        half: Whether an ONNX file computes in float16.
        int8: Whether the linear layers of an ONNX file have weights of 8 bits.
    """
    output: str = 'labels'
    preprocess: bool = False
    layout: str = 'nchw'
    size: tuple[int, int] | None = None
    half: bool = False
    int8: bool = False

    @property
    def precision(self) -> str:
        """The key in ``BOUNDS``."""
        return 'int8' if self.int8 else 'float16' if self.half else 'float32'


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: The file.
        size: Height and width of all images, or None if they are open.
        why_fixed: Why they are not open, in words; '' if they are open.
        shapes: Shapes of the images with which the file was compared.
        difference: The largest difference from the model, as a share of its largest value.
        bound: What is accepted of it.
        equal_labels: Share of the pixels or images whose class is that of the model.
        left_to_caller: What ``predict`` does around the model and the file does not, in words.
    """
    path: Path
    size: tuple[int, int] | None
    why_fixed: str
    shapes: tuple[tuple[int, ...], ...]
    difference: float
    bound: float
    equal_labels: float
    left_to_caller: tuple[str, ...] = ()


def export_task(task: ServedTask, path: str | Path, choices: Choices | None = None) -> Exported:
    """Writes the model of a task as an ONNX file or, for ``.pt2``, as PyTorch's exported program, for the CPU.

    The number of images is open. The file is compared with the model on images of three shapes before it is kept. It
    says what it is: classes, palette, normalisation, the rule for images, versions. A segmentor is written as it labels
    one window; where the config slides windows over an image, the caller has to do it too.

    Args:
        task: A task of :func:`mmseg_gpt.apis.load_task`, which stays as it is.
        path: The file, which ends in .onnx or .pt2.
        choices: What it shall be like; by default labels of normalised images.

    Raises:
        ValueError: the file has another ending, a choice is not possible for it, a package is missing, the model cannot
            be exported, or the file would compute something else than the model. Nothing is written then.
    """
    path, choices = Path(path), choices or Choices()
    check(path, choices)
    is_onnx = path.suffix == '.onnx'
    options = dict(output=choices.output, preprocess=choices.preprocess, layout=choices.layout, with_logits=is_onnx,
                   without_slices=not is_onnx)
    program, original = Program(task.model, **options), Program(task.model, fold=False, **options)
    size, why_fixed = fixed_size(task, choices)
    batches = [draw(task, choices, *shape) for shape in three_shapes(task, size)]
    exported = exported_program(program, batches[1], choices, size)
    notes = describe(task, choices, size)
    with replacing(path) as unfinished, quiet():
        if is_onnx:
            answer = write_onnx(exported, unfinished, choices, size, notes)
        else:
            torch.export.save(exported, unfinished, extra_files={'about.json': json.dumps(notes, indent=1)})
            answer = partial(answers_of_file, torch.export.load(unfinished).module())
        found = compare(original, answer, batches, BOUNDS[choices.precision])
    return Exported(path, size, why_fixed, tuple(tuple(images.shape) for images in batches), *found,
                    tuple(left_to_caller(task)))


def check(path: Path, choices: Choices) -> None:
    """Refuses endings that are not known, and choices that contradict each other or the ending.

    Raises:
        ValueError: so it is.
    """
    if path.suffix not in KINDS:
        raise ValueError(f'{path} must end in {" or ".join(KINDS)}')
    if not path.resolve().parent.is_dir():
        raise ValueError(f'{path}: there is no such folder')
    if choices.half and choices.int8:
        raise ValueError('choose fp16 or int8: weights of 8 bits are computed with in float32')
    if (choices.half or choices.int8) and path.suffix != '.onnx':
        raise ValueError('fp16 and int8 are for .onnx files')
    if choices.size and min(choices.size) < 1:
        raise ValueError(f'the size of images must be positive, got {choices.size}')
    if path.suffix == '.onnx':
        onnx_file.needed('onnx', 'onnxruntime', 'onnxscript')


def fixed_size(task: ServedTask, choices: Choices) -> tuple[tuple[int, int] | None, str]:
    """Returns height and width if the program can be for one size only, or shall be, and the reason in words."""
    if choices.size:
        return choices.size, 'it was asked for'
    pools = [module for module in task.model.modules() if isinstance(module, nn.AdaptiveAvgPool2d)
             and module.output_size not in (1, (1, 1), None)]
    if pools:
        return usual_size(task), 'the head pools to fixed grids, which a program can only do from one size'
    return None, ''


def usual_size(task: ServedTask) -> tuple[int, int]:
    """Returns height and width of the windows, or else of the images for which the ViT is made."""
    test_cfg = getattr(task.model, 'test_cfg', None) or {}
    if test_cfg.get('mode') == 'slide':
        return tuple(test_cfg['crop_size'])
    return tuple(side * task.vit.patch_embed.patch_size for side in task.vit.grid)


def three_shapes(task: ServedTask, size: tuple[int, int] | None) -> list[tuple[int, int, int]]:
    """Returns numbers, heights and widths of the images for the comparison; sides that are no whole patches if open."""
    if size:
        return [(1, *size), (2, *size), (3, *size)]
    (height, width), patch = usual_size(task), task.vit.patch_embed.patch_size
    return [(1, height, width), (2, height, width + 2 * patch), (1, height + patch - 3, max(patch, width - 5))]


def draw(task: ServedTask, choices: Choices, number: int, height: int, width: int) -> Tensor:
    """Draws images: a coarse pattern with noise, so that neighbouring pixels are alike as in photographs."""
    generator, channels = torch.Generator().manual_seed(number + height), task.vit.in_channels
    coarse = torch.rand(number, channels, max(2, height // 16), max(2, width // 16), generator=generator)
    images = nn.functional.interpolate(coarse, (height, width), mode='bilinear')
    images = images * 220 + torch.rand(images.shape, generator=generator) * 35
    if choices.preprocess:
        images = images.byte()
        return images.permute(0, 2, 3, 1).contiguous() if choices.layout == 'nhwc' else images
    return (images - 127) / 60


def exported_program(program: Program, images: Tensor, choices: Choices,
                     size: tuple[int, int] | None) -> ExportedProgram:
    """Records the program on images, with open axes.

    Raises:
        ValueError: torch cannot record the model.
    """
    axes = {} if size else dict.fromkeys(AXES[choices.layout], Dim.DYNAMIC)
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(program, (images, ), dynamic_shapes=(
                {0: Dim('batch', min=1, max=4096), **axes}, ))
    except Exception as error:  # of many types
        hint = '' if size else ' Images of one size may be possible: give --size HEIGHT WIDTH.'
        raise ValueError(f'torch.export cannot record the model: {str(error).splitlines()[0]}.{hint}') from error


def write_onnx(exported: ExportedProgram, path: Path, choices: Choices, size: tuple[int, int] | None,
               notes: dict[str, str]) -> Callable[[Tensor], list[np.ndarray]]:
    """Writes an ONNX file; returns what answers images by it, with the logits."""
    axes = {} if size else dict(zip(AXES[choices.layout], ('height', 'width')))
    outputs = dict.fromkeys((onnx_file.LOGITS, choices.output))
    model = onnx_file.as_onnx(exported, list(outputs), {0: 'batch', **axes})
    if choices.half:
        model = onnx_file.halved(model)
    if choices.int8:
        model = onnx_file.with_int8_weights(model)
    onnx_file.note(model, notes)
    onnx_file.without_logits(model)
    path.write_bytes(model.SerializeToString())
    session = onnx_file.session_of(path, with_logits=True)

    def answer(images: Tensor) -> list[np.ndarray]:
        found = onnx_file.run(session, images.numpy())
        return [found[name] for name in outputs]
    return answer


def answers_of(program: nn.Module, images: Tensor) -> list[np.ndarray]:
    """Returns all outputs of a program for images."""
    with torch.no_grad():
        found = program(images)
    return [output.numpy() for output in (found if isinstance(found, tuple) else (found, ))]


def answers_of_file(program: nn.Module, images: Tensor) -> list[np.ndarray]:
    """Returns all outputs of a program that torch.export recorded.

    Raises:
        ValueError: it was recorded for images of other sizes only.
    """
    try:
        return answers_of(program, images)
    except (AssertionError, RuntimeError) as error:  # as its versions differ
        raise ValueError(f'the program does not take images {tuple(images.shape)}: {error}: nothing is kept. Images of '
                         'one size may be possible: give --size HEIGHT WIDTH') from error


def compare(original: Program, answer: Callable[[Tensor], list[np.ndarray]], batches: list[Tensor],
            bound: float) -> tuple[float, float, float]:
    """Compares a file with the model.

    Args:
        original: The model.
        answer: Answers images as the file does, with what ``original`` returns.
        batches: The images.
        bound: The largest difference that is accepted, as a share of the largest value of the model.

    Returns:
        tuple: The difference found, the bound, and the share of equal labels.

    Raises:
        ValueError: an output has another shape, or the difference is above the bound.
    """
    worst, equal = 0., []
    for images in batches:
        for ours, theirs in zip(answers_of(original, images), answer(images), strict=True):
            if ours.shape != theirs.shape:
                raise ValueError(f'of images {tuple(images.shape)} the file gives {theirs.shape} and the model '
                                 f'{ours.shape}: nothing is kept')
            if ours.dtype.kind != 'f':
                equal.append((ours == theirs).mean())
                continue
            difference = float(np.abs(ours - theirs).max() / max(np.abs(ours).max(), 1e-12))
            worst = max(worst, difference if math.isfinite(difference) else math.inf)
            if ours.shape[1] > 1:
                equal.append((ours.argmax(1) == theirs.argmax(1)).mean())
    share = float(np.mean(equal)) if equal else 1.
    if worst > bound or 1 - share > max(bound, 1e-2):
        raise ValueError(f'the file differs from the model by {worst:.2g} of its largest value, where {bound:g} is '
                         f'accepted, and {share:.2%} of the labels are equal: nothing is kept')
    return worst, bound, share


def describe(task: ServedTask, choices: Choices, size: tuple[int, int] | None) -> dict[str, str]:
    """Returns what a file says about itself, as texts, most of them JSON."""
    program = Program(task.model, choices.output, choices.preprocess, choices.layout, fold=False)
    mean, std = (values.flatten().tolist() for values in (program.mean, program.std))
    channels = task.vit.in_channels
    order = 'as in training' if channels != 3 else 'blue first' if program.flips else 'red first'
    shape = f'(N, {channels}, H, W)' if choices.layout == 'nchw' else f'(N, H, W, {channels})'
    sides = f'H = {size[0]}, W = {size[1]}' if size else 'H and W are open'
    rule = (f'uint8 {shape}, {"red first" if channels == 3 else order}; normalised'
            f'{" and padded" if program.pads else ""} inside' if choices.preprocess else
            f'float32 {shape}, {order}, (pixel - mean) / std{"; padded inside" if program.pads else ""}')
    test_cfg = dict(getattr(task.model, 'test_cfg', None) or {})
    preprocessor = task.model.data_preprocessor
    padding = dict(getattr(preprocessor, 'test_cfg', None) or {}, pad_val=getattr(preprocessor, 'pad_val', 0))
    pipeline = next(unwrapped_datasets(task.cfg.test_dataloader.dataset)).get('pipeline')
    return {
        'classes': json.dumps(list(task.classes or ())), 'palette': json.dumps([list(c) for c in task.palette or ()]),
        'mean': json.dumps(mean), 'std': json.dumps(std), 'channel_order': order, 'input': f'{rule}; {sides}',
        'layout': choices.layout, 'channels': str(getattr(task.model, 'out_channels', len(task.classes or ()))),
        'threshold': str(getattr(getattr(task.model, 'decode_head', None), 'threshold', None) or 0.5),
        'output': choices.output, 'precision': choices.precision, 'patch_size': str(program.patch),
        'test_cfg': json.dumps(test_cfg, default=str), 'padding': json.dumps(padding),
        'align_corners': json.dumps(bool(getattr(task.model, 'align_corners', False))),
        'test_pipeline': json.dumps(pipeline, default=str), 'vit': task.origin,
        'versions': json.dumps({'mmseg_gpt': mmseg_gpt.__version__,
                                **installed_versions('torch', 'onnx', 'onnxscript', 'onnxruntime')}),
        'licence': 'The weights are made from a pretrained ViT and from training data: the licences of both hold for '
                   'this file too. The program that wrote it is under Apache-2.0.'}


def changes_of(pipeline: Iterable[dict]) -> list[tuple[str, dict]]:
    """Returns the names and settings of the transforms of a test pipeline that change an image after it is read.

    Args:
        pipeline: The transforms of a config, or of the ``test_pipeline`` that a file says about itself.
    """
    found = []
    for step in pipeline:
        settings = dict(step)
        kind = settings.pop('type')
        name = str(getattr(kind, '__name__', kind)).rpartition('.')[2].rstrip("'>")  # a class as text
        if not name.startswith(('Load', 'Pack')):
            found.append((name, settings))
    return found


def left_to_caller(task: ServedTask) -> list[str]:
    """Says what the config of a task does around the model, which a file of the task does not do.

    Args:
        task: The task.
    """
    changes = ', '.join(
        f'{name}({", ".join(f"{key}={value}" for key, value in settings.items())})'
        for name, settings in changes_of(next(unwrapped_datasets(task.cfg.test_dataloader.dataset)).get('pipeline')))
    rule = getattr(task.model, 'test_cfg', None) or {}
    found = []
    if changes:
        back = ', and resize the answers to the size of the images' if task.segments else ''
        found.append(f'change images as the test pipeline does, by {changes}{back}')
    padding = dict(getattr(task.model.data_preprocessor, 'test_cfg', None) or {})
    if padding.get('size') or padding.get('size_divisor', task.vit.patch_embed.patch_size) != (
            task.vit.patch_embed.patch_size):  # which the file does itself
        wanted = (f'{" x ".join(map(str, padding["size"]))} pixels' if padding.get('size') else
                  f'multiples of {padding["size_divisor"]} pixels')
        found.append(f'pad images at the bottom and right to {wanted}, and cut that off the answers')
    if rule.get('mode') == 'slide':
        found.append(f'slide windows of {" x ".join(map(str, rule["crop_size"]))} pixels over images, with a stride of '
                     f'{" x ".join(map(str, rule["stride"]))}')
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps back the warnings and notes of torch and onnxruntime's tools about their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)
