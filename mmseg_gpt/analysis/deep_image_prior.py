"""Deep Image Prior: what image does a small untrained network draw when it is fitted to the output of a block?

The drawn image shows what the block still knows of the original; convolutions fill in the rest. Sources: arXiv
1711.10925 for the method, section 3 and appendix C of arXiv 2306.05067 for its use on ViTs. The latter gives no
settings: channels, learning rate and schedule are ours.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import Encoder

CHANNELS = (32, 64, 64, 64, 64)  # channels of each scale, from fine to coarse; small images have fewer scales
SKIP = 8  # channels of the connections across the hourglass
NOISE = 32  # channels of the input
COARSEST = 4  # smallest side of the coarsest map in pixels: normalised over fewer pixels it could carry nothing


def layer(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Makes a convolution with instance norm: (B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
    padding = dict(padding=kernel // 2, padding_mode='reflect') if kernel > 1 else {}
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, **padding),
                         nn.InstanceNorm2d(outputs, affine=True), nn.LeakyReLU(0.2))


class Generator(nn.Module):
    """Hourglass network with skip connections: noise (B, 32, H, W) -> an image (B, 3, H, W) in [0, 1].

    Args:
        size: The smaller one of H and W, at least 8.

    Raises:
        ValueError: ``size`` is below 8.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 2 * COARSEST:
            raise ValueError(f'images of {size} pixels are too small for the generator, which needs {2 * COARSEST}')
        channels = CHANNELS[:int(math.log2(size / COARSEST))]
        finer, coarser = (NOISE, *channels[:-1]), (*channels[1:], channels[-1])
        self.down = nn.ModuleList(nn.Sequential(layer(before, here, 3, stride=2), layer(here, here, 3))
                                  for before, here in zip(finer, channels))
        self.skip = nn.ModuleList(layer(before, SKIP, 1) for before in finer)
        self.up = nn.ModuleList(nn.Sequential(layer(SKIP + below, here, 3), layer(here, here, 1))
                                for below, here in zip(coarser, channels))
        self.out = nn.Conv2d(channels[0], 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skipped = []
        for down, skip in zip(self.down, self.skip):
            skipped.append(skip(x))
            x = down(x)
        for up, skip in zip(reversed(self.up), reversed(skipped)):
            x = F.interpolate(x, skip.shape[-2:], mode='bilinear', align_corners=False)
            x = up(torch.cat([skip, x], dim=1))
        return self.out(x).sigmoid()


def start(height: int, width: int, seed: int) -> tuple[Generator, Tensor]:
    """Makes an untrained generator and its noise (1, 32, H, W), the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs, for good
        return Generator(min(height, width)), 0.1 * torch.rand(1, NOISE, height, width)


def decay(step: int, iterations: int) -> float:
    """Returns the factor of the learning rate: 1, then linearly to 0 in the last quarter, to remove Adam's jitter."""
    return min(1., 4 * (iterations - step) / iterations)


def reconstruct(encoder: Encoder, image: Tensor, block: int, iterations: int = 3000, lr: float = 0.005,
                seed: int = 0) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Draws the image whose tokens after a block are nearest to those of ``image``, by squared distance.

    Args:
        encoder: The ViT.
        image: The original (3, H, W), red first, in [0, 1], on the device of ``encoder``.
        block: The block, counted from 1.
        iterations: Number of steps of Adam on the generator's weights.
        lr: Learning rate.
        seed: Seed of the generator's first weights and of its noise; all blocks and ViTs start from the same.

    Yields:
        tuple: After 0, 1, .. ``iterations`` steps: their number, the drawn image (3, H, W), and the squared distance
        divided by the variance of the tokens of ``image``, a scalar. The last one is the result.

    Raises:
        ValueError: there is no such block, the image is too small, or the distance is no longer finite.
    """
    with torch.no_grad():
        target = encoder(image[None], block)
    generator, noise = (part.to(image.device) for part in start(*image.shape[1:], seed))
    optimizer = torch.optim.Adam(generator.parameters(), lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: decay(step, iterations))
    for step in range(iterations + 1):
        drawn = generator(noise)
        distance = F.mse_loss(encoder(drawn, block), target) / target.var()
        if step == iterations and not distance.isfinite():
            raise ValueError(f'block {block}: the distance is no longer finite; try a learning rate below {lr}')
        yield step, drawn[0].detach(), distance.detach()
        if step < iterations:
            optimizer.zero_grad()
            distance.backward()
            optimizer.step()
            schedule.step()
