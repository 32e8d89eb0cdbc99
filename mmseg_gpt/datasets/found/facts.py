"""What a worker reports of one mask: its sizes, and how many pixels have which value or colour."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image

from ...processes import in_processes
from ..headers import read_header
from ..pairs import UPRIGHT, orientation_of, unreadable
from ..survey import Progress
from .masks import MaskError, read_mask

VERSION = 2  # of what is reported; a cache of another version is not used
MOST = 4096  # values that are reported of one mask, the most frequent ones
BAND = 1 << 22  # pixels that are counted at once
FEW = 32  # masks for which starting processes takes longer than it saves
ARRAYS = ('values', 'counts', 'solid', 'colours')


@dataclass
class MaskFacts:
    """What is known of one mask.

    Attributes:
        mask: Its file.
        image: The file of its image.
        problem: Why it cannot be read, as a sentence that begins with its file; the rest is empty then.
        image_problem: Why the size of the image is not known, or the image should be saved anew; else empty.
        note: What is peculiar about the mask, as the end of a sentence that begins with its file.
        kind: As in :class:`~mmseg_gpt.datasets.found.masks.RawMask`.
        lossy: Whether the format blurs values.
        size: Width and height of the mask.
        image_size: Width and height of the image, or None if its file cannot be read.
        values: The values (V,) in the mask, or colours as 0xRRGGBB, sorted; at most the 4096 most frequent.
        counts: Number of pixels (V,) of each.
        solid: Number of pixels (V,) whose right, lower and diagonal neighbours have the same value. Regions have
            many such pixels, blurred borders hardly any.
        colours: Colours (V,) of the values in the palette, as 0xRRGGBB; empty without a palette.
        pixels: Number of all pixels, those whose values are not reported among them.
    """
    mask: str
    image: str
    problem: str = ''
    image_problem: str = ''
    note: str = ''
    kind: str = ''
    lossy: bool = False
    size: tuple[int, int] | None = None
    image_size: tuple[int, int] | None = None
    values: np.ndarray = None
    counts: np.ndarray = None
    solid: np.ndarray = None
    colours: np.ndarray = None
    pixels: int = 0

    def __post_init__(self) -> None:
        for name in ARRAYS:
            value = getattr(self, name)
            setattr(self, name, np.asarray([] if value is None else value, np.int64))
        self.size, self.image_size = (size and tuple(size) for size in (self.size, self.image_size))

    def as_line(self) -> str:
        """Returns the facts as a line of JSON."""
        return json.dumps({name: value.tolist() if name in ARRAYS else value for name, value in asdict(self).items()})


def facts_of(pair: tuple[str, str]) -> MaskFacts:
    """Reads an image's size and all of its mask; runs in a worker.

    Args:
        pair: The files of the mask and of the image.
    """
    mask, image = pair
    facts = MaskFacts(mask, image)
    facts.image_size, facts.image_problem = size_of(image)
    try:
        raw = read_mask(mask, facts.image_size)
    except MaskError as error:
        facts.problem = str(error)
        return facts
    facts.kind, facts.lossy, facts.note = raw.kind, raw.lossy, raw.note
    facts.size = raw.values.shape[1], raw.values.shape[0]
    facts.pixels = facts.size[0] * facts.size[1]
    facts.values, facts.counts, facts.solid = count(raw.values)
    if raw.palette is not None:
        facts.colours = as_code(raw.palette)[facts.values]
    return facts


def size_of(image: str) -> tuple[tuple[int, int] | None, str]:
    """Returns the width and height of an image as stored, and what is wrong with its file as far as the header says."""
    try:
        with Image.open(image) as opened:
            turned = orientation_of(opened)
            size = opened.size
    except Exception:
        try:  # such as a TIFF of many bands
            size = read_header(image).size
            return size if min(size) else None, ''
        except Exception as error:
            return None, unreadable(image, error)
    return size, '' if turned == 1 else (
        f'{image} has EXIF orientation {turned}: it is shown, and loaded, rotated or mirrored, and masks are not. '
        f'If the masks fit the pictures as they are shown, then this, on copies of the images, mends it: {UPRIGHT}. If '
        'they fit the pixels as stored, save Image.fromarray(np.array(Image.open(f))), which drops the tag alone')


def as_code(colours: np.ndarray) -> np.ndarray:
    """Returns colours (..., 3) as numbers 0xRRGGBB."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def as_rgb(code: int) -> tuple[int, int, int]:
    """Returns the colour of a number 0xRRGGBB."""
    return int(code) >> 16, int(code) >> 8 & 255, int(code) & 255


def count(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts the pixels and the solid pixels of each value in a mask.

    Args:
        values: Integers (H, W), or colours (H, W, 3).

    Returns:
        The values or colour codes (V,), their counts (V,) and how many of them are solid (V,).
    """
    rows = max(1, BAND // values.shape[1])
    parts = [count_band(values[top:top + rows]) for top in range(0, len(values), rows)]
    found, place = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
    counts, solid = (np.bincount(place, np.concatenate([part[i] for part in parts])).astype(np.int64) for i in (1, 2))
    if len(found) > MOST:
        most = np.sort(np.argpartition(counts, -MOST)[-MOST:])
        found, counts, solid = found[most], counts[most], solid[most]
    return found, counts, solid


def count_band(band: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts some rows of a mask."""
    if band.ndim == 3:
        band = as_code(band)
    inner = band[:-1, :-1]
    solid = inner[(inner == band[:-1, 1:]) & (inner == band[1:, :-1]) & (inner == band[1:, 1:])]
    found, counts = count_runs(band.ravel())
    of_solid = np.zeros_like(counts)
    values, number = count_runs(solid)
    of_solid[np.searchsorted(found, values)] = number
    return found, counts, of_solid


def count_runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the values in a row (N,) and their counts, sorting only where it changes; masks seldom do."""
    if values.dtype == np.uint8:
        counts = np.bincount(values, minlength=256)
        return np.flatnonzero(counts), counts[counts > 0]
    if not len(values):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    lengths = np.diff(starts, append=len(values))
    found, place = np.unique(values[starts], return_inverse=True)
    return found.astype(np.int64), np.bincount(place, lengths).astype(np.int64)


def gather(pairs: Sequence[tuple[str, str]], workers: int, progress: Progress, cache: Path | None) -> list[MaskFacts]:
    """Reads all masks, or takes from a cache what was read before and has not changed since.

    Args:
        pairs: The files of each mask and its image.
        workers: Number of processes.
        progress: Function for a progress bar; see :func:`~mmseg_gpt.datasets.survey.survey`.
        cache: The file that keeps the facts; None for none.
    """
    known = read_cache(cache)
    stamps = [stamp(pair) for pair in pairs]
    missing = {key: pair for pair, key in zip(pairs, stamps) if key not in known}
    if cache and missing:
        cache.parent.mkdir(parents=True, exist_ok=True)
    with open(cache, 'a', encoding='utf-8') if cache and missing else nullcontext() as file:
        read = results_of(facts_of, list(missing.values()), workers)
        for key, facts in zip(missing, progress(read, len(missing)) if missing else ()):
            known[key] = facts
            if file and not facts.problem and not facts.image_problem:
                file.write(f'\n{key}\t{facts.as_line()}')  # the newline comes first, as a line that was cut has none
    return [known[key] for key in stamps]


def results_of(function: Callable, arguments: Sequence, workers: int) -> Iterator:
    """Yields a function's results in the order of its arguments, computed in several processes if there are many."""
    if workers <= 1 or len(arguments) <= FEW:
        yield from map(function, arguments)
        return
    with in_processes(function, arguments, workers) as results:
        yield from results


def stamp(files: Iterable[str]) -> str:
    """Returns a text that changes when one of some files does, by its size and time of change."""
    states = []
    for file in files:
        try:
            state = Path(file).stat()
            states.append([file, state.st_size, state.st_mtime_ns])
        except OSError:
            states.append([file, None])
    return json.dumps([VERSION, *states])


def read_cache(cache: Path | None) -> dict[str, MaskFacts]:
    """Reads the facts in a cache; lines that an interrupt cut short are passed over."""
    known: dict[str, MaskFacts] = {}
    names = {each.name for each in fields(MaskFacts)}
    if cache and cache.is_file():
        for line in cache.read_text(encoding='utf-8').splitlines():
            try:
                key, _, facts = line.partition('\t')
                content = json.loads(facts)
                known[key] = MaskFacts(**{name: content[name] for name in names})
            except (ValueError, KeyError):
                continue
    return known
