"""A frozen ViT kept in half precision: its large weights are rounded once, and not at every use as autocast does."""

import mmap
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .gated_prompt_vit import GatedPromptViT


def rounded_weights(vit: GatedPromptViT) -> dict[str, nn.Parameter]:
    """Returns the frozen weights that autocast rounds whenever they are used, by name.

    They are those of linear layers and of the patch projection, nearly all of a ViT. Norms, embeddings, scales of
    layers, prompts, gates, temperatures and updates are not among them, so with these alone in half precision the
    results are those of autocast, bit for bit.
    """
    layers = {name for name, module in vit.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
    return {name: weight for name, weight in vit.vit_state().items() if name.rpartition('.')[0] in layers
            and not weight.requires_grad and weight.dtype == torch.float32}


def round_weights(vit: GatedPromptViT, dtype: torch.dtype) -> None:
    """Rounds the :func:`rounded_weights` to ``dtype``, for good."""
    for weight in rounded_weights(vit).values():
        weight.data = weight.data.to(dtype)


class HalfWeights:
    """Keeps the large weights of a frozen ViT in half precision, for a forward under autocast of the same type.

    The ViT still saves and loads float32: its state dict holds the original weights, and loading into it ends the half
    precision. The originals are in an unnamed file, which the system reads on demand; it disappears as soon as
    nobody uses it, even after a crash. If the file cannot be written, they stay in the memory of the CPU.

    Args:
        vit: The ViT, whose weights are rounded now.
        dtype: The type of the autocast, ``torch.bfloat16`` or ``torch.float16``.
        folder: A folder on a disk with room for the originals.
    """

    def __init__(self, vit: GatedPromptViT, dtype: torch.dtype, folder: str | Path) -> None:
        self.vit, self.dtype, self.folder = vit, dtype, folder
        self.originals: dict[str, Tensor] = {}
        self.is_rounded = False
        self.handles = [vit.register_forward_pre_hook(self.restore_without_autocast),
                        vit.register_state_dict_post_hook(partial(self.put_originals)),  # torch sets an attribute of it
                        vit.register_load_state_dict_pre_hook(self.forget)]
        self.round()

    def round(self) -> None:
        """Rounds the weights, unless they are rounded already."""
        if self.is_rounded:
            return
        weights = rounded_weights(self.vit)
        if not self.originals:
            self.originals = kept(weights, self.folder)
        round_weights(self.vit, self.dtype)
        self.is_rounded = True

    def restore(self) -> None:
        """Gives the ViT its original weights back, bit for bit."""
        if not self.is_rounded:
            return
        for name, original in self.originals.items():
            weight = self.vit.get_parameter(name)
            weight.data = original.to(weight.device, copy=True)
        self.is_rounded = False

    def restore_without_autocast(self, vit: GatedPromptViT, *_) -> None:
        """Restores the ViT where it is used without autocast, as by hooks that evaluate the model themselves."""
        if not torch.is_autocast_enabled(next(vit.parameters()).device.type):
            self.restore()

    def release(self) -> None:
        """Restores the ViT and detaches from it."""
        self.restore()
        for handle in self.handles:
            handle.remove()

    def put_originals(self, vit: GatedPromptViT, state: dict[str, Tensor], prefix: str, _: dict) -> None:
        """Puts the original weights into a state dict of the ViT."""
        if self.is_rounded:
            state.update({prefix + name: original for name, original in self.originals.items()})

    def forget(self, *_) -> None:
        """Restores the ViT, into which other weights are about to be loaded."""
        self.restore()
        self.originals = {}


def kept(weights: Mapping[str, Tensor], folder: str | Path) -> dict[str, Tensor]:
    """Returns copies of weights on the CPU, in a file without a name in ``folder`` if it can be written."""
    copies = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for copy in copies.values():
                file.write(copy.numpy())
            file.flush()
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:  # also of a file without any bytes
        print_log(f'the float32 weights of the frozen ViT stay in memory, as {folder} cannot hold them: {error}',
                  logger='current')
        return {name: copy.clone() for name, copy in copies.items()}
    mapped, place = {}, 0
    for name, copy in copies.items():
        mapped[name] = torch.frombuffer(content, dtype=copy.dtype, count=copy.numel(), offset=place).view(copy.shape)
        place += copy.nbytes
    return mapped
