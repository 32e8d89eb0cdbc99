"""What the pixels of a folder's images are, what the usual reader would make of them, and the reader that is right."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Scale = tuple[float, float]


@dataclass(frozen=True)
class PixelReport:
    """The findings of :func:`describe_pixels`.

    Attributes:
        dtype: Type of the pixels in the files, such as ``uint16``; the widest, if there are several.
        bands: Number of bands of a file; the largest, if there are several.
        low: The smallest value in the sample, NaN and infinite ones left out.
        high: The largest.
        plain: Whether the usual LoadImageFromFile gives what is in the files, so that no ``bands`` and ``scale`` are
            needed.
        recommended_bands: What to say as ``--bands``, or None if nothing needs saying.
        recommended_scale: What to say as ``--scale``, or None.
        problems: A sentence for each reason not to go on, with file and remedy; those that the ``bands`` and ``scale``
            given solve are not among them.
        notes: A sentence for each thing the user should hear.
        bands_asked: The ``bands`` given.
        scale_asked: The ``scale`` given.
        fill: What pixels without a number become, where there are any.
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
    bands_asked: tuple[int, ...] | None = None
    scale_asked: Scale | tuple[Scale, ...] | None = None
    fill: float | None = None

    def transform(self) -> dict:
        """Returns the first step of a pipeline: ``dict(type='LoadImageFromFile')``, or LoadBands as asked."""
        if self.bands_asked is None and self.scale_asked is None:
            return dict(type='LoadImageFromFile')
        said = dict(bands=self.bands_asked, scale=self.scale_asked, fill=self.fill)
        return dict(type='LoadBands', **{name: value for name, value in said.items() if value is not None})


def describe_pixels(paths: Iterable[str | Path], bands: Sequence[int] | None = None,
                    scale: Scale | Sequence[Scale] | None = None) -> PixelReport:
    """Says what the pixels of images are, by the headers of all files and the pixels of a sample of them.

    Args:
        paths: The images.
        bands: The bands that the user asks for, as ``LoadBands`` takes them.
        scale: The scale that the user asks for.

    Raises:
        ValueError: there are no images.
    """
    raise NotImplementedError


def parse_bands(text: str) -> tuple[int, ...]:
    """Reads the bands of a command line: ``3,2,1``.

    Raises:
        ValueError: they are no numbers from 1.
    """
    raise NotImplementedError


def parse_scale(text: str) -> Scale | tuple[Scale, ...]:
    """Reads the scale of a command line: ``0:3000``, or one for each band: ``0:3000,0:2500,0:2000``.

    Raises:
        ValueError: it is no such thing, or a low value is not below its high one.
    """
    raise NotImplementedError
