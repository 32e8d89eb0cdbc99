"""The benchmark of data loading, and the crop that it made faster."""

import itertools
import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmseg.datasets.transforms import RandomCrop
from tiny import write_run
from torch.utils.data import DataLoader, Dataset

from mmseg_gpt.lab.benchmark.loading import (
    REST,
    compare_rates,
    draw_images,
    endless,
    measure_rate,
    ratio_range,
    time_transforms,
    workers_needed,
)
from mmseg_gpt.segmentation import HistogramRandomCrop

TOOL = Path(__file__).parents[1] / 'tools/benchmark_data.py'


class Clock:
    """A clock that stands still but for what sleeps: what is measured does not depend on the machine."""

    def __init__(self) -> None:
        self.now = 0.

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


@pytest.fixture
def clock(monkeypatch) -> None:
    """Lets the clock of the tests be that of the measurements."""
    monkeypatch.setattr('mmseg_gpt.lab.benchmark.loading.perf_counter', CLOCK)


class Slow(Dataset):
    """Images that take a while each, in a pipeline of transforms and outside of it."""

    class Pipeline:
        def __init__(self) -> None:
            self.transforms = [Wait(0.004), Add(), Add()]

    def __init__(self, seconds: float = 0.) -> None:
        self.pipeline, self.seconds = self.Pipeline(), seconds

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict:
        CLOCK.sleep(self.seconds)
        data = dict(inputs=np.zeros(2))
        for transform in self.pipeline.transforms:
            data = transform(data)
        return data


class Wait:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, data: dict) -> dict:
        CLOCK.sleep(self.seconds)
        return data


class Add:
    def __call__(self, data: dict) -> dict:
        return dict(inputs=data['inputs'] + 1)


def test_the_time_of_each_transform_and_of_what_is_around_them(clock):
    costs = {cost.name: cost for cost in time_transforms(DataLoader(Slow(0.002)), 12)}  # more than there are
    assert list(costs) == ['Wait', 'Add', REST]
    assert {name: cost.milliseconds for name, cost in costs.items()} == pytest.approx({'Wait': 4, 'Add': 0, REST: 2})
    assert costs['Wait'].share == pytest.approx(2 / 3)
    assert sum(cost.share for cost in costs.values()) == pytest.approx(1)


def test_a_rate_counts_images_over_the_end_of_an_epoch(clock):
    assert measure_rate(DataLoader(Slow(), batch_size=2), 5) == pytest.approx(250)  # 4 ms each


def test_loaders_are_measured_in_turns_and_built_anew(clock):
    built = []

    def build(name: str, seconds: float) -> DataLoader:
        built.append(name)
        return DataLoader(Slow(seconds))

    rates = compare_rates(dict(a=lambda: build('a', 0.), b=lambda: build('b', 0.02)), batches=2, rounds=3)
    assert built == ['a', 'b', 'b', 'a', 'a', 'b'] and len(rates['a']) == len(rates['b']) == 3
    assert ratio_range(rates['a'], rates['b'])['low'] == pytest.approx(6)  # 4 ms an image against 24
    assert ratio_range([2., 4., 9.], [1., 1., 3.]) == dict(median=3., low=2., high=4.)


def test_a_loader_without_a_batch_is_an_error_and_not_endless():
    with pytest.raises(ValueError, match='drop_last'):
        measure_rate(DataLoader(Slow(), batch_size=6, drop_last=True), 1)
    assert list(itertools.islice(endless([1, 2]), 5)) == [1, 2, 1, 2, 1]


def test_workers_needed():
    assert workers_needed({0: 30., 1: 25., 4: 90.}, 400) == 14
    assert workers_needed({2: 100.}, 400) == 8


def test_drawn_images_have_the_sizes_asked_for_and_labels(tmp_path):
    draw_images(tmp_path / 'x', tmp_path / 'y', 3, sizes=((64, 40), (33, 48)))
    for i, shape in enumerate([(40, 64), (48, 33), (40, 64)]):
        image, labels = (cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
                         for name in (f'x/0000{i}.jpg', f'y/0000{i}.png'))
        assert image.shape == (*shape, 3) and labels.shape == shape and 0 < labels.max() <= 9


@pytest.mark.parametrize('options', [(), pytest.param(('--generate', '3'), marks=pytest.mark.slow)])
def test_the_tool_measures_what_a_run_loads(tmp_path, monkeypatch, capsys, options):
    monkeypatch.chdir(write_run(tmp_path))
    monkeypatch.syspath_prepend(TOOL.parent)
    monkeypatch.setattr('mmseg_gpt.lab.benchmark.loading.SIZES', ((48, 40), ))
    monkeypatch.setattr(sys, 'argv', [str(TOOL), 'small.py', '--workers', '0,1', '--batches', '1', '--rounds', '2',
                                      '--json', 'out.json', *options])
    runpy.run_path(str(TOOL), run_name='__main__')
    found, printed = json.loads(Path('out.json').read_text()), capsys.readouterr().out
    assert found['drawn'] == (3 if options else 0) and list(found['rates']) == ['0', '1']
    assert all(len(rates[name]) == 2 and min(rates[name]) > 0 for rates in found['rates'].values()
               for name in ('ours', 'plain'))
    names = [transform['name'] for transform in found['transforms']]
    assert names[0] == 'LoadImageFromFile' and {'RandomCrop', 'PackSegInputs', REST} <= set(names)
    assert f'need {found["workers_needed"]} workers' in printed and 'ratio' in printed and 'RandomFlip' in printed


# --- the crop --------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', [np.uint8, np.int64])
@pytest.mark.parametrize('ratio', [0.75, 0.4, 1.])
def test_crops_are_those_of_mmsegmentation(kind, ratio):
    random = np.random.default_rng(0)
    retried = set()
    for i in range(60):
        height, width = random.integers(20, 90, 2)
        labels = np.full((height, width), 255 if i % 7 == 0 else 3, kind)
        for number in range(random.integers(0, 6)):
            top, left = random.integers(0, height), random.integers(0, width)
            labels[top:top + 40, left:left + 40] = (number, 255)[random.integers(2)]
        results = dict(img=np.zeros((height, width, 3)), gt_seg_map=labels)
        boxes, states = [], []
        for kind_of_crop in (RandomCrop, HistogramRandomCrop):
            crop = kind_of_crop(crop_size=(32, 48), cat_max_ratio=ratio)
            np.random.seed(i)
            boxes.append(crop.crop_bbox(results))
            states.append(np.random.get_state()[2])
        assert boxes[0] == boxes[1] and states[0] == states[1], 'another number of draws'
        retried.add(states[0])
    assert len(retried) > 3 or ratio == 1


@pytest.mark.parametrize('ignored', [-1, 0, 3, 300])
def test_any_label_may_be_ignored_in_a_crop(ignored):
    for kind in (np.uint8, np.int64):
        labels = np.array([[3] * 6 + [255] * 3 + [0]], kind)
        wanted = {-1: (0.7, 0.5), 0: (0.7, 0.6), 3: (0.8, 0.7), 300: (0.7, 0.5)}[ignored]
        for ratio, mixed in zip(wanted, (True, False)):
            crop = HistogramRandomCrop(crop_size=(1, 10), cat_max_ratio=ratio, ignore_index=ignored)
            assert crop.is_mixed(labels) == mixed
    if ignored == -1:
        assert not crop.is_mixed(np.array([[-1, -1, 2]]))
