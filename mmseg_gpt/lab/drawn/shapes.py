"""Drawing one image of a shape from a seed. Only NumPy and Pillow are needed here.

Each image has its own size, place, angle and colours of the shape, which is as often lighter than its ground as darker.
So neither a colour nor the value of any pixel shows the class.
"""

import math

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

FINE = 4  # factor by which shapes are drawn larger, for smooth edges
TURN = math.tau
# Ranges of the texture's amplitude. The ViT is pretrained on the first and adapted to the second.
SMOOTH, ROUGH = (0., 0.02), (0.1, 0.2)
BLOBS = 12


def circle(radius: float, points: int = 40) -> np.ndarray:
    """Returns points (N, 2) around the origin; with a radius for each point they make any outline."""
    angle = np.linspace(0, TURN, points, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.reshape(radius, (-1, 1))


def spokes(number: int, inner: float) -> np.ndarray:
    """Returns the points (2 * number, 2) of a star whose inner corners have the radius ``inner``."""
    return circle(np.tile([1., inner], number), 2 * number)


def crescent() -> np.ndarray:
    """Returns the points (48, 2) of an arc and of a flatter one back."""
    angle = np.linspace(-2.2, 2.2, 24)
    arc = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.concatenate([arc, arc[::-1] * [0.45, 1] - [0.3, 0]])


def heart() -> np.ndarray:
    """Returns the points (40, 2) of a heart-shaped curve."""
    t = np.linspace(0, TURN, 40, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t)**3, -y], axis=1) / 16


# The classes of the task: outlines around the origin, of a radius of about 1. Outlines after the first are holes.
SHAPES: dict[str, list[np.ndarray]] = {
    'arrow': [np.array([(-1, -.25), (.1, -.25), (.1, -.7), (1, 0), (.1, .7), (.1, .25), (-1, .25)])],
    'bolt': [np.array([(-.1, -1), (.5, -1), (.2, -.2), (.65, -.2), (-.3, 1), (0, .1), (-.5, .1)])],
    'crescent': [crescent()],
    'cross': [np.array([(-.3, -1), (.3, -1), (.3, -.3), (1, -.3), (1, .3), (.3, .3), (.3, 1), (-.3, 1), (-.3, .3),
                        (-1, .3), (-1, -.3), (-.3, -.3)])],
    'disc': [circle(0.9)],
    'heart': [heart()],
    'hourglass': [np.array([(-.7, -1), (.7, -1), (.1, 0), (.7, 1), (-.7, 1), (-.1, 0)])],
    'ring': [circle(1), circle(0.55)],
    'star': [spokes(5, 0.42)],
    'triangle': [spokes(3, 0.5)],
}


def blob(number: int) -> list[np.ndarray]:
    """Returns one of an endless family of bumpy outlines, which serve as classes for pretraining."""
    rng = np.random.default_rng([77, number])
    angle = np.linspace(0, TURN, 48, endpoint=False)
    radius = 1 + sum(rng.normal(0, 0.35 / math.sqrt(k)) * np.cos(k * angle + rng.uniform(0, TURN)) for k in range(1, 7))
    points = circle(radius.clip(0.15), 48)
    points -= (points.max(axis=0) + points.min(axis=0)) / 2
    hole = [circle(0.3)] if rng.random() < 0.3 else []
    return [points / np.linalg.norm(points, axis=1).max(), *hole]


def draw_shape(rng: Generator, outlines: list[np.ndarray], size: int = 32,
               rough: tuple[float, float] = ROUGH) -> np.ndarray:
    """Draws one image.

    Args:
        rng: Source of every random choice; the same state gives the same image.
        outlines: One of ``SHAPES``, or the outlines of a :func:`blob`.
        size: Side in pixels.
        rough: Range of the textures' amplitude.

    Returns:
        np.ndarray: RGB image (size, size, 3) uint8.
    """
    mask = draw_mask(rng, outlines, size)[..., None]
    ground, paint = (texture(rng, colour, size, rough) for colour in two_colours(rng))
    image = ground * (1 - mask) + paint * mask + rng.normal(0, 0.02, (size, size, 3))
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


def draw_mask(rng: Generator, outlines: list[np.ndarray], size: int) -> np.ndarray:
    """Draws the coverage (size, size) in [0, 1] of a shape, placed, turned, scaled and squeezed at random."""
    radius, angle = rng.uniform(0.3, 0.42) * size, rng.uniform(-0.3, 0.3)
    centre = size / 2 + rng.uniform(-0.5, 0.5, 2) * (size / 2 - radius)
    turn = np.array([(math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))])
    turn[1] *= rng.uniform(0.85, 1)
    picture = Image.new('L', (size * FINE, size * FINE))
    for i, points in enumerate(outlines):
        placed = (points @ turn * radius + centre) * FINE
        ImageDraw.Draw(picture).polygon([tuple(point) for point in placed.tolist()], fill=0 if i else 255)
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX)) / 255


def two_colours(rng: Generator) -> np.ndarray:
    """Draws two RGB colours (2, 3), one of them lighter by at least a quarter of the range."""
    while True:
        colours = rng.uniform(0.05, 0.95, (2, 3))
        if abs((colours[0] - colours[1]).mean()) > 0.25:
            return colours


def texture(rng: Generator, colour: np.ndarray, size: int, rough: tuple[float, float]) -> np.ndarray:
    """Draws a texture (size, size, 3): an RGB colour with waves in some direction, or with patches."""
    if rng.random() < 0.5:
        rows, columns = np.mgrid[:size, :size] / size
        angle, waves = rng.uniform(0, TURN), rng.uniform(2, 6)
        tone = np.sin(TURN * waves * (columns * math.cos(angle) + rows * math.sin(angle)) + rng.uniform(0, TURN))
    else:
        cells = int(rng.integers(3, 9))
        patches = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
        tone = np.asarray(patches.resize((size, size), Image.Resampling.BICUBIC))
    return colour + rng.uniform(*rough) * tone[..., None] * rng.uniform(0.5, 1, 3)
