"""LeanSETRUPHead against mmsegmentation's SETRUPHead: same names, same numbers, less kept."""

import copy
from collections.abc import Callable

import mmseg.models  # noqa: F401  registers the stock head
import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmseg_gpt.segmentation import LeanSETRUPHead, cross_entropy
from mmseg_gpt.segmentation.cross_entropy import upsampled_cross_entropy

BASE = dict(in_channels=24, channels=8, num_classes=9, dropout_ratio=0, norm_cfg=dict(type='BN'), num_convs=4,
            up_scale=2, align_corners=False, in_index=0, loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4))
GRID = (3, 5)


def losses(**options) -> dict:
    return dict(loss_decode=dict(type='CrossEntropyLoss', **options))


def with_dice(**options) -> dict:
    return dict(loss_decode=[dict(type='CrossEntropyLoss', class_weight=WEIGHTS), options])


WEIGHTS = [1.] * 7 + [0.2, 3.]
PUP = {
    'decode': {},
    'auxiliary': dict(num_convs=2, up_scale=4),
    'odd scale': dict(num_convs=1, up_scale=3),
    'scale 5': dict(num_convs=2, up_scale=5),
    'scale 1': dict(num_convs=2, up_scale=1),
    'mean of labelled': losses(avg_non_ignore=True),
    '1x1': dict(kernel_size=1),
    'class weights': losses(class_weight=WEIGHTS),
    'class weights, mean of labelled': losses(class_weight=WEIGHTS, avg_non_ignore=True),
    'and Dice': with_dice(type='DiceLoss', use_sigmoid=False),
    'and naive Dice': with_dice(type='DiceLoss', use_sigmoid=False, naive_dice=True, loss_weight=3.),
    'and Dice of classes': with_dice(type='ClassDiceLoss'),
    'and naive Dice of classes': with_dice(type='ClassDiceLoss', naive_dice=True),
}
PLAIN = {
    'no convolutions': dict(num_convs=0, channels=24),
    'align_corners': dict(align_corners=True),
    'dropout': dict(dropout_ratio=0.5),
    'sum': losses(reduction='sum'),
    'sigmoid': losses(use_sigmoid=True),
    'Dice of sigmoids': with_dice(type='DiceLoss'),
    'Dice without a class': with_dice(type='DiceLoss', use_sigmoid=False, ignore_index=3),
    'Dice alone': dict(loss_decode=dict(type='ClassDiceLoss')),
    'hard pixels': dict(sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=100)),
    'no norm': dict(norm_cfg=None),
    'group norm': dict(norm_cfg=dict(type='GN', num_groups=2)),
    'GELU': dict(act_cfg=dict(type='GELU')),
}


@pytest.fixture
def pair() -> Callable[..., list[nn.Module]]:
    """A factory of a stock head and a lean one with the same random weights, in float64."""

    def make(**options) -> list[nn.Module]:
        heads = [MODELS.build({**BASE, **options, 'type': kind}).double() for kind in ('SETRUPHead', 'LeanSETRUPHead')]
        for parameter in heads[0].parameters():
            nn.init.normal_(parameter, std=0.3)
        heads[1].load_state_dict(heads[0].state_dict())
        return heads

    return make


def samples(labels: Tensor) -> list[SegDataSample]:
    return [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]


def batch(head: nn.Module, ignored: bool = True, factor: float = 1.) -> tuple[Tensor, list[SegDataSample]]:
    """Two feature maps, and labels of ``factor`` times the logits' size, of which the last columns are ignored."""
    torch.manual_seed(1)
    scale = int(head.up_convs[0][1].scale_factor)**len(head.up_convs) if head.up_convs else 1
    labels = torch.randint(0, 9, (2, 1, *(int(side * scale * factor) for side in GRID)))
    if ignored:
        labels[..., -3:] = 255
    return torch.randn(2, 24, *GRID, dtype=torch.float64), samples(labels)


def train(head: nn.Module, x: Tensor, labels: list[SegDataSample]) -> tuple[dict, dict, dict]:
    """Losses, all gradients and all buffers after one training step."""
    torch.manual_seed(2)  # of dropout
    x = x.clone().requires_grad_()
    found = head.loss((x, ), labels, None)
    sum(value for name, value in found.items() if 'loss' in name).backward()
    gradients = {name: parameter.grad for name, parameter in head.named_parameters()} | {'x': x.grad}
    return found, gradients, dict(head.named_buffers())


def assert_equal(ours: dict[str, Tensor], stock: dict[str, Tensor], tolerance: float = 1e-12) -> None:
    assert ours.keys() == stock.keys()
    for name, value in stock.items():
        exact = torch.float64 in (value.dtype, ours[name].dtype) and 'acc' not in name
        scale = value.abs().max().item()
        torch.testing.assert_close(ours[name].reshape(-1).to(value), value.reshape(-1), rtol=0,
                                   atol=(tolerance if exact else 1e-5) * max(scale, 1e-3))


@pytest.mark.parametrize('band', [1, 2000, 10**9])
@pytest.mark.parametrize('name', PUP)
def test_equals_the_stock_head(pair, name, band, monkeypatch):
    monkeypatch.setitem(cross_entropy.BAND, 'cpu', band)
    stock, lean = pair(**PUP[name])
    assert lean.commutes
    for ours, theirs in zip(train(lean, *batch(lean)), train(stock, *batch(stock))):
        assert_equal(ours, theirs, 1e-7 if 'DiceLoss' in str(PUP[name]) else 1e-12)  # which counts labels in float32
    x = batch(lean)[0]
    for mode in (True, False):
        torch.testing.assert_close(lean.train(mode)((x, )), stock.train(mode)((x, )), rtol=0, atol=1e-12)


@pytest.mark.parametrize('name', PLAIN)
def test_takes_the_plain_path_where_the_lean_one_is_not_exact(pair, name):
    stock, lean = pair(**PLAIN[name])
    data = batch(lean)
    for ours, theirs in zip(train(lean, *data), train(stock, *data)):
        assert_equal(ours, theirs)
    torch.testing.assert_close(lean.eval()((data[0], )), stock.eval()((data[0], )), rtol=0, atol=1e-12)


@pytest.mark.parametrize('factor', [0.5, 1.5])
def test_labels_of_another_size_are_met_by_resizing_twice(pair, factor):
    stock, lean = pair()
    data = batch(lean, factor=factor)
    for ours, theirs in zip(train(lean, *data), train(stock, *data)):
        assert_equal(ours, theirs)


@pytest.mark.parametrize('frozen', ['norms', 'all'])
def test_frozen_parts_stay_as_they_are(pair, frozen):
    stock, lean = pair()
    for head in (stock, lean):
        for module in head.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        if frozen == 'all':
            head.requires_grad_(False)
    ours, theirs = train(lean, *batch(lean)), train(stock, *batch(stock))
    assert_equal(ours[0] | ours[2], theirs[0] | theirs[2])
    assert_equal({'x': ours[1]['x']}, {'x': theirs[1]['x']})


def test_loss_without_gradients(pair):
    stock, lean = pair()
    with torch.no_grad():
        assert_equal(lean.loss((batch(lean)[0], ), batch(lean)[1], None),
                     stock.loss((batch(stock)[0], ), batch(stock)[1], None))


def test_labels_that_are_all_ignored_give_no_loss(pair):
    stock, lean = pair(**losses(avg_non_ignore=True))
    x, labels = batch(lean)
    for label in labels:
        label.gt_sem_seg.data.fill_(255)
    for ours, theirs in zip(train(lean, x, labels), train(stock, x, labels)):
        assert_equal(ours, theirs)


def test_bfloat16_is_as_close_to_the_exact_gradient_as_in_the_stock_head(pair):
    exact, lean = pair()
    stock = MODELS.build({**BASE, 'type': 'SETRUPHead'})
    stock.load_state_dict(lean.state_dict())
    wanted = train(exact, *batch(exact))
    distances = []
    for head in (lean.float(), stock):
        x, labels = batch(head)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            found, gradients, buffers = train(head, x.float(), labels)
        assert found['loss_ce'].dtype == torch.float32
        torch.testing.assert_close(found['loss_ce'].double(), wanted[0]['loss_ce'], rtol=0.02, atol=0)
        assert buffers['up_convs.0.0.bn.num_batches_tracked'] == 1
        distances.append(sum((gradients[n] - g).norm() / g.norm() for n, g in wanted[1].items() if g.norm() > 1e-6))
    assert distances[0] <= 1.2 * distances[1]


class Made(TorchDispatchMode):
    """Notes what operations make: the memory of each tensor, without keeping it, by shape."""

    def __init__(self) -> None:
        super().__init__()
        self.by_shape: dict[tuple[int, ...], set[StorageWeakRef]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.by_shape.setdefault(tuple(tensor.shape), set()).add(StorageWeakRef(tensor.untyped_storage()))
        return out

    def alive(self, *shape: int) -> int:
        """How many tensors of that shape are still there."""
        return sum(not memory.expired() for memory in self.by_shape.get(shape, ()))


@pytest.mark.parametrize('name', ['decode', 'class weights', 'and Dice', 'and Dice of classes'])
def test_logits_of_full_size_are_never_made_in_training(pair, name, monkeypatch):
    monkeypatch.setitem(cross_entropy.BAND, 'cpu', 2000)
    height, width = (16 * side for side in GRID)
    for head, expected in zip(pair(**PUP[name]), (True, False)):
        with Made() as made:
            train(head, *batch(head))
        assert any((images, 9, height, width) in made.by_shape for images in (1, 2)) is expected


def test_one_feature_map_of_each_stage_is_kept_for_the_backward(pair):
    _, lean = pair()
    x, labels = batch(lean)
    with Made() as made:
        found = lean.loss((x.requires_grad_(), ), labels, None)
    assert [made.alive(2, 8, scale * GRID[0], scale * GRID[1]) for scale in (1, 2, 4, 8)] == [1, 1, 1, 1]
    with Made() as made:
        found['loss_ce'].backward()
    del found
    assert made.alive(2, 8, 8 * GRID[0], 8 * GRID[1]) == 0


@pytest.mark.parametrize('scale', [1, 2, 3, 4])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_upsampled_cross_entropy_is_that_of_torch(scale, layout, monkeypatch):
    monkeypatch.setitem(cross_entropy.BAND, 'cpu', 900)
    logits = torch.randn(2, 5, 7, 4, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    labels = torch.randint(0, 5, (2, 7 * scale, 4 * scale)).masked_fill(torch.rand(2, 7 * scale, 4 * scale) < 0.2, 99)
    loss, correct = upsampled_cross_entropy(3 * logits, labels, scale, 99)
    full = F.interpolate(3 * logits, scale_factor=scale, mode='bilinear', align_corners=False)
    wanted = F.cross_entropy(full, labels, ignore_index=99, reduction='sum')
    torch.testing.assert_close(loss, wanted, rtol=1e-13, atol=0)
    assert correct == (full.argmax(1) == labels).sum()
    gradient, = torch.autograd.grad(2.5 * loss, logits)
    torch.testing.assert_close(gradient, torch.autograd.grad(2.5 * wanted, logits)[0], rtol=0, atol=1e-13)


def test_a_label_that_no_pixel_prefers_has_a_finite_loss():
    logits = torch.tensor([0., 300.]).view(1, 2, 1, 1).requires_grad_()  # exp(-300) is 0 in float32
    loss, correct = upsampled_cross_entropy(logits, torch.zeros(1, 1, 1, dtype=torch.long), 1, 255)
    loss.backward()
    assert loss == 300 and correct == 0
    assert logits.grad.flatten().tolist() == [-1., 1.]


def test_half_precision_does_not_round_the_slope_of_the_loss():
    logits = torch.randn(1, 5, 8, 8).bfloat16()
    labels = torch.randint(0, 5, (1, 16, 16))
    norms = []
    for dtype in (torch.bfloat16, torch.float64):
        leaf = logits.to(dtype, copy=True).requires_grad_()
        (upsampled_cross_entropy(leaf, labels, 2, 255)[0] / 3).backward()  # 1/3 is 0.334 in bfloat16
        norms.append(leaf.grad.double().norm())
    torch.testing.assert_close(norms[0], norms[1], rtol=5e-4, atol=0)


def test_asking_twice_for_a_gradient_is_refused():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss, _ = upsampled_cross_entropy(logits, torch.zeros(1, 4, 4, dtype=torch.long), 2, 255)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match='once'):
        loss.backward()


def test_a_label_beyond_the_classes_is_an_error():
    with pytest.raises((IndexError, RuntimeError), match='out of bounds'):
        upsampled_cross_entropy(torch.randn(1, 3, 2, 2), torch.full((1, 4, 4), 3), 2, 255)


def test_stock_checkpoints_load_and_ours_load_into_the_stock_head(pair):
    stock, lean = pair()
    assert isinstance(lean, LeanSETRUPHead)
    assert [(n, t.shape) for n, t in stock.state_dict().items()] == [(n, t.shape) for n, t in lean.state_dict().items()]
    train(lean, *batch(lean))
    stock.load_state_dict(lean.state_dict())
    x = batch(lean)[0]
    torch.testing.assert_close(lean.eval()((x, )), stock.eval()((x, )), rtol=0, atol=1e-12)


def test_modules_that_do_something_of_their_own_are_called(pair):
    class Mixed(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return mix(None, None, super().forward(x))

    def mix(module, inputs, output):
        return output - output.roll(1, 1)

    for alter in (lambda head: setattr(head.up_convs[3][0].norm, '__class__', Mixed),
                  lambda head: head.up_convs[3][0].register_forward_hook(mix),
                  lambda head: head.up_convs[2][0].norm.register_forward_hook(mix),
                  lambda head: head.conv_seg.register_forward_hook(mix)):
        stock, lean = pair()
        plain = train(copy.deepcopy(lean), *batch(lean))[0]['loss_ce'].item()
        for head in (stock, lean):
            alter(head)
        ours, theirs = train(lean, *batch(lean)), train(stock, *batch(stock))
        assert_equal(ours[0] | ours[1], theirs[0] | theirs[1])
        assert abs(ours[0]['loss_ce'].item() - plain) > 1e-4


def test_the_backward_uses_the_weights_of_the_forward(pair):
    x, gradients = batch(pair()[0])[0], []
    for head in pair():
        leaf = x.clone().requires_grad_()
        logits = torch.func.functional_call(head, {n: 0.5 * p for n, p in head.named_parameters()}, ((leaf, ), ))
        gradients.append(torch.autograd.grad(logits.pow(2).sum(), leaf)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-12)


def test_a_second_backward_is_refused_in_words(pair):
    lean = pair()[1]
    loss = lean((batch(lean)[0], )).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match='one backward'):
        loss.backward()


def test_a_variance_of_one_value_is_refused_as_by_torch(pair):
    for head in pair():
        with pytest.raises(ValueError, match='more than 1 value per channel'):
            head((torch.randn(1, 24, 1, 1, dtype=torch.float64), ))
