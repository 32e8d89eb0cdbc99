"""Other ways to adapt a ViT with few parameters, to be compared with: LoRA and bias-only tuning."""

from mmengine.registry import MODELS
from torch import Tensor, nn

from .gated_prompt_vit import GatedPromptViT


@MODELS.register_module()
class BiasTunedViT(GatedPromptViT):
    """A ViT of which only the biases are trained (BitFit, arXiv 2106.10199).

    Args:
        **kwargs: See :class:`GatedPromptViT`. ``frozen`` counts as False, as the ViT does not stay what it was:
            checkpoints hold all of it.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs | dict(frozen=False))
        for name, parameter in self.vit_state().items():
            parameter.requires_grad_(name.endswith('.bias'))


@MODELS.register_module()
class LoRAViT(GatedPromptViT):
    """A frozen ViT with low-rank updates of its linear layers (arXiv 2106.09685), by mmpretrain's ``LoRALinear``.

    mmpretrain's ``LoRAModel`` around a backbone leaves what is frozen out of state dicts and loads what fits; here
    checkpoints hold all weights and are loaded strictly, like those of every other method.

    Args:
        targets: Ends of the names of the linear layers, such as 'attn.qkv'.
        rank: Of the updates.
        alpha: They are scaled by ``alpha / rank``.
        **kwargs: See :class:`GatedPromptViT`. ``frozen`` counts as False, see :class:`BiasTunedViT`.

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
        """The weights of the ViT itself, by timm's names; the updates are none of them."""
        return {name.replace('.original_layer', ''): p for name, p in super().vit_state().items()
                if '.lora_' not in name}
