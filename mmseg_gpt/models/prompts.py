"""Prompt strategies: they decide which prompt tokens each block sees.

Source: "Improving Visual Prompt Tuning for Self-supervised Vision Transformers" (ICML 2023,
arXiv 2306.05067); VPT itself is arXiv 2203.12119. The rule of each strategy is its method ``next``:

* :class:`ShallowPrompt` is VPT-shallow, equation 4;
* :class:`DeepPrompt` is VPT-deep, equation 5;
* :class:`GatedPrompt` is Gated Prompt Tuning, equations 6 (``gate``) and 7 (``next``);
* :class:`HardGatedPrompt` is its variant with hard gates, Table 4.

A strategy answers two questions, and every parameter it owns is trainable:

* ``first(block, batch)``: which prompts does the first block with prompts get?
* ``next(block, before, after)``: which prompts does the block after ``block`` get, given the prompts that ``block``
  got (``before``, the paper's Z_P^{l-1}) and those that it returned (``after``, the paper's ~Z_P^l)?

Blocks are counted from 0, so the gate of the paper's block ``l`` is ``gate_prior[l - 1]``.

Parameters may also have an image axis, after the block axis if there is one, as :mod:`.mixed` makes them:
tokens (B, N_p, D) or (L, B, N_p, D), and gates (L - 1, B, 1, 1). Then each image has prompts and gates of its own.
"""

import math

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from .vit import at_least_float32


@MODELS.register_module()
class ShallowPrompt(nn.Module):
    """VPT-shallow: prompts enter once and then pass through every block (equation 4).

    Prompt tokens start from uniform(-v, v) with ``v = sqrt(6 / (3 * patch_h * patch_w + D))``, as in VPT's code,
    and have no position embedding.

    Args:
        embed_dims: Width D of the ViT.
        num_layers: Number L of its blocks.
        patch_size: Side of a patch in pixels; it only decides the initialisation.
        num_tokens: Number N_p of prompts, at least 1.
        dropout: Dropout rate of the prompts where they enter the sequence; the authors use 0.1.

    Raises:
        ValueError: ``num_tokens`` is below 1.
    """

    def __init__(self, embed_dims: int, num_layers: int, patch_size: int = 16, num_tokens: int = 100,
                 dropout: float = 0.1) -> None:
        super().__init__()
        if num_tokens < 1:
            raise ValueError(f'{type(self).__name__}: num_tokens must be at least 1, got {num_tokens}; '
                             'for no prompts set prompt=None')
        self.num_layers = num_layers
        self.tokens = nn.Parameter(torch.empty(*self.token_sets, num_tokens, embed_dims))
        bound = math.sqrt(6 / (3 * patch_size**2 + embed_dims))
        nn.init.uniform_(self.tokens, -bound, bound)
        self.dropout = nn.Dropout(dropout)

    @property
    def token_sets(self) -> tuple[int, ...]:
        """Leading axes of ``tokens``: none here, as all blocks share one set of prompts."""
        return ()

    def enter(self, tokens: Tensor, batch: int) -> Tensor:
        """Repeats tokens for each image, with separate dropout: (N_p, D) -> (B, N_p, D).

        Args:
            tokens: Prompt tokens (N_p, D), or (B, N_p, D).
            batch: Number B of images.
        """
        return self.dropout(tokens.expand(batch, -1, -1))

    def first(self, block: int, batch: int) -> Tensor:
        """Returns the prompts (B, N_p, D) of ``block``, the first block with prompts.

        Args:
            block: Number of the block, counted from 0.
            batch: Number B of images.
        """
        return self.enter(self.tokens, batch)

    def next(self, block: int, before: Tensor, after: Tensor) -> Tensor:
        """Returns the prompts (B, N_p, D) of block ``block + 1``: here those that ``block`` returned (equation 4).

        Args:
            block: Number of the block that has just run, counted from 0.
            before: Prompts (B, N_p, D) that it was given.
            after: Prompts (B, N_p, D) that it returned.
        """
        return after


@MODELS.register_module()
class DeepPrompt(ShallowPrompt):
    """VPT-deep: each block gets prompts of its own, and the prompts it returns are dropped (equation 5).

    Its arguments are those of :class:`ShallowPrompt`; ``num_tokens`` counts the prompts of one block.
    """

    @property
    def token_sets(self) -> tuple[int, ...]:
        """Leading axes of ``tokens``: one set of prompts for each block."""
        return (self.num_layers, )

    def first(self, block: int, batch: int) -> Tensor:
        """Returns the prompts (B, N_p, D) that belong to ``block``."""
        return self.enter(self.tokens[block], batch)

    def next(self, block: int, before: Tensor, after: Tensor) -> Tensor:
        """Returns the prompts (B, N_p, D) that belong to block ``block + 1`` (equation 5)."""
        last = block == self.num_layers - 1
        return after if last else self.enter(self.tokens[block + 1], after.shape[0])


@MODELS.register_module()
class GatedPrompt(ShallowPrompt):
    """Gated Prompt Tuning: a learnable gate per block mixes the prompts before and after it (equations 6 and 7).

    The last block has no gate. Gates and the mix are computed in float32 at least: in bfloat16 a gate
    of 4.5e-5 would vanish beside 1, and a gate near 1 would have no gradient.

    Args:
        gate_init: Every gate prior gamma starts at ``-gate_init``. This is the sign the authors' code
            uses, so the paper's "GATE INIT. 10" starts the gates almost closed, g = 4.5e-5.
            Read literally (``gate_init=-10``) the method would start as VPT-shallow.
        **kwargs: See :class:`ShallowPrompt`.

    Raises:
        ValueError: the ViT has fewer than 2 blocks, so there is no gate to learn.
    """

    hard = False  # whether a gate is either open or closed when it is used

    def __init__(self, *args, gate_init: float = 10., **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.num_layers < 2:
            raise ValueError(f'{type(self).__name__} needs a ViT of at least 2 blocks, got {self.num_layers}: '
                             'the last block has no gate')
        self.gate_prior = nn.Parameter(torch.full((self.num_layers - 1, ), -float(gate_init)))

    def gate(self, block: int) -> Tensor:
        """Returns the gate g of a block (equation 6): a scalar, or (B, 1, 1).

        Args:
            block: Number of the block, counted from 0; the last block has no gate.
        """
        return at_least_float32(self.gate_prior[block]).sigmoid()

    def next(self, block: int, before: Tensor, after: Tensor) -> Tensor:
        """Mixes the prompts (B, N_p, D) before and after ``block`` by its gate (equation 7)."""
        if block == self.num_layers - 1:
            return after
        before, after = at_least_float32(before), at_least_float32(after)
        # g * after + (1 - g) * before. Of a view, autograd would keep all that the block has returned.
        return before.lerp(after.clone(), self.gate(block))


@MODELS.register_module()
class HardGatedPrompt(GatedPrompt):
    """Gated prompts whose gates are 0 or 1: Gumbel-sigmoid with a straight-through gradient (Table 4).

    In training each forward draws a gate for each block, 1 with probability sigmoid(gamma), and its gradient
    is that of the soft sample. In evaluation a gate is 1 where gamma > 0.

    Args:
        gumbel_temperature: Temperature of the soft sample behind the gradient.
        **kwargs: See :class:`GatedPrompt`.

    Raises:
        ValueError: ``gumbel_temperature`` is not positive.
    """

    hard = True

    def __init__(self, *args, gumbel_temperature: float = 1., **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if gumbel_temperature <= 0:
            raise ValueError(f'{type(self).__name__}: gumbel_temperature must be positive, got {gumbel_temperature}')
        self.gumbel_temperature = gumbel_temperature

    def gate(self, block: int) -> Tensor:
        """Returns the gate of ``block``, 0 or 1: a sample in training, the likelier one in evaluation."""
        gamma = at_least_float32(self.gate_prior[block])
        if not self.training:
            return (gamma > 0).to(gamma.dtype)
        uniform = torch.rand_like(gamma).clamp(1e-6, 1 - 1e-6)
        soft = ((gamma + uniform.logit()) / self.gumbel_temperature).sigmoid()
        # forward: hard gate; backward: gradient of the soft one
        return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())
