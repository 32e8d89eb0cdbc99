"""Drawing one scene and its labels from a seed. Only NumPy and OpenCV are needed here.

A scene has a far half (sky or a brick wall), a near half (grass, water, paving, or two of them) and
objects that stand on it and hide one another. Colours vary as they do outdoors and are shared between classes
(grass and trees, water and sky, bricks and roofs), and each scene has a light of its own: colour alone tells no class.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

# Label 0 is "other", as in ADE20K; class i of this list has label i + 1 in the files.
CLASSES = ('sky', 'water', 'grass', 'brick', 'paving', 'tree', 'ball', 'house', 'zebra')
# Paul Tol's "muted" scheme, which stays distinct for colour-blind readers.
PALETTE = ((136, 204, 238), (51, 34, 136), (68, 170, 153), (204, 102, 119), (153, 153, 51), (17, 119, 51),
           (170, 68, 153), (136, 34, 85), (221, 204, 119))
LABELS = {name: i for i, name in enumerate(CLASSES, 1)}
OTHER = 0

Texture = Callable[[Generator, int], np.ndarray]


class Layer(NamedTuple):
    """One layer to paint over the scene.

    Attributes:
        mask: (S, S) coverage in [0, 1].
        texture: (S, S, 3) RGB in [0, 1].
        label: Its value in the label file.
    """
    mask: np.ndarray
    texture: np.ndarray
    label: int


def draw_scene(rng: Generator, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Draws one scene.

    Args:
        rng: Source of every random choice; the same state gives the same scene.
        size: Side in pixels, at least 32.

    Returns:
        tuple: RGB image (size, size, 3) and labels (size, size), both uint8; labels are 0 for "other"
        and i + 1 for ``CLASSES[i]``.
    """
    horizon = rng.uniform(0.3, 0.55) * size
    image, labels = paint([*draw_background(rng, size, horizon), *draw_objects(rng, size, horizon)])
    light = rng.uniform(0.7, 1.15) * rng.uniform(0.85, 1.15, 3)
    image = image * light + rng.normal(0, 0.015, image.shape)
    return (image.clip(0, 1) * 255).round().astype(np.uint8), labels


def paint(layers: list[Layer]) -> tuple[np.ndarray, np.ndarray]:
    """Paints layers over one another: RGB (S, S, 3) in [0, 1], float, and labels (S, S), uint8."""
    image, labels = np.zeros_like(layers[0].texture), np.zeros(layers[0].mask.shape, np.uint8)
    for layer in layers:
        coverage = layer.mask[..., None]
        image = image * (1 - coverage) + layer.texture * coverage
        labels[layer.mask > 0.5] = layer.label
    return image, labels


def draw_background(rng: Generator, size: int, horizon: float) -> list[Layer]:
    """Draws the far half, and one or two grounds in the near half."""
    y, x = np.mgrid[:size, :size].astype(float)
    edge = horizon + size * 0.02 * np.sin(x / size * rng.uniform(2, 9) + rng.uniform(0, 6))
    layers = [Layer(np.ones((size, size)), sky(rng, size), LABELS['sky'])]
    if rng.random() < 0.45:  # a wall, with a free side as often as not
        side = rng.uniform(0.35, 0.65) * size
        mask = rng.choice(np.array([x > -1, x < side, x > side], float))
        layers.append(Layer(mask, brick(rng, size), LABELS['brick']))
        edge = np.full_like(edge, horizon)
    first, second = rng.choice(['grass', 'water', 'paving'], 2, replace=False)
    layers.append(Layer(np.clip(y - edge, 0, 1), GROUNDS[first](rng, size), LABELS[first]))
    if rng.random() < 0.6:
        middle = size * rng.uniform(0.3, 0.7) + (y - horizon) * rng.uniform(-0.8, 0.8)
        bank = middle + size * 0.04 * np.sin(y / size * rng.uniform(4, 12) + rng.uniform(0, 6))
        mask = np.clip(y - edge, 0, 1) * np.clip(rng.choice([-1, 1]) * (x - bank), 0, 1)
        layers.append(Layer(mask, GROUNDS[second](rng, size), LABELS[second]))
    return layers


def draw_objects(rng: Generator, size: int, horizon: float) -> list[Layer]:
    """Draws two or three objects on the ground, farthest first."""
    layers = []
    count = rng.integers(2, 4)
    for foot in np.sort(rng.uniform(horizon + 0.06 * size, 0.98 * size, count)):
        nearness = (foot - horizon) / (size - horizon)
        height = size * (0.38 + 0.34 * nearness) * rng.uniform(0.85, 1.15)
        centre = rng.uniform(0.1, 0.9) * size
        name = rng.choice(['tree', 'ball', 'house', 'zebra', 'rock'], p=[0.25, 0.23, 0.22, 0.22, 0.08])
        layers.append(OBJECTS[name](rng, size, centre, foot, height))
    return layers


def colour(rng: Generator, hue: tuple[float, float], saturation: tuple[float, float] = (0.3, 0.8),
           value: tuple[float, float] = (0.45, 0.9)) -> np.ndarray:
    """Draws an RGB colour (3,) in [0, 1] from ranges of hue (in turns), saturation and value."""
    hsv = np.array([[[rng.uniform(*hue) % 1 * 360, rng.uniform(*saturation), rng.uniform(*value)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(float)


def noise(rng: Generator, size: int, rows: int, columns: int) -> np.ndarray:
    """Draws smooth noise (size, size) in about [0, 1], with bumps in ``rows`` and ``columns``."""
    coarse = rng.random((max(rows, 2), max(columns, 2))).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).astype(float)


def blend(weight: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Blends colours (S, S, 3): ``low`` where ``weight`` (S, S) is 0, ``high`` where it is 1."""
    weight = weight.clip(0, 1)[..., None]
    return low * (1 - weight) + high * weight


def sky(rng: Generator, size: int) -> np.ndarray:
    """Draws a vertical gradient with soft clouds: day, dusk or overcast."""
    base = colour(rng, (0.52, 0.68), (0.1, 0.65), (0.55, 0.95))
    low = colour(rng, (0.0, 0.2), (0.1, 0.45), (0.7, 0.95)) if rng.random() < 0.4 else base * 0.5 + 0.5
    gradient = np.repeat(np.linspace(0, 1.4, size)[:, None], size, axis=1)
    clouds = 0.6 * noise(rng, size, 8, 4) + 0.4 * noise(rng, size, 16, 8)
    return blend((clouds - rng.uniform(0.4, 0.6)) * 3, blend(gradient, base, low), np.full(3, 0.95))


def water(rng: Generator, size: int) -> np.ndarray:
    """Draws flat ripples, closer together far away."""
    y = np.mgrid[:size, :size][0] / size
    waves = np.sin(2 * math.pi * rng.uniform(9, 14) * np.sqrt(y) * 1.3 + 7 * noise(rng, size, 6, 4))
    base = colour(rng, (0.42, 0.64), (0.3, 0.7), (0.3, 0.65))
    return blend(0.5 + 0.5 * waves, base, base * 0.5 + 0.4)


def grass(rng: Generator, size: int) -> np.ndarray:
    """Draws fine upright blades on patches of shade."""
    blades = noise(rng, size, size // 5, size)
    shade = noise(rng, size, 5, 5)
    base = colour(rng, (0.18, 0.38), (0.35, 0.75), (0.4, 0.7))
    return blend(0.75 * blades + 0.25 * shade, base * 0.45, base * 1.25)


def brick(rng: Generator, size: int) -> np.ndarray:
    """Draws rows of bricks with mortar; the bricks differ a little in tone."""
    height = size / rng.uniform(10, 14)
    y, x = np.mgrid[:size, :size] / height
    row = np.floor(y)
    column = x / 2.2 + 0.5 * (row % 2)
    tone = rng.uniform(0.75, 1.15, (size, size))[row.astype(int), np.floor(column).astype(int)]
    mortar = (y % 1 < 0.22) | (column % 1 < 0.12)
    base = colour(rng, (-0.05, 0.12), (0.2, 0.7), (0.4, 0.75))
    return np.where(mortar[..., None], colour(rng, (0.05, 0.15), (0.0, 0.2), (0.6, 0.85)), base * tone[..., None])


def paving(rng: Generator, size: int) -> np.ndarray:
    """Draws round cobbles with dark joints."""
    step = size / rng.uniform(11, 14)
    image = np.zeros((size, size, 3), np.float32)
    base = colour(rng, (0.0, 0.7), (0.02, 0.15), (0.5, 0.8))
    image[:] = base * 0.35
    for row in range(-1, int(size / step) + 2):
        for column in range(-1, int(size / step) + 2):
            centre = np.array([column + 0.5 * (row % 2), row]) * step + rng.normal(0, 0.08 * step, 2)
            cv2.ellipse(image, (centre.tolist(), (step * 0.92, step * 0.8), rng.uniform(0, 180)),
                        (base * rng.uniform(0.75, 1.1)).tolist(), -1)
    return cv2.GaussianBlur(image, (3, 3), 0.6).astype(float)


GROUNDS: dict[str, Texture] = {'grass': grass, 'water': water, 'paving': paving}


class Canvas:
    """A mask to draw on in units of an object's height, with the origin at the middle of its foot.

    Args:
        size: Side of the scene.
        centre: Pixel column of the foot.
        foot: Pixel row of the foot.
        height: Pixels in one unit. Up is positive.
    """

    def __init__(self, size: int, centre: float, foot: float, height: float) -> None:
        self.pixels = np.zeros((size, size), np.uint8)
        self.origin, self.height = np.array([centre, foot]), height

    def place(self, points: list[tuple[float, float]]) -> np.ndarray:
        """Converts units to sixteenths of a pixel, as OpenCV's ``shift=4`` needs them."""
        return np.round((self.origin + np.array(points) * self.height * [1, -1]) * 16).astype(int)

    def disc(self, x: float, y: float, rx: float, ry: float | None = None, tilt: float = 0) -> 'Canvas':
        axes = [round(r * self.height * 16) for r in (rx, ry or rx)]
        cv2.ellipse(self.pixels, self.place([(x, y)])[0].tolist(), axes, tilt, 0, 360, 255, -1, cv2.LINE_AA, 4)
        return self

    def polygon(self, *points: tuple[float, float]) -> 'Canvas':
        cv2.fillPoly(self.pixels, [self.place(points)], 255, cv2.LINE_AA, 4)
        return self

    def box(self, left: float, bottom: float, right: float, top: float) -> 'Canvas':
        return self.polygon((left, bottom), (right, bottom), (right, top), (left, top))

    @property
    def mask(self) -> np.ndarray:
        """Coverage (S, S) in [0, 1]."""
        return self.pixels / 255.

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the x and y of each pixel in units, both (S, S)."""
        rows, columns = np.mgrid[:len(self.pixels), :len(self.pixels)]
        return (columns - self.origin[0]) / self.height, (self.origin[1] - rows) / self.height


def tree(rng: Generator, size: int, centre: float, foot: float, height: float) -> Layer:
    """Draws a trunk and a crown of overlapping leafy discs."""
    canvas, trunk = (Canvas(size, centre, foot, height) for _ in range(2))
    trunk.box(-0.05, 0, 0.05, 0.6)
    for _ in range(7):
        angle, radius = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.16)
        canvas.disc(radius * math.cos(angle), 0.68 + radius * math.sin(angle), rng.uniform(0.16, 0.22))
    leaves = blend((noise(rng, size, size // 3, size // 3) - 0.5) * 1.6 + 0.5,
                   (base := colour(rng, (0.1, 0.42), (0.4, 0.85), (0.4, 0.7))) * 0.35, base * 1.3)
    bark = np.ones((size, size, 1)) * colour(rng, (0.04, 0.1), (0.3, 0.6), (0.25, 0.45))
    texture = np.where(canvas.mask[..., None] > 0.3, leaves, bark)
    return Layer(np.maximum(canvas.mask, trunk.mask), texture, LABELS['tree'])


def ball(rng: Generator, size: int, centre: float, foot: float, height: float) -> Layer:
    """Draws a beach ball: six wedges in two colours, shaded to the rim."""
    radius = 0.32
    canvas = Canvas(size, centre, foot, height).disc(0, radius, radius)
    x, y = canvas.grid()
    x0, y0 = rng.uniform(-0.12, 0.12, 2)
    angle = np.arctan2(y - radius - y0, x - x0) + rng.uniform(0, 2 * math.pi)
    wedges = (np.floor(angle / (math.pi / 3)) % 2)
    shade = 1.15 - 0.55 * np.hypot(x + 0.1, y - radius - 0.1) / radius
    first = colour(rng, (0, 1), (0.75, 1.0), (0.7, 1.0))
    second = np.full(3, 0.95) if rng.random() < 0.6 else colour(rng, (0, 1), (0.75, 1.0), (0.7, 1.0))
    return Layer(canvas.mask, blend(wedges, first, second) * shade[..., None].clip(0.4, 1.2), LABELS['ball'])


def house(rng: Generator, size: int, centre: float, foot: float, height: float) -> Layer:
    """Draws walls of planks, a plain gable roof, a door and two windows."""
    half = rng.uniform(0.34, 0.44)
    canvas, roof, holes = (Canvas(size, centre, foot, height) for _ in range(3))
    canvas.box(-half, 0, half, 0.55)
    roof.polygon((-half - 0.08, 0.53), (half + 0.08, 0.53), (0, 0.95))
    holes.box(-0.07, 0, 0.07, 0.3).box(-half + 0.07, 0.24, -half + 0.2, 0.42).box(half - 0.2, 0.24, half - 0.07, 0.42)
    planks = 0.5 + 0.5 * np.sin(canvas.grid()[1] * 2 * math.pi * 9)
    wall = colour(rng, (0.05, 0.18), (0.15, 0.6), (0.65, 0.95))
    texture = blend(planks, wall * 0.75, wall)
    texture = blend(holes.mask, texture, colour(rng, (0.5, 0.7), (0.1, 0.5), (0.15, 0.35)))
    texture = blend(roof.mask, texture, colour(rng, (-0.06, 0.08), (0.4, 0.8), (0.3, 0.6)))
    return Layer(np.maximum(canvas.mask, roof.mask), texture, LABELS['house'])


def zebra(rng: Generator, size: int, centre: float, foot: float, height: float) -> Layer:
    """Draws a striped animal that looks left or right, light on dark or dark on light."""
    way = rng.choice([-1, 1])
    canvas = Canvas(size, centre, foot, height)
    canvas.disc(0, 0.5, 0.36, 0.19)
    for leg in (-0.27, -0.17, 0.17, 0.27):
        canvas.box(leg - 0.04, 0, leg + 0.04, 0.5)
    canvas.polygon((way * 0.15, 0.55), (way * 0.35, 0.45), (way * 0.5, 0.84), (way * 0.38, 0.92))
    canvas.disc(way * 0.5, 0.84, 0.13, 0.075, 30 * way)
    x, y = canvas.grid()
    warp = 0.12 * noise(rng, size, 6, 6)
    stripes = np.sin(2 * math.pi * rng.uniform(7, 9) * (x + way * 0.3 * y + warp))
    light = colour(rng, (0.02, 0.2), (0.0, 0.2), (0.85, 1.0))
    dark = colour(rng, (0.0, 1.0), (0.1, 0.4), (0.03, 0.15))
    return Layer(canvas.mask, blend(stripes * 2 + 0.5, dark, light), LABELS['zebra'])


def rock(rng: Generator, size: int, centre: float, foot: float, height: float) -> Layer:
    """Draws a grey boulder, which belongs to no class: its label is 0."""
    angles = np.sort(rng.uniform(0, 2 * math.pi, 9))
    points = [(0.2 * math.cos(a) * r, 0.14 + 0.14 * math.sin(a) * r) for a, r in zip(angles, rng.uniform(0.7, 1.1, 9))]
    canvas = Canvas(size, centre, foot, height).polygon(*points)
    tone = 0.25 + 0.35 * noise(rng, size, size // 6, size // 6)
    return Layer(canvas.mask, np.repeat(tone[..., None], 3, axis=2), OTHER)


OBJECTS: dict[str, Callable[[Generator, int, float, float, float], Layer]] = {
    'tree': tree, 'ball': ball, 'house': house, 'zebra': zebra, 'rock': rock}
