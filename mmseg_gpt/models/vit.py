"""The plain Vision Transformer, with timm's parameter names and a temperature in attention.

Source: arXiv 2010.11929 for the ViT, equation 9 of arXiv 2306.05067 for the temperature. What DINOv2 and DINOv3 add to
it, and the first leaves out, are options.
"""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..checkpoints.periods import ROUNDINGS
from ..checkpoints.shape import grid_of
from .cpu_attention import attend
from .interpolation import resize_bicubic
from .rotary import Rotation, periods_on, rotation_of

ARCHS = {
    'small': dict(embed_dims=384, num_layers=12, num_heads=6, mlp_ratio=4),
    'base': dict(embed_dims=768, num_layers=12, num_heads=12, mlp_ratio=4),
    'large': dict(embed_dims=1024, num_layers=24, num_heads=16, mlp_ratio=4),
    'huge': dict(embed_dims=1280, num_layers=32, num_heads=16, mlp_ratio=4),
    'huge_plus': dict(embed_dims=1280, num_layers=32, num_heads=20, mlp_ratio=4),  # DINOv3's ViT-H+
    '7b': dict(embed_dims=4096, num_layers=40, num_heads=32, mlp_ratio=2),  # DINOv3's ViT-7B
}

ALL = slice(None)


class PatchEmbed(nn.Module):
    """Cuts an image into patches and projects each (equation 1): (B, C, H, W) -> (B, h*w, D).

    An image whose sides are not multiples of the patch is padded with zeros at the bottom and right,
    as mmsegmentation's ``PatchEmbed(padding='corner')`` does, so ``h = ceil(H / patch_size)``.

    Args:
        patch_size: Side of a patch in pixels.
        embed_dims: Width D of the tokens.
        in_channels: Number C of channels of an image.
    """

    def __init__(self, patch_size: int, embed_dims: int, in_channels: int = 3) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, patch_size)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Returns the patch tokens (B, h*w, D) and their grid (h, w)."""
        height, width = images.shape[-2:]
        missing = (-width % self.patch_size, -height % self.patch_size)
        if is_open(missing) or any(missing):
            images = F.pad(images, (0, missing[0], 0, missing[1]))
        x = self.proj(images)  # (B, D, h, w)
        return x.flatten(2).transpose(1, 2), tuple(x.shape[-2:])


class SplitHeads(torch.autograd.Function):
    """Cuts the output of ``qkv`` into heads, turns them by their rotary positions, and divides the queries by the
    temperature (equation 9), in place.

    ``(B, N, 3 * D) -> 3 x (B, heads, N, d)``, which are views of the input; its queries are overwritten. Only a hook
    that keeps the output of ``qkv`` would notice, as the backward of a linear layer does not need its output. The
    gradient of the temperature follows from the divided queries, which torch's fused kernels keep anyway, so nothing
    else is kept. The gradients of all three are written straight into the layout that ``qkv`` needs.
    """

    @staticmethod
    def forward(ctx, qkv: Tensor, temperature: Tensor | None, num_heads: int,
                rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = heads_of(qkv, num_heads)
        ctx.rotation = rotation
        if rotation is not None:
            rotation.turn_in_place(q)
            rotation.turn_in_place(k)
        if temperature is not None:
            divide(q, temperature)
            ctx.save_for_backward(q.detach(), temperature)
        return q, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        _, heads, _, width = gradients[0].shape
        # torch's kernels give gradients whose heads lie side by side, so that this is one copy.
        packed = torch.cat([gradient.transpose(1, 2).flatten(2) for gradient in gradients], dim=2)
        packed = packed.unflatten(2, (3, heads, width))
        grad_temperature = None
        if saved := ctx.saved_tensors:
            q, temperature = saved
            grad_temperature = -(at_least_float32(gradients[0]) * q).sum(dtype=temperature.dtype) / temperature
            divide(packed[:, :, 0], temperature)
        if ctx.rotation is not None:
            for slot in packed.permute(2, 0, 3, 1, 4)[:2]:
                ctx.rotation.turn_in_place(slot, back=True)
        return packed.flatten(2), grad_temperature, None, None


def heads_of(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns views of the queries, keys and values: (B, N, 3 * D) -> 3 x (B, heads, N, d)."""
    return qkv.unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()


def divided(x: Tensor, temperature: Tensor) -> Tensor:
    """Divides in float32 at least: CUDA would round a bfloat16 model's temperature of 1.003 to 1 first.

    The result is rounded to the type of ``x``: in float16, a query above 655 over a temperature of 0.01 is infinite.
    """
    return (at_least_float32(x) / temperature).to(x.dtype)


def divide(x: Tensor, temperature: Tensor) -> None:
    """Divides in place as :func:`divided` does."""
    if x.dtype == torch.promote_types(x.dtype, torch.float32):
        x.div_(temperature)
    else:
        x.copy_(divided(x, temperature))


class KeyBiasFreeLinear(nn.Linear):
    """The ``qkv`` of DINOv3: a linear layer whose middle third, the keys, has no bias, whatever ``bias`` holds."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, without_key_bias(self.bias))


def without_key_bias(bias: Tensor) -> Tensor:
    """Returns a bias of queries, keys and values (3 * D,) in which that of the keys is zero."""
    queries, keys, values = bias.chunk(3)
    return torch.cat([queries, torch.zeros_like(keys), values])


class Attention(nn.Module):
    """Multi-head self-attention, ``softmax(q k^T / sqrt(d) / tau) v`` (equations 3 and 9, which omit sqrt(d)).

    The queries are divided by the temperature beforehand, so that torch's fused kernels can be used.

    Args:
        dim: Width D of the tokens.
        num_heads: Number of heads; each has the width d = D / num_heads.
        bias: Which of queries, keys and values have a bias: 'qkv', 'qv' or ''.

    Attributes:
        fused: Whether torch's fused kernel is taken even where :mod:`.cpu_attention` is faster.
    """

    fused = False

    def __init__(self, dim: int, num_heads: int, bias: str = 'qkv') -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = (KeyBiasFreeLinear if bias == 'qv' else nn.Linear)(dim, dim * 3, bias=bool(bias))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, temperature: Tensor | None = None, wanted: slice = ALL,
                rotation: Rotation | None = None) -> Tensor:
        """Lets tokens attend to each other: (B, N, D) -> (B, n, D).

        Args:
            x: Tokens (B, N, D).
            temperature: Scalar tensor tau of equation 9; None means 1. Without gradients also (B, 1, 1, 1), one for
                each image.
            wanted: The n tokens whose output is computed. All tokens are attended to.
            rotation: The rotary positions of the patches; None for none.
        """
        qkv = self.qkv(x)
        if torch.is_grad_enabled() and not is_traced():
            q, k, v = SplitHeads.apply(qkv, temperature, self.num_heads, rotation)
            q = q[:, :, wanted]
        else:
            q, k, v = heads_of(qkv, self.num_heads)
            if rotation is not None:
                q, k = rotation.turned(q), rotation.turned(k)
            q = q[:, :, wanted]
            q = q if temperature is None else divided(q, temperature)
        x = attend(q, k, v, fused=self.fused or is_traced())
        return self.proj(x.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with GELU between them: (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class GatedMlp(nn.Module):
    """SwiGLU, ``fc2(silu(fc1_g(x)) * fc1_x(x))``: (B, N, D) -> (B, N, D).

    Source: arXiv 2002.05202. DINOv3's ViT-S+, ViT-H+ and ViT-7B have it.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1_g = nn.Linear(dim, hidden_dim)
        self.fc1_x = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.silu(self.fc1_g(x)) * self.fc1_x(x))


class LayerScale(nn.Module):
    """Scales each channel by a weight of its own, as DINOv2's blocks do: (B, N, D) -> (B, N, D).

    Source: arXiv 2103.17239. The weights start at DINOv2's 1e-5.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim, ), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block (equation 2).

    Args:
        dim: Width D of the tokens.
        num_heads: Number of attention heads.
        mlp_ratio: Hidden width of the MLP, divided by D.
        norm_eps: Epsilon of the layer norms.
        layer_scale: Whether the block scales what it adds, channel by channel.
        gated_mlp: Whether the MLP is a :class:`GatedMlp`.
        qkv_bias: Which of queries, keys and values have a bias, see :class:`Attention`.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, norm_eps: float, layer_scale: bool = False,
                 gated_mlp: bool = False, qkv_bias: str = 'qkv') -> None:
        super().__init__()
        scale = LayerScale if layer_scale else nn.Identity
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, qkv_bias)
        self.ls1 = scale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = (GatedMlp if gated_mlp else Mlp)(dim, int(dim * mlp_ratio))
        self.ls2 = scale(dim)

    def forward(self, x: Tensor, temperature: Tensor | None = None, wanted: slice = ALL,
                rotation: Rotation | None = None) -> Tensor:
        """Returns the ``wanted`` n tokens: (B, N, D) -> (B, n, D); see :meth:`Attention.forward`."""
        x = x[:, wanted] + self.ls1(self.attn(self.norm1(x), temperature, wanted, rotation))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(BaseModule):
    """The parts of a ViT: patch embedding, CLS token, position embedding, blocks, and a final norm or none.

    Subclasses decide how the blocks are run. ``layer_scale`` and ``num_registers`` are DINOv2's additions, ``rotary``,
    ``gated_mlp`` and ``qkv_bias`` DINOv3's.

    Args:
        arch: 'small', 'base', 'large', 'huge', 'huge_plus', '7b', or a dict of embed_dims, num_layers, num_heads,
            mlp_ratio.
        img_size: Side in pixels (or height, width) for which ``pos_embed`` is made.
        patch_size: Side of a patch in pixels.
        norm_eps: Epsilon of the layer norms.
        final_norm: Whether there is a norm after the last block; without one, ``norm`` is None.
        layer_scale: Whether each block scales what it adds, channel by channel (``blocks.0.ls1.gamma``).
        num_registers: Register tokens between CLS and patches (``reg_token``, arXiv 2309.16588); they have no
            position embedding.
        in_channels: Number of channels of an image.
        rotary: None for a learned ``pos_embed``. Else patches have rotary positions instead, whose periods are rounded
            to 'float32' or 'bfloat16', see :func:`.checkpoints.periods.rotary_periods`.
        gated_mlp: Whether the MLPs are gated (``blocks.0.mlp.fc1_g``).
        qkv_bias: Which of queries, keys and values have a bias: 'qkv', 'qv' (where the keys' part of the bias is not
            used), or ''.
        init_cfg: The ``init_cfg`` of mmengine's BaseModule.

    Raises:
        ValueError: a size is out of its range; the message names it.
    """

    def __init__(self, arch: str | dict, img_size: int | tuple[int, int], patch_size: int, norm_eps: float,
                 final_norm: bool, layer_scale: bool = False, num_registers: int = 0, in_channels: int = 3,
                 rotary: str | None = None, gated_mlp: bool = False, qkv_bias: str = 'qkv',
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.arch = read_arch(arch)
        self.rotary = rotary
        check_sizes(img_size, patch_size, num_registers, in_channels)
        check_attention(self.arch, rotary, qkv_bias)
        self.grid = grid_of(img_size, patch_size)
        dims, heads, mlp_ratio = (self.arch[key] for key in ('embed_dims', 'num_heads', 'mlp_ratio'))
        self.patch_embed = PatchEmbed(patch_size, dims, in_channels)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dims))
        self.pos_embed = None if rotary else nn.Parameter(torch.empty(1, 1 + self.grid[0] * self.grid[1], dims))
        self.reg_token = nn.Parameter(torch.empty(1, num_registers, dims)) if num_registers else None
        self.blocks = nn.ModuleList(Block(dims, heads, mlp_ratio, norm_eps, layer_scale, gated_mlp, qkv_bias)
                                    for _ in range(self.arch['num_layers']))
        self.norm = nn.LayerNorm(dims, eps=norm_eps) if final_norm else None
        nn.init.trunc_normal_(self.cls_token, std=.02)
        for extra in (self.pos_embed, self.reg_token):
            if extra is not None:
                nn.init.trunc_normal_(extra, std=.02)

    @property
    def in_channels(self) -> int:
        """Number of channels of an image."""
        return self.patch_embed.proj.in_channels

    @property
    def first_patch(self) -> int:
        """Position of the first patch in the sequence, after CLS and the registers."""
        return 1 if self.reg_token is None else 1 + self.reg_token.shape[1]

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turns images into the tokens of the first block (equation 1).

        Args:
            images: Normalised images (B, C, H, W).

        Returns:
            tuple: CLS, R register and patch tokens (B, 1 + R + h*w, D), and the grid (h, w) of the patches.
        """
        patches, grid = self.patch_embed(images)
        cls_token = self.cls_token
        if self.pos_embed is not None:
            pos_embed = resize_pos_embed(self.pos_embed, self.grid, grid)
            cls_token, patches = cls_token + pos_embed[:, :1], patches + pos_embed[:, 1:]
        before = [cls_token] + ([] if self.reg_token is None else [self.reg_token])
        before = [token.expand(patches.shape[0], -1, -1) for token in before]
        return torch.cat([*before, patches], dim=1), grid

    def rotation(self, grid: tuple[int, int]) -> Rotation | None:
        """Returns the rotary positions of a grid (h, w) of patches, for all blocks; None if the ViT has none."""
        if self.rotary is None:
            return None
        width, dtype = self.arch['embed_dims'] // self.arch['num_heads'], self.cls_token.dtype
        kept = not is_traced() and type(self.cls_token.data) is Tensor  # a program that is written down computes them
        periods = periods_on(self.cls_token.device, torch.promote_types(dtype, torch.float32), width, self.rotary, kept)
        return rotation_of(grid, periods, self.first_patch)

    def fit_pos_embed(self, pos_embed: Tensor, grid: tuple[int, int]) -> Tensor:
        """Resizes a position embedding to the grid of this ViT, in float32 at least.

        Args:
            pos_embed: (1, 1 + h*w, D).
            grid: The rows and columns (h, w) that it has.
        """
        return resize_pos_embed(at_least_float32(pos_embed), grid, self.grid)


def read_arch(arch: str | dict) -> dict:
    """Returns the sizes of an architecture, given its name or a dict of them, which is checked.

    Raises:
        ValueError: the name is unknown, or a size is missing or out of its range.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ValueError(f'arch "{arch}" is unknown: choose from {list(ARCHS)}, or give a dict of '
                             'embed_dims, num_layers, num_heads, mlp_ratio')
        return dict(ARCHS[arch])
    arch = {'mlp_ratio': 4, **arch}
    if set(arch) != set(ARCHS['base']):
        raise ValueError(f'arch needs exactly the keys {sorted(ARCHS["base"])}, got {sorted(arch)}')
    for name in ('embed_dims', 'num_layers', 'num_heads'):
        if arch[name] < 1:
            raise ValueError(f'arch: {name} must be at least 1, got {arch[name]}')
    if arch['embed_dims'] % arch['num_heads']:
        raise ValueError(f'arch: embed_dims {arch["embed_dims"]} is not a multiple of num_heads {arch["num_heads"]}')
    return arch


def check_sizes(img_size: int | tuple[int, int], patch_size: int, num_registers: int, in_channels: int) -> None:
    """Refuses sizes of images and patches and numbers of channels below 1, and a negative number of registers.

    Raises:
        ValueError: there are such; the message names them.
    """
    sides = [img_size] if isinstance(img_size, int) else img_size
    if min(sides) < 1:
        raise ValueError(f'img_size {img_size} must be positive')
    if patch_size < 1:
        raise ValueError(f'patch_size {patch_size} must be positive')
    if num_registers < 0:
        raise ValueError(f'num_registers must be at least 0, got {num_registers}')
    if in_channels < 1:
        raise ValueError(f'in_channels must be at least 1, got {in_channels}')


def check_attention(arch: dict, rotary: str | None, qkv_bias: str) -> None:
    """Refuses rotary positions and biases that there are not.

    Raises:
        ValueError: there are such; the message says which there are.
    """
    if rotary not in (None, *ROUNDINGS):
        raise ValueError(f'rotary must be None, or what the periods are rounded to, one of {ROUNDINGS}, got {rotary!r}')
    if rotary and arch['embed_dims'] // arch['num_heads'] % 4:
        raise ValueError(f'rotary positions need heads whose width is a multiple of 4, got embed_dims '
                         f'{arch["embed_dims"]} and num_heads {arch["num_heads"]}')
    if qkv_bias not in ('qkv', 'qv', ''):
        raise ValueError(f"qkv_bias must be 'qkv', 'qv' or '', got {qkv_bias!r}")


def resize_pos_embed(pos_embed: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Resizes a position embedding to another patch grid: (1, 1 + h*w, D) -> (1, 1 + h'*w', D).

    The interpolation is bicubic with ``align_corners=False``, the default of mmsegmentation's and mmpretrain's ViT
    (mmsegmentation's SETR configs ask for bilinear; the paper does not say). The entry of CLS stays as it is.
    """
    if not is_open(new_grid) and grid == new_grid:
        return pos_embed
    cls, patches = pos_embed[:, :1], pos_embed[:, 1:]
    patches = patches.unflatten(1, grid).permute(0, 3, 1, 2)  # (1, D, h, w)
    patches = resize_bicubic(patches, new_grid)
    return torch.cat([cls, patches.flatten(2).transpose(1, 2)], dim=1)


def is_recorded() -> bool:
    """Says whether torch is writing down the operations as a program: ``torch.export``, ``torch.jit.trace`` or ONNX."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def is_traced() -> bool:
    """Says whether operations are written down, by :func:`is_recorded` or by ``torch.compile``.

    Both find out by themselves what to keep and what to write where.
    """
    return is_recorded() or torch.compiler.is_compiling()


def is_open(sizes: tuple[int, ...]) -> bool:
    """Says whether ``torch.export`` leaves one of these sizes open, so that no branch may depend on it."""
    if not torch.compiler.is_exporting():
        return False
    from torch.fx.experimental.symbolic_shapes import has_static_value  # slow to import, and there by now
    return not all(has_static_value(size) for size in sizes)


def at_least_float32(x: Tensor) -> Tensor:
    """Converts half precision to float32, and leaves float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
