"""The plain Vision Transformer block, with timm's parameter names and a temperature in attention.

Source: arXiv 2010.11929 for the ViT, equation 9 of arXiv 2306.05067 for the temperature. Only torch
is needed here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """Cuts an image into patches and projects each: (B, 3, H, W) -> (B, h*w, D).

    An image whose sides are not multiples of the patch is padded with zeros at the bottom and right,
    as mmsegmentation's ``PatchEmbed(padding='corner')`` does, so ``h = ceil(H / patch_size)``.
    """

    def __init__(self, patch_size: int, embed_dims: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, embed_dims, patch_size, patch_size)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Returns the patch tokens (B, h*w, D) and their grid (h, w)."""
        height, width = images.shape[-2:]
        missing = (-width % self.patch_size, -height % self.patch_size)
        if any(missing):
            images = F.pad(images, (0, missing[0], 0, missing[1]))
        x = self.proj(images)  # (B, D, h, w)
        return x.flatten(2).transpose(1, 2), tuple(x.shape[-2:])


class Attention(nn.Module):
    """Multi-head self-attention, ``softmax(q k^T / sqrt(d) / tau) v`` (equations 3 and 9).

    The temperature is folded into the query, which leaves the fused kernels of torch usable.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, temperature: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D); ``temperature`` is a scalar tensor, None means 1."""
        batch, length, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # (B, heads, N, d)
        if temperature is not None:
            # In float32 at least: CUDA would round a bfloat16 model's temperature of 1.003 to 1 first.
            q = (at_least_float32(q) / temperature).to(q.dtype)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, length, dim))


class Mlp(nn.Module):
    """Two linear layers with GELU between them: (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block: (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, temperature: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), temperature)
        return x + self.mlp(self.norm2(x))


def resize_pos_embed(pos_embed: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Resizes a position embedding to another patch grid: (1, 1 + h*w, D) -> (1, 1 + h'*w', D).

    Bicubic with ``align_corners=False``, the default of mmsegmentation's and mmpretrain's ViT (mmsegmentation's
    SETR configs ask for bilinear; the paper does not say). The CLS entry is kept.
    """
    if grid == new_grid:
        return pos_embed
    cls, patches = pos_embed[:, :1], pos_embed[:, 1:]
    patches = patches.unflatten(1, grid).permute(0, 3, 1, 2)  # (1, D, h, w)
    patches = F.interpolate(patches, new_grid, mode='bicubic', align_corners=False)
    return torch.cat([cls, patches.flatten(2).transpose(1, 2)], dim=1)


def at_least_float32(x: Tensor) -> Tensor:
    """Raises half precision to float32 and leaves float32 and float64 alone."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
