"""Every config builds, runs, and says what its name says."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from shrink import SIZE, shrink, shrink_data
from test_command_line import draw_sample, link_ade20k
from tiny_run import run

from mmseg_gpt.engine.config import find_config
from mmseg_gpt.lab.suite.places import vit_of
from mmseg_gpt.recipes.methods import method_of

CONFIGS = Path(__file__).parents[1] / 'configs'
ADE20K = sorted(path.stem for path in CONFIGS.glob('setr_pup_*_ade20k.py'))
GOALS = sorted(path.stem for path in CONFIGS.glob('linear_*_ade20k.py'))
BACKBONES, HEADS = (sorted(path.stem for path in (CONFIGS / '_base_' / part).glob('*.py'))
                    for part in ('backbones', 'heads'))


def read(name: str) -> Config:
    return find_config(str(CONFIGS / f'{name}.py'))


def swapped(folder: Path, backbone: str = 'mae_b', head: str = 'setr_pup') -> Path:
    """Writes the main config with other bases into ``folder``, and returns its file."""
    text = (CONFIGS / 'setr_pup_gpt_mae_ade20k.py').read_text()
    text = text.replace('backbones/mae_b', f'backbones/{backbone}').replace('heads/setr_pup', f'heads/{head}')
    path = folder / 'swapped.py'
    path.write_text(text.replace("'_base_/", f"'{CONFIGS}/_base_/"))
    return path


def build(cfg: Config) -> torch.nn.Module:
    init_default_scope('mmseg')
    from mmengine.model import revert_sync_batchnorm
    return revert_sync_batchnorm(MODELS.build(cfg.model))


def batch() -> dict:
    """One image of noise and its labels, as the data loader gives them."""
    from mmseg.structures import SegDataSample
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 150, (1, SIZE, SIZE))))
    sample.set_metainfo(dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE)))
    return dict(inputs=[torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8)] * 2, data_samples=[sample] * 2)


def test_all_rows_of_the_paper_have_a_config():
    methods = ('gpt', 'vpt-shallow', 'vpt-deep', 'gpt-24', 'vpt-shallow-24', 'vpt-deep-24', 'gates-only',
               'temperatures-only', 'hard-gates', 'head-only', 'full')
    assert sorted(f'setr_pup_{m}_{v}_ade20k' for m in methods for v in ('mae', 'mocov3')) == ADE20K


def test_main_config_is_the_papers_setting():
    cfg = read('setr_pup_gpt_mae_ade20k')
    backbone, heads = cfg.model.backbone, [cfg.model.decode_head, *cfg.model.auxiliary_head]
    assert backbone.prompt == dict(type='GatedPrompt', num_tokens=100, gate_init=10.) and backbone.temperature is True
    assert (backbone.img_size, backbone.out_indices) == (512, (4, 8, 11))
    assert [(h.in_index, h.num_convs, h.up_scale, h.channels, h.loss_decode.loss_weight) for h in heads] == [
        (2, 4, 2, 256, 1.0), (0, 2, 4, 256, 0.4), (1, 2, 4, 256, 0.4)]
    assert all(h.dropout_ratio == 0 and h.norm_cfg.type == 'SyncBN' and h.num_classes == 150 for h in heads)
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=0.001, momentum=0.9, weight_decay=0.)
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys == {'head': dict(lr_mult=10.)}
    assert cfg.param_scheduler == [dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=160000, by_epoch=False)]
    assert cfg.train_cfg.max_iters == 160000 and cfg.train_dataloader.batch_size == 16
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(512, 512), stride=(341, 341))


def test_multi_scale_takes_ratios_of_2048_by_512_with_flip():
    scales, flips, *_ = read('setr_pup_gpt_mae_ade20k').tta_pipeline[1].transforms
    assert [s.scale for s in scales] == [(1024, 256), (1536, 384), (2048, 512), (2560, 640), (3072, 768), (3584, 896)]
    assert [f.prob for f in flips] == [0., 1.]


@pytest.mark.parametrize('name', ADE20K)
def test_config_trains_and_predicts(name):
    torch.manual_seed(0)
    cfg = shrink(read(name))
    model = build(cfg)
    backbone = model.backbone

    trained = {n.split('.')[0] for n, p in backbone.named_parameters() if p.requires_grad}
    wanted = {'head-only': set(), 'full': {'cls_token', 'pos_embed', 'patch_embed', 'blocks'}}
    method = name.removeprefix('setr_pup_').rsplit('_', 2)[0]
    with_temperature = {'temperature'} if method in ('gpt', 'gpt-24', 'temperatures-only', 'hard-gates') else set()
    assert trained == wanted.get(method, {'prompt'} | with_temperature)

    model.train()
    losses = model.forward(**model.data_preprocessor(batch(), training=True), mode='loss')
    loss = sum(value for key, value in losses.items() if 'loss' in key)
    loss.backward()
    assert torch.isfinite(loss)
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())

    model.eval()
    with torch.no_grad():
        prediction, *_ = model.test_step(batch())
    assert prediction.pred_sem_seg.data.shape == (1, SIZE, SIZE)


@pytest.mark.parametrize('name', GOALS)
def test_a_goal_trains_what_its_name_says_by_the_schedule_of_dinov3(name):
    cfg = read(name)
    with torch.device('meta'):
        model = build(cfg)
    assert f'linear_{method_of(cfg.model.backbone)}_{vit_of(cfg.model.backbone)}_ade20k' == name
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert {n.rpartition('.')[2] for n in trained if n.startswith('backbone.')} == {'lora_a', 'lora_b'}
    assert {n for n in trained if not n.startswith('backbone.')} == {
        f'decode_head.{part}.{kind}' for part in ('bn', 'conv_seg') for kind in ('weight', 'bias')}
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01)
    warm_up, decay = cfg.param_scheduler
    assert (warm_up.end, decay.begin, decay.end, cfg.train_cfg.max_iters) == (1500, 1500, 40000, 40000)
    assert cfg.train_dataloader.batch_size == 16 and cfg.model.test_cfg.stride == (341, 341)


@pytest.mark.parametrize('place', [link_ade20k, draw_sample])
def test_a_goal_trains_and_validates_on_a_sample_of_ade20k(place, tmp_path):
    place(tmp_path / 'data')
    cfg = shrink_data(read('linear_lora_dinov3-s_ade20k'))
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[loader].dataset.data_root = str(tmp_path / 'data')
    cfg.merge_from_dict({
        'work_dir': str(tmp_path / 'run'), 'train_cfg.max_iters': 3, 'train_cfg.val_interval': 3, 'log_level': 'ERROR',
        'param_scheduler.0.end': 1, 'param_scheduler.1.begin': 1, 'param_scheduler.1.end': 3,
        'model.backbone.init_cfg': None, 'model.decode_head.in_channels': 24, 'model.decode_head.channels': 24,
        'model.data_preprocessor.size': (SIZE, SIZE),
        'model.test_cfg.crop_size': (SIZE, SIZE), 'model.test_cfg.stride': (43, 43)})
    cfg.model.backbone.arch = dict(embed_dims=24, num_layers=2, num_heads=2, mlp_ratio=2)
    runner = run(cfg)
    assert 0 <= runner.message_hub.get_scalar('val/mIoU').current() <= 100
    assert all(group['lr'] < 1e-3 for group in runner.optim_wrapper.param_groups)
    assert any(p.any() for n, p in runner.model.named_parameters() if n.endswith('lora_b'))  # they start at 0


@pytest.mark.parametrize('backbone', BACKBONES)
def test_one_line_swaps_the_backbone(backbone, tmp_path):
    cfg = find_config(str(swapped(tmp_path, backbone)))
    with torch.device('meta'):
        built = build(cfg).backbone
    assert cfg.model.backbone.init_cfg.type == 'PretrainedViT'
    assert len(built.out_indices) == 1 + len(cfg.model.auxiliary_head)
    heads = {head.in_channels for head in [cfg.model.decode_head, *cfg.model.auxiliary_head]}
    assert heads == {built.arch['embed_dims']}


@pytest.mark.parametrize('backbone', BACKBONES)
def test_backbone_names_a_published_file(backbone):
    from mmseg_gpt.checkpoints import address_of
    cfg = Config.fromfile(CONFIGS / f'_base_/backbones/{backbone}.py')
    assert address_of(cfg.vit.init_cfg.checkpoint).startswith('https://')


@pytest.mark.parametrize('name', ADE20K + GOALS)
def test_config_is_short(name):
    assert len((CONFIGS / f'{name}.py').read_text().splitlines()) <= 15


def test_the_documentation_lists_every_config_backbone_and_head():
    zoo, vits = ((CONFIGS.parent / f'docs/{page}.md').read_text() for page in ('model_zoo', 'vits'))
    for name in ADE20K + GOALS:
        assert f'`{name}`' in zoo
    for base in BACKBONES + HEADS:
        assert f'`{base}`' in vits
