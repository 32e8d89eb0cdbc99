"""What a model sees around a place of an image, and the numbers of its blocks."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..apis import ServedTask
from ..apis.tiles import Tiling, as_sample, keeps_pixels
from ..models import GatedPromptViT
from ..models.prompts import GatedPrompt

INNER = (5, 250)  # values of a ramp that are neither cut off nor near it


class Seen(NamedTuple):
    """A part of an image as a model sees it.

    Attributes:
        picture: (H, W, 3) of uint8, red first.
        inputs: The same pixels (1, 3, H, W) as the backbone takes them.
        point: The column and row of the place in it; None if it lies outside of what the model sees.
    """
    picture: np.ndarray
    inputs: Tensor
    point: tuple[int, int] | None

    @property
    def query(self) -> str | None:
        """The query of :mod:`mmseg_gpt.analysis.attention` for the patch with the place."""
        return None if self.point is None else f'{self.point[0]},{self.point[1]}'


class BlockNumbers(NamedTuple):
    """The numbers of a block.

    Attributes:
        block: From 1.
        gate: Its gate, or None if it has none.
        temperature: The temperature of its attention, or None.
    """
    block: int
    gate: float | None
    temperature: float | None


def block_numbers(vit: GatedPromptViT) -> list[BlockNumbers]:
    """Returns gates and temperatures of all blocks that run; those before the first prompts have no gate."""
    last, prompt = max(vit.out_indices), vit.prompt
    gated = range(vit.start_block, last) if isinstance(prompt, GatedPrompt) else ()
    temperatures = None if vit.temperature is None else vit.temperature.detach().clamp(*vit.temperature_range)
    with torch.no_grad():
        return [BlockNumbers(block + 1, float(prompt.gate(block)) if block in gated else None,
                             None if temperatures is None else float(temperatures[block]))
                for block in range(last + 1)]


def region_around(task: ServedTask, size: tuple[int, int], point: tuple[int, int],
                  tiling: Tiling | None = None) -> tuple[slice, slice]:
    """Returns the rows and columns of an image around a place that a model is shown at once.

    Args:
        task: The task.
        size: Height and width of the image.
        point: Column and row of the place.
        tiling: The tiles into which images of segmentations are cut, or None.
    """
    test_cfg = getattr(task.model, 'test_cfg', None) or {}
    if tiling and task.segments:
        sides = (tiling.side, tiling.side)
    elif test_cfg.get('mode') == 'slide' and keeps_pixels(task):
        sides = test_cfg['crop_size']
    else:
        return slice(0, size[0]), slice(0, size[1])
    return around(size, sides, point)


def around(size: tuple[int, int], sides: tuple[int, int], point: tuple[int, int]) -> tuple[slice, slice]:
    """Returns rows and columns of a window of ``sides`` with a place (column, row) in its middle as far as may be."""
    starts = [min(max(0, at - side // 2), max(0, length - side)) for length, side, at in zip(size, sides, point[::-1])]
    return tuple(slice(start, min(start + side, length)) for start, side, length in zip(starts, sides, size))


def seen_at(task: ServedTask, pixels: np.ndarray, point: tuple[int, int] | None = None) -> Seen:
    """Returns what a model sees of an image around a place: all that goes into it at once.

    For a model that slides windows that is a window with the place in its middle, else all that its pipeline leaves
    of the image.

    Args:
        task: The task.
        pixels: The image (H, W, 3) as its reader gives it, blue first.
        point: Column and row of the place; by default the middle.

    Raises:
        ValueError: the model takes images of another number of channels than 3, of which there is no picture.
    """
    if task.vit.in_channels != 3:
        raise ValueError(f'an image of {task.vit.in_channels} channels has no red, green and blue to make a picture of')
    height, width = pixels.shape[:2]
    point = (width // 2, height // 2) if point is None else point
    data = task.transform(as_sample(pixels))
    inputs = task.model.data_preprocessor({key: [data[key]] for key in ('inputs', 'data_samples')}, False)['inputs']
    picture = data['inputs'].clamp(0, 255).byte()
    missing = np.subtract(inputs.shape[-2:], picture.shape[-2:])  # the preprocessor pads at the bottom and right
    column, row = place_in_view(task, (height, width), point)
    inside = 0 <= column < picture.shape[2] and 0 <= row < picture.shape[1]
    picture = F.pad(picture, (0, int(missing[1]), 0, int(missing[0])))
    test_cfg = getattr(task.model, 'test_cfg', None) or {}
    size = tuple(inputs.shape[-2:])
    rows, columns = around(size, test_cfg['crop_size'] if test_cfg.get('mode') == 'slide' else size, (
        int(column), int(row)))
    return Seen(np.ascontiguousarray(picture[:, rows, columns].permute(1, 2, 0).numpy()[..., ::-1]),
                inputs[..., rows, columns],
                (int(column) - columns.start, int(row) - rows.start) if inside else None)


def place_in_view(task: ServedTask, size: tuple[int, int], point: tuple[int, int]) -> tuple[float, float]:
    """Returns the column and row at which a pixel of an image lies after a task's transforms; maybe outside.

    Whatever they are, resizing, cropping or flipping, they go through the transforms too: two ramps of gray, whose
    slopes tell where a pixel went.

    Args:
        task: The task.
        size: Height and width of the image.
        point: Column and row of the pixel.
    """
    height, width = size
    ramps = np.zeros((height, width, 3), np.uint8)
    ramps[..., 0] = np.linspace(0, 255, width)
    ramps[..., 1] = np.linspace(0, 255, height)[:, None]
    moved = task.transform(as_sample(ramps))['inputs'].float()
    found = []
    for values, at, length in ((moved[0].mean(0), point[0], width), (moved[1].mean(1), point[1], height)):
        places, levels = np.arange(len(values)), values.numpy()
        inner = (levels > INNER[0]) & (levels < INNER[1])
        if inner.sum() < 2 or length < 2:
            found.append(at * len(values) / length)
            continue
        slope, start = np.polyfit(places[inner], levels[inner], 1)
        found.append((at * 255 / (length - 1) - start) / slope)
    return tuple(float(np.floor(value + 0.5)) for value in found)
