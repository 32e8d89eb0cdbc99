"""The work to measure: a training step, and the evaluation of an image at one scale or at several."""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ...segmentation.bands import Windows
from .variants import Sizes, construct, ours, stock

IGNORED = 255


class Batch(NamedTuple):
    """Training images as they come out of the data preprocessor.

    Attributes:
        inputs: Normalised images (B, 3, H, W).
        samples: The labels of each image, 10% of them ignored.
    """
    inputs: Tensor
    samples: list[SegDataSample]


def make_batch(sizes: Sizes, seed: int = 0, device: str | torch.device = 'cpu',
               dtype: torch.dtype = torch.float32) -> Batch:
    """Draws images and labels."""
    generator = torch.Generator().manual_seed(seed)
    shape = (sizes.batch, 1, sizes.image, sizes.image)
    inputs = torch.randn(sizes.batch, 3, sizes.image, sizes.image, generator=generator)
    labels = torch.randint(sizes.classes, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) < 0.1] = IGNORED
    return Batch(inputs.to(device, dtype), [make_sample(shape[2:], label.to(device)) for label in labels])


def make_sample(size: tuple[int, int], label: Tensor | None = None, **meta) -> SegDataSample:
    """Makes mmsegmentation's sample of an image of ``size``; ``meta`` adds metadata or replaces it."""
    sample = SegDataSample(metainfo=dict(img_path='drawn', img_shape=size, ori_shape=size, pad_shape=size,
                                         padding_size=[0, 0, 0, 0]) | meta)
    if label is not None:
        sample.gt_sem_seg = PixelData(data=label)
    return sample


def autocast(bf16: bool, device: torch.device) -> AbstractContextManager:
    """Returns the autocast of ``--amp bf16``, or a context that does nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()


class TrainingStep:
    """Training step: forward, loss, backward and optimizer on the trained parameters. A call makes one step.

    Args:
        model: A segmentor, which is set to training mode.
        cfg: The config, which has the settings of the optimizer.
        batch: The images.
        bf16: Whether the forward runs under autocast.
    """

    def __init__(self, model: nn.Module, cfg: Config, batch: Batch, bf16: bool = False) -> None:
        self.model, self.batch, self.bf16 = model.train(), batch, bf16
        options = dict(cfg.optim_wrapper.optimizer)
        kind = getattr(torch.optim, options.pop('type'))
        self.optimizer = kind([p for p in model.parameters() if p.requires_grad], **options)

    def loss(self) -> Tensor:
        """Computes the sum of the losses of all heads."""
        with autocast(self.bf16, self.batch.inputs.device):
            losses = self.model(self.batch.inputs, self.batch.samples, mode='loss')
            return self.model.parse_losses(losses)[0]

    def features(self) -> tuple[Tensor, ...]:
        """Runs the backbone alone."""
        with autocast(self.bf16, self.batch.inputs.device):
            return self.model.backbone(self.batch.inputs)

    def __call__(self) -> None:
        self.model.train()  # an evaluation may have come between
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()

    def tensors(self) -> list[Tensor]:
        """Returns all tensors that live between two steps: weights, buffers, gradients, momentum and the batch."""
        weights = list(self.model.parameters())
        momentum = [t for state in self.optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
        return [*weights, *self.model.buffers(), *(p.grad for p in weights if p.grad is not None), *momentum,
                self.batch.inputs, *(sample.gt_sem_seg.data for sample in self.batch.samples)]


class Evaluation:
    """Evaluation of images by ``test_step``, as in the test loop. A call evaluates once.

    Args:
        model: A segmentor, which is set to evaluation mode.
        sizes: The sizes, which decide that of an image.
        device: Device of the images.
        bf16: Whether the model runs under autocast.
        images: Number of images evaluated at once.
    """

    def __init__(self, model: nn.Module, sizes: Sizes, device: torch.device, bf16: bool = False,
                 images: int = 1) -> None:
        self.model, self.runner, self.bf16, self.device, self.images = model, model, bf16, device, images
        self.views = [make_view(sizes.evaluated, 1., False, device)]

    def data(self) -> dict:
        """Returns the images as the data loader does, with new samples each time, as predictions are added to them."""
        image, meta = self.views[0]
        return dict(inputs=[image] * self.images, data_samples=[make_sample(**meta) for _ in range(self.images)])

    @torch.no_grad()
    def __call__(self) -> list[SegDataSample]:
        self.model.eval()
        with autocast(self.bf16, self.device):
            return self.runner.test_step(self.data())

    def tensors(self) -> list[Tensor]:
        """Returns all tensors that live between two calls."""
        return [*self.model.parameters(), *self.model.buffers(), *(image for image, _ in self.views)]


class MultiScaleEvaluation(Evaluation):
    """Evaluation of one image at the scales and flips of the config's ``tta_pipeline``, merged by its ``tta_model``.

    Args:
        model: A segmentor, which is set to evaluation mode.
        sizes: The sizes, which decide that of the image.
        device: Device of the image.
        bf16: Whether the model runs under autocast.
        cfg: The config.
        own: Whether to use the config's own TTA model, or else mmsegmentation's.
    """

    def __init__(self, model: nn.Module, sizes: Sizes, device: torch.device, bf16: bool, cfg: Config,
                 own: bool) -> None:
        super().__init__(model, sizes, device, bf16)
        self.runner = construct(cfg.tta_model if own else stock(cfg.tta_model), module=model)
        scales, flips, *_ = cfg.tta_pipeline[1].transforms
        single = cfg.test_pipeline[1].scale[1]
        self.views = [make_view(sizes.evaluated, scale.scale[1] / single, flip.prob == 1, device)
                      for scale in scales for flip in flips]

    def data(self) -> dict:
        return dict(inputs=[[image] for image, _ in self.views],
                    data_samples=[[make_sample(**meta)] for _, meta in self.views])


def make_view(size: tuple[int, int], ratio: float, flip: bool, device: torch.device) -> tuple[Tensor, dict]:
    """Draws an image of 8 bits at a scale, and the arguments of its :func:`make_sample`."""
    scaled = tuple(round(side * ratio) for side in size)
    image = torch.randint(256, (3, *scaled), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return image.to(device), dict(size=scaled, ori_shape=size, flip=flip, flip_direction='horizontal' if flip else None)


def windows(cfg: Config, sizes: Sizes) -> int:
    """Counts the windows into which the evaluated image is cut."""
    test = ours(cfg, sizes).test_cfg
    return len(Windows.sliding(sizes.evaluated, test.crop_size, test.stride).places)
