"""Counting floating point operations, and the traffic of bytes into and out of every operation."""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

aten = torch.ops.aten
FUSED_FORWARD = [aten._scaled_dot_product_flash_attention_for_cpu]
FUSED_BACKWARD = [
    aten._scaled_dot_product_flash_attention_for_cpu_backward,
    aten._scaled_dot_product_flash_attention_backward,
    aten._scaled_dot_product_efficient_attention_backward,
    aten._scaled_dot_product_cudnn_attention_backward,
]
NO_TRAFFIC = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided}


class Flops(NamedTuple):
    """Floating point operations of matrix products and convolutions; a multiplication and an addition are 2.

    Attributes:
        needed: Operations with attention in its explicit form: QK^T and AV, and four products in the backward.
        recomputed: Further operations of fused attention, which computes QK^T once more in the backward.
    """
    needed: int
    recomputed: int


class NoModules(nullcontext):
    """Replacement for torch's tracker of modules, which says that none is running."""
    parents = frozenset(['Global'])


class FlopCounter(FlopCounterMode):
    """PyTorch's counter, which here counts fused attention on a CPU too, and totals only."""

    def __init__(self) -> None:
        formulas = {**dict.fromkeys(FUSED_FORWARD, attention_flops),
                    **dict.fromkeys(FUSED_BACKWARD, attention_grad_flops)}
        super().__init__(display=False, custom_mapping=formulas)
        # Torch's own tracker fails on a view of a parameter that was made under no_grad.
        self.mod_tracker = NoModules()

    @property
    def flops(self) -> Flops:
        """Operations counted so far."""
        counts = self.get_flop_counts().get('Global', {})
        return Flops(sum(counts.values()), sum(counts.get(op, 0) for op in FUSED_BACKWARD) // 4)


def attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *args, **kwargs) -> int:
    """Counts QK^T and AV, given shapes (B, heads, N, d)."""
    return sdpa_flop_count(query, key, value)


def attention_grad_flops(grad: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *args,
                         **kwargs) -> int:
    """Counts the gradients of A, V, Q and K: twice the products of the forward."""
    return 2 * sdpa_flop_count(query, key, value)


class Traffic(TorchDispatchMode):
    """Sum of the bytes of all inputs and outputs of every operation that is not a view.

    This is an upper bound of the bytes that go through memory, because caches hold back some of them. A fused kernel
    counts with its inputs and outputs only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        # Operations of the namespace prim only ask about a tensor, such as for its device.
        if not func.is_view and func.overloadpacket not in NO_TRAFFIC and func.namespace != 'prim':
            self.bytes += sum(size(t) for t in tree_leaves((args, kwargs, result)) if torch.is_tensor(t))
        return result


def size(tensor: Tensor) -> int:
    """Returns the bytes of a tensor; expanded axes count once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
