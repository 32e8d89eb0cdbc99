"""What is said of labels that would silently mean something else, and of means over fewer classes than there are."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.evaluation import IoUMetric

from mmseg_gpt.checkpoints import CheckpointError
from mmseg_gpt.checks import checkpoint as checks
from mmseg_gpt.checks import data
from mmseg_gpt.checks.labels import wrong_ignored
from mmseg_gpt.datasets import LabelRule
from mmseg_gpt.segmentation import PerClassIoUMetric, metrics

CLASSES = ('sky', 'road', 'car')


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """The warnings."""
    kept: list[str] = []
    for module in (data, checks, metrics):
        monkeypatch.setattr(module, 'print_log', lambda text, logger, level=logging.INFO: kept.append(text))
    return kept


def settings(dataset: int, head: int, metric: int) -> tuple[Config, LabelRule, dict]:
    cfg = Config(dict(val_evaluator=[dict(type='IoUMetric', ignore_index=metric),
                                     dict(type='IoUMetric', format_only=True, ignore_index=7)]))
    return cfg, LabelRule(3, ignore_index=dataset), {'model.decode_head': dict(ignore_index=head)}


@pytest.mark.parametrize('numbers', [(11, 11, 255), (11, 255, 11), (255, 11, 11)])
def test_an_ignored_number_that_is_not_shared_is_refused_with_all_that_say_one(numbers):
    cfg, rule, heads = settings(*numbers)
    problem, = wrong_ignored(cfg, 'val_dataloader', rule, heads)
    for name, number in zip(('val_dataloader.dataset', 'model.decode_head', 'val_evaluator.0'), numbers):
        assert f'{name}.ignore_index is {number}' in problem


def test_an_ignored_number_that_is_shared_passes():
    cfg, rule, heads = settings(11, 11, 11)
    assert wrong_ignored(cfg, 'val_dataloader', rule, heads) == []
    assert wrong_ignored(cfg, 'train_dataloader', rule, heads) == []
    problem, = wrong_ignored(cfg, 'val_dataloader', rule._replace(reduce_zero_label=True), heads)
    assert 'makes 0 in label maps into 255, but ignore_index is 11' in problem


def odd(values: list[int], said: list[str], number: int = 1, **rule) -> tuple[list[str], list[str]]:
    """Problems and warnings of one label map with these values, of ``number`` in the dataset."""
    pixels = np.bincount(values, minlength=256)
    said.clear()
    dataset = SimpleNamespace(metainfo=dict(classes=CLASSES))
    return data.odd_labels(dataset, [(LabelRule(3, **rule), pixels)], number, 'train_dataloader'), list(said)


def test_reduce_zero_label_that_swallows_a_class(said):
    problems, _ = odd([0, 0, 1, 2], said, reduce_zero_label=True)
    assert 'have the numbers 0 to 2 and none has 3, so that car would never occur' in problems[0]
    assert odd([0, 1, 2, 3], said, reduce_zero_label=True) == ([], [])
    problems, warnings = odd([0, 1, 2], said, 100, reduce_zero_label=True)  # the others may have class 3
    assert not problems and 'the 1 of 100 label maps' in warnings[0]
    assert odd([0, 1, 2], said) == ([], [])


def test_255_that_is_meant_as_a_class(said):
    problems, _ = odd([0, 255, 255], said)
    assert 'have the class sky and ignored pixels (255), and nothing else' in problems[0] and '0 to 2' in problems[0]
    assert odd([0, 255], said, 100)[1][0].startswith('train_dataloader: the 1 of 100')
    assert odd([255], said)[0] == []  # which the metric refuses


def test_classes_without_a_pixel_are_warned_of(said):
    assert odd([0, 1, 255], said) == ([], ['train_dataloader: 1 of 3 classes have no pixel: car'])
    assert odd([0, 1, 255], said, 100) == ([], [])


def evaluate(metric: IoUMetric, predicted: list[int], labels: list[int]) -> dict:
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process({}, [dict(pred_sem_seg=dict(data=torch.tensor([predicted])),
                             gt_sem_seg=dict(data=torch.tensor([labels])))])
    return metric.compute_metrics(metric.results)


@pytest.mark.parametrize('kind', [IoUMetric, PerClassIoUMetric])
def test_a_mean_says_over_which_classes_it_is(kind, said):
    metric = kind()
    assert evaluate(metric, [0, 0, 1, 1], [0, 0, 1, 0])['mIoU'] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2, abs=0.01)
    assert 'over 2 of 3 classes: not over car' in said[0] and len(said) == 1
    assert metric.covered == dict(declared=3, in_mIoU=2, not_in_mIoU=['car'], without_label=[])
    metric = kind()
    evaluate(metric, [0, 2, 1, 1], [0, 0, 1, 255])
    assert 'IoU is 0 for car' in said[1] and len(said) == 2 and metric.covered['without_label'] == ['car']
    metric = kind()
    evaluate(metric, [0, 1, 2], [0, 1, 2])
    assert metric.covered['in_mIoU'] == 3 and len(said) == 2


def test_classes_of_a_checkpoint_and_of_a_dataset_are_compared(said):
    checkpoint = dict(meta=dict(dataset_meta=dict(classes=list(CLASSES))))
    for same in (CLASSES, None):
        checks.check_names(same, checkpoint, 'a.pth')
    for nothing in (dict(), dict(meta={}), dict(meta=dict(dataset_meta={}))):
        checks.check_names(('a', 'b'), nothing, 'a.pth')
    assert not said
    with pytest.raises(CheckpointError, match=r"a.pth .*number 1 was 'road' and is 'car', number 2 was 'car'"):
        checks.check_names(('sky', 'car', 'road'), checkpoint, 'a.pth')
    with pytest.raises(CheckpointError, match='in their order'):
        checks.check_names(('a', 'b', 'c'), checkpoint, 'a.pth')
    with pytest.raises(CheckpointError, match='has 4: the first are the same'):
        checks.check_names((*CLASSES, 'tree'), checkpoint, 'a.pth')
    checks.check_names(('sky', 'street', 'car'), checkpoint, 'a.pth')
    assert "number 1 was 'road' and is 'street'" in said[0] and 'the scores are wrong' in said[0]
    checks.check_names(('a', 'b', 'c'), checkpoint, 'a.pth', strict=False)
    assert 'begin with weights of other classes' in said[1]
