"""Attention that multiplies whole heads at once: values and gradients, and when it is taken."""

import pytest
import torch
import torch.nn.functional as F

from mmseg_gpt.models import cpu_attention
from mmseg_gpt.models.cpu_attention import HeadsAtOnce, attend
from mmseg_gpt.models.vit import Attention


def heads(wanted: int, tokens: int, dtype: torch.dtype, width: int = 8) -> list[torch.Tensor]:
    """Draws queries, keys and values of 2 images and 3 heads, as views of another layout, as a ViT has them."""
    torch.manual_seed(0)
    return [torch.randn(2, number, 3, width, dtype=dtype).transpose(1, 2).requires_grad_()
            for number in (wanted, tokens, tokens)]


@pytest.mark.parametrize('at_once', [1, 4, 6])
def test_values_and_gradients_are_those_of_the_formula(monkeypatch, at_once):
    q, k, v = heads(3, 5, torch.float64)
    monkeypatch.setattr(cpu_attention, 'CHUNK', at_once * 3 * 5 * 8)
    explicit = ((q @ k.transpose(-1, -2)) / 8**0.5).softmax(-1) @ v
    assert torch.allclose(HeadsAtOnce.apply(q, k, v), explicit, rtol=1e-13, atol=1e-14)
    assert torch.autograd.gradcheck(HeadsAtOnce.apply, (q, k, v))


@pytest.mark.parametrize('shared', [0, 20])  # what all keys share, which is large in pretrained ViTs
def test_bfloat16_is_as_near_to_float64_as_its_roundings_allow(monkeypatch, shared):
    monkeypatch.setattr(cpu_attention, 'multiplies_bfloat16', lambda: True)
    found, exact = ({}, {})
    for values, dtype in ((found, torch.bfloat16), (exact, torch.float64)):
        q, k, v = heads(70, 70, torch.float32, 64)
        inputs = [x.detach().to(torch.bfloat16).to(dtype).requires_grad_() for x in (q, k + shared, v)]
        with torch.autocast('cpu', torch.bfloat16, enabled=dtype == torch.bfloat16):
            values['out'] = attend(*inputs, fused=False)
        values['out'].square().sum().backward()
        values.update({name: x.grad for name, x in zip('qkv', inputs, strict=True)})
    assert found['out'].grad_fn.name() == 'HeadsAtOnceBackward' != exact['out'].grad_fn.name()
    for name, value in exact.items():
        assert found[name].dtype == torch.bfloat16
        error = (found[name].double() - value).norm() / value.norm()
        assert error < 3 * 2**-8, name


@pytest.mark.parametrize('own', [True, False])
def test_only_bfloat16_on_a_cpu_that_multiplies_it_leaves_the_fused_kernel(monkeypatch, own):
    layer, called = Attention(16, 2), []
    monkeypatch.setattr(cpu_attention, 'multiplies_bfloat16', lambda: own)
    monkeypatch.setattr(cpu_attention.F, 'scaled_dot_product_attention', lambda q, k, v: called.append(q.dtype) or v)
    layer(torch.randn(1, 5, 16))
    layer.bfloat16()(torch.randn(1, 5, 16, dtype=torch.bfloat16))
    assert called == [torch.float32] + [torch.bfloat16] * (not own)


def test_a_graph_that_is_exported_has_the_fused_kernel(monkeypatch):
    monkeypatch.setattr(cpu_attention, 'multiplies_bfloat16', lambda: True)
    layer, tokens = Attention(16, 2).bfloat16().eval(), torch.randn(1, 5, 16, dtype=torch.bfloat16)
    with torch.no_grad():
        graph = torch.export.export(layer, (tokens, )).graph
    assert any(node.target is F.scaled_dot_product_attention or 'scaled_dot_product' in str(node.target)
               for node in graph.nodes)
