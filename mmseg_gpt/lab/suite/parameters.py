"""TOTAL PARAMS of Tables 1 and 2: how much larger all tasks together are than the backbone they share.

The position embedding is not counted among the backbone's parameters: in MAE and MoCo v3 it is a fixed sine-cosine
table. Without it, Gated Prompt Tuning on FGVC has the 1.02x that the paper prints (1.01502; with it, 1.01499).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn


class Parameters(NamedTuple):
    """How many parameters a model has.

    Attributes:
        backbone: Those of the ViT, without its position embedding.
        position: Those of the position embedding.
        prompts: Those of prompts, but for their gates.
        gates: Those of gates and temperatures.
        adapters: Those of updates of the ViT's layers, such as LoRA's.
        heads: All outside the backbone.
        trained: How many of all these are trained, without the position embedding.
        frozen: Whether the ViT is frozen, so that all tasks can share it.
    """
    backbone: int
    position: int
    prompts: int
    gates: int
    adapters: int
    heads: int
    trained: int
    frozen: bool

    @property
    def whole(self) -> int:
        """How many the whole model has, with the position embedding."""
        return self.backbone + self.position + self.prompts + self.gates + self.adapters + self.heads


def count_parameters(cfg: Config) -> Parameters:
    """Builds the model of ``cfg``, without memory for its weights, and counts.

    Raises:
        ValueError: it has no GatedPromptViT as its backbone.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')), torch.device('meta'):
        model = MODELS.build(cfg.model)
    backbone = getattr(model, 'backbone', None)
    if not hasattr(backbone, 'vit_state'):
        raise ValueError(f'{cfg.filename}: its backbone is no GatedPromptViT')
    vit = backbone.vit_state()
    position = vit.pop('pos_embed', torch.empty(0))  # a ViT with rotary positions has none
    named = {} if backbone.prompt is None else dict(backbone.prompt.named_parameters())
    prompts = [p for name, p in named.items() if name != 'gate_prior']
    gates = [p for p in (named.get('gate_prior'), backbone.temperature) if p is not None]
    inside = {id(p) for p in backbone.parameters()}
    others = {id(p) for p in (*vit.values(), position, *gates, *prompts)}
    adapters = [p for p in backbone.parameters() if id(p) not in others]
    heads = [p for p in model.parameters() if id(p) not in inside]
    trained = [p for p in model.parameters() if p.requires_grad and p is not position]
    return Parameters(
        backbone=total(vit.values()), position=position.numel(), prompts=total(prompts), gates=total(gates),
        adapters=total(adapters), heads=total(heads), trained=total(trained), frozen=backbone.frozen)


def total(parameters: Iterable[nn.Parameter]) -> int:
    """Returns how many numbers all of them hold."""
    return sum(p.numel() for p in parameters)


def total_params(tasks: Sequence[Parameters], position: bool = False) -> float:
    """Returns the paper's TOTAL PARAMS: one backbone and all that is trained for the tasks, over the backbone.

    Where the whole ViT is trained, each task has a backbone of its own.

    Args:
        tasks: Models on one and the same pretrained ViT.
        position: Count the position embedding as well.
    """
    def backbone(task: Parameters) -> int:
        return task.backbone + (task.position if position else 0)

    shared = max((backbone(task) for task in tasks if task.frozen), default=0)  # images of other sizes, other positions
    own = sum(task.trained + (task.position if position and not task.frozen else 0) for task in tasks)
    return (shared + own) / max(map(backbone, tasks))
