"""Batch norm over several processes: the numbers of one process with the whole batch, in forward and backward."""

import copy

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmseg.registry import MODELS
from several import in_processes
from torch import nn
from torch.nn.modules._functions import SyncBatchNorm as TorchFunction

from mmseg_gpt.lab.benchmark.memory import peak_bytes
from mmseg_gpt.models.sync_batch_norm import Normalise, SyncBatchNorm, synchronise
from mmseg_gpt.segmentation import recompute

EPS = 1e-12
HEAD = dict(type='LeanSETRUPHead', in_channels=8, channels=4, num_classes=3, num_convs=2, up_scale=2, kernel_size=3,
            dropout_ratio=0, norm_cfg=dict(type='SyncBN'))


def norm(**options) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(3, **options).double()
    with torch.no_grad():
        for tensor in (*made.parameters(), made.running_mean):
            if tensor is not None:
                tensor.normal_()
    return made


def as_synchronised(plain: nn.Module) -> nn.Module:
    return synchronise(nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain)))


def outcome(model: nn.Module, x: torch.Tensor, slope: torch.Tensor) -> dict[str, torch.Tensor]:
    """Results, gradients and buffers of two steps, so that running statistics are updated from updated ones."""
    for _ in range(2):
        model.zero_grad()
        x = x.detach().requires_grad_()
        y = model(x)
        y.backward(slope)
    return dict(y=y.detach(), of_x=x.grad, **{f'of_{n}': p.grad for n, p in model.named_parameters()},
                **{n: b.clone() for n, b in model.named_buffers()})


@pytest.mark.parametrize('options', [{}, dict(momentum=None), dict(affine=False)], ids=str)
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last], ids=str)
def test_two_processes_with_uneven_batches_are_one_with_all_images(tmp_path, options, layout):
    plain = norm(**options)
    x = (5 + torch.randn(5, 3, 4, 6, dtype=torch.float64)).to(memory_format=layout)
    slope, shares = torch.randn_like(x), (slice(0, 3), slice(3, 5))
    mine = as_synchronised(plain)
    assert type(mine) is SyncBatchNorm and mine.state_dict().keys() == plain.state_dict().keys()
    parts = in_processes(tmp_path, lambda rank: outcome(copy.deepcopy(mine), x[shares[rank]], slope[shares[rank]]))
    whole = outcome(plain, x, slope)
    for name in whole:
        of_all = (torch.cat([part[name] for part in parts]) if name in ('y', 'of_x')
                  else sum(part[name] for part in parts) if name.startswith('of_') else parts[1][name])
        assert torch.allclose(of_all, whole[name], rtol=0, atol=EPS * 10), name


def test_half_precision_is_added_up_in_float32(tmp_path):
    mine, x = as_synchronised(norm()).float(), (100 + torch.randn(4, 3, 8, 8)).bfloat16()
    parts = in_processes(tmp_path, lambda rank: mine(x[2 * rank:2 * rank + 2]).detach())
    reference = nn.functional.batch_norm(x.float(), None, None, mine.weight, mine.bias, training=True).detach()
    assert parts[0].dtype == torch.bfloat16 and (torch.cat(parts) - reference).abs().max() < 0.02


def test_recipes_work_under_it_with_one_exchange_a_layer_and_pass(tmp_path, monkeypatch):
    head = MODELS.build(HEAD).double().train()
    plain = revert_sync_batchnorm(copy.deepcopy(head))
    synchronise(head)
    assert sum(type(m) is SyncBatchNorm for m in head.modules()) == 2
    x, slope = torch.randn(4, 8, 4, 4, dtype=torch.float64), torch.randn(4, 3, 8, 8, dtype=torch.float64)

    def gradients(rank: int | None) -> tuple[dict, list, list]:
        exchanges, recipes, send, remade = [], [], torch.distributed.all_reduce, recompute.take_recipe
        monkeypatch.setattr(torch.distributed, 'all_reduce',
                            lambda *args, **kw: exchanges.append(args[0].shape) or send(*args, **kw))
        monkeypatch.setattr(recompute, 'take_recipe', lambda ctx: recipes.append(1) or remade(ctx))
        model, part = (plain, slice(None)) if rank is None else (head, slice(2 * rank, 2 * rank + 2))
        model.small_logits((x[part], )).backward(slope[part])
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, exchanges, recipes

    (one, sent, made), (other, *_) = in_processes(tmp_path, gradients)
    assert sent == [(2, 9), (2, 9), (2, 4), (2, 4)] and len(made) == 2
    whole, none, _ = gradients(None)
    assert not none and whole.keys() == one.keys() and len(whole) == 10
    for name, gradient in whole.items():
        assert torch.allclose(one[name] + other[name], gradient, rtol=0, atol=1e-12), name


def test_it_takes_no_more_memory_than_plain_batch_norm(tmp_path):
    head = MODELS.build(HEAD).train()
    plain = revert_sync_batchnorm(copy.deepcopy(head))
    synchronise(head)
    x = torch.randn(2, 8, 16, 16).to(memory_format=torch.channels_last)

    def peak(model: nn.Module) -> int:
        return peak_bytes(lambda: model.small_logits((x, )).sum().backward(), [x, *model.parameters()])

    assert max(in_processes(tmp_path, lambda rank: peak(head))) <= 1.02 * peak(plain)


def test_one_process_and_evaluation_are_plain_batch_norm():
    plain, x = norm(), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    mine = as_synchronised(plain)
    for mode in (True, False):
        assert torch.equal(mine.train(mode)(x), plain.train(mode)(x))
    with pytest.raises(ValueError, match='dimensions'):
        mine(torch.ones(3))


@pytest.mark.cuda
@pytest.mark.parametrize('dtype, bound', [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_numbers_are_those_of_torchs_own_on_a_gpu(tmp_path, dtype, bound):
    torch.distributed.init_process_group('nccl', init_method=f'file://{tmp_path}/group', rank=0, world_size=1)
    try:
        x = (2 + 3 * torch.randn(4, 16, 8, 8, device='cuda')).to(dtype).to(memory_format=torch.channels_last)
        slope, exact = torch.randn_like(x), torch.promote_types(dtype, torch.float32)
        found = []
        for mine in (True, False):
            inputs = [x.clone(), *(torch.linspace(-1, 2, 16, dtype=exact, device='cuda') for _ in range(2))]
            for each in inputs:
                each.requires_grad_()
            running = [torch.zeros(16, dtype=exact, device='cuda'), torch.ones(16, dtype=exact, device='cuda')]
            group = torch.distributed.group.WORLD
            y = (Normalise.apply(*inputs, 1e-5, group)[0] if mine
                 else TorchFunction.apply(*inputs, *running, 1e-5, 0.1, group, 1))
            y.backward(slope)
            found.append([y.detach(), *(each.grad for each in inputs)])
        for one, other in zip(*found):
            assert (one - other).abs().max() <= bound * other.abs().max()
    finally:
        torch.distributed.destroy_process_group()
