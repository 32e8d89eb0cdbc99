"""Pictures for the page: masks over a photograph, and attention over what the model sees."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

OPAQUE = 0.7  # share of the colour of attention in the picture
LARGEST = 1600  # side in pixels of what is shown
WIDE = 320  # least width of a picture with a caption, in pixels


def shown_size(size: tuple[int, int], largest: int = LARGEST) -> tuple[int, int]:
    """Returns the height and width at which an image is shown.

    Args:
        size: Its own height and width.
        largest: The largest side.
    """
    scale = min(1., largest / max(size))
    return tuple(max(1, round(side * scale)) for side in size)


def smaller(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a picture (H, W, 3) or labels (H, W), which are not blended, in a smaller size (height, width)."""
    if picture.shape[:2] == tuple(size):
        return picture
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA if picture.ndim == 3 else cv2.INTER_NEAREST)


def heat(picture: np.ndarray, values: np.ndarray, patch: int, point: tuple[int, int] | None = None) -> np.ndarray:
    """Draws a map of patches over a picture in gray; its brightest colour stands for the 99th percentile and above.

    Args:
        picture: (H, W, 3) of uint8.
        values: Map (h, w), not negative.
        patch: Side of a patch in pixels.
        point: Column and row of a pixel whose patch is framed, or None.

    Returns:
        ndarray: (H, W, 3) of uint8, red first.
    """
    top = max(float(np.percentile(values, 99)), 1e-12)
    levels = (255 * np.clip(values / top, 0, 1)).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
    colours = colours.repeat(patch, 0).repeat(patch, 1)[:picture.shape[0], :picture.shape[1]]
    drawn = np.rint(OPAQUE * colours + (1 - OPAQUE) * picture.mean(-1, keepdims=True)).astype(np.uint8)
    if point is not None:
        left, upper = (at // patch * patch for at in point)
        cv2.rectangle(drawn, (left, upper), (left + patch - 1, upper + patch - 1), (255, 255, 255), max(1, patch // 7))
    return drawn


def captioned(picture: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """Writes lines of text below a picture (H, W, 3), which is made larger if it is small."""
    times = max(1, -(-WIDE // picture.shape[1]))
    picture = picture.repeat(times, 0).repeat(times, 1)
    height, width = picture.shape[:2]
    size = width // 15  # readable where six pictures are side by side
    line = size + size // 4
    sheet = Image.new('RGB', (width, height + line * len(lines) + size // 2), 'white')
    sheet.paste(Image.fromarray(picture), (0, 0))
    for i, text in enumerate(lines):
        ImageDraw.Draw(sheet).text((4, height + i * line), text, 'black', ImageFont.load_default(size))
    return np.asarray(sheet)
