"""The transform that reads images of any depth and number of bands, by a stated scale."""

from collections.abc import Sequence

from mmcv.transforms import LoadImageFromFile
from mmengine.registry import TRANSFORMS

Scale = tuple[float, float]


@TRANSFORMS.register_module()
class LoadBands(LoadImageFromFile):
    """LoadImageFromFile for images that are not 8-bit RGB, in its place in a pipeline of mmseg or mmpretrain.

    The pixels are float32 from 0 to 255, whatever the file has, so that the mean and deviation of a ViT hold:
    ``(value - low) / (high - low) * 255``, and values outside the scale are clipped.

    Args:
        bands: Numbers, from 1, of the bands of the file that are red, green and blue; they become BGR, as the rest of
            the pipeline takes them. Any other number of bands is kept in the order given. By default those of an image
            of one band (three times) or three.
        scale: The values that become 0 and 255, for all bands or for each. By default those of the file's
            type: 0 and 255, 0 and 65535, or 0 and 1 for float.
        fill: What pixels without a number (NaN, infinite) become, 0 to 255; by default they are refused.
    """

    def __init__(self, bands: Sequence[int] | None = None, scale: Scale | Sequence[Scale] | None = None,
                 fill: float | None = None) -> None:
        super().__init__(to_float32=True)
        self.bands, self.scale, self.fill = bands, scale, fill
