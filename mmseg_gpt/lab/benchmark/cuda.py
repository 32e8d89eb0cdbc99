"""Measurements that only a GPU allows, and the attention kernels that a device runs."""

import gc
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

# What torch says of tensors of too many elements for a kernel, in its various places.
TOO_LARGE = ('out of memory', 'INT_MAX', 'integer out of range', 'canUse32BitIndexMath', 'invalid configuration')
# Bytes of a step of the paper's formulation in float32, the largest of all: counted, of ViT-B at 512x512 pixels.
FIXED_MEMORY, IMAGE_MEMORY = 2 * 2**30, int(3.7 * 2**30)
ATTENTION = ('attention', 'flash', 'fmha', 'softmax')


def allocated_peak(work: Callable[[], object], device: torch.device) -> int:
    """Returns the peak of PyTorch's allocated bytes in the second run of ``work``."""
    work()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


def largest_that_fits(fits: Callable[[int], bool], start: int = 1) -> int:
    """Finds the largest number for which ``fits`` is true, by doubling and bisection; 0 if ``start`` does not fit.

    If ``fits`` is false for a number, it must be false for all larger ones.
    """
    if not fits(start):
        return 0
    good = start
    while fits(2 * good):
        good *= 2
    bad = 2 * good
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def fits_in_memory(make_work: Callable[[int], Callable[[], object]], batch: int) -> bool:
    """Says whether two steps with ``batch`` images fit into the GPU's memory, and into what its kernels can count.

    Raises:
        RuntimeError: they fail for another reason.
    """
    try:
        work = make_work(batch)
        work()
        work()
        torch.cuda.synchronize()
        return True
    except RuntimeError as error:
        if why_too_large(error) is None:
            raise
        return False
    finally:
        work = None
        let_go()


def why_too_large(error: Exception) -> str | None:
    """Says why work was too large for a GPU, if that is what an error is of."""
    said = ' '.join(str(error).split())
    too_large = isinstance(error, torch.cuda.OutOfMemoryError) or any(word in said for word in TOO_LARGE)
    return said[:200] if too_large else None


def let_go() -> None:
    """Gives back memory that nothing uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def usual_batch(memory: int) -> int:
    """Returns the images of a training step for a GPU: 16, or fewer if all variants shall fit.

    Args:
        memory: Bytes that the GPU has.
    """
    for batch in (16, 8, 4, 2):
        if FIXED_MEMORY + batch * IMAGE_MEMORY <= memory:
            return batch
    return 1


def attention_kernels(forward: Callable[[], object], device: torch.device) -> dict[str, int]:
    """Counts the kernels (on a CPU: operations) of attention and softmax that ``forward`` runs, by name."""
    on_gpu = device.type == 'cuda'
    forward()
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        forward()
        if on_gpu:
            torch.cuda.synchronize(device)
    # On a CPU only operations that compute count, whose names begin with an underscore; others only call them.
    return {event.key: event.count for event in profiler.key_averages()
            if any(word in event.key.lower() for word in ATTENTION) and (on_gpu or event.key.startswith('aten::_'))}
