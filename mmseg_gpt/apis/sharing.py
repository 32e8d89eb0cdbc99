"""Sharing the weights of a ViT among tasks."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ..checkpoints import CheckpointError
from ..checkpoints.load import FINAL_NORM
from ..models import GatedPromptViT
from ..wording import listed
from .task import ServedTask

# Its shape follows img_size, and where it was resized its last bits can differ from machine to machine.
MAY_DIFFER = 'pos_embed'


def share_vit(name: str, task: ServedTask, others: Sequence[tuple[str, ServedTask]]) -> None:
    """Replaces the ViT weights of a task by those that other tasks share.

    Args:
        name: Name of the task.
        task: The task.
        others: Names and tasks that share a ViT; there may be none.

    Raises:
        CheckpointError: the task has another ViT. Nothing is changed then.
    """
    shared, different = find_shared(task.vit, [other.vit for _, other in others])
    if different:
        raise CheckpointError(
            f'task "{name}" belongs to another ViT, {task.origin}, than the pool with '
            f'{", ".join(other for other, _ in others)}, which has {others[0][1].origin}: {len(different)} weights '
            f'differ ({listed(different)}). Give it a pool of its own')
    replace_weights(task.vit, shared)


def find_shared(vit: GatedPromptViT, others: Iterable[GatedPromptViT]) -> tuple[dict[str, nn.Parameter], list[str]]:
    """Compares the weights of ``vit`` with those of other backbones, which hold one ViT among them.

    Args:
        vit: A backbone on any device.
        others: Backbones that already share one ViT.

    Returns:
        tuple: The parameters of the others that equal those of ``vit``, by name; and the names of the weights that
        differ, so that it is another ViT. A position embedding may differ, and so may a final norm that no other has.
    """
    known: dict[str, list[nn.Parameter]] = defaultdict(list)
    for other in others:
        for name, weight in other.vit_state().items():
            if all(weight is not each for each in known[name]):
                known[name].append(weight)
    own = vit.vit_state()
    shared = {name: same for name, weight in own.items() for same in known.get(name, ()) if is_equal(weight, same)}
    optional = {MAY_DIFFER, *(name for name in FINAL_NORM if name not in own or name not in known)}
    different = sorted((own.keys() | known.keys()) - shared.keys() - optional) if known else []
    return shared, different


def is_equal(one: Tensor, other: Tensor) -> bool:
    """Says whether two tensors, on any devices, have the same shape and numbers."""
    return one.shape == other.shape and torch.equal(one.to(other.device), other)


def replace_weights(vit: GatedPromptViT, weights: dict[str, nn.Parameter]) -> None:
    """Replaces the parameters of these names by the given objects themselves, not by copies."""
    for name, weight in weights.items():
        module, _, leaf = name.rpartition('.')
        setattr(vit.get_submodule(module), leaf, weight)
