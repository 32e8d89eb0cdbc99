"""Masks in files of arrays: .npy and .npz of numpy, .mat of MATLAB."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...wording import listed

NUMPY, ZIP, MATLAB, MATLAB_73 = b'\x93NUMPY', b'PK\x03\x04', b'MATLAB 5.0', b'MATLAB 7.3'
MASK_NAMES = re.compile(r'ground.?truth|segmentation|label|mask|class|\bgt', re.IGNORECASE)
DEEPEST = 4  # structures and cells within each other


class MaskError(ValueError):
    """A mask cannot be read; the message names the file and says what to do."""


def is_array_file(path: str | Path) -> bool:
    """Returns whether a file is one of :func:`array_in_file`, by its first bytes."""
    with open(path, 'rb') as file:
        start = file.read(16)
    zipped = start.startswith(ZIP) and Path(path).suffix.lower() == '.npz'
    return zipped or start.startswith((NUMPY, MATLAB, MATLAB_73))


def array_in_file(path: str | Path, size: tuple[int, int] | None = None) -> tuple[np.ndarray, str]:
    """Reads the label map in a file of arrays.

    Args:
        path: A .npy, .npz or .mat file.
        size: Width and height of its image. Of several arrays, the one of that size is the label map.

    Returns:
        The array, and a note for the user; empty if there is nothing to choose from.

    Raises:
        MaskError: there is no array for each pixel, or several. The message does not name the file.
    """
    with open(path, 'rb') as file:
        start = file.read(16)
    if start.startswith(NUMPY):
        try:
            return np.load(path, allow_pickle=False), ''
        except ValueError as error:
            raise MaskError('holds Python objects or is cut short, and no plain array; save it with '
                            'np.save(file, array.astype(np.uint8))') from error
    if start.startswith(MATLAB_73):
        raise MaskError("is a MATLAB file of version 7.3; save it with save(file, 'name', '-v7')")
    arrays = dict(np.load(path, allow_pickle=False)) if start.startswith(ZIP) else dict(in_mat(read_mat(path)))
    return chosen(arrays, size)


def read_mat(path: str | Path) -> dict:
    """Reads the variables of a MATLAB file.

    Raises:
        MaskError: scipy is missing.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MaskError('is a MATLAB file, which needs scipy (pip install scipy)') from error
    return {name: value for name, value in loadmat(path).items() if not name.startswith('__')}


def in_mat(variables: dict, depth: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the arrays of numbers in MATLAB's variables, structures and cells, with their names."""
    for name, value in variables.items():
        if not isinstance(value, np.ndarray) or depth > DEEPEST:
            continue
        if value.dtype.names and value.size:
            yield from in_mat({f'{name}.{key}': value[key].ravel()[0] for key in value.dtype.names}, depth + 1)
        elif value.dtype == object:
            yield from in_mat({f'{name}{{{i}}}': each for i, each in enumerate(value.ravel()[:64], 1)}, depth + 1)
        elif value.dtype.kind in 'biuf':
            yield name, value


def chosen(arrays: dict[str, np.ndarray], size: tuple[int, int] | None) -> tuple[np.ndarray, str]:
    """Chooses the label map among arrays: the one of the image's size, or else the one that is called so.

    Raises:
        MaskError: none or several come into question.
    """
    flat = {name: array for name, array in arrays.items() if array.ndim == 2 and min(array.shape) > 1}
    fitting = {name: array for name, array in flat.items() if size and array.shape == (size[1], size[0])} or flat
    if len(fitting) > 1:
        fitting = {name: array for name, array in fitting.items() if MASK_NAMES.search(name)}
    if len(fitting) != 1:
        held = listed([f'{name} {array.shape}' for name, array in arrays.items()]) or 'no numbers'
        remedy = 'Save the right one alone' if flat else 'Leave it and its image out'
        raise MaskError(f'holds {held}: {"several" if flat else "none"} of these can be a label map. {remedy}')
    (name, array), = fitting.items()
    return array, f'is read by its array {name!r}' if len(arrays) > 1 else ''
