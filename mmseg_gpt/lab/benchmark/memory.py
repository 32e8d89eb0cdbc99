"""Exact counts of the bytes alive at a time and of those kept for the backward, without clock, allocator or noise."""

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten


class LiveBytes(TorchDispatchMode):
    """Counter of the storages that operations return, from then until they are freed.

    It sees the results of PyTorch's operations and the tensors given to :meth:`track`. It does not see buffers inside a
    kernel (the workspace of a convolution, the copy a reduction makes of a strided input), the allocator's rounding
    and fragmentation, or the interpreter and its libraries. A resized storage counts with its first size.

    It works on fake tensors too (``torch._subclasses.FakeTensorMode``), which have storages of the right size and no
    memory behind them.

    Attributes:
        live: Bytes alive now.
        peak: The most bytes that were ever alive.
        label: Label of the storages that are made from now on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.label = ''
        self.alive: dict[int, tuple[str, int]] = {}  # label and bytes by address

    def track(self, tensors: Iterable[Tensor]) -> None:
        """Counts the storages of ``tensors`` from now on, each once."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.alive:
                self.alive[storage._cdata] = self.label, storage.nbytes()
                self.live += storage.nbytes()
                weakref.finalize(storage, self._freed, storage._cdata).atexit = False
        self.peak = max(self.peak, self.live)

    def _freed(self, address: int) -> None:
        self.live -= self.alive.pop(address)[1]

    def labelled(self, label: str) -> int:
        """Returns the bytes alive now that were made under ``label``."""
        return sum(size for name, size in self.alive.values() if name == label)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.track(leaf for leaf in tree_leaves(result) if torch.is_tensor(leaf))
        return result


def peak_bytes(work: Callable[[], object], held: Iterable[Tensor] = ()) -> int:
    """Returns the most bytes that are alive at a time while ``work`` runs, including those of ``held``.

    Python's garbage collector is off meanwhile, because it runs at unpredictable times. So memory that only it would
    free counts as alive.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with LiveBytes() as counter:
            counter.track(held)
            work()
    finally:
        if collecting:
            gc.enable()
    return counter.peak


class WithoutValues(TorchDispatchMode):
    """Mode that answers for fake tensors, which have no values, so that mmsegmentation's code runs on them.

    A selection by a mask (as in its accuracy) selects everything, so no pixel counts as ignored. A tensor used as a
    condition (as in its assertion that windows cover the image) is true.

    Attributes:
        answers: Number of answers so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is aten.index.Tensor and any(i is not None and i.dtype is torch.bool for i in args[1]):
            self.answers += 1
            return select_all(*args)
        if func is aten._local_scalar_dense.default and args[0].dtype is torch.bool:
            self.answers += 1
            return True
        return func(*args, **(kwargs or {}))


def select_all(x: Tensor, indices: list[Tensor | None]) -> Tensor:
    """Returns ``x[indices]``, where one index is a mask, as if the mask were true everywhere."""
    place, mask = next((i, index) for i, index in enumerate(indices) if index is not None)
    flat = x.flatten(place, place + mask.ndim - 1)
    return flat.index_select(place, torch.zeros(mask.numel(), dtype=torch.long, device=x.device))


@contextmanager
def fake_tensors() -> Iterator[WithoutValues]:
    """Gives tensors that are made in this context shapes and types but no numbers, so that nothing is computed.

    A module that was built outside is made fake by ``module.to_empty(device=device)``.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), WithoutValues() as values:
        yield values


def kept_bytes(owners: dict[str, tuple[nn.Module, str]], forward: Callable[[], Tensor],
               held: Iterable[Tensor]) -> tuple[Tensor, dict[str, int]]:
    """Counts the bytes that ``forward`` keeps alive for the backward, by the part that made them.

    It counts live tensors and not saved ones (``torch.autograd.graph.saved_tensors_hooks``), because a custom
    function can keep tensors in attributes, and a module that recomputes has hooks of its own.

    Args:
        owners: The parts by name: a module, and the name of the method in which its storages are made.
        forward: Function that returns the loss.
        held: Tensors that are alive before and do not count: weights and inputs.

    Returns:
        tuple: The loss, with all its graph, and bytes by name; 'rest' counts those made elsewhere.
    """
    with LiveBytes() as counter:
        counter.track(held)
        counter.label = 'rest'
        for name, (module, method) in owners.items():
            setattr(module, method, labelling(getattr(module, method), name, counter))
        try:
            loss = forward()
        finally:
            for module, method in owners.values():
                delattr(module, method)  # so that the method of the class is back
        return loss, {name: counter.labelled(name) for name in (*owners, 'rest')}


def labelling(method: Callable, name: str, counter: LiveBytes) -> Callable:
    """Wraps ``method`` so that storages made in it get the label ``name``."""
    def run(*args, **kwargs):
        before, counter.label = counter.label, name
        try:
            return method(*args, **kwargs)
        finally:
            counter.label = before

    return run


def parts(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Returns the parts of a segmentor for :func:`kept_bytes`: its ViT and each head with its loss."""
    heads = {f'auxiliary head {i}': (head, 'loss') for i, head in enumerate(model.auxiliary_head)}
    return dict(ViT=(model.backbone, 'forward'), **{'decode head': (model.decode_head, 'loss')}, **heads)
