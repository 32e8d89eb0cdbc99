"""Logits as a stream of bands of rows: windows -> merged rows -> rows of the original image, never all at once.

A band is (n, W, C): n rows of all columns, classes last. The heads compute in this order, and in it adding windows,
interpolation, softmax and the maximum over classes are fastest on a CPU. A stream yields each row of an image once,
from the top. Its bands may be views of memory that is written again: use a band before asking for the next.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor


def size_on(device: torch.device, sizes: Mapping[str, int]) -> int:
    """Chooses how much is computed at a time on a device.

    Args:
        device: The device.
        sizes: For a ``cpu`` what stays in its cache, and for a GPU of whatever kind, under the name ``cuda``, what
            takes it longer to compute than the host takes to ask for it.
    """
    return sizes['cpu' if device.type == 'cpu' else 'cuda']


def placed(bands: Iterator[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """Yields each band with the rows of the image that it holds."""
    top = 0
    for band in bands:
        yield slice(top, top + len(band)), band
        top += len(band)


def regrouped(bands: Iterator[Tensor], number: int) -> Iterator[Tensor]:
    """Yields the rows of bands in bands of ``number`` rows, of which the last may be smaller."""
    kept = None  # fewer rows than asked for
    for band in bands:
        if kept is not None:
            band = torch.cat([kept, band])
        whole = len(band) - len(band) % number
        if whole:
            yield from band[:whole].split(number)
        kept = band[whole:].clone() if len(band) > whole else None  # a band may be written again
    if kept is not None:
        yield kept


class Windows(NamedTuple):
    """Positions of the windows of an image: at each of ``tops`` and each of ``lefts``, in reading order.

    Attributes:
        image: Height and width of the image in pixels.
        size: Height and width of each window.
        tops: First row of each row of windows.
        lefts: First column of each column of windows.
    """
    image: tuple[int, int]
    size: tuple[int, int]
    tops: list[int]
    lefts: list[int]

    @classmethod
    def whole(cls, image: tuple[int, int]) -> 'Windows':
        """Takes the whole image as the one window."""
        return cls(image, image, [0], [0])

    @classmethod
    def sliding(cls, image: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]) -> 'Windows':
        """Lays out mmsegmentation's sliding windows: the last ones end with the image; a small image is one window.

        Raises:
            ValueError: the windows leave gaps.
        """
        starts = []
        for length, extent, step in zip(image, crop, stride):
            number = max(length - extent + step - 1, 0) // step + 1
            starts.append([max(min(i * step + extent, length) - extent, 0) for i in range(number)])
            if any(after - before > extent for before, after in zip(starts[-1], starts[-1][1:])):
                raise ValueError(f'test_cfg.stride {tuple(stride)} leaves gaps between windows of test_cfg.crop_size '
                                 f'{tuple(crop)}; it must not be larger')
        return cls(image, (min(image[0], crop[0]), min(image[1], crop[1])), *starts)

    @property
    def places(self) -> list[tuple[int, int]]:
        """First row and column of every window."""
        return [(top, left) for top in self.tops for left in self.lefts]

    def panels(self, width: int) -> Iterator[tuple[slice, int, 'Windows']]:
        """Divides the image into panels of columns, for which windows are computed apart from each other.

        Args:
            width: Number of columns that the windows of a panel may cover; at least one column of windows is taken.

        Yields:
            The columns of the image that the panel gives; the first column that its windows cover; and these windows,
            among them all that cover a column of the panel.
        """
        ends = [left + self.size[1] for left in self.lefts]
        begin = first = 0
        while begin < self.image[1]:
            last = first  # the panel ends where a window begins that it does not have
            while last + 1 < len(self.lefts) and (ends[last + 1] - self.lefts[first] <= width
                                                  or self.lefts[last + 1] <= begin):
                last += 1
            end = self.lefts[last + 1] if last + 1 < len(self.lefts) else self.image[1]
            offset = self.lefts[first]
            yield slice(begin, end), offset, Windows(
                (self.image[0], ends[last] - offset), self.size, self.tops,
                [left - offset for left in self.lefts[first:last + 1]])
            begin = end
            first = next((i for i, stop in enumerate(ends) if stop > begin), first)


def merge(logits: Iterator[Tensor], windows: Windows, dtype: torch.dtype, band: int) -> Iterator[Tensor]:
    """Averages overlapping windows and yields bands of rows as soon as no later window reaches them.

    Only one row of windows is kept, however high the image.

    Args:
        logits: Logits (h, w, C) for each of ``windows.places``, taken one by one.
        windows: Positions of the windows.
        dtype: Type in which the logits are added.
        band: Number of rows in a band.
    """
    if len(windows.places) == 1:
        yield from (rows.to(dtype) for rows in next(logits).split(band))
        return
    row_runs, column_runs = (runs(cover(starts, extent, length)) for starts, extent, length in zip(
        (windows.tops, windows.lefts), windows.size, windows.image))
    strip, carried = None, 0  # sums in one row of windows, and the number of its rows with sums of the windows above
    for top, below in zip(windows.tops, [*windows.tops[1:], windows.image[0]]):
        strip = add_windows(strip, carried, logits, windows, dtype)
        for rows, by_rows in row_runs:
            rows = slice(max(rows.start - top, 0), max(min(rows.stop, below) - top, 0))
            for columns, by_columns in column_runs:
                if by_rows * by_columns > 1:
                    strip[rows, columns] /= by_rows * by_columns
        yield from strip[:below - top].split(band)
        carried = len(strip) - (below - top)
        strip[:carried] = strip[below - top:].clone()


def add_windows(strip: Tensor | None, carried: int, logits: Iterator[Tensor], windows: Windows,
                dtype: torch.dtype) -> Tensor:
    """Adds the next row of windows to ``strip`` (h, W, C), whose first ``carried`` rows hold sums; None: a new one."""
    filled = 0  # number of columns that hold sums in the other rows
    for left in windows.lefts:
        window = next(logits)
        if strip is None:
            strip = window.new_empty((len(window), windows.image[1], window.shape[2]), dtype=dtype)
        place, overlap = strip[:, left:left + window.shape[1]], filled - left
        place[:carried] += window[:carried]
        place[carried:, :overlap] += window[carried:, :overlap]
        place[carried:, overlap:] = window[carried:, overlap:]
        filled = left + window.shape[1]
        del window  # or it would outlive its batch, while the next batch is computed
    return strip


def cover(starts: list[int], extent: int, length: int) -> list[int]:
    """Counts for each of ``length`` rows (or columns) the windows that cover it, given their ``starts``."""
    return [sum(start <= place < start + extent for start in starts) for place in range(length)]


def runs(count: list[int]) -> list[tuple[slice, int]]:
    """Returns the runs of equal values: their place, and the value."""
    found, start = [], 0
    for value, group in groupby(count):
        end = start + len(list(group))
        found.append((slice(start, end), value))
        start = end
    return found


def restore(bands: Iterator[Tensor], size: tuple[int, int], padding: tuple[int, int, int, int],
            flip: str | None) -> Iterator[Tensor]:
    """Removes padding (left, right, top, bottom) from an image of ``size`` and undoes a flip, as mmsegmentation does.

    A vertical flip needs the last row first, so all rows are kept until then.

    Raises:
        ValueError: ``flip`` is none of None, 'horizontal' and 'vertical'.
    """
    if flip not in (None, 'horizontal', 'vertical'):
        raise ValueError(f'flip_direction "{flip}" of an image cannot be undone; use "horizontal" or "vertical"')
    left, right, top, bottom = padding
    upright = []
    for rows, band in placed(bands):
        kept = band[max(top - rows.start, 0):max(size[0] - bottom - rows.start, 0), left:size[1] - right]
        if flip == 'vertical':
            upright.insert(0, kept.flip(0))
        elif len(kept):
            yield kept if flip is None else kept.flip(1)
    yield from upright


class Taps(NamedTuple):
    """Linear interpolation along one axis: output i lies between the inputs ``low[i]`` and ``high[i]``.

    Attributes:
        low: Indices (n,) of the lower inputs.
        high: Indices (n,) of the next inputs; at the end the same as ``low``.
        weight: Share (n, 1) of the higher input.
    """
    low: Tensor
    high: Tensor
    weight: Tensor

    @classmethod
    def between(cls, size: int, new_size: int, align_corners: bool, dtype: torch.dtype,
                device: str | torch.device = 'cpu') -> 'Taps':
        """Computes the coordinates of ``torch.nn.functional.interpolate(mode='bilinear')``, in its precision.

        They are computed where they are used, as a copy from the host would wait for the device.
        """
        position = torch.arange(new_size, dtype=dtype, device=device)
        if align_corners:
            position *= torch.tensor(size - 1, dtype=dtype) / max(new_size - 1, 1)
        else:
            position = ((position + 0.5) * (torch.tensor(size, dtype=dtype) / new_size) - 0.5).clamp(min=0)
        low = position.long().clamp(max=size - 1)
        return cls(low, (low + 1).clamp(max=size - 1), (position - low).clamp(max=1).unsqueeze(1))

    def part(self, first: int, last: int, offset: int) -> 'Taps':
        """Returns the taps of the outputs ``first`` to ``last``, for inputs that begin with number ``offset``."""
        return Taps(self.low[first:last] - offset, self.high[first:last] - offset, self.weight[first:last])

    def apply(self, x: Tensor, dim: int) -> Tensor:
        """Interpolates the rows (``dim`` 0) or columns (1) of a band."""
        x, weight = x.contiguous(), self.weight if dim else self.weight.unsqueeze(2)
        return x.index_select(dim, self.low).lerp_(x.index_select(dim, self.high), weight)


def resize(bands: Iterator[Tensor], size: tuple[int, int], new_size: tuple[int, int], align_corners: bool,
           band: int) -> Iterator[Tensor]:
    """Resizes an image of ``size`` bilinearly and yields it in bands of ``band`` rows. Equal sizes change nothing.

    Columns are interpolated as the bands come, then rows. Only rows that are needed again are kept.
    """
    if size == new_size:
        yield from bands
        return
    band_of_input = next(bands)
    columns, rows = (Taps.between(*sizes, align_corners, band_of_input.dtype, band_of_input.device)
                     for sizes in ((size[1], new_size[1]), (size[0], new_size[0])))
    low, high = (taps.tolist() for taps in Taps.between(size[0], new_size[0], align_corners, band_of_input.dtype)[:2])
    kept, first = columns.apply(band_of_input, 1), 0  # input rows with the new columns, from number `first`
    for y in range(0, new_size[0], band):
        end = min(y + band, new_size[0])
        while first + len(kept) <= high[end - 1]:
            kept = torch.cat([kept, columns.apply(next(bands), 1)])
            past = min(low[y] - first, len(kept))
            kept, first = kept[past:], first + past
        yield rows.part(y, end, first).apply(kept, 0)
