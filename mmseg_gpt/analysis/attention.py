"""Attention weights of the ViT, and what they say: maps, and mean distances, entropies and shares by block.

The model stays as it is, with its fused kernels, which never show the weights. They are worked out beside it, from what
each attention is given, and one block at a time, because those of all blocks are large. Blocks and heads are counted
from 0 here, prompts from 1.

Source: equations 3 and 9 and Figure 5 of arXiv 2306.05067; the mean attention distance is that of arXiv 2010.11929.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ..models import GatedPromptViT
from ..models.vit import Attention, at_least_float32, heads_of

Seen = TypeVar('Seen')


@dataclass(frozen=True)
class Tokens:
    """What stands where in the sequence of a block: CLS, registers, patches, prompts.

    Attributes:
        first_patch: Where the patches begin.
        grid: Rows and columns (h, w) of the patches.
        num_prompts: Prompts after the patches; 0 in a block without any.
        patch_size: Side of a patch in pixels.
    """
    first_patch: int
    grid: tuple[int, int]
    num_prompts: int
    patch_size: int

    @property
    def patches(self) -> slice:
        """The places of the patches."""
        return slice(self.first_patch, self.first_patch + self.grid[0] * self.grid[1])

    @property
    def prompts(self) -> slice:
        """The places of the prompts."""
        return slice(self.patches.stop, len(self))

    def __len__(self) -> int:
        return self.patches.stop + self.num_prompts


def attention_weights(attention: Attention, x: Tensor, temperature: Tensor | None = None) -> Tensor:
    """The softmax of equation 9 for every token, whichever of them the model goes on with.

    Args:
        attention: Of one block.
        x: What it is given, (B, N, D).
        temperature: A scalar; None means 1.

    Returns:
        Tensor: (B, heads, N, N), of float32 at least; each row, that of one query, sums to 1.
    """
    q, k, _ = (at_least_float32(each) for each in heads_of(attention.qkv(x), attention.num_heads))
    scores = q @ k.mT / q.shape[-1]**0.5
    return (scores if temperature is None else scores / temperature).softmax(-1)


@torch.no_grad()
def visit_attention(vit: GatedPromptViT, images: Tensor, blocks: Iterable[int],
                    visit: Callable[[int, Tensor, Tokens], Seen]) -> dict[int, Seen]:
    """Runs the ViT once and shows the attention of blocks, one after the other, to a function.

    Args:
        vit: In eval mode.
        images: (B, 3, H, W), as the model takes them.
        blocks: Which ones, from 0.
        visit: Is given the block, the weights (B, heads, N, N) and what stands where among the N.

    Returns:
        dict: What the function returned, by block.

    Raises:
        ValueError: the ViT is in training mode, or a block is not one that is run.
    """
    last = max(vit.out_indices)
    if vit.training:
        raise ValueError('the ViT is in training mode, in which prompts have dropout: call eval() first')
    if absent := [block for block in blocks if not 0 <= block <= last]:
        raise ValueError(f'block {absent[0]} is not run: blocks are counted from 0 to {last}, the last that is read')
    size = vit.patch_embed.patch_size
    grid = tuple(-(-side // size) for side in images.shape[-2:])
    found = {}

    def look(block: int) -> Callable[[Attention, tuple], None]:
        def hook(attention: Attention, inputs: tuple) -> None:
            x, temperature = inputs[:2]
            prompts = x.shape[1] - vit.first_patch - grid[0] * grid[1]
            tokens = Tokens(vit.first_patch, grid, prompts, size)
            found[block] = visit(block, attention_weights(attention, x, temperature), tokens)
        return hook

    with ExitStack() as hooks:
        for block in blocks:
            hooks.enter_context(vit.blocks[block].attn.register_forward_pre_hook(look(block)))
        vit(images)
    return found


def attention_maps(vit: GatedPromptViT, images: Tensor, blocks: Iterable[int]) -> dict[int, Tensor]:
    """Returns the attention weights (B, heads, N, N) of all tokens, by block.

    Args:
        vit: In eval mode.
        images: (B, 3, H, W), as the model takes them.
        blocks: Which ones, from 0.

    Raises:
        ValueError: as ``visit_attention``.
    """
    return visit_attention(vit, images, blocks, lambda _, weights, tokens: weights)


@contextmanager
def switched_off(vit: GatedPromptViT, prompts: bool = False, temperatures: bool = False) -> Iterator[GatedPromptViT]:
    """Takes prompts or temperatures out of a ViT until the end of the ``with`` block.

    Without both, a frozen ViT is the pretrained one.

    Args:
        vit: Is changed, and put back.
        prompts: True takes the prompts out.
        temperatures: True takes the temperatures out.
    """
    kept = vit.prompt, vit.temperature
    try:
        vit.prompt = None if prompts else vit.prompt
        vit.temperature = None if temperatures else vit.temperature
        yield vit
    finally:
        vit.prompt, vit.temperature = kept


def variants(vit: GatedPromptViT) -> dict[str, dict[str, bool]]:
    """Returns the columns of Figure 5 by name, and the options of ``switched_off`` for each; the last is the model.

    Args:
        vit: The model; one without prompts or temperatures has fewer columns.
    """
    found = {'ViT alone' if vit.frozen else 'fine-tuned ViT': dict(prompts=True, temperatures=True)}
    if vit.prompt is not None:
        found['with prompts'] = dict(temperatures=True)
    if vit.temperature is not None:
        found['with temperatures' if vit.prompt is None else 'with prompts and temperatures'] = {}
    return found


def early_middle_late(depth: int) -> list[int]:
    """The blocks of Figure 5, from 0: the 3rd, 7th and 12th of 12, and in proportion of another number."""
    return sorted({max(1, round(depth * twelfths / 12)) - 1 for twelfths in (3, 7, 12)})


def is_of_prompts(query: str) -> bool:
    """Whether a query asks for prompts, which a block may lack."""
    return 'prompt' in query


def query_map(weights: Tensor, tokens: Tokens, query: str) -> Tensor:
    """What a query sees of the patches.

    Args:
        weights: (B, heads, N, N).
        tokens: What stands where among the N.
        query: 'cls'; 'prompt:K', the K-th from 1; 'prompts', the mean of all; 'X,Y', the patch with this pixel. Their
            maps are multiples of uniform attention: weights times N. Or 'to-prompts', the share of each patch's own
            attention that goes to the prompts.

    Returns:
        Tensor: (B, heads, h, w).

    Raises:
        ValueError: there is no such prompt or pixel.
    """
    if is_of_prompts(query) and not tokens.num_prompts:
        raise ValueError(f'"{query}": this block has no prompts')
    if query == 'to-prompts':
        seen = weights[:, :, tokens.patches, tokens.prompts].sum(-1)
    else:
        seen = weights[:, :, places(tokens, query), tokens.patches].mean(2) * len(tokens)
    return seen.unflatten(-1, tokens.grid)


def places(tokens: Tokens, query: str) -> slice:
    """The tokens that a query of :func:`query_map` means.

    Raises:
        ValueError: there is no such prompt or pixel.
    """
    if query in ('cls', 'prompts'):
        return slice(0, 1) if query == 'cls' else tokens.prompts
    if query.startswith('prompt:'):
        number = int(query.removeprefix('prompt:'))
        if not 1 <= number <= tokens.num_prompts:
            raise ValueError(f'"{query}": prompts are counted from 1 to {tokens.num_prompts}')
        place = tokens.prompts.start + number - 1
    else:
        column, row = (int(pixel) // tokens.patch_size for pixel in query.split(','))
        if not (0 <= row < tokens.grid[0] and 0 <= column < tokens.grid[1]):
            raise ValueError(f'"{query}" is outside of the picture, of {tokens.grid[1]} x {tokens.grid[0]} patches of '
                             f'{tokens.patch_size} pixels')
        place = tokens.patches.start + row * tokens.grid[1] + column
    return slice(place, place + 1)


def patch_distances(grid: tuple[int, int], patch_size: int) -> Tensor:
    """Distances between the centres of all patches, in pixels: (n, n), of float64, n = h * w."""
    rows, columns = (torch.arange(side, dtype=torch.float64) * patch_size for side in grid)
    centres = torch.cartesian_prod(rows, columns)
    return torch.cdist(centres, centres, compute_mode='donot_use_mm_for_euclid_dist')


class Summary(NamedTuple):
    """What the patches of one block attend to, for each head; means over patches and images.

    Attributes:
        distance: From the patch to the patches it attends to, in pixels, weighted by attention (heads,). What goes to
            other tokens is left out, and the rest normalised.
        entropy: Of the attention of a patch to all tokens, in nats (heads,); at most ln N.
        prompt_share: Of the attention of a patch, what goes to prompts (heads,).
    """
    distance: Tensor
    entropy: Tensor
    prompt_share: Tensor


def summarise(weights: Tensor, tokens: Tokens) -> Summary:
    """Distance, entropy and share of prompts of attention weights (B, heads, N, N)."""
    of_patches = weights[:, :, tokens.patches]
    near = of_patches[..., tokens.patches]
    distances = patch_distances(tokens.grid, tokens.patch_size).to(near)
    # A patch whose attention to all patches is 0 in this precision has no distance.
    distance = (torch.einsum('bhqk,qk->bhq', near, distances) / near.sum(-1)).nanmean((0, 2))
    entropy = torch.special.entr(of_patches).sum(-1).mean((0, 2))
    return Summary(distance, entropy, of_patches[..., tokens.prompts].sum(-1).mean((0, 2)))


@cache
def summarise_uniform(tokens: Tokens) -> Summary:
    """What :func:`summarise` would say of uniform attention, each (1,): the entropy is the largest there can be."""
    return summarise(torch.full((1, 1, len(tokens), len(tokens)), 1 / len(tokens), dtype=torch.float64), tokens)


class Study(NamedTuple):
    """What :func:`study` found in one model.

    Attributes:
        maps: By query and block, (heads, h, w); without queries of prompts in blocks that have none.
        summaries: Of each block.
        uniform: What these would be of uniform attention.
    """
    maps: dict[tuple[str, int], Tensor]
    summaries: list[Summary]
    uniform: list[Summary]


def study(vit: GatedPromptViT, images: Sequence[Tensor], queries: Sequence[str], blocks: Sequence[int]) -> Study:
    """Runs the ViT on images, for maps of the first one in some blocks, and for summaries of all in all blocks.

    Args:
        vit: In eval mode.
        images: Each (1, 3, H, W), of whatever size.
        queries: As in :func:`query_map`.
        blocks: Those of the maps, from 0.

    Raises:
        ValueError: a query or a block is not there.
    """
    maps = {}

    def look(block: int, weights: Tensor, tokens: Tokens) -> tuple[Summary, Summary]:
        for query in queries if block in blocks else ():
            if (query, block) not in maps and (tokens.num_prompts or not is_of_prompts(query)):
                maps[query, block] = query_map(weights, tokens, query)[0].cpu()
        return summarise(weights, tokens), summarise_uniform(tokens)

    every = sorted({*range(max(vit.out_indices) + 1), *blocks})
    seen = [visit_attention(vit, image, every, look) for image in images]
    summaries, uniform = ([mean([found[block][i] for found in seen]) for block in every] for i in (0, 1))
    return Study(maps, summaries, uniform)


def mean(summaries: Sequence[Summary]) -> Summary:
    """The mean over images, head by head."""
    return Summary(*(torch.stack(each).mean(0).cpu() for each in zip(*summaries)))
