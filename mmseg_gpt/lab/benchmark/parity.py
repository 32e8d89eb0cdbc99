"""A check in float64, before anything is measured, that the paper's formulation and ours compute the same."""

from collections.abc import Iterable
from contextlib import nullcontext

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from .variants import Sizes, build, draw_weights
from .work import Batch, make_batch, make_sample

SIZES = Sizes(arch='tiny', depth=4, image=64, classes=7, prompts=3, channels=16, batch=2)
TOLERANCE = 1e-12


class ParityError(RuntimeError):
    """Two variants that should compute the same do not."""


Results = dict[str, dict[str, Tensor]]  # by part, and then by name


def check_parity(cfg: Config, seed: int = 0, device: str | torch.device = 'cpu') -> dict[str, float]:
    """Compares loss, all gradients, BN statistics and predictions of small models of 'paper' and 'ours' in float64.

    The models differ from the measured ones in their sizes, in a prompt dropout of 0, and in weights drawn such that
    no gate is closed and no temperature is 1.

    Args:
        cfg: The config of our model.
        seed: Seed of weights and images.
        device: Where both are computed.

    Returns:
        dict: The largest difference in each of the four, relative to the largest entry of the tensor.

    Raises:
        ParityError: a difference is above ``TOLERANCE``; the message names the worst tensor.
    """
    weights = redrawn_weights(draw_weights(cfg, SIZES, seed), seed)
    theirs, mine = (results(build(model, cfg, SIZES, weights).to(device, torch.float64), seed)
                    for model in ('paper', 'ours'))
    worst = {}
    for part, (found, name) in compare(theirs, mine).items():
        if not found <= TOLERANCE:  # nan is refused too
            raise ParityError(f'"paper" and "ours" do not compute the same: {part} {name} differs by '
                              f'{found:.1e} in float64. Nothing was measured')
        worst[part] = found
    return worst


def compare(theirs: Results, mine: Results) -> dict[str, tuple[float, str]]:
    """Returns the largest difference in each part, and the name of the tensor that differs so.

    Raises:
        ParityError: only one of the two has a tensor of some name.
    """
    worst = {}
    for part in theirs:
        if theirs[part].keys() != mine[part].keys():
            raise ParityError(f'"paper" and "ours" differ in which {part} they have: '
                              f'{sorted(theirs[part].keys() ^ mine[part].keys())}')
        differences = {name: difference(theirs[part][name], mine[part][name]) for name in theirs[part]}
        name = max(differences, key=lambda name: (differences[name] != differences[name], differences[name]))
        worst[part] = differences[name], name
    return worst


def redrawn_weights(weights: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Draws prompts, gates, temperatures, norms and classifiers anew, so that each has an effect and labels vary."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(name: str, weight: Tensor) -> Tensor:
        vector, last = weight.ndim == 1, name.rpartition('.')[2]
        if last == 'temperature' or (vector and last == 'weight'):
            return torch.empty_like(weight).uniform_(0.5, 1.5, generator=generator)
        if (vector and last == 'bias') or any(part in name for part in ('.prompt.', 'conv_seg', '_token', '_embed')):
            return torch.empty_like(weight).normal_(std=0.3, generator=generator)
        return weight

    return {name: drawn(name, weight) for name, weight in weights.items()}


def results(model: nn.Module, seed: int, sizes: Sizes = SIZES, half: torch.dtype | None = None) -> Results:
    """Computes everything to compare, where the model is and in its type, and returns it in float64 on the CPU.

    Args:
        model: A segmentor.
        seed: Seed of the images.
        sizes: Those of the model.
        half: Type of the autocast; None for none.
    """
    weight = next(model.parameters())
    model.backbone.prompt.dropout.p = 0.
    batch = make_batch(sizes, seed, weight.device, weight.dtype)
    with nullcontext() if half is None else torch.autocast(weight.device.type, half):
        loss = model.train().parse_losses(model(batch.inputs, batch.samples, mode='loss'))[0]
    loss.backward()
    found = dict(
        loss=dict(total=loss.detach()),
        gradients={name: p.grad for name, p in model.named_parameters() if p.grad is not None},
        statistics={name: b for name, b in model.named_buffers() if name.endswith(('running_mean', 'running_var'))})
    with nullcontext() if half is None else torch.autocast(weight.device.type, half):
        found['predictions'] = predictions(model, batch, sizes)
    return {part: {name: t.to('cpu', torch.float64) for name, t in tensors.items()} for part, tensors in found.items()}


@torch.no_grad()
def predictions(model: nn.Module, batch: Batch, sizes: Sizes = SIZES) -> dict[str, Tensor]:
    """Predicts the labels of an image of several windows, and the logits of a window."""
    model.eval()
    size = torch.Size((sizes.image, sizes.image))
    logits = model.encode_decode(batch.inputs, [dict(img_shape=size)] * len(batch.inputs))
    image = torch.cat([*batch.inputs], dim=2)[None, :, :, :sizes.evaluated[1]]
    sample, = model(image, [make_sample(sizes.evaluated)], mode='predict')
    return dict(labels=sample.pred_sem_seg.data, logits=logits)


def largest(differences: Iterable[float]) -> float:
    """Returns the largest difference; nan if one of them is, which Python's ``max`` may pass over."""
    return float(np.max(list(differences)))


def difference(one: Tensor, other: Tensor) -> float:
    """Returns the largest difference of two tensors, relative to the largest entry."""
    if one.shape != other.shape:
        return float('inf')
    largest = one.abs().max().clamp(min=torch.finfo(one.dtype).tiny)
    return ((one - other).abs().max() / largest).item()
