"""The backbone as the paper writes it down, with which ours is compared in numbers and in cost.

Source: equations 3, 7 and 9 and Algorithm 1 of arXiv 2306.05067. Written for reading, not for speed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...models.vit import Mlp, PatchEmbed, resize_pos_embed


class PaperAttention(nn.Module):
    """Attention with an explicit softmax, whose scores the temperature divides (equations 3 and 9)."""

    def __init__(self, dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dims, 3 * dims)
        self.proj = nn.Linear(dims, dims)

    def forward(self, x: Tensor, temperature: Tensor) -> Tensor:
        """Lets tokens attend to each other: (B, N, D) -> (B, N, D); ``temperature`` is a scalar tensor."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, N, d) each
        scores = (q * q.shape[-1]**-0.5) @ k.transpose(-2, -1) / temperature  # (B, heads, N, N)
        return self.proj((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))


class PaperBlock(nn.Module):
    """Pre-norm transformer block: (B, N, D) -> (B, N, D)."""

    def __init__(self, dims: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dims, eps=1e-6)
        self.attn = PaperAttention(dims, num_heads)
        self.norm2 = nn.LayerNorm(dims, eps=1e-6)
        self.mlp = Mlp(dims, int(dims * mlp_ratio))

    def forward(self, x: Tensor, temperature: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), temperature)
        return x + self.mlp(self.norm2(x))


class PaperPrompt(nn.Module):
    """The parameters of prompts and gates; :class:`PaperViT` uses them."""

    def __init__(self, num_tokens: int, dims: int, depth: int, gate_init: float, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(num_tokens, dims).uniform_(-0.1, 0.1))
        self.gate_prior = nn.Parameter(torch.full((depth - 1, ), -float(gate_init)))
        self.dropout = nn.Dropout(dropout)


class PaperViT(nn.Module):
    """A frozen ViT with prompts after CLS, gates between its blocks (Algorithm 1) and attention temperatures.

    The parameters have the names and shapes of :class:`mmseg_gpt.models.GatedPromptViT`, so that one state dict
    fills both. Patch embedding, position embedding and MLP are ours, as there is only one way to write them.

    Args:
        arch: A dict of embed_dims, num_layers, num_heads, mlp_ratio.
        img_size: Side in pixels for which ``pos_embed`` is made.
        out_indices: Blocks whose patch features are returned, counted from 0.
        num_tokens: Number N_p of prompts.
        gate_init: The gate priors start at ``-gate_init``.
        dropout: Dropout rate of the prompts where they enter.
        patch_size: Side of a patch in pixels.
    """

    def __init__(self, arch: dict, img_size: int, out_indices: Sequence[int], num_tokens: int, gate_init: float = 10.,
                 dropout: float = 0.1, patch_size: int = 16) -> None:
        super().__init__()
        dims, depth = arch['embed_dims'], arch['num_layers']
        self.out_indices = out_indices
        self.grid = (-(-img_size // patch_size), ) * 2
        self.patch_embed = PatchEmbed(patch_size, dims)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dims))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], dims))
        self.blocks = nn.ModuleList(PaperBlock(dims, arch['num_heads'], arch['mlp_ratio']) for _ in range(depth))
        self.requires_grad_(False)
        self.prompt = PaperPrompt(num_tokens, dims, depth, gate_init, dropout)
        self.temperature = nn.Parameter(torch.ones(depth))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Runs Algorithm 1: images (B, 3, H, W) -> a map (B, D, h, w) for each out index."""
        patches, grid = self.patch_embed(images)
        position = resize_pos_embed(self.pos_embed, self.grid, grid)
        cls, tokens = ((t).expand(len(images), -1, -1) for t in (self.cls_token + position[:, :1], self.prompt.tokens))
        x = torch.cat([cls, self.prompt.dropout(tokens), patches + position[:, 1:]], dim=1)
        n = 1 + tokens.shape[1]  # CLS and prompts
        self.temperature.data.clamp_(0.01, 10.)
        outputs = []
        for i, block in enumerate(self.blocks):
            before = x[:, 1:n]
            x = block(x, self.temperature[i])
            if i in self.out_indices:
                outputs.append(x[:, n:].transpose(1, 2).unflatten(2, grid).contiguous())
            if i < len(self.blocks) - 1:
                gate = self.prompt.gate_prior[i].sigmoid()
                x = torch.cat([x[:, :1], gate * x[:, 1:n] + (1 - gate) * before, x[:, n:]], dim=1)
        return tuple(outputs)
