"""Names of older configs for LoRA and for bias-only tuning."""

from mmengine.registry import MODELS

from .gated_prompt_vit import GatedPromptViT


@MODELS.register_module()
class BiasTunedViT(GatedPromptViT):
    """A ViT that trains its own biases (BitFit, arXiv 2106.10199).

    ``GatedPromptViT(biases=True)`` trains updates of them instead, which leave the ViT as it is: checkpoints can do
    without it, and tasks can share it.

    Args:
        **kwargs: See :class:`GatedPromptViT`. ``frozen`` is always False, because the ViT changes: checkpoints hold
            all of it.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs | dict(frozen=False))
        for name, parameter in self.vit_state().items():
            if not name.endswith('.bias'):
                parameter.requires_grad_(False)


@MODELS.register_module()
class LoRAViT(GatedPromptViT):
    """``GatedPromptViT(lora=dict(rank=..., alpha=..., targets=...))`` under another name.

    Args:
        targets: Endings of the names of the linear layers to update, such as 'attn.qkv'.
        rank: Rank of the updates.
        alpha: Scale of the updates: they are multiplied by ``alpha / rank``.
        **kwargs: See :class:`GatedPromptViT`. ``frozen`` is always True.

    Raises:
        ValueError: no layer has such a name, or the rank is out of its range.
    """

    def __init__(self, targets: tuple[str, ...] = ('attn.qkv', ), rank: int = 4, alpha: int = 4, **kwargs) -> None:
        super().__init__(**kwargs | dict(lora=dict(targets=targets, rank=rank, alpha=alpha), frozen=True))
