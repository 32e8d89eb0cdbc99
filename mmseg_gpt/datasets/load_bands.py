"""The transform that reads images of any depth and number of bands, by a stated scale."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.registry import TRANSFORMS

from .headers import read_header
from .reading import Bands, PixelError, Scale, read_bands, scaled


@TRANSFORMS.register_module()
class LoadBands(LoadImageFromFile):
    """LoadImageFromFile for images that are not 8-bit RGB, in its place in a pipeline of mmseg or mmpretrain.

    A value becomes ``(value - low) / (high - low) * 255``, so that the mean and deviation of a ViT hold. Values outside
    the scale are clipped to 0 and 255, then rounded. Images are not rotated by their EXIF orientation.

    Args:
        bands: Numbers, from 1, of the bands of the file that are red, green and blue; they become BGR, as the rest of
            the pipeline takes them. Any other number of bands is kept in the order given. By default the one gray band,
            three times, or the three colours; alpha is left out.
        scale: The values that become 0 and 255: one pair for all bands, or one for each. May be left out for 8 bits
            only, which then stay as they are.
        fill: The value, 0 to 255, of pixels without a number (NaN, infinite); by default they are refused.
        expected: Type and number of the bands of every file, such as ``('uint16', 4)``; others are refused. By default,
            every file that has the bands is accepted.
        to_float32: Whether to skip the rounding. The pixels are then float32, which only some transforms accept.

    Raises:
        ValueError: an argument makes no sense.
    """

    def __init__(self, bands: Sequence[int] | None = None, scale: Scale | Sequence[Scale] | None = None,
                 fill: float | None = None, expected: tuple[str, int] | None = None, to_float32: bool = False) -> None:
        super().__init__(to_float32=to_float32, color_type='unchanged')
        self.how = Bands.checked(bands, scale, fill, expected)

    def transform(self, results: dict) -> dict | None:
        """Reads ``img_path`` of a sample and adds ``img``, ``img_shape`` and ``ori_shape`` to it.

        Args:
            results: The sample.

        Raises:
            PixelError: the file cannot be read as asked.
        """
        path = results['img_path']
        if '://' in str(path):
            raise PixelError(f'LoadBands reads local files, not {path}')
        header = read_header(path)
        if problems := self.how.problems(header, path):
            raise PixelError(problems[0])
        return self.add(results, scaled(
            read_bands(path, header), self.how, path, header, not self.to_float32))

    def from_array(self, pixels: np.ndarray) -> dict:
        """Does what :meth:`transform` does, for pixels that have been read already.

        Args:
            pixels: All bands of a file, (H, W, bands), in the order and the type of the files.
        """
        if self.how.expected and self.how.expected != (pixels.dtype.name, pixels.shape[2]):
            raise PixelError(f'the array has {pixels.shape[2]} bands of {pixels.dtype}, and images were '
                             f'{self.how.expected[1]} of {self.how.expected[0]} in training')
        return self.add(dict(img_path=None), scaled(pixels, self.how, 'the array', None, not self.to_float32))

    @staticmethod
    def add(results: dict, image: np.ndarray) -> dict:
        """Adds an image to a sample as LoadImageFromFile does."""
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

    def __repr__(self) -> str:
        said = ', '.join(f'{name}={value}' for name, value in self.how._asdict().items() if value is not None)
        return f'LoadBands({said}, to_float32={self.to_float32})'
