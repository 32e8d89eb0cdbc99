"""Datasets that are known by their files' names and values, with the names of their classes.

Sources of the tables: the SegNet tutorial's split of CamVid, whose masks have 12 values; the VOC 2012 development kit;
labels.py of cityscapesScripts; the scene parsing benchmark of ADE20K.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .class_table import ClassTable, Colour, Row
from .facts import MaskFacts, as_code

VOID = 'void'
CAMVID = """
    sky 128 128 128, building 128 0 0, pole 192 192 128, road 128 64 128, pavement 60 40 222, tree 128 128 0,
    sign symbol 192 128 128, fence 64 64 128, car 64 0 128, pedestrian 64 64 0, bicyclist 0 128 192, void 0 0 0
"""
VOC = """
    background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike,
    person, pottedplant, sheep, sofa, train, tvmonitor
"""
CITYSCAPES = """
    road 128 64 128, sidewalk 244 35 232, building 70 70 70, wall 102 102 156, fence 190 153 153, pole 153 153 153,
    traffic light 250 170 30, traffic sign 220 220 0, vegetation 107 142 35, terrain 152 251 152, sky 70 130 180,
    person 220 20 60, rider 255 0 0, car 0 0 142, truck 0 0 70, bus 0 60 100, train 0 80 100, motorcycle 0 0 230,
    bicycle 119 11 32
"""
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # of 34; others are void
ADE20K = """
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth,
    door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug,
    field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column,
    signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path,
    stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee
    table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair,
    boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth,
    television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle,
    buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool,
    barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave,
    pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray,
    ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
"""


class Known(NamedTuple):
    """A dataset that is recognised.

    Attributes:
        table: Its classes.
        stem: A pattern of the names of all its masks, folder/file.
        values: The values that its masks may have, 255 aside.
        fits: A further condition on all of its masks.
    """
    table: ClassTable
    stem: str
    values: range
    fits: Callable[[Sequence[MaskFacts]], bool] = lambda facts: all(each.kind == 'gray' for each in facts)


def entries(text: str) -> list[tuple[str, Colour | None]]:
    """Returns the names, and the colours where they have some, in one of the texts above."""
    parts = (re.fullmatch(r'(.+?)(?: (\d+) (\d+) (\d+))?', ' '.join(each.split())) for each in text.split(','))
    return [(part[1], tuple(map(int, part.groups()[1:])) if part[2] else None) for part in parts]


def voc_colour(number: int) -> Colour:
    """Returns the colour of a value in VOC's palette: its bits, spread over the channels from the highest on."""
    return tuple(sum((number >> 3 * i + channel & 1) << 7 - i for i in range(3)) for channel in range(3))


def has_voc_palette(facts: Sequence[MaskFacts]) -> bool:
    """Says whether masks are palette images in VOC's colours; labelme writes these too, whatever the classes are."""
    return all(each.kind == 'palette' and all(
        colour == as_code(np.array(voc_colour(int(value)))) for value, colour in zip(each.values, each.colours)
        if value <= 20) for each in facts)


def table(source: str, rows: list[Row]) -> ClassTable:
    """Returns a table of classes and says where it is from."""
    return ClassTable(tuple(rows), source=source)


def known_datasets() -> list[Known]:
    """Returns the datasets that are recognised."""
    cityscapes = entries(CITYSCAPES)
    return [
        Known(table('CamVid', [Row(name, value, colour) for value, (name, colour) in enumerate(entries(CAMVID))]),
              r'[^/]*annot/(0001TP|0006R0|0016E5|Seq05VD)_[^/]*', range(12)),
        Known(table('VOC 2012', [Row(name, value, voc_colour(value)) for value, (name, _) in enumerate(entries(VOC))]),
              r'[^/]*/20\d\d_\d{6}[^/]*', range(21), has_voc_palette),
        Known(table("Cityscapes' trainIds", [Row(name, number, own) for number, (name, own) in enumerate(cityscapes)]),
              r'[^/]*/[^/]+_gt(Fine|Coarse)_labelTrainIds', range(19)),
        Known(table("Cityscapes' labelIds, of which 19 are classes", [
            *(Row(name, value, colour) for value, (name, colour) in zip(CITYSCAPES_IDS, cityscapes)),
            *(Row(VOID, value) for value in range(34) if value not in CITYSCAPES_IDS)]),
              r'[^/]*/[^/]+_gt(Fine|Coarse)_labelIds', range(34)),
        Known(table("ADE20K's 150 classes, where 0 is void", [Row(VOID, 0)] + [
            Row(name, value) for value, (name, _) in enumerate(entries(ADE20K), 1)]),
              r'[^/]*/ADE_(train|val)_\d{8}[^/]*', range(151)),
    ]


def recognise(facts: Sequence[MaskFacts]) -> ClassTable | None:
    """Returns the classes of a known dataset, if all masks have its names, its values and its kind."""
    names = ['/'.join(re.split(r'[/\\]', each.mask)[-2:]).rpartition('.')[0] for each in facts]
    values = {int(value) for each in facts for value in each.values} - {255}
    for known in known_datasets():
        named = all(re.fullmatch(known.stem, name) for name in names)
        if names and named and values <= set(known.values) and known.fits(facts):
            return known.table
    return None
