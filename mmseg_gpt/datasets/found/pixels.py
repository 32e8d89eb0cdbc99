"""What the pixels of a folder's images are, what the usual reader would make of them, and the reader that is right."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...wording import listed
from ..headers import Header, read_header
from ..judging import USUAL, Reader, pixel_problems, recommended_bands, round_scale
from ..pairs import unreadable
from ..reading import Bands, Scale, read_bands, without_number

SAMPLE, VALUES = 24, 2**18  # images whose pixels are looked at, and how many values of a band of each
SHOWN = 3  # problems of one kind
IMPLAUSIBLE = 1e12  # a number that no sensor gives; values of no data and damaged files do
CLIPPED = 0.05  # share of the values outside a scale that is worth a word
TRANSPARENT = 0.001  # share of pixels that are not opaque, above which alpha means something


@dataclass(frozen=True)
class PixelReport:
    """The findings of :func:`describe_pixels`.

    Attributes:
        dtype: Type of the pixels in the files, such as ``uint16``; the commonest, if there are several.
        bands: Number of bands of a file; the commonest.
        low: The smallest value in the sample, without alpha and without empty pixels.
        high: The largest value.
        plain: Whether the usual LoadImageFromFile gives what is in the files, so that no ``bands`` and ``scale`` are
            needed.
        recommended_bands: A value for ``--bands``, or None if none is needed. If the files do not say which bands are
            colours, it is an example: satellite images mostly begin with blue.
        recommended_scale: A value for ``--scale``, or None.
        problems: A sentence for each problem, with file and remedy, without those that the given ``bands`` and
            ``scale`` solve.
        notes: Sentences for the user.
        how: How ``LoadBands`` reads the images, if ``bands`` or ``scale`` were given.
    """
    dtype: str
    bands: int
    low: float
    high: float
    plain: bool
    recommended_bands: tuple[int, ...] | None = None
    recommended_scale: Scale | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    how: Bands | None = None

    def transform(self) -> dict:
        """Returns the first step of a pipeline: LoadImageFromFile, or LoadBands if bands or scale were given."""
        if self.how is None:
            return dict(type='LoadImageFromFile')
        said = {name: value for name, value in self.how._asdict().items() if value is not None}
        return dict(type='LoadBands', **said)


@dataclass
class Sample:
    """The pixels of a sample of images.

    Attributes:
        ranges: The 0.1 % and 99.9 % percentiles of the bands of each image, with its smallest and largest value.
        clipped: For each image, the share of its values that lie outside the scale asked for.
        empty: The number of images with pixels that hold no number.
        transparent: The images whose alpha means something, with the share of pixels that are not opaque.
    """
    ranges: list[tuple[float, float, float, float]] = field(default_factory=list)
    clipped: list[float] = field(default_factory=list)
    empty: int = 0
    transparent: list[tuple[str, float]] = field(default_factory=list)


def describe_pixels(paths: Iterable[str | Path], bands: Sequence[int] | None = None,
                    scale: Scale | Sequence[Scale] | None = None) -> PixelReport:
    """Says what the pixels of images are, by the headers of all files and the pixels of a sample of them.

    Args:
        paths: The images.
        bands: The bands that the user asks for, as ``LoadBands`` takes them.
        scale: The scale that the user asks for.

    Raises:
        ValueError: there are no images, or ``bands`` or ``scale`` make no sense.
    """
    how = None if bands is None and scale is None else Bands.checked(bands, scale, None)
    headers, problems = read_headers(paths)
    kinds = Counter((header.dtype, header.bands) for header in headers.values())
    if not kinds:
        if problems:
            return PixelReport('', 0, 0, 0, False, problems=problems)
        raise ValueError('there are no images')
    (dtype, count), _ = kinds.most_common(1)[0]
    first = next(header for header in headers.values() if (header.dtype, header.bands) == (dtype, count))
    sample, unread = look_at(headers, how)
    wrong = [problem for path, header in headers.items() for problem in wrong_pixels(path, header, Reader(how))]
    usual = wrong if how is None else [p for path in [*headers][:SAMPLE]
                                       for p in wrong_pixels(path, headers[path], USUAL)]
    if how is not None:
        problems += mixed(headers, how)
        how = how._replace(fill=0. if sample.empty else None,
                           expected=(dtype, count) if len(kinds) == 1 and dtype != 'uint8' else None)
    lowest, highest, low, high = limits(sample)
    asked = round_scale(low, high) if dtype != 'uint8' and usual and sample.ranges else None
    return PixelReport(dtype, count, lowest, highest, not usual, recommended_bands(first), asked,
                       problems + few(wrong) + few(unread), said_of(sample, kinds, how), how)


def read_headers(paths: Iterable[str | Path]) -> tuple[dict[str, Header], list[str]]:
    """Reads the headers of images; returns them by file, and a sentence for each that cannot be read."""
    headers, problems = {}, []
    for path in map(str, paths):
        try:
            headers[path] = read_header(path)
        except Exception as error:  # Pillow raises many types
            problems.append(unreadable(path, error))
    return headers, few(problems)


def wrong_pixels(path: str, header: Header, reader: Reader) -> list[str]:
    """Says what a reader would do wrong with an image; one that cannot be decoded is said elsewhere."""
    try:
        return pixel_problems(path, header, reader)
    except Exception as error:
        return [unreadable(path, error)]


def look_at(headers: dict[str, Header], how: Bands | None) -> tuple[Sample, list[str]]:
    """Looks at the pixels of images spread over all of them; returns them, and what cannot be read."""
    sample, unread = Sample(), []
    paths = [*headers]
    for i in np.unique(np.linspace(0, len(paths) - 1, min(SAMPLE, len(paths))).astype(int)):
        path, header = paths[i], headers[paths[i]]
        try:
            add_image(sample, read_bands(path, header), path, header, how)
        except Exception as error:
            unread.append(str(error) if str(path) in str(error) else unreadable(path, error))
    return sample, unread


def add_image(sample: Sample, pixels: np.ndarray, path: str, header: Header, how: Bands | None) -> None:
    """Adds the pixels (H, W, bands) of an image to a sample."""
    step = max(1, round((pixels.shape[0] * pixels.shape[1] / VALUES)**0.5))
    pixels = pixels[::step, ::step]
    if header.alpha:
        opaque = 1 if pixels.dtype.kind == 'f' else np.iinfo(pixels.dtype).max
        share = float((pixels[..., -1] != opaque).mean())
        if share > TRANSPARENT:
            sample.transparent.append((path, share))
        pixels = pixels[..., :-1]
    if how is not None and how.bands and max(how.bands) <= pixels.shape[2]:
        pixels = pixels[..., [band - 1 for band in how.bands]]
    missing = without_number(pixels, header.nodata)
    sample.empty += missing is not None
    values = pixels.ravel() if missing is None else pixels[~missing]
    if values.size:
        values = values.astype(float)
        sample.ranges.append((float(values.min()), float(values.max()), *np.quantile(values, (0.001, 0.999)).tolist()))
        if how is not None and how.scale and len(how.scale) == 1:
            sample.clipped.append(float(((values < how.scale[0][0]) | (values > how.scale[0][1])).mean()))


def limits(sample: Sample) -> tuple[float, float, float, float]:
    """Returns the smallest and the largest value of a sample, and those beyond which nearly none lies."""
    if not sample.ranges:
        return 0., 0., 0., 0.
    low, high, nearly_low, nearly_high = np.array(sample.ranges).T
    return float(low.min()), float(high.max()), float(nearly_low.min()), float(nearly_high.max())


def mixed(headers: dict[str, Header], how: Bands) -> list[str]:
    """Refuses one scale for files of several types."""
    kinds = {header.dtype: path for path, header in headers.items()}
    if how.scale is None or len(kinds) < 2:
        return []
    shown = listed([f'{dtype} ({path})' for dtype, path in kinds.items()])
    return [f'the images are of several types, {shown}, for which one --scale makes no sense: keep them apart, or save '
            'them alike']


def said_of(sample: Sample, kinds: Counter, how: Bands | None) -> list[str]:
    """Says what the user should hear of a sample, beside problems."""
    notes = []
    if len(kinds) > 1:
        notes.append('the images differ: ' + listed([f'{n:,} have {bands} band{"s" * (bands > 1)} of {dtype}'
                                                     for (dtype, bands), n in kinds.most_common()]))
    if how is not None and how.scale:
        notes.append(f'values from {" and ".join(f"{low:g} to {high:g}" for low, high in how.scale)} become 0 to 255; '
                     'those outside are clipped')
    if sample.clipped and (share := float(np.mean(sample.clipped))) > CLIPPED:
        notes.append(f'{share:.0%} of the values in a sample lie outside the scale and are clipped')
    if (furthest := max(limits(sample)[:2], key=abs)) and abs(furthest) > IMPLAUSIBLE:
        notes.append(f'there are values such as {furthest:.3g}, which no sensor gives: look whether they mean no data, '
                     'or the file is damaged')
    if sample.empty:
        notes.append(f'{sample.empty} of {len(sample.ranges)} images of a sample have pixels without a number (NaN, '
                     'infinite or no data); they become black')
    if sample.transparent:
        path, share = sample.transparent[0]
        notes.append(f'{len(sample.transparent)} images of a sample are transparent in places ({path}: {share:.1%}); '
                     'alpha is left out, and the colours below it are taken')
    return notes


def few(problems: list[str]) -> list[str]:
    """Returns the first problems, and how many more there are."""
    if len(problems) <= SHOWN:
        return problems
    return [*problems[:SHOWN], f'and {len(problems) - SHOWN:,} more images like these']


def parse_bands(text: str) -> tuple[int, ...]:
    """Reads the bands of a command line: ``3,2,1``.

    Args:
        text: What was typed.

    Raises:
        ValueError: they are no numbers from 1.
    """
    try:
        return Bands.checked([int(word) for word in text.split(',')], None, None).bands
    except ValueError as error:
        raise ValueError(f'{text} is no list of bands: write numbers from 1, such as 3,2,1') from error


def parse_scale(text: str) -> Scale | tuple[Scale, ...]:
    """Reads the scale of a command line: ``0:3000``, or one for each band: ``0:3000,0:2500,0:2000``.

    Args:
        text: What was typed.

    Raises:
        ValueError: it is no such thing, or a low value is not below its high one.
    """
    try:
        pairs = [tuple(float(word) for word in pair.split(':')) for pair in text.split(',')]
        scale = Bands.checked(None, pairs, None).scale
    except ValueError as error:
        raise ValueError(f'{text} is no scale: write the values of black and white, such as 0:3000') from error
    return scale[0] if len(scale) == 1 else scale
