"""The images of the miniature: the world of :mod:`mmseg_gpt.lab.drawn.scenes`, small, with four uses for it.

* ``pretraining``: one object near by in front of others. 24 classes, for the supervised twin; the others see no labels.
* ``scenes``: for segmentation, after ADE20K.
* ``breeds``: one striped animal; 12 classes by hue, number of stripes and coat. Fine-grained, after CUB.
* ``distances``: a house among other objects; 5 classes by how far away it is, after KITTI in VTAB.

Scenes are drawn at twice their size and averaged, so that fine textures do not alias.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from ..drawn.scenes import (
    GROUNDS,
    LABELS,
    OBJECTS,
    Canvas,
    Layer,
    blend,
    brick,
    colour,
    draw_background,
    draw_objects,
    noise,
    paint,
    sky,
    zebra,
)

PRETRAINING = [f'{thing}_on_{ground}_below_{far}'
               for thing, ground, far in itertools.product(('tree', 'ball', 'house', 'zebra'), GROUNDS,
                                                           ('sky', 'brick'))]
HUES, STRIPES, COATS = ('red', 'green', 'blue'), ('few', 'many'), ('light', 'dark')
BREEDS = [f'{hue}_{stripes}_{coat}' for hue, stripes, coat in itertools.product(HUES, STRIPES, COATS)]
DISTANCES = [f'{i}_of_5' for i in range(1, 6)]


def render(rng: Generator, layers: list[Layer]) -> tuple[np.ndarray, np.ndarray]:
    """Paints layers (2S, 2S) over one another in a light of its own: RGB (S, S, 3) and labels (S, S), both uint8."""
    image, labels = paint(layers)
    image = (image * rng.uniform(0.7, 1.15) * rng.uniform(0.85, 1.15, 3)).clip(0, 1)
    size = len(image) // 2
    image = image.reshape(size, 2, size, 2, 3).mean(axis=(1, 3))
    image += rng.normal(0, 0.015, image.shape)
    return (image.clip(0, 1) * 255).round().astype(np.uint8), labels[::2, ::2]


def draw_pretraining(rng: Generator, name: str, size: int) -> np.ndarray:
    """Returns an image of one of ``PRETRAINING``: its object is the nearest, on its ground, below its far half."""
    thing, ground, far = name.replace('_below_', '_on_').split('_on_')
    side = 2 * size
    horizon = rng.uniform(0.3, 0.55) * side
    below = np.clip(np.mgrid[:side, :side][0] - horizon, 0, 1)
    layers = [Layer(np.ones((side, side)), (sky if far == 'sky' else brick)(rng, side), LABELS[far]),
              Layer(below, GROUNDS[ground](rng, side), LABELS[ground])]
    nearness = [*np.sort(rng.uniform(0, 0.6, rng.integers(0, 3))), rng.uniform(0.6, 0.95)]
    names = [*rng.choice(list(OBJECTS), len(nearness) - 1), thing]
    for what, near in zip(names, nearness):
        height = side * (0.38 + 0.34 * near) * rng.uniform(0.85, 1.15)
        layers.append(OBJECTS[what](rng, side, rng.uniform(0.15, 0.85) * side, horizon + near * (side - horizon),
                                    height))
    return render(rng, layers)[0]


def draw_small_scene(rng: Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a scene and its labels, as :func:`mmseg_gpt.lab.drawn.scenes.draw_scene` draws them."""
    horizon = rng.uniform(0.3, 0.55) * 2 * size
    return render(rng, [*draw_background(rng, 2 * size, horizon), *draw_objects(rng, 2 * size, horizon)])


def draw_breed(rng: Generator, name: str, size: int) -> np.ndarray:
    """Returns an image of one of ``BREEDS``: an animal near by whose stripes and colours tell the class."""
    hue, stripes, coat = name.split('_')
    side = 2 * size
    layers = draw_background(rng, side, rng.uniform(0.3, 0.55) * side)
    centre, foot, height = (side * rng.uniform(*limits) for limits in ((0.35, 0.65), (0.8, 0.99), (0.7, 0.95)))
    animal = zebra(rng, side, centre, foot, height)
    x, y = Canvas(side, centre, foot, height).grid()
    waves = rng.uniform(4.5, 5.5) if stripes == 'few' else rng.uniform(7.5, 9)
    pattern = np.sin(2 * math.pi * waves * (x + rng.choice([-1, 1]) * 0.3 * y + 0.12 * noise(rng, side, 6, 6)))
    middle = HUES.index(hue) / 3 + 0.02
    dark, light = (colour(rng, (middle - 0.07, middle + 0.07), *ranges)
                   for ranges in (((0.4, 0.8), (0.1, 0.3)), ((0.25, 0.5), (0.8, 1.))))
    weight = 2 * pattern + (2 if coat == 'light' else -1)
    return render(rng, [*layers, animal._replace(texture=blend(weight, dark, light))])[0]


def draw_distance(rng: Generator, name: str, size: int) -> np.ndarray:
    """Returns an image of one of ``DISTANCES``: a house in the first to the last fifth of the way, and others."""
    side, fifth = 2 * size, DISTANCES.index(name)
    horizon = rng.uniform(0.25, 0.4) * side
    near = 1 - (fifth + rng.uniform(0.1, 0.9)) / 5
    place = rng.uniform(0.12, 0.88)
    things = [(near, 'house', place)]
    for _ in range(rng.integers(1, 4)):
        nearness = rng.uniform()
        # What is nearer than the house stands beside it.
        middle = rng.uniform(0.1, 0.9) if nearness < near else place + rng.choice([-1, 1]) * rng.uniform(0.3, 0.6)
        things.append((nearness, str(rng.choice(['tree', 'ball', 'zebra'])), middle))
    layers = draw_background(rng, side, horizon)
    for nearness, what, middle in sorted(things):
        layers.append(OBJECTS[what](rng, side, middle * side, horizon + (0.05 + 0.9 * nearness) * (side - horizon),
                                    side * (0.18 + 0.45 * nearness) * rng.uniform(0.92, 1.08)))
    return render(rng, layers)[0]


CLASSIFIED: dict[str, tuple[list[str], Callable[[Generator, str, int], np.ndarray]]] = {
    'pretraining': (PRETRAINING, draw_pretraining),
    'breeds': (BREEDS, draw_breed),
    'distances': (DISTANCES, draw_distance),
}
