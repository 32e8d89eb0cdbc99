"""Finds the images that annotations are of."""

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ...files import composed, folders_below
from ..found.lists import common_end
from ..left_out import READ
from ..pairs import orientation_of, unreadable
from .shapes import Annotation, LabelsError

SUFFIXES = tuple(READ)

NOT_PIXELS = ('CMYK', 'YCbCr', 'LAB', 'HSV', 'P', 'PA')  # modes whose numbers alone are not gray or red, green and blue


class ImageFinder:
    """Finds images by what annotation files say of them.

    Args:
        folder: Where to look, with all folders inside.
        without: A folder inside that is passed over: it holds what was made of the images.
    """

    def __init__(self, folder: Path, without: Path) -> None:
        self.by_name: dict[str, list[Path]] = {}
        for place, names in folders_below(folder, without):
            for path in (Path(place, name) for name in names if name.lower().endswith(SUFFIXES)):
                for key in {path.name, path.stem}:
                    self.by_name.setdefault(composed(key).lower(), []).append(path)

    def all(self) -> set[Path]:
        """Returns all images that are there."""
        return {path for paths in self.by_name.values() for path in paths}

    def find(self, annotation: Annotation) -> Path | None:
        """Returns the image of an annotation, or None if it is not there.

        It is the file that the annotation names, seen from the annotation's own file; else the one of that name, of
        several the one whose folders agree most with those that are named; else the one of that name with another
        suffix. Capital letters are of no matter.

        Raises:
            LabelsError: several images fit alike.
        """
        beside = annotation.file.parent / annotation.image
        if beside.suffix.lower() in SUFFIXES and beside.is_file():
            return Path(os.path.normpath(beside))
        names = [Path(name) for name in (annotation.image, *annotation.aliases)]
        for name, key in [*((name, name.name) for name in names), *((name, name.stem) for name in names)]:
            # Of a name without an image's suffix, all behind a point belongs to the name.
            key = name.name if key == name.stem and name.suffix.lower() not in SUFFIXES else key
            if candidates := self.by_name.get(composed(key).lower()):
                return self.nearest(candidates, name, annotation)
        return None

    @staticmethod
    def nearest(candidates: list[Path], name: Path, annotation: Annotation) -> Path:
        """Returns the image whose path agrees with what the annotation says in the most parts, from the end."""
        def agreement(path: Path) -> tuple[int, int]:
            common = common_end(*([part.lower() for part in each.parent.parts] for each in (path, name)))
            return common, len(os.path.commonpath([path.absolute(), annotation.file.absolute()]))

        best, *others = sorted(candidates, key=agreement, reverse=True)
        if others and agreement(others[0]) == agreement(best):
            raise LabelsError(f'{annotation.file} annotates {annotation.image}, which may be {best} or {others[0]}: '
                              'say where its images are with --images DIR')
        return best


def size_as_shown(path: Path) -> tuple[tuple[int, int], tuple[int, int], bool]:
    """Returns the width and height of an image as stored and as shown, and whether EXIF turns or mirrors it.

    Raises:
        LabelsError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            orientation = orientation_of(image)
            stored = image.size
    except Exception as error:  # Pillow raises many types for damaged files
        raise LabelsError(unreadable(path, error)) from error
    return stored, stored[::-1] if orientation > 4 else stored, orientation != 1


def put_image(image: Path, place: Path, turn: bool | None) -> Path:
    """Links an image into a folder, or copies it where there are no links, or writes one without an EXIF orientation.

    Args:
        image: The image.
        place: Where it is to be, without the suffix.
        turn: Whether to turn a copy as EXIF says; False for a copy of the pixels as stored, None for a link.

    Returns:
        Path: Where it is.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    if turn is None:
        # The name may have points in it, so with_suffix would cut it.
        link = place.with_name(place.name + image.suffix)
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(os.path.relpath(image.resolve(), link.parent.resolve()))
        except OSError:  # exFAT, as many USB sticks have it, knows no links
            shutil.copyfile(image, link)
        return link
    copy = place.with_name(f'{place.name}.png')
    with Image.open(image) as picture:
        turned = ImageOps.exif_transpose(picture) if turn else picture
        if turned.mode in NOT_PIXELS:
            turned = turned.convert('RGB')
        Image.fromarray(np.array(turned)).save(copy)  # without EXIF
    return copy
