"""A pool answers images of several tasks with one pass of the ViT, and says which go together and why."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import randomise
from mmengine.config import ConfigDict
from mmengine.dataset import Compose
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

import mmseg_gpt.segmentation  # noqa: F401  registers its models
from mmseg_gpt.apis import AdapterPool, ServedTask
from mmseg_gpt.models import mixed
from mmseg_gpt.recipes.experiment import classifier
from mmseg_gpt.recipes.linear import PROTOCOLS
from mmseg_gpt.recipes.methods import METHODS, options

pytest.importorskip('mmpretrain')
ARCH = dict(embed_dims=16, num_layers=3, num_heads=2, mlp_ratio=2)
FROZEN = [name for name, row in METHODS.items() if row.frozen]
IMAGE = np.random.default_rng(0).integers(0, 256, (3, 40, 56, 3), dtype=np.uint8)


class Pack:
    """Packs an image for a model, without mmsegmentation's or mmpretrain's pipelines."""

    def __init__(self, side: int | None, sample: type) -> None:
        self.side, self.sample = side, sample

    def __call__(self, read: dict) -> dict:
        pixels = torch.from_numpy(read['img']).permute(2, 0, 1)[:, :self.side, :self.side].contiguous()
        size = tuple(pixels.shape[1:])
        return dict(inputs=pixels, data_samples=self.sample(metainfo=dict(
            ori_shape=size, img_shape=size, pad_shape=size)))


class Reader:
    to_float32 = False


def segmentor(backbone: dict, **test_cfg) -> dict:
    head = dict(type='LinearHead', num_classes=5, in_channels=16, channels=16, norm_cfg=dict(type='BN'),
                dropout_ratio=0, align_corners=False, in_index=0)
    return dict(type='LeanEncoderDecoder', backbone=dict(backbone, out_type='normed_featmap'), decode_head=head,
                data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 32), mean=[120.] * 3, std=[60.] * 3),
                test_cfg=ConfigDict(dict(mode='slide', crop_size=(32, 32), stride=(24, 24)) | test_cfg))


def classifying(backbone: dict) -> dict:
    model = classifier(dict(backbone, out_type='mean_all'), 4, PROTOCOLS['paper'])
    model['head']['in_channels'] = 16
    return dict(model, data_preprocessor=dict(mean=[110.] * 3, std=[50.] * 3, to_rgb=True))


def served(kind: str, adapted: dict, number: int, **changes) -> ServedTask:
    """A task with random adapters and a random head, in float64."""
    backbone = dict(dict(type='GatedPromptViT', arch=ARCH, img_size=32, patch_size=8), **adapted)
    if kind == 'mmseg':
        from mmseg.structures import SegDataSample as Sample
        settings, side = segmentor(backbone, **changes), None
    else:
        from mmpretrain.structures import DataSample as Sample
        settings, side = classifying(backbone), 32
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(kind):
        model = MODELS.build(settings).double().eval()
    model.backbone.norm.weight.data.fill_(1.5)
    torch.manual_seed(1 + number)
    for name, value in mixed.adapter_state(model.backbone).items():
        value.data = torch.rand_like(value) * 2 + 0.2 if name == 'temperature' else torch.randn_like(value)
    randomise(model.decode_head if kind == 'mmseg' else model.head)
    return ServedTask(model, model.backbone, 'random', Reader(), Compose([Pack(side, Sample)]))


def pool_of(one_pass: bool | None, **tasks: ServedTask) -> AdapterPool:
    pool = AdapterPool('cpu', one_pass=one_pass)
    for name, task in tasks.items():
        pool._take_in(name, task)
    return pool


def logits_of(pool: AdapterPool, call: Callable[[], object]) -> dict[str, list[Tensor]]:
    """What each task's head gives, image by image or window by window."""
    found = {name: [] for name in pool.tasks}
    handles = []
    for name, task in pool.tasks.items():
        head = task.model.decode_head.conv_seg if hasattr(task.model, 'decode_head') else task.model.head.fc
        handles.append(head.register_forward_hook(lambda _, __, output, name=name: found[name].extend(output)))
    call()
    for handle in handles:
        handle.remove()
    return found


def count_passes(pool: AdapterPool, call: Callable[[], object]) -> int:
    """How often the first block of the ViT runs."""
    counted = []
    handles = [task.vit.blocks[0].register_forward_hook(lambda *_: counted.append(1)) for task in pool.tasks.values()]
    call()
    for handle in handles:
        handle.remove()
    return len(counted)


@pytest.mark.parametrize('kind', ['mmseg', 'mmpretrain'])
@pytest.mark.parametrize('method', FROZEN)
def test_one_pass_answers_as_each_model_alone(kind, method):
    pool = pool_of(True, **{f'task{i}': served(kind, options(method, 4, 0.), i) for i in range(3)})
    requests = [('task0', IMAGE[0]), ('task1', IMAGE[1]), ('task0', IMAGE[2]), ('task2', IMAGE[1])]
    plan, = pool.plan(requests)
    assert plan.together and plan.tasks == ('task0', 'task1', 'task2') and sorted(plan.places) == [0, 1, 2, 3]
    assert '32x32' in plan.reason and count_passes(pool, lambda: pool.predict(requests)) == 1
    answers = []
    together = logits_of(pool, lambda: answers.extend(pool.predict(requests)))
    pool.one_pass = False
    alone = []
    expected = logits_of(pool, lambda: [alone.extend(pool.predict([request])) for request in requests])
    for name in pool.tasks:
        assert len(together[name]) == len(expected[name]) == (2 if name == 'task0' else 1) * (
            4 if kind == 'mmseg' else 1)
        for ours, theirs in zip(together[name], expected[name]):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(together['task1'][0], together['task2'][0])
    for ours, theirs in zip(answers, alone, strict=True):
        if kind == 'mmseg':
            assert torch.equal(ours.pred_sem_seg.data, theirs.pred_sem_seg.data)
            assert ours.pred_sem_seg.data.shape == (1, 40, 56)
        else:
            torch.testing.assert_close(ours.pred_score, theirs.pred_score, rtol=1e-12, atol=1e-12)


def test_the_plan_says_what_goes_together_and_why_the_rest_does_not():
    gpt = options('gpt', 4, 0.)
    tasks = dict(
        seg=served('mmseg', gpt, 0), seg2=served('mmseg', gpt, 1), whole=served('mmseg', gpt, 2, mode='whole'),
        cub=served('mmpretrain', gpt, 3), more=served('mmpretrain', options('gpt', 5, 0.), 4),
        late=served('mmpretrain', dict(gpt, start_block=1), 5), cub2=served('mmpretrain', gpt, 6))
    pool = pool_of(True, **tasks)
    requests = [(name, IMAGE[0]) for name in tasks]
    reasons = {each.tasks: (each.together, each.reason) for each in pool.plan(requests)}
    assert reasons == {
        ('seg', 'seg2'): (True, 'one pass of images of 32x32 pixels'),
        ('cub', 'cub2'): (True, 'one pass of images of 32x32 pixels'),
        ('whole', ): (False, 'no other task has images of 40x56 pixels here'),
        ('more', ): (False, 'it differs from cub in number of prompts'),
        ('late', ): (False, 'it differs from cub in start_block'),
    }
    assert str(pool.plan(requests)[0]) == '2 of seg, seg2: one pass of images of 32x32 pixels'
    assert count_passes(pool, lambda: pool.predict(requests)) == 1 + 1 + 1 + 1 + 1
    pool.one_pass = False
    assert {each.reason for each in pool.plan(requests)} == {'passes of several tasks are switched off'}
    assert pool.plan(requests[:1])[0].tasks == ('seg', )
    pool.one_pass = True
    assert pool.plan(requests[:1])[0].reason == 'there is no image for another task'
    large = np.zeros((32, 32 + 8 * 24, 3), np.uint8)
    assert {each.reason for each in pool.plan([('seg', large), ('seg2', large)])} == {
        'the image has 9 windows, which fill passes of their own'}
    tasks['seg'].model.test_cfg.keep_logits = True
    assert pool.plan([('seg', IMAGE[0]), ('seg2', IMAGE[0])])[0].reason == 'its windows are cut out by mmsegmentation'


def test_on_a_cpu_images_of_many_tokens_go_task_by_task(monkeypatch):
    gpt = options('gpt', 4, 0.)
    pool = pool_of(None, one=served('mmpretrain', gpt, 0), two=served('mmpretrain', gpt, 1))
    requests = [('one', IMAGE[0]), ('two', IMAGE[0])]
    assert pool.plan(requests)[0].together  # 1 + 16 + 4 tokens
    monkeypatch.setattr('mmseg_gpt.apis.passes.CPU_TOKENS', 20)
    assert [each.together for each in pool.plan(requests)] == [False, False]
    assert pool.plan(requests)[0].reason.startswith('an image has 21 tokens, and above 20 a CPU is no faster')
    pool.device = torch.device('meta')  # as on a GPU
    assert pool.plan(requests)[0].together


def test_passes_are_bounded(monkeypatch):
    pool = pool_of(True, **{name: served('mmseg', options('gpt', 4, 0.), i) for i, name in enumerate('abc')})
    monkeypatch.setattr('mmseg_gpt.apis.passes.MOST_TOKENS', 2 * 4 * 21)
    requests = [(name, IMAGE[0]) for name in 'abcab']
    plan = pool.plan(requests)
    assert [each.places for each in plan] == [(0, 3), (1, 4), (2, )] and all(each.together for each in plan)
    found = pool.predict(requests)
    pool.one_pass = False
    for ours, theirs in zip(found, pool.predict(requests), strict=True):
        assert torch.equal(ours.pred_sem_seg.data, theirs.pred_sem_seg.data)


def test_a_model_that_asks_for_other_images_gets_their_own_features():

    class Flipping(nn.Module):
        """A backbone's wrapper that changes the images."""

        def __init__(self, vit: nn.Module) -> None:
            super().__init__()
            self.vit = vit

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            return self.vit(images.flip(3))

    tasks = {name: served('mmpretrain', options('gpt', 4, 0.), i) for i, name in enumerate('ab')}
    tasks['a'].model.backbone = Flipping(tasks['a'].vit)
    pool = pool_of(True, **tasks)
    requests = [('a', IMAGE[0]), ('b', IMAGE[0])]
    found = pool.predict(requests)
    pool.one_pass = False
    for ours, theirs in zip(found, pool.predict(requests), strict=True):
        torch.testing.assert_close(ours.pred_score, theirs.pred_score, rtol=1e-12, atol=1e-12)
    assert 'forward' not in vars(tasks['a'].vit)


@pytest.mark.parametrize('one_pass', [True, False])
def test_an_image_is_answered_by_the_task_it_was_prepared_for(one_pass):
    """A task may be removed, and another one added under its name, while images wait."""
    gpt = options('gpt', 4, 0.)
    pool = pool_of(one_pass, a=served('mmpretrain', gpt, 0))
    waits = pool.prepare('a', IMAGE[0])
    expected = pool.predict([('a', IMAGE[0])])
    pool.remove('a')
    pool._take_in('a', served('mmpretrain', gpt, 1))
    expected += pool.predict([('a', IMAGE[0])])
    found = pool.answer([waits, pool.prepare('a', IMAGE[0])])
    assert not torch.allclose(expected[0].pred_score, expected[1].pred_score)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.pred_score, theirs.pred_score, rtol=1e-12, atol=1e-12)
