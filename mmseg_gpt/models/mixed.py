"""One pass of a frozen ViT for images of several tasks: prompts, gates, temperatures and updates differ by image.

The code that runs is that of a single task. What a task trained is stacked along an axis for the images, and broadcasts
where a task alone has one value for all of them. The low-rank products of LoRA become batched ones, as in S-LoRA (arXiv
2311.03285) and Punica (arXiv 2310.18547).
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .gated_prompt_vit import GatedPromptViT
from .peft import LoRAViT
from .prompts import DeepPrompt, GatedPrompt, HardGatedPrompt, ShallowPrompt
from .updates import is_key_bias_free

# The backbones and prompts of which it is known what an axis for the images does. Not so their subclasses.
BACKBONES = (GatedPromptViT, LoRAViT)
PROMPTS = (ShallowPrompt, DeepPrompt, GatedPrompt, HardGatedPrompt, type(None))
# Where the axis for the images is put, and how many axes of length 1 follow behind, so that the tensor broadcasts.
# All updates have it in front.
AXES = {'prompt.tokens': (-3, 0), 'prompt.gate_prior': (-1, 2), 'temperature': (-1, 3)}


def adapter_state(vit: GatedPromptViT) -> dict[str, Tensor]:
    """Returns prompts, gates, temperatures and updates by name: all that is not the ViT itself."""
    own = vit.vit_state()
    return {name: value for name, value in vit.named_parameters() if name not in own}


def program(vit: GatedPromptViT) -> dict[str, object] | None:
    """Describes all that must be the same for tasks to go through their ViT in one pass, beside the ViT's weights.

    Returns:
        dict: Values that can be compared, by names for messages. None for a backbone or a prompt of a class that is
        not known here.
    """
    if type(vit) not in BACKBONES or type(vit.prompt) not in PROMPTS:
        return None
    prompts = None if vit.prompt is None else vit.prompt.tokens.shape[-2]
    return {
        'type of prompts': type(vit.prompt).__name__ if prompts else 'none',
        'number of prompts': prompts,
        'start_block': vit.start_block if prompts else None,
        'temperature': None if vit.temperature is None else vit.temperature_range,
        'lora': None if vit.lora is None else tuple(sorted(vit.lora.items())),
        'biases': vit.biases,
        'adapter': None if vit.adapter is None else tuple(sorted(vit.adapter.items())),
        'out_type': vit.out_type,
        'out_indices': vit.out_indices,
        'position embedding': (id(vit.pos_embed), vit.grid),
        # What its weights do not show.
        'settings of the ViT': (tuple(vit.arch.items()), vit.rotary, vit.blocks[0].norm1.eps,
                                is_key_bias_free(vit.blocks[0].attn.qkv)),
    }


def stacked(vits: Sequence[GatedPromptViT]) -> dict[str, Tensor]:
    """Stacks the adapters of backbones of one :func:`program`, with an axis for the images.

    Args:
        vits: The backbone of each image (B of them).

    Returns:
        dict: By name, ``prompt.tokens`` (B, N_p, D) or (L, B, N_p, D), ``prompt.gate_prior`` (L - 1, B, 1, 1),
        ``temperature`` (L, B, 1, 1, 1), and the updates with B in front.
    """
    unique = {id(vit): adapter_state(vit) for vit in vits}
    rows = torch.tensor([list(unique).index(id(vit)) for vit in vits], device=vits[0].cls_token.device)
    found = {}
    for name in next(iter(unique.values())):
        axis, behind = AXES.get(name, (0, 0))
        stack = torch.stack([state[name].detach() for state in unique.values()], axis)
        stack = stack if len(unique) == len(vits) else stack.index_select(axis, rows)
        found[name] = stack[(..., *(None, ) * behind)]
    return found


def twin(module: nn.Module) -> nn.Module:
    """Returns a copy of a module and all that is in it, with the same parameters and buffers and no memory for more.

    Other tensors can be put in the place of its own while the module itself is used by another thread.
    """
    copied = copy.copy(module)
    copied._parameters, copied._buffers = dict(module._parameters), dict(module._buffers)
    copied._modules = {name: child and twin(child) for name, child in module._modules.items()}
    return copied


@torch.no_grad()
def one_pass(vits: Sequence[GatedPromptViT], images: Tensor) -> tuple[Tensor, ...]:
    """Runs each image through the ViT with the adapters of its own task, all in one pass, without gradients.

    Args:
        vits: The backbone of each image. They share the weights of one ViT and have one :func:`program`.
        images: Normalised images (B, C, H, W).

    Returns:
        tuple: The outputs, as of :meth:`GatedPromptViT.forward`.
    """
    return functional_call(twin(vits[0]), stacked(vits), (images, ))


@contextmanager
def answered(vit: GatedPromptViT, images: Tensor, outputs: Sequence[Tensor]) -> Iterator[None]:
    """Lets a backbone return outputs that are there already, until the end of the ``with`` block.

    It compares the images that it is asked for with those that the outputs are of, and computes any others itself.

    Args:
        vit: The backbone.
        images: Images (B, C, H, W) for which it will be asked, in this order, one or more at a time.
        outputs: Its outputs for them, each (B, ...).
    """
    done = 0

    def forward(asked: Tensor) -> tuple[Tensor, ...]:
        nonlocal done
        rows = slice(done, done + len(asked))
        if not torch.equal(asked, images[rows]):
            return type(vit).forward(vit, asked)
        done = rows.stop
        return tuple(output[rows] for output in outputs)

    vit.forward = forward
    try:
        yield
    finally:
        del vit.forward
