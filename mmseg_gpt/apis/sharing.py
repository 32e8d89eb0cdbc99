"""Making models share the weights of a ViT that they have in common."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..checkpoints.load import FINAL_NORM
from ..models import GatedPromptViT

# Its shape follows img_size, and where it was resized its last bits can differ from machine to machine.
OWN = 'pos_embed'


def find_shared(vit: GatedPromptViT, others: Iterable[GatedPromptViT]) -> tuple[dict[str, nn.Parameter], list[str]]:
    """Compares the weights of ``vit`` with those of others, which are of one ViT.

    Args:
        vit: In any place of memory.
        others: Those that share their weights already.

    Returns:
        tuple: By name, the parameters of the others that equal its own; and the names of those by which it is
        another ViT. A position embedding can be its own, and so can a final norm that no other has.
    """
    known: dict[str, list[nn.Parameter]] = defaultdict(list)
    for other in others:
        for name, weight in other.vit_state().items():
            if all(weight is not each for each in known[name]):
                known[name].append(weight)
    own = vit.vit_state()
    shared = {name: same for name, weight in own.items() for same in known.get(name, ()) if is_equal(weight, same)}
    optional = {OWN, *(name for name in FINAL_NORM if name not in own or name not in known)}
    different = sorted((own.keys() | known.keys()) - shared.keys() - optional) if known else []
    return shared, different


def is_equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape and numbers, on whatever devices."""
    return one.shape == other.shape and torch.equal(one.to(other.device), other)


def replace_weights(vit: GatedPromptViT, weights: dict[str, nn.Parameter]) -> None:
    """Puts parameters, the objects themselves, into the place of those of these names."""
    for name, weight in weights.items():
        module, _, leaf = name.rpartition('.')
        setattr(vit.get_submodule(module), leaf, weight)


def lower_precision(vit: GatedPromptViT, dtype: torch.dtype) -> None:
    """Keeps the linear layers, nearly all of a ViT, in ``dtype``, which is what autocast would make of them each time.

    Norms, embeddings, prompts, gates and temperatures stay as they are, so the numbers are those of autocast.
    """
    for module in vit.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.to(dtype)
