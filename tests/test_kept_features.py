"""Features that are kept are those that would be computed, and a run with them is the run without them."""

import copy
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from tiny_run import At, differing, run, saved, tiny_config

from mmseg_gpt.adapters import unwrap
from mmseg_gpt.engine import RunStopped
from mmseg_gpt.engine.hooks.keep_features import only_backbone
from mmseg_gpt.models import GatedPromptViT
from mmseg_gpt.models.kept_features import NAME, FeatureFile, KeptFeatures, identity_of

FLIPS = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True),
         dict(type='Resize', scale=(64, 64), keep_ratio=False), dict(type='RandomFlip', prob=0.5),
         dict(type='PackSegInputs')]
HEADS = dict(model__backbone__prompt=None, model__backbone__temperature=False, custom_hooks=[],
             train_cfg__max_iters=8, train_cfg__val_interval=4)


class Forwards(Hook):
    """Counts the images that go through the ViT, and notes scores, losses and what the features were read for."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.images, self.metrics, self.counts, self.bytes = 0, [], {}, 0

    def before_train(self, runner) -> None:
        unwrap(runner.model).backbone.patch_embed.register_forward_pre_hook(self.count)

    def count(self, module, inputs) -> None:
        self.images += len(inputs[0])

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        self.metrics.append(metrics)

    def after_train(self, runner) -> None:
        self.counts = dict((runner.message_hub.runtime_info.get('kept_features') or {}).get('counts', {}))
        file = Path(runner.work_dir, NAME)
        self.bytes = file.stat().st_size if file.is_file() else 0


def heads_only(folder: Path, name: str, pipeline: list | None = None, **options) -> Config:
    """A tiny config that trains heads, on 6 images that are flipped or not, in ``folder/name/run``."""
    cfg = tiny_config(folder, **HEADS | dict(work_dir=str(folder / name / 'run')) | options)
    cfg.train_dataloader.dataset.pipeline = copy.deepcopy(FLIPS if pipeline is None else pipeline)
    cfg.model.backbone.pop('prompt')
    return cfg


@pytest.fixture(scope='module')
def plain(tmp_path_factory) -> tuple[Path, Forwards]:
    """A run that keeps nothing."""
    folder, forwards = tmp_path_factory.mktemp('kept'), Forwards()
    run(heads_only(folder, 'plain'), forwards)
    return folder, forwards


def test_a_run_is_the_same_with_fewer_forwards(plain):
    folder, forwards = plain
    counting = Forwards()
    runner = run(heads_only(folder, 'kept', keep_features=True), counting)
    assert differing(saved(folder / 'plain', 8), saved(folder / 'kept', 8)) == []
    assert counting.metrics == forwards.metrics and len(counting.metrics) == 2
    counts = counting.counts
    assert counts['seen'] == 16 and counts['read'] >= 4  # 12 different images at most
    assert counts['val_seen'] == 2 * counts['val_read'] > 0  # the second validation needs no ViT
    assert counting.images == sum(counts[k] for k in ('seen', 'val_seen')) - counts['read'] - counts['val_read']
    assert counting.images < forwards.images and counting.bytes > 0
    assert not list((folder / 'kept/run').glob(f'{NAME}*'))  # a finished run needs them no more
    assert 'forward' not in vars(unwrap(runner.model).backbone)


@pytest.mark.slow
def test_in_bfloat16_too(plain):
    folder, _ = plain
    for name, kept in (('half', {}), ('half_kept', dict(keep_features=0.5))):
        run(heads_only(folder, name, optim_wrapper__type='Bf16OptimWrapper', **kept))
    assert differing(saved(folder / 'half', 8), saved(folder / 'half_kept', 8)) == []
    assert differing(saved(folder / 'half', 8), saved(folder / 'plain', 8))


def test_interrupted_and_resumed(plain):
    folder, _ = plain
    cfg = heads_only(folder, 'resumed', keep_features=True)
    cfg.train_dataloader.num_workers = 2
    with pytest.raises(KeyboardInterrupt):
        run(cfg, At(6, interrupt))
    index = Path(cfg.work_dir, f'{NAME}.jsonl')
    assert {0, 1} <= {json.loads(line)['iteration'] for line in index.read_text().splitlines()[1:]}
    with index.open('a') as file:
        file.write('{"key": "half a li')  # as after a crash
    cfg.resume, forwards = True, Forwards()
    run(cfg, forwards)
    assert differing(saved(folder / 'plain', 8), saved(folder / 'resumed', 8)) == []
    assert forwards.counts['seen'] == 16 and forwards.images < 8


def interrupt(runner, batch) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_given_up_where_no_image_comes_twice(plain, capsys):
    folder, _ = plain
    pipeline = copy.deepcopy(FLIPS)
    pipeline[2] = dict(type='RandomResize', scale=(64, 64), ratio_range=(1., 2.), keep_ratio=False)
    pipeline[4:4] = [dict(type='PhotoMetricDistortion'), dict(type='RandomCrop', crop_size=(64, 64))]
    forwards = Forwards()
    run(heads_only(folder, 'new', pipeline, keep_features=True), forwards)
    printed = capsys.readouterr().out
    assert printed.count('features of images are not kept any more') == 1
    assert 'iteration 7: features' in printed and 'none of the 12 images so far came twice' in printed
    assert forwards.counts['seen'] == 12 and forwards.counts['val_read'] == 0  # those of the first were removed
    run(heads_only(folder, 'new_plain', pipeline))
    assert differing(saved(folder / 'new', 8), saved(folder / 'new_plain', 8)) == []
    resumed = heads_only(folder, 'new', pipeline, keep_features=True, train_cfg__max_iters=10)
    resumed.update(resume=True, load_from=str(folder / 'new/run/iter_8.pth'))
    run(resumed, forwards)
    assert forwards.counts['seen'] == 12 and not capsys.readouterr().out.count('not kept any more')  # it stays off


def test_refused_where_the_vit_learns(plain, tiny_vit):
    with pytest.raises(RunStopped, match=r'tensors of the ViT \(blocks\.0\.attn\.qkv\.lora_a, \.\.\.\)'):
        run(heads_only(plain[0], 'refused', keep_features=True, model__backbone__lora=dict(rank=2)))
    with pytest.raises(RunStopped, match=r'trains 1 tensors of the ViT \(temperature\)'):
        only_backbone(tiny_vit(temperature=True))
    with pytest.raises(RunStopped, match='the model has 0 ViTs'):
        only_backbone(torch.nn.Linear(2, 2))


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def vit(tiny_vit) -> GatedPromptViT:
    return tiny_vit(out_indices=(1, 3)).float().requires_grad_(False)


def opened(folder: Path, vit: GatedPromptViT, limit: int = 10**9, before: int = 100) -> FeatureFile:
    return FeatureFile(folder, identity_of(vit), limit, before)


def test_known_and_unknown_images_in_one_batch(vit, tmp_path):
    images = torch.randn(3, 3, 32, 24)
    expected, singly = vit(images), [vit(image[None]) for image in images]
    kept = KeptFeatures(vit, opened(tmp_path, vit))
    vit(images[1:2])
    found = vit(images[[1, 0, 1, 2]])
    assert kept.counts['val_read'] == 2 and kept.counts['val_seen'] == 5
    for i, output in enumerate(found):
        assert torch.equal(output, torch.cat([singly[j][i] for j in (1, 0, 1, 2)]))
        assert torch.allclose(output, expected[i][[1, 0, 1, 2]], atol=1e-5)
    others = [images + 1e-6, images.double().float()[:, :, :, :20], images.transpose(2, 3)]
    for other in others:  # none of them is one of the images
        vit(other)
    assert kept.counts['val_read'] == 2
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = vit(images)
    assert kept.counts['val_read'] == 2 and not torch.equal(half[0].float(), expected[0])
    kept.release()
    assert 'forward' not in vars(vit)


def test_a_copy_of_the_vit_keeps_nothing(vit, tmp_path):
    kept = KeptFeatures(vit, opened(tmp_path, vit))
    other, images = copy.deepcopy(vit), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        other.patch_embed.proj.weight.zero_()
    assert not torch.equal(other(images)[0], vit(images)[0]) and kept.counts['val_seen'] == 1


def test_what_is_wrong_on_disk_is_computed_again(vit, tmp_path):
    images = torch.randn(2, 3, 32, 32)
    expected = [output.clone() for output in vit(images)]
    kept = KeptFeatures(vit, opened(tmp_path, vit))
    for kept.iteration, image in enumerate(images):
        vit(image[None])
    kept.file.close()
    content = bytearray((tmp_path / NAME).read_bytes())
    content[7] ^= 1
    (tmp_path / NAME).write_bytes(content)
    again = KeptFeatures(vit, opened(tmp_path, vit))
    assert all(map(torch.equal, vit(images), expected)) and again.counts['val_read'] == 1
    again.file.close()
    assert len(opened(tmp_path, vit, before=1).entries) == 1  # the other is of a later iteration
    vit.norm = None
    vit.blocks[0].mlp.fc1.weight.data += 1
    assert not opened(tmp_path, vit).entries  # of another ViT


@pytest.mark.parametrize('changed', [
    dict(norm_eps=1e-3), dict(arch=dict(embed_dims=32, num_layers=4, num_heads=4, mlp_ratio=2)),
    dict(rotary='bfloat16')], ids=['norms', 'heads', 'rotary'])
def test_features_of_a_vit_with_the_same_weights_and_other_settings_are_not_taken(changed, tiny_vit, tmp_path):
    usual = dict(arch=dict(embed_dims=32, num_layers=4, num_heads=2, mlp_ratio=2), out_indices=(1, 3),
                 rotary='float32' if 'rotary' in changed else None)
    vit, other = (tiny_vit(**options).requires_grad_(False) for options in (usual, usual | changed))
    other.load_state_dict(vit.state_dict())
    image = torch.randn(1, 3, 32, 32).double()
    assert not torch.equal(vit(image)[1], other(image)[1])
    KeptFeatures(vit, opened(tmp_path, vit))
    vit(image)
    assert len(opened(tmp_path, vit).entries) == 1 and not opened(tmp_path, other).entries


@pytest.mark.parametrize('of', [torch.backends.cuda.matmul, torch.backends.cudnn], ids=['products', 'convolutions'])
def test_features_in_float32_and_in_tf32_are_told_apart(of, vit, tf32):
    found = []
    for of.allow_tf32 in (False, True):
        found.append(identity_of(vit))
    assert found[0] != found[1]


def test_a_full_file_and_a_full_disk_only_cost_time(vit, tmp_path, log, monkeypatch):
    images = torch.randn(3, 3, 32, 32)
    expected = [output.clone() for output in vit(images)]
    size = sum(output[0].numel() * 4 for output in expected)
    kept = KeptFeatures(vit, opened(tmp_path, vit, limit=2 * size + 1))
    for _ in range(2):
        assert all(map(torch.equal, vit(images), expected))
    assert kept.counts['val_read'] == 2 and len(kept.file.entries) == 2
    assert sum('are not kept in' in record.getMessage() for record in log) == 1
    kept.file.remove()

    def refuse(*_) -> int:
        raise OSError('no space left')
    monkeypatch.setattr('os.pwrite', refuse)
    kept = KeptFeatures(vit, opened(tmp_path, vit))
    assert all(map(torch.equal, vit(images), expected)) and not kept.file.entries
    assert 'no space left' in log[-1].getMessage()
