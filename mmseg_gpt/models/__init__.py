"""The backbone, its prompt strategies and the plain ViT under it."""

from .gated_prompt_vit import GatedPromptViT
from .peft import BiasTunedViT, LoRAViT
from .prompts import DeepPrompt, GatedPrompt, HardGatedPrompt, ShallowPrompt

__all__ = ['BiasTunedViT', 'DeepPrompt', 'GatedPrompt', 'GatedPromptViT', 'HardGatedPrompt', 'LoRAViT', 'ShallowPrompt']
