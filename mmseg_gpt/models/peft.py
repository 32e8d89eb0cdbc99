"""Other ways to adapt a ViT with few parameters, for comparison: LoRA and bias-only tuning."""

from mmengine.registry import MODELS
from torch import Tensor, nn

from .gated_prompt_vit import GatedPromptViT


@MODELS.register_module()
class BiasTunedViT(GatedPromptViT):
    """A ViT that trains its biases only (BitFit, arXiv 2106.10199).

    Args:
        **kwargs: See :class:`GatedPromptViT`. ``frozen`` is always False, because the ViT changes: checkpoints hold
            all of it.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs | dict(frozen=False))
        for name, parameter in self.vit_state().items():
            parameter.requires_grad_(name.endswith('.bias'))


@MODELS.register_module()
class LoRAViT(GatedPromptViT):
    """A frozen ViT with low-rank updates of its linear layers (arXiv 2106.09685), by mmpretrain's ``LoRALinear``.

    mmpretrain's own ``LoRAModel`` leaves frozen weights out of state dicts and loads whatever fits. Here checkpoints
    hold all weights and are loaded strictly, like those of every other method.

    Args:
        targets: Endings of the names of the linear layers to update, such as 'attn.qkv'.
        rank: Rank of the updates.
        alpha: Scale of the updates: they are multiplied by ``alpha / rank``.
        **kwargs: See :class:`GatedPromptViT`. ``frozen`` is always False, see :class:`BiasTunedViT`.

    Raises:
        ValueError: no layer has such a name, or the rank is below 1.
        ImportError: mmpretrain is not installed.
    """

    def __init__(self, targets: tuple[str, ...] = ('attn.qkv', ), rank: int = 4, alpha: int = 4, **kwargs) -> None:
        super().__init__(**kwargs | dict(frozen=False))
        from mmpretrain.models.peft.lora import LoRALinear  # only classification needs mmpretrain otherwise
        if rank < 1:
            raise ValueError(f'rank must be at least 1, got {rank}')
        for parameter in self.vit_state().values():
            parameter.requires_grad_(False)
        layers = [name for name, module in self.named_modules()
                  if isinstance(module, nn.Linear) and name.endswith(tuple(targets))]
        if not layers:
            raise ValueError(f'no linear layer has a name that ends in {" or ".join(targets)}')
        for name in layers:
            self.set_submodule(name, LoRALinear(self.get_submodule(name), alpha, rank))

    def vit_state(self) -> dict[str, Tensor]:
        """Returns the weights of the ViT itself by timm's names, without the updates."""
        return {name.replace('.original_layer', ''): p for name, p in super().vit_state().items()
                if '.lora_' not in name}
