"""Losses for rare classes: against float64 sums over single pixels, and silent where labels are ignored."""

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_gpt.checks.trials import loss_problem
from mmseg_gpt.recipes.losses import LOSSES, class_weights, loss_settings
from mmseg_gpt.segmentation import cross_entropy

EPS = 1e-3
WEIGHTS = [0.5, 1., 3., 1.]


@pytest.fixture
def pixels() -> tuple[Tensor, Tensor]:
    """Logits (2, 4, 6, 5) in float64, and labels without class 3, of which a fifth are ignored."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (2, 6, 5), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    logits = torch.randn(2, 4, 6, 5, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), labels


def sums_of(logits: Tensor, labels: Tensor, power: int) -> list[list[tuple[Tensor, Tensor, int]]]:
    """Overlap, predicted and labelled sum of each class in each image, pixel by pixel."""
    found = []
    for image, label in zip(logits, labels):
        chosen = [(image[:, i, j].exp() / image[:, i, j].exp().sum(), int(label[i, j]))
                  for i in range(label.shape[0]) for j in range(label.shape[1]) if label[i, j] != 255]
        found.append([(sum(p[k] for p, y in chosen if y == k), sum(p[k]**power for p, _ in chosen),
                       sum(y == k for _, y in chosen)) for k in range(len(image))])
    return found


def expected_dice(logits: Tensor, labels: Tensor, naive: bool, by_class: bool) -> Tensor:
    power, above, below = (1, EPS, EPS) if naive else (2, 0, 2 * EPS)
    images = []
    for image in sums_of(logits, labels, power):
        groups = [[each] for each in image if each[2]] if by_class else [image]
        scores = [(2 * sum(a for a, _, _ in group) + above) / (sum(b + c for _, b, c in group) + below)
                  for group in groups]
        images.append(1 - sum(scores) / len(scores))
    return sum(images) / len(images)


@pytest.mark.parametrize('naive', [False, True])
@pytest.mark.parametrize('kind', ['DiceLoss', 'ClassDiceLoss'])
def test_dice_losses_are_sums_over_labelled_pixels(kind, naive, pixels, monkeypatch):
    monkeypatch.setitem(cross_entropy.BAND, 'cpu', 200)
    options = dict(use_sigmoid=False) if kind == 'DiceLoss' else {}
    loss = MODELS.build(dict(type=kind, naive_dice=naive, eps=EPS, loss_weight=2., **options))(
        *pixels, ignore_index=255)
    expected = 2 * expected_dice(*pixels, naive, kind == 'ClassDiceLoss')
    exact = 1e-12 if kind == 'ClassDiceLoss' else 1e-7  # mmsegmentation counts labels in float32
    torch.testing.assert_close(loss, expected, rtol=exact, atol=0)
    ours, theirs = (torch.autograd.grad(each, pixels[0])[0] for each in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=exact / 100)


def of_head(kind: str, losses: object, labels: Tensor, grid: tuple[int, int] = (3, 4)) -> tuple[dict, Tensor]:
    """The losses of a head for random features, and their gradient by the features of each image."""
    torch.manual_seed(0)
    options = {'LeanSETRUPHead': dict(num_convs=1, up_scale=2, channels=8), 'LinearHead': dict(channels=6),
               'FCNHead': dict(num_convs=1, channels=8), 'LeanFCNHead': dict(num_convs=1, channels=8)}[kind]
    head = MODELS.build(dict(type=kind, in_channels=6, num_classes=4, dropout_ratio=0, norm_cfg=dict(type='BN'),
                             align_corners=False, loss_decode=losses, **options)).double().eval()
    x = torch.randn(2, 6, *grid, dtype=torch.float64).requires_grad_()
    found = head.loss((x, ), [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels], None)
    sum(value for name, value in found.items() if 'loss' in name).backward()
    return found, x.grad


@pytest.mark.parametrize('kind', ['LeanSETRUPHead', 'LinearHead', 'FCNHead', 'LeanFCNHead'])
@pytest.mark.parametrize('dice', [dict(type='DiceLoss', use_sigmoid=False), dict(type='DiceLoss'),
                                  dict(type='ClassDiceLoss')], ids=['softmax', 'sigmoid', 'of classes'])
def test_ignored_pixels_have_no_gradient(kind, dice):
    losses = [dict(type='CrossEntropyLoss', class_weight=WEIGHTS, avg_non_ignore=True), dice]
    labels = torch.randint(4, (2, 6, 8))
    labels[1] = 255
    found, gradient = of_head(kind, losses, labels)
    assert gradient[0].any() and not gradient[1].any()
    assert torch.isfinite(sum(found.values())).all()


@pytest.mark.parametrize('dice', ['DiceLoss', 'ClassDiceLoss'])
def test_losses_in_bands_of_logits_that_are_two_thirds_as_large(dice, monkeypatch):
    monkeypatch.setitem(cross_entropy.BAND, 'cpu', 1)
    options = dict(use_sigmoid=False) if dice == 'DiceLoss' else {}
    losses = [dict(type='CrossEntropyLoss', class_weight=WEIGHTS), dict(type=dice, **options)]
    labels = torch.randint(4, (2, 9, 12))
    labels[:, :2, 3:] = 255
    ours, theirs = (of_head(kind, losses, labels, (6, 8)) for kind in ('LeanFCNHead', 'FCNHead'))
    for name, value in theirs[0].items():
        torch.testing.assert_close(ours[0][name].double().reshape(-1), value.double().reshape(-1), rtol=1e-6, atol=0)
    torch.testing.assert_close(ours[1], theirs[1], rtol=0, atol=1e-8)


def test_labels_that_are_all_ignored_teach_nothing():
    losses = [dict(type='CrossEntropyLoss', class_weight=WEIGHTS), dict(type='ClassDiceLoss')]
    for kind in ('LeanSETRUPHead', 'FCNHead'):
        found, gradient = of_head(kind, losses, torch.full((2, 6, 8), 255))
        assert found['loss_ce'] == found['loss_dice'] == 0 and not gradient.any()


def test_rare_classes_get_weights_within_limits():
    # The median of those that occur is 400.
    assert class_weights([100, 400, 1600, 0, 1, 100000]) == [4., 1., 0.25, 1., 10., 0.1]
    assert class_weights([100, 400, 1], cap=2) == [1., 0.5, 2.]
    with pytest.raises(ValueError, match='pixels of some class'):
        class_weights([0, 0])


@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('kind', ['LeanSETRUPHead', 'FCNHead'])
def test_losses_of_a_recipe_weigh_classes_and_pass_over_ignored_pixels(name, kind):
    labels = torch.randint(4, (2, 6, 8))
    labels[:, :2] = 255
    found, _ = of_head(kind, loss_settings(name, WEIGHTS, 0.4), labels)
    assert ('loss_dice' in found) is ('dice' in name)
    even, _ = of_head(kind, loss_settings(name, loss_weight=0.4), labels)
    assert abs(found['loss_ce'] - even['loss_ce']) > 1e-4
    losses = loss_settings(name, WEIGHTS)
    with DefaultScope.overwrite_default_scope('mmseg'):
        assert not any(loss_problem(each, dict(num_classes=4)) for each in (losses if 'dice' in name else [losses]))


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match=r"no loss 'focal'; there are ce, ce\+dice"):
        loss_settings('focal')
