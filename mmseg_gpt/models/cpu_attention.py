"""Attention in bfloat16 on a CPU, in half to three quarters of the time of torch's fused kernel, and in less memory.

torch's kernel (2.13) multiplies blocks of 32 queries, each by a call of its own, which costs more than what it computes
where the CPU has instructions for bfloat16. Here whole heads are multiplied, as many at once as the cache holds, and
attention is computed again in backward. Logits are rounded to bfloat16, where the fused kernel keeps float32; as keys
are centred first, features and gradients of a pretrained ViT are as exact as with that (docs/performance.md).
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2**21  # bytes of attention that are computed at once, which a core's cache holds


def attend(q: Tensor, k: Tensor, v: Tensor, fused: bool) -> Tensor:
    """Returns ``softmax(q k^T / sqrt(d)) v``, of the shape of the queries: (B, heads, n, d).

    Args:
        q: Queries (B, heads, n, d).
        k: Keys (B, heads, N, d).
        v: Values (B, heads, N, d).
        fused: Take torch's fused kernel even where that of this module is faster, for a graph that leaves this machine.
    """
    own = not fused and q.device.type == 'cpu' and q.dtype == torch.bfloat16 and multiplies_bfloat16()
    return HeadsAtOnce.apply(q, k, v) if own else F.scaled_dot_product_attention(q, k, v)


def multiplies_bfloat16() -> bool:
    """Says whether torch multiplies matrices of bfloat16 by instructions of this CPU, and not one number at a time."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class HeadsAtOnce(torch.autograd.Function):
    """Attention that multiplies several whole heads at once, of any type: (B, heads, n, d) -> (B, heads, n, d)."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        out = torch.empty(q.shape, dtype=q.dtype)
        with torch.autocast('cpu', enabled=False):
            for queries, keys, values, into in chunks(q, k, v, out):
                torch.bmm(attention(scaled(queries), centred(keys)), values, out=into)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inputs = ctx.saved_tensors
        grads = [torch.empty(x.shape, dtype=x.dtype) for x in inputs]
        with torch.autocast('cpu', enabled=False):
            for q, k, v, grad, grad_q, grad_k, grad_v in chunks(*inputs, gradient, *grads):
                q, k = scaled(q), centred(k)  # nor do gradients change, as those of all logits of a query add up to 0
                attending = attention(q, k)
                torch.bmm(attending.transpose(1, 2), grad, out=grad_v)
                grad_logits = torch._softmax_backward_data(
                    torch.bmm(grad, v.transpose(1, 2)), attending, -1, attending.dtype)
                grad_q.copy_(scaled(torch.bmm(grad_logits, k)))
                torch.bmm(grad_logits.transpose(1, 2), q, out=grad_k)
        return tuple(grads)


def chunks(q: Tensor, k: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yields the same heads of all tensors, (heads, n, d) of each, so many that their attention has ``CHUNK`` bytes.

    Those that are contiguous are views, which can be written to.
    """
    heads = max(1, CHUNK // (q.shape[2] * k.shape[2] * q.element_size()))
    yield from zip(*(x.flatten(0, 1).split(heads) for x in (q, k, *others)), strict=True)


def scaled(x: Tensor) -> Tensor:
    """Returns queries (heads, n, d), or their gradients, over sqrt(d)."""
    return x * x.shape[-1]**-0.5


def centred(k: Tensor) -> Tensor:
    """Returns keys (heads, N, d) less their mean, which adds the same to all logits of a query, so attention stays.

    What all keys share makes up most of the logits of pretrained ViTs, and would be rounded with them.
    """
    return k - k.mean(1, keepdim=True)


def attention(q: Tensor, k: Tensor) -> Tensor:
    """Returns what scaled queries (heads, n, d) attend to of keys (heads, N, d): (heads, n, N)."""
    return torch.bmm(q, k.transpose(1, 2)).softmax(-1)
