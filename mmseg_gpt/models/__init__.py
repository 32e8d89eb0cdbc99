"""The backbone, its prompt strategies and the plain ViT under it."""

from .gated_prompt_vit import GatedPromptViT
from .prompts import DeepPrompt, GatedPrompt, HardGatedPrompt, ShallowPrompt

__all__ = ['DeepPrompt', 'GatedPrompt', 'GatedPromptViT', 'HardGatedPrompt', 'ShallowPrompt']
