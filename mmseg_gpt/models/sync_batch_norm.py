"""Batch norm over the batches of all processes, by one exchange forward and one backward, without waiting for a GPU.

torch's SyncBatchNorm waits for the device three times a layer to leave out processes without images, runs on GPUs only,
and does not expose its statistics, so that features cannot be recomputed from them.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(_BatchNorm):
    """Batch norm whose statistics are those of all processes together, on CPUs and GPUs, for batches of any sizes.

    Parameters, buffers, options and results are those of ``torch.nn.SyncBatchNorm``, which :func:`synchronise` replaces
    by it. In one process and in evaluation it is plain batch norm. Each process needs one image at least.
    """

    process_group: dist.ProcessGroup | None = None  # None: of all processes

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f'batch norm needs (B, C, ...), got a tensor of {x.dim()} dimensions')

    @property
    def is_synchronised(self) -> bool:
        """Returns whether a forward exchanges statistics now."""
        return self.training and dist.is_initialized() and dist.get_world_size(self.process_group) > 1

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (B, C, ...) by the statistics of all processes in training, else as batch norm does."""
        return self.with_statistics(x)[0] if self.is_synchronised else super().forward(x)

    def with_statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalises (B, C, ...) by the statistics of all processes, and updates the running ones.

        Returns:
            tuple: The normalised tensor; and the mean (C,) and 1 / sqrt(variance + eps) (C,) of all processes, in
            float32 at least.
        """
        self._check_input_dim(x)
        y, mean, invstd, variance, count = Normalise.apply(x, self.weight, self.bias, self.eps, self.process_group)
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.to(self.running_mean), share)
                self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var), share)
        return y, mean, invstd


def synchronise(model: nn.Module) -> nn.Module:
    """Turns each ``torch.nn.SyncBatchNorm`` of a model into a :class:`SyncBatchNorm`, where it stands.

    Weights, buffers and hooks stay, and so do the names in a state dict.
    """
    for module in model.modules():
        if isinstance(module, nn.SyncBatchNorm):  # also a subclass of MMEngine
            module.__class__ = SyncBatchNorm
    return model


class Normalise(torch.autograd.Function):
    """Autograd function behind :class:`SyncBatchNorm`."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float,
                group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        x = x.contiguous(memory_format=layout_of(x))
        mean, variance, count = of_all(*own_statistics(x, eps), x.numel() // x.shape[1], group)
        invstd = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, invstd, count)
        ctx.group = group
        ctx.mark_non_differentiable(mean, invstd, variance, count)
        y = (torch.batch_norm_elemt(x, weight, bias, mean, invstd, eps) if x.is_cuda
             else F.batch_norm(x, mean, variance, weight, bias, eps=eps))
        return y, mean, invstd, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, *_) -> tuple[Tensor | None, ...]:
        x, weight, mean, invstd, count = ctx.saved_tensors
        grad = grad.contiguous(memory_format=layout_of(x))
        sums = grad_sums(grad, x, mean, invstd, weight)
        of_weight, of_bias = (None, None) if weight is None else (
            (sums[1] * invstd).to(weight.dtype), sums[0].to(weight.dtype, copy=True))
        of_x = None
        if ctx.needs_input_grad[0]:
            dist.all_reduce(sums, group=ctx.group)
            of_x = grad_of_x(grad, x, weight, mean, invstd, sums, count)
        return of_x, of_weight, of_bias, None, None


def of_all(mean: Tensor, variance: Tensor, count: int, group: dist.ProcessGroup | None) -> tuple[Tensor, ...]:
    """Returns mean (C,), variance (C,) and number of values a channel, a scalar, of all processes, by one exchange.

    Each process fills in a row of its own and the rows are added up, which changes none of them. Squares are of
    differences from a mean, so that nothing cancels out.

    Args:
        mean: (C,), of this process.
        variance: (C,), of this process.
        count: The number of values a channel in this process, which need not be that of the others.
        group: The processes; None for all.
    """
    rows = mean.new_zeros(dist.get_world_size(group), 2 * len(mean) + 1)
    own = rows[dist.get_rank(group)]
    own[:len(mean)], own[len(mean):-1] = mean, variance
    own[-1].fill_(count)
    dist.all_reduce(rows, group=group)
    means, variances, counts = rows[:, :len(mean)], rows[:, len(mean):-1], rows[:, -1:]
    total = counts.sum()
    shares = counts / total
    mean = (shares * means).sum(0)
    apart = means - mean
    return mean, (shares * torch.addcmul(variances, apart, apart)).sum(0), total


def own_statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Returns mean and variance (C,) of a process's own (B, C, ...), in float32 at least."""
    if x.is_cuda:
        mean, invstd = torch.batch_norm_stats(x, eps)
        return mean, invstd**-2 - eps
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(exact, all_but_channels(x), correction=0)
    return mean, variance


def grad_sums(grad: Tensor, x: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor | None) -> Tensor:
    """Returns the sums (2, C) of a gradient (B, C, ...), and of the gradient times ``x`` less its mean."""
    if x.is_cuda:
        return torch.stack(torch.batch_norm_backward_reduce(grad, x, mean, invstd, weight, True, False, False)[:2])
    dims = all_but_channels(x)
    return torch.stack([grad.sum(dims, dtype=mean.dtype), (x - by_channel(mean, x)).mul_(grad).sum(dims)])


def grad_of_x(grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, invstd: Tensor, sums: Tensor,
               count: Tensor) -> Tensor:
    """Returns the gradient of ``x`` (B, C, ...), given those of its normalised values and their sums in all processes.

    Args:
        grad: That of the normalised values (B, C, ...).
        x: What was normalised (B, C, ...).
        weight: (C,), or None for 1.
        mean: (C,), of all processes, as are the following.
        invstd: 1 / sqrt(variance + eps) (C,).
        sums: Those of :func:`grad_sums` (2, C).
        count: The number of values a channel, a scalar.
    """
    if x.is_cuda:
        weight = None if weight is None else weight.to(mean.dtype)
        return torch.batch_norm_backward_elemt(grad, x, mean, invstd, weight, *sums, count.view(1).int())
    factor = invstd if weight is None else invstd * weight
    by_mean, by_x = sums / count
    result = (x - by_channel(mean, x)).mul_(by_channel(-by_x * invstd**2, x)).add_(grad).sub_(by_channel(by_mean, x))
    return result.mul_(by_channel(factor, x)).to(x.dtype)


def by_channel(values: Tensor, x: Tensor) -> Tensor:
    """Gives values (C,) the dimensions of ``x`` (B, C, ...)."""
    return values.view(1, -1, *[1] * (x.dim() - 2))


def all_but_channels(x: Tensor) -> list[int]:
    """Returns the dimensions of (B, C, ...) other than C."""
    return [0, *range(2, x.dim())]


def layout_of(x: Tensor) -> torch.memory_format:
    """Returns channels_last if ``x`` is so and has four dimensions, else the order in which torch counts."""
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
