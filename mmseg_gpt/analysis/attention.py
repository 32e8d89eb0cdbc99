"""Attention weights of the ViT, as maps, and as mean distances, entropies and shares of the prompts by block.

The model's fused kernels never return the weights, so they are computed beside it from the inputs of each attention,
one block at a time, because the weights of all blocks are large. Blocks and heads are counted from 0 here, prompts
from 1.

Source: equations 3 and 9 and Figure 5 of arXiv 2306.05067; the mean attention distance is that of arXiv 2010.11929.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ..models import GatedPromptViT
from ..models.rotary import Rotation
from ..models.updates import updates_off
from ..models.vit import Attention, at_least_float32, heads_of

Seen = TypeVar('Seen')
EVERY = slice(None)


@dataclass(frozen=True)
class Tokens:
    """The order of the tokens in the sequence of a block: CLS, registers, patches, prompts.

    Attributes:
        first_patch: Position of the first patch.
        grid: Rows and columns (h, w) of the patches.
        num_prompts: Number of prompts after the patches; 0 in a block without prompts.
        patch_size: Side of a patch in pixels.
    """
    first_patch: int
    grid: tuple[int, int]
    num_prompts: int
    patch_size: int

    @property
    def patches(self) -> slice:
        """Positions of the patches."""
        return slice(self.first_patch, self.first_patch + self.grid[0] * self.grid[1])

    @property
    def prompts(self) -> slice:
        """Positions of the prompts."""
        return slice(self.patches.stop, len(self))

    def __len__(self) -> int:
        return self.patches.stop + self.num_prompts


def attention_weights(attention: Attention, x: Tensor, temperature: Tensor | None = None,
                      rotation: Rotation | None = None, queries: slice = EVERY) -> Tensor:
    """Computes the softmax of equation 9 for every token, also for those whose output the model does not use.

    Args:
        attention: Attention layer of one block.
        x: Its input (B, N, D).
        temperature: Scalar tensor tau; None means 1.
        rotation: The rotary positions of the patches; None for none.
        queries: The positions of the tokens that ask; by default all.

    Returns:
        Tensor: Weights (B, heads, N, N) of float32 at least; each row belongs to one query and sums to 1. Of n queries
        (B, heads, n, N).
    """
    q, k, _ = (at_least_float32(each) for each in heads_of(attention.qkv(x), attention.num_heads))
    if rotation is not None:
        q, k = rotation.turned(q), rotation.turned(k)
    scores = q[:, :, queries] @ k.mT / q.shape[-1]**0.5
    return (scores if temperature is None else scores / temperature).softmax(-1)


@torch.no_grad()
def visit_attention(vit: GatedPromptViT, images: Tensor, blocks: Iterable[int],
                    visit: Callable[[int, Tensor, Tokens], Seen],
                    queries: Callable[[Tokens], slice] = lambda _: EVERY) -> dict[int, Seen]:
    """Runs the ViT once and calls a function with the attention of each of ``blocks``, one after the other.

    Args:
        vit: The ViT, in eval mode.
        images: Images (B, 3, H, W), normalised.
        blocks: Blocks to visit, counted from 0.
        visit: Function that takes the block, its weights (B, heads, N, N) and the order of the N tokens.
        queries: Function that takes the order of the tokens, and returns the positions of the n that ask; the weights
            are then (B, heads, n, N), which take little memory. By default all ask.

    Returns:
        dict: The results of the function, by block.

    Raises:
        ValueError: the ViT is in training mode, or does not run one of the blocks.
    """
    blocks, last = list(blocks), max(vit.out_indices)
    if vit.training:
        raise ValueError('the ViT is in training mode, in which prompts have dropout: call eval() first')
    if absent := [block for block in blocks if not 0 <= block <= last]:
        raise ValueError(f'block {absent[0]} is not run: blocks are counted from 0 to {last}, the last that is read')
    size = vit.patch_embed.patch_size
    grid = tuple(-(-side // size) for side in images.shape[-2:])
    found = {}

    def look(block: int) -> Callable[[Attention, tuple], None]:
        def hook(attention: Attention, inputs: tuple) -> None:
            x, temperature, _, rotation = inputs
            prompts = x.shape[1] - vit.first_patch - grid[0] * grid[1]
            tokens = Tokens(vit.first_patch, grid, prompts, size)
            weights = attention_weights(attention, x, temperature, rotation, queries(tokens))
            found[block] = visit(block, weights, tokens)
        return hook

    with ExitStack() as hooks:
        for block in blocks:
            hooks.enter_context(vit.blocks[block].attn.register_forward_pre_hook(look(block)))
        vit(images)
    return found


def attention_maps(vit: GatedPromptViT, images: Tensor, blocks: Iterable[int]) -> dict[int, Tensor]:
    """Returns the attention weights (B, heads, N, N) of all tokens, by block.

    Args:
        vit: The ViT, in eval mode.
        images: Images (B, 3, H, W), normalised.
        blocks: Blocks, counted from 0.

    Raises:
        ValueError: as ``visit_attention``.
    """
    return visit_attention(vit, images, blocks, lambda _, weights, tokens: weights)


@contextmanager
def switched_off(vit: GatedPromptViT, prompts: bool = False, temperatures: bool = False,
                 updates: bool = False) -> Iterator[GatedPromptViT]:
    """Removes prompts, temperatures or updates from a ViT until the end of the ``with`` block, and yields the ViT.

    A frozen ViT without all three is the pretrained one.

    Args:
        vit: The ViT, which gets them back at the end.
        prompts: Whether to remove the prompts.
        temperatures: Whether to remove the temperatures.
        updates: Whether to remove the updates of its layers, such as LoRA.
    """
    kept = vit.prompt, vit.temperature
    try:
        vit.prompt = None if prompts else vit.prompt
        vit.temperature = None if temperatures else vit.temperature
        with updates_off(vit) if updates else nullcontext():
            yield vit
    finally:
        vit.prompt, vit.temperature = kept


def variants(vit: GatedPromptViT) -> dict[str, dict[str, bool]]:
    """Returns the columns of Figure 5 by name, as arguments of ``switched_off``; the last is the whole model.

    Args:
        vit: The model; one without prompts, temperatures or updates of its layers has fewer columns.
    """
    is_updated = bool(vit.lora or vit.biases or vit.adapter)
    off = dict(prompts=True, temperatures=True) | (dict(updates=True) if is_updated else {})
    found = {'ViT alone' if vit.frozen else 'fine-tuned ViT': dict(off)}
    is_there = dict(updates=is_updated, prompts=vit.prompt is not None, temperatures=vit.temperature is not None)
    on = [name for name, there in is_there.items() if there]
    for i, name in enumerate(on, 1):
        del off[name]
        found['with ' + ' and '.join(on[:i])] = {} if name == 'temperatures' else dict(off)
    return found


def early_middle_late(depth: int) -> list[int]:
    """Returns the blocks of Figure 5, from 0: the 3rd, 7th and 12th of 12, and in proportion for other depths."""
    return sorted({max(1, round(depth * twelfths / 12)) - 1 for twelfths in (3, 7, 12)})


def asks_for_prompts(query: str) -> bool:
    """Says whether a query asks for prompts, which a block may lack."""
    return 'prompt' in query


def query_map(weights: Tensor, tokens: Tokens, query: str) -> Tensor:
    """Maps the attention of a query to each of the patches.

    Args:
        weights: Attention weights (B, heads, N, N).
        tokens: The order of the N tokens.
        query: 'cls'; 'prompt:K', the K-th prompt, counted from 1; 'prompts', the mean of all; or 'X,Y', the patch with
            this pixel. Their maps are multiples of uniform attention: weights times N. Or 'to-prompts', the share of
            each patch's own attention that goes to the prompts.

    Returns:
        Tensor: Map (B, heads, h, w).

    Raises:
        ValueError: there is no such prompt or pixel.
    """
    if asks_for_prompts(query) and not tokens.num_prompts:
        raise ValueError(f'"{query}": this block has no prompts')
    if query == 'to-prompts':
        seen = weights[:, :, tokens.patches, tokens.prompts].sum(-1)
    else:
        seen = weights[:, :, places(tokens, query), tokens.patches].mean(2) * len(tokens)
    return seen.unflatten(-1, tokens.grid)


class Attended(NamedTuple):
    """What one token attends to in a block, as the mean of all heads.

    Attributes:
        patches: Map (h, w) of its attention to patches, as multiples of uniform attention.
        prompt_share: Share of its attention that goes to prompts.
        cls_share: Share that goes to CLS.
    """
    patches: Tensor
    prompt_share: float
    cls_share: float


def attended(vit: GatedPromptViT, image: Tensor, query: str) -> dict[int, Attended]:
    """Returns what one token attends to, by block from 0, in memory that grows with the tokens and not their square.

    Args:
        vit: The ViT, in eval mode.
        image: A normalised image (1, 3, H, W).
        query: 'cls', 'prompt:K' or 'X,Y', as for :func:`query_map`. Blocks without prompts are left out where a prompt
            asks.

    Raises:
        ValueError: there is no such prompt or pixel.
    """
    def asking(tokens: Tokens) -> slice:
        return slice(0, 0) if asks_for_prompts(query) and not tokens.num_prompts else places(tokens, query)

    def look(_: int, weights: Tensor, tokens: Tokens) -> Attended | None:
        if not weights.shape[2]:
            return None
        shares = weights[0].mean((0, 1), dtype=torch.promote_types(weights.dtype, torch.float32))
        patches = (shares[tokens.patches] * len(tokens)).unflatten(0, tokens.grid).cpu()
        return Attended(patches, float(shares[tokens.prompts].sum()), float(shares[0]))

    found = visit_attention(vit, image, range(max(vit.out_indices) + 1), look, asking)
    return {block: each for block, each in found.items() if each is not None}


def places(tokens: Tokens, query: str) -> slice:
    """Returns the positions of the tokens that a query of :func:`query_map` names.

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
    """Computes the distances (n, n) in pixels between the centres of all n = h * w patches, as float64."""
    rows, columns = (torch.arange(side, dtype=torch.float64) * patch_size for side in grid)
    centres = torch.cartesian_prod(rows, columns)
    return torch.cdist(centres, centres, compute_mode='donot_use_mm_for_euclid_dist')


class Summary(NamedTuple):
    """Statistics of the attention of patches in one block, for each head: means over patches and images.

    Attributes:
        distance: Distance (heads,) in pixels from a patch to the patches it attends to, weighted by attention.
            Attention to other tokens is left out, and the rest normalised.
        entropy: Entropy (heads,) in nats of the attention of a patch to all tokens; at most ln N.
        prompt_share: Share (heads,) of the attention of a patch that goes to prompts.
    """
    distance: Tensor
    entropy: Tensor
    prompt_share: Tensor


def summarise(weights: Tensor, tokens: Tokens) -> Summary:
    """Computes the statistics of attention weights (B, heads, N, N)."""
    of_patches = weights[:, :, tokens.patches]
    near = of_patches[..., tokens.patches]
    distances = patch_distances(tokens.grid, tokens.patch_size).to(near)
    # A patch whose attention to all patches is 0 in this precision has no distance.
    distance = (torch.einsum('bhqk,qk->bhq', near, distances) / near.sum(-1)).nanmean((0, 2))
    entropy = torch.special.entr(of_patches).sum(-1).mean((0, 2))
    return Summary(distance, entropy, of_patches[..., tokens.prompts].sum(-1).mean((0, 2)))


@cache
def summarise_uniform(tokens: Tokens) -> Summary:
    """Computes the statistics of uniform attention, each (1,); its entropy is the largest possible one."""
    return summarise(torch.full((1, 1, len(tokens), len(tokens)), 1 / len(tokens), dtype=torch.float64), tokens)


class Study(NamedTuple):
    """Findings of :func:`study` in one model.

    Attributes:
        maps: Maps (heads, h, w) by query and block; queries of prompts are missing in blocks without prompts.
        summaries: Statistics of each block.
        uniform: Statistics of uniform attention in each block.
    """
    maps: dict[tuple[str, int], Tensor]
    summaries: list[Summary]
    uniform: list[Summary]


def study(vit: GatedPromptViT, images: Sequence[Tensor], queries: Sequence[str], blocks: Sequence[int]) -> Study:
    """Runs the ViT on images, to map the attention of the first and to summarise that of all images in all blocks.

    Args:
        vit: The ViT, in eval mode.
        images: Normalised images, each (1, 3, H, W) with a size of its own.
        queries: Queries to map, see :func:`query_map`.
        blocks: Blocks to map, counted from 0.

    Raises:
        ValueError: the ViT has no such block, or a block no such query.
    """
    maps = {}

    def look(block: int, weights: Tensor, tokens: Tokens) -> tuple[Summary, Summary]:
        for query in queries if block in blocks else ():
            if (query, block) not in maps and (tokens.num_prompts or not asks_for_prompts(query)):
                maps[query, block] = query_map(weights, tokens, query)[0].cpu()
        return summarise(weights, tokens), summarise_uniform(tokens)

    every = sorted({*range(max(vit.out_indices) + 1), *blocks})
    seen = [visit_attention(vit, image, every, look) for image in images]
    summaries, uniform = ([mean([found[block][i] for found in seen]) for block in every] for i in (0, 1))
    return Study(maps, summaries, uniform)


def mean(summaries: Sequence[Summary]) -> Summary:
    """Averages summaries over images, head by head."""
    return Summary(*(torch.stack(each).mean(0).cpu() for each in zip(*summaries)))
