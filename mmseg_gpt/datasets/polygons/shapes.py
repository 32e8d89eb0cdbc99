"""What people have drawn on an image, whatever the tool, and which pixels that covers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

Colour = tuple[int, int, int]
BOX, FEW_POINTS = 'box without an outline', 'polygon of fewer than 3 points'  # of what is left out
CORNERS = 256  # of a polygon that stands for an ellipse; it then is 0.04 pixels too small at a radius of 500


class LabelsError(ValueError):
    """Annotations cannot be read or drawn; the message names the file and says what to do."""


class Shape(NamedTuple):
    """An area or a line of one label.

    Coordinates are x and y in pixels from the upper left corner of the image, which is (0, 0), so that the first pixel
    reaches to (1, 1).

    Attributes:
        label: Name of its class.
        rings: Closed outlines, each (N, 2). A point is inside if it is inside an odd number of them: a ring in another
            one is a hole.
        line: Points (N, 2) of an open line, which has no area of its own; None for an area.
        mask: Function that returns the pixels (h, w) that are covered, or None if there are rings or a line. It is
            called when the shape is drawn, as the masks of all images at once may not fit into memory.
        origin: Column and row of the mask's first pixel in the image.
        ignored: Whether its pixels are to be ignored, whatever its label is.
        relative: Whether the rings are not in pixels but in shares of the width and height of the image.
    """
    label: str
    rings: tuple[np.ndarray, ...] = ()
    line: np.ndarray | None = None
    mask: Callable[[], np.ndarray] | None = None
    origin: tuple[int, int] = (0, 0)
    ignored: bool = False
    relative: bool = False


class Annotation(NamedTuple):
    """All that is drawn on one image.

    Attributes:
        image: What the file says of the image: a name, a path, or the address that a server had for it.
        file: The file that says so.
        size: Width and height in pixels of the image that was drawn on, or None if the file does not say.
        shapes: The shapes, the lowest first: a later one covers those before it.
        left_out: How many drawings of each kind are no shapes, as points and texts.
        aliases: Other names of the image, to look for where the first is not found.
    """
    image: str
    file: Path
    size: tuple[int, int] | None
    shapes: list[Shape]
    left_out: Counter
    aliases: tuple[str, ...] = ()


@dataclass
class Annotations:
    """The annotations in the files of one tool.

    Attributes:
        tool: Name of the tool or format, as people say it.
        images: The annotations of each image.
        names: Classes in the tool's own order; empty if it does not say.
        colours: Colours of classes, as far as they are known.
        notes: What the user must hear, each a sentence.
    """
    tool: str
    images: list[Annotation] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    colours: dict[str, Colour] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def ellipse(centre: Sequence[float], radii: Sequence[float], degrees: float = 0.) -> np.ndarray:
    """Returns the outline (N, 2) of an ellipse that is turned clockwise about its centre."""
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * np.asarray(radii, float)
    return turned(points, degrees, (0, 0)) + np.asarray(centre, float)


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Returns the outline (4, 2) of a rectangle."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)


def turned(points: np.ndarray, degrees: float, pivot: Sequence[float]) -> np.ndarray:
    """Returns points (N, 2) turned about ``pivot``; clockwise, as y points down."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    pivot = np.asarray(pivot, float)
    return (points - pivot) @ np.array([[cosine, sine], [-sine, cosine]]) + pivot


def from_runs(runs: Sequence[int | str], shape: tuple[int, int]) -> np.ndarray:
    """Returns the mask (H, W) of lengths of runs, row by row, of which the first is not covered.

    Raises:
        ValueError: they do not fill the mask.
    """
    lengths = np.array(runs, int)
    if lengths.sum() != shape[0] * shape[1]:
        raise ValueError(f'its run lengths have {lengths.sum()} pixels, but its size is {shape[0]}x{shape[1]}')
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(shape)


def draw(shapes: Sequence[Shape], classes: Mapping[str, int], canvas: np.ndarray, line_width: int,
         ignored: int = 255) -> int:
    """Draws shapes in their order, and returns how many reach more than a pixel out of the image, and are cut.

    Args:
        shapes: The shapes, the lowest first.
        classes: Number of each label.
        canvas: Class numbers (H, W) to draw on.
        line_width: Width of lines in pixels.
        ignored: Number of the pixels of ignored shapes.

    Raises:
        ValueError: the mask of a shape cannot be read.
    """
    height, width = canvas.shape
    cut = 0
    for shape in shapes:
        if shape.mask is not None:
            whole, corner = shape.mask(), np.array(shape.origin)
            points = np.stack([corner, corner + whole.shape[::-1]])
            mask, left, top = within(whole, shape.origin, width, height)
        elif shape.line is not None:
            points, left, top = shape.line, 0, 0
            mask = near(shape.line, line_width / 2, width, height)
        else:
            rings = [ring * (width, height) for ring in shape.rings] if shape.relative else shape.rings
            points = np.concatenate(rings)
            mask, left, top = inside(rings, width, height)
        cut += bool((points < -1).any() or (points > np.array([width, height]) + 1).any())
        place = canvas[top:top + mask.shape[0], left:left + mask.shape[1]]
        place[mask] = ignored if shape.ignored else classes[shape.label]
    return cut


def within(mask: np.ndarray, origin: tuple[int, int], width: int, height: int) -> tuple[np.ndarray, int, int]:
    """Returns the part of a mask that lies within an image, and the column and row of its first pixel."""
    left, top = max(origin[0], 0), max(origin[1], 0)
    return mask[top - origin[1]:, left - origin[0]:][:max(height - top, 0), :max(width - left, 0)], left, top


def near(line: np.ndarray, distance: float, width: int, height: int) -> np.ndarray:
    """Returns the pixels (H, W) of an image whose centres are at most ``distance`` from a line (N, 2)."""
    mask = np.zeros((height, width), bool)
    for start, end in pairwise(line):
        left, top = np.clip(np.floor(np.minimum(start, end) - distance), 0, (width, height)).astype(int)
        right, bottom = np.clip(np.ceil(np.maximum(start, end) + distance), 0, (width, height)).astype(int)
        centres = np.stack(np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5), -1) - start
        along = end - start
        share = np.clip(centres @ along / max(along @ along, 1e-12), 0, 1)
        mask[top:bottom, left:right] |= np.linalg.norm(centres - share[..., None] * along, axis=-1) <= distance
    return mask


def inside(rings: Sequence[np.ndarray], width: int, height: int) -> tuple[np.ndarray, int, int]:
    """Returns the pixels of an image whose centres lie inside an odd number of closed outlines.

    Pillow's and OpenCV's polygons round corners to pixels and add the outline, so that a square of 10 pixels gets 11.

    Args:
        rings: Outlines, each (N, 2).
        width: Width of the image.
        height: Height of the image.

    Returns:
        The pixels (h, w) in the smallest rectangle around the outlines, and its first column and row.
    """
    points = np.concatenate(rings)
    left, top = np.clip(np.floor(points.min(0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(points.max(0)), 0, (width, height)).astype(int)
    x, y = points.T
    next_x, next_y = np.concatenate([np.roll(ring, -1, 0) for ring in rings]).T
    rows = np.arange(top, bottom) + 0.5
    row, edge = np.nonzero((y <= rows[:, None]) != (next_y <= rows[:, None]))
    share = (rows[row] - y[edge]) / (next_y - y)[edge]
    crossing = np.ceil(x[edge] + share * (next_x - x)[edge] - 0.5)
    column = np.clip(crossing - left, 0, right - left).astype(int)
    changes = np.zeros((len(rows), right - left + 1), np.int32)
    np.add.at(changes, (row, column), 1)
    return changes[:, :-1].cumsum(1) % 2 == 1, int(left), int(top)
