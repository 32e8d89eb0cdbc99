"""Splits images for training and validation, so that frames of one video or scene stay together."""

import os
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ...files import composed
from ...wording import listed
from .names import core_of
from .types import FoundError, Pair

# How much smaller or larger than wanted a split may become so that scenes stay whole.
SMALLEST, LARGEST = 0.5, 1.5
SHOWN = 3
LARGEST_SCENE = 3  # a scene of at most one in so many images is kept whole, if a block would be too short
FEWEST = 4  # consecutive frames in a block: shorter ones have nearly the same picture on both sides
HELD_OUT = 0.2  # of the training images, for validation, unless another share is asked for
VIDEO = re.compile(r'(^|[_. -])(frames?|video|clip|seq(uence)?)[_. -]*\d*$')


def share_held_out(val: float | None, found: bool) -> float:
    """Returns the share of the training images to hold out for validation: what was asked for, or a fifth.

    Args:
        val: The share that was asked for, if one was.
        found: Whether there are images for validation already, so that none are held out.

    Raises:
        FoundError: the share is not between 0 and 1, or was asked for though none are held out.
    """
    if val is None:
        return HELD_OUT
    if not 0 < val < 1:
        raise FoundError(f'the share of the images for validation must be above 0 and below 1, got {val}')
    if found:
        raise FoundError(f'a share of {val} was asked for validation, but there are images for validation already, so '
                         'that none are held out of the training images: leave the share (--val) out')
    return val


def make_split(pairs: Sequence[Pair], shares: Mapping[str, float], seed: int = 0,
               copies: Mapping[Path, Path] = MappingProxyType({})) -> tuple[dict[str, list[Pair]], str]:
    """Splits pairs by their names, and returns the splits and a sentence that says how they were made.

    Frames of one video or scene, as their names show it, stay together. If the scenes are too few or too large for
    that, they are cut into blocks of consecutive frames. Byte-identical copies of an image count as one scene.

    Args:
        pairs: All pairs.
        shares: The share of each split but 'train', which gets the rest: ``{'val': 0.2}``.
        seed: Seed of the split.
        copies: For images of which there are copies, the first of them; see
            :func:`~mmseg_gpt.datasets.found.copies.first_copies`.

    Raises:
        FoundError: there are fewer images than splits, all are copies of one, or the shares do not leave any to train
            on.
    """
    if len(pairs) <= len(shares):
        raise FoundError(f'{len(pairs)} image{"s" if len(pairs) != 1 else ""} with a mask cannot be split into train '
                         f'and {" and ".join(shares)}: add images' + (f' to {pairs[0].image.parent}' if pairs else ''))
    if min(shares.values()) <= 0 or sum(shares.values()) >= 1:
        raise FoundError(f'the shares {dict(shares)} must be above 0 and below 1 together')
    pairs = sorted(pairs, key=lambda pair: natural(str(pair.image)))
    if len({copies.get(pair.image, pair.image) for pair in pairs}) == 1:
        raise FoundError(f'all {len(pairs)} images are copies of {pairs[0].image}, byte for byte: add other images')
    scenes, left, splits, said = joined(pairs, scenes_of(pairs), copies), list(range(len(pairs))), {}, []
    for nth, (split, share) in enumerate(shares.items(), 1):
        wanted = min(max(round(share * len(pairs)), 1), len(left) - (len(shares) - nth) - 1)
        chosen, how = choose(left, scenes, wanted, random.Random(f'{seed} {split}'))
        splits[split] = [pairs[i] for i in left if i in chosen]
        left = [i for i in left if i not in chosen]
        said.append(f'kept for {split}: {len(chosen):,} of {len(pairs):,} images (seed {seed}){how}')
    return {'train': [pairs[i] for i in left], **splits}, '; '.join(said)


def choose(left: Sequence[int], scenes: Sequence[str], wanted: int, chance: random.Random) -> tuple[set[int], str]:
    """Chooses about ``wanted`` pairs, in whole scenes if possible, and says how.

    Args:
        left: The numbers of the pairs to choose from.
        scenes: The scene of each pair.
        wanted: How many to choose.
        chance: What decides.
    """
    by_scene = defaultdict(list)
    for i in left:
        by_scene[scenes[i]].append(i)
    if len(by_scene) == len(left):
        return set(fill(list(by_scene.values()), wanted, chance)), ', each by itself'
    chosen = fill(list(by_scene.values()), round(LARGEST * wanted) if len(by_scene) < 10 else wanted, chance)
    if SMALLEST * wanted <= len(chosen) < len(left):
        names = sorted({scenes[i] for i in chosen})
        return set(chosen), f', in whole scenes, as names show them: {listed(names, SHOWN)}'
    smallest = min(map(len, by_scene.values()))
    if wanted < FEWEST and LARGEST_SCENE * smallest <= len(left):
        scene = chance.choice([scene for scene, frames in by_scene.items() if len(frames) == smallest])
        return set(by_scene[scene]), f', the whole scene {scene}, as a part of it would be less than {FEWEST} frames'
    length = wanted // min(3, max(wanted // FEWEST, 1))
    blocks = [frames[i:i + length] for frames in by_scene.values()
              for i in range(0, max(len(frames) - length, 0) + 1, length)]
    return set(fill(blocks, wanted, chance)), (
        f', in blocks of consecutive frames (at most {length}), because the scenes that names show are too large to be '
        f'kept whole ({len(by_scene)}): {listed(sorted(by_scene), SHOWN)}') + (
            '. WARNING: neighbouring frames of one scene are on both sides, so the score is probably too high'
            if length < FEWEST else '')


def fill(groups: list[list[int]], most: int, chance: random.Random) -> list[int]:
    """Draws groups as long as they have no more than ``most`` numbers together."""
    chosen: list[int] = []
    for group in chance.sample(groups, len(groups)):
        if len(chosen) + len(group) <= most:
            chosen += group
    return chosen


def joined(pairs: Sequence[Pair], scenes: Sequence[str], copies: Mapping[Path, Path]) -> list[str]:
    """Returns the scene of each pair, where scenes that have copies of one image have become one."""
    scene_of_image, same = {pair.image: scene for pair, scene in zip(pairs, scenes)}, {scene: scene for scene in scenes}

    def final(scene: str) -> str:
        while same[scene] != scene:
            scene = same[scene]
        return scene
    for image, original in copies.items():
        same[final(scene_of_image[image])] = final(scene_of_image[original])
    return [final(scene) for scene in scenes]


def scenes_of(pairs: Sequence[Pair]) -> list[str]:
    """Returns the scene or video of each pair, by its folder and name; its own name where nothing shows one."""
    scenes = [(pair.image.parent, scene_of(pair.image)) for pair in pairs]
    if len(set(scenes)) == 1 and not is_frame(pairs[0].image):  # 'image_1', 'image_2' ... show no scene
        return [f'{pair.image.parent}/{original_of(pair.image)}' for pair in pairs]
    common = os.path.commonpath({folder for folder, _ in scenes})
    shown = {folder: os.path.relpath(folder, common) for folder, _ in scenes}
    return [os.path.normpath(os.path.join(shown[folder], scene)) for folder, scene in scenes]


def scene_of(image: Path) -> str:
    """Returns an image's name without the number of the frame, or the place of the window, at its end.

    '0001TP_006690' is of '0001tp', '0006R0_f01080' of '0006r0', and 'P0001_0_896_0_896' of 'p0001'. A copy that
    Roboflow has altered belongs to its original: 'frame_12_jpg.rf.0a1b2c'.
    """
    core = core_of(re.sub(r'_(jpe?g|png|bmp|tiff?)$', '', original_of(image), flags=re.IGNORECASE))[0]
    window = re.search(r'([_-]\d+){4}$', core)
    number = window or re.search(r'([_. -]*(?<![^\W_])(f|fr|frame|t|img|im))?[_. -]*\d+$', core)
    scene = core[:number.start()] if number else core
    return 'frame' if number and 'frame' in number[0] and not scene else scene.rstrip('_. -')


def is_frame(image: Path) -> bool:
    """Says whether an image is of a video, as 'clip_1_frame_03' and 'video2_17' are by their names."""
    return bool(VIDEO.search(scene_of(image))) or 'frame' in image.stem.lower()


def original_of(image: Path) -> str:
    """Returns the name of an image, without what Roboflow adds to that of each altered copy."""
    return re.sub(r'\.rf\.\w+$', '', image.stem)


def natural(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """Returns a key that sorts 'frame_2' before 'frame_10', and names in one order on all machines."""
    parts = re.split(r'(\d+)', composed(name))
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part], name  # '01' is as '1'
