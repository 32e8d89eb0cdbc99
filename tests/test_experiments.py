"""The experiments of classification are those of the paper, and their protocols do what they say."""

import itertools
import math
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from mmseg_gpt.checks.missing import missing_datasets
from mmseg_gpt.engine import check_files, read_config

pytest.importorskip('mmpretrain')
from mmpretrain.registry import MODELS

from mmseg_gpt.recipes import follow_the_authors, hold_out_for_search, read_experiment
from mmseg_gpt.recipes.methods import METHODS
from mmseg_gpt.recipes.tasks import TASKS
from mmseg_gpt.recipes.vits import VITS

CONFIGS = Path(__file__).parents[1] / 'configs'


def build(name: str) -> torch.nn.Module:
    """The model of an experiment, without memory for its weights."""
    with torch.device('meta'):
        return MODELS.build(read_experiment(name).model)


def trained(name: str) -> int:
    """How many parameters an experiment trains beside its head."""
    return sum(p.numel() for p in build(name).backbone.parameters() if p.requires_grad)


def splits(cfg: dict) -> Iterator[str]:
    """Every ``split`` in a config."""
    for key, value in cfg.items():
        if key == 'split':
            yield value
        elif isinstance(value, dict):
            yield from splits(value)


def test_the_file_is_the_experiment_of_its_name():
    from_file = Config.fromfile(CONFIGS / 'cls_gpt_mae_cub.py')
    assert from_file.to_dict() == read_experiment('cls_gpt_mae_cub').to_dict()
    assert from_file.pretty_text == read_experiment('cls_gpt_mae_cub').pretty_text


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('vit', VITS)
def test_every_method_has_every_vit(method, vit):
    model = build(f'cls_{method}_{vit}_cub')
    assert model.head.fc.weight.shape == (200, model.backbone.arch['embed_dims'])
    assert model.backbone.out_type == ('mean_all' if vit.startswith('mae') else 'cls_token')
    assert model.backbone.norm is not None and model.backbone.frozen == METHODS[method].frozen


@pytest.mark.parametrize('task', TASKS)
def test_every_task_has_its_classes(task):
    cfg = read_experiment(f'cls_gpt_mae_{task}')
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == TASKS[task].classes


@pytest.mark.parametrize(('method', 'count'), [
    ('gpt', 100 * 768 + 11 + 12), ('hard-gates', 100 * 768 + 11 + 12), ('gates-only', 100 * 768 + 11),
    ('temperatures-only', 100 * 768 + 12), ('vpt-shallow', 100 * 768), ('vpt-deep', 12 * 10 * 768), ('linear', 0),
    ('temperatures', 12), ('bias', 102_144 + 768), ('lora', 12 * 4 * 4 * 768), ('adaptformer', 12 * (129 * 768 + 64)),
    ('lora-gpt', 100 * 768 + 11 + 12 + 12 * 4 * 4 * 768)])
def test_each_method_trains_what_it_says(method, count):
    assert trained(f'cls_{method}_mae_cars') == count


def test_full_fine_tuning_trains_the_whole_vit():
    assert trained('cls_full_mae_cars') > 85_000_000


@pytest.mark.parametrize(('name', 'batch', 'prompts', 'lr', 'gate_init'), [  # Table 5
    ('cls_gpt_mae_cub', 64, 100, 0.1, 5), ('cls_gpt_mocov3_cub', 64, 100, 1, 5),
    ('cls_gpt_mae_kitti_dist', 128, 5, 0.1, 7), ('cls_gpt_mocov3_caltech101', 128, 10, 2.5, 4),
    ('cls_gpt_mae_snorb_azim', 128, 1, 0.1, 20),
    ('cls_gpt_mocov3_pets', 64, 100, 1, 1), ('cls_gpt_mae-l_flowers', 64, 100, 0.1, 15)])
def test_hyperparameters_are_those_of_the_paper(name, batch, prompts, lr, gate_init):
    cfg = read_experiment(name)
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.model.backbone.prompt == dict(type='GatedPrompt', num_tokens=prompts, gate_init=gate_init)
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=lr, momentum=0.9, weight_decay=0.)


def test_the_head_starts_as_the_authors_do():
    cfg = read_experiment('cls_linear_mae_nabirds')
    torch.manual_seed(0)
    head = MODELS.build(cfg.model.head)
    head.init_weights()
    assert torch.allclose(head.fc.bias, torch.tensor(-math.log(99)))
    assert head.fc.weight.std().item() == pytest.approx(math.sqrt(2 / 555), rel=0.01)


@pytest.mark.parametrize(('name', 'said'), [
    ('cls_gtp_mae_cub', 'the method "gtp" is none of gpt,'), ('cls_gtp_mae_cub', 'Did you mean cls_gpt_mae_cub?'),
    ('cls_gpt_mocov2_cars', 'Did you mean cls_gpt_mocov3_cars?'), ('cls_gpt_mae_cubs', 'Did you mean cls_gpt_mae_cub?'),
    ('cls_gpt_mea_cub', 'the ViT "mea" is none of dino,'),
    ('cls_gpt_mae_cubs', 'the task "cubs" is none of cub,'), ('cls_gpt_mae', 'not of the form cls_METHOD_VIT_TASK'),
    ('cls_gpt_mae_', 'not of the form')])
def test_an_unknown_name_is_refused(name, said):
    with pytest.raises(ValueError, match=said):
        read_experiment(name)
    with pytest.raises(SystemExit, match=said):
        read_config(name)

def large_features(count: int, classes: int, width: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of images of several classes as a DINOv2 gives them: a mean of their own by channel, and large."""
    draw = torch.Generator().manual_seed(3)
    centres, mean = (torch.randn(n, width, generator=draw) for n in (classes, 1))
    labels = torch.arange(count) % classes
    return scale * (mean + 0.5 * centres[labels] + torch.randn(count, width, generator=draw)), labels


@pytest.mark.parametrize('vit', [name for name, row in VITS.items() if row.protocol == 'normalised'])
@pytest.mark.parametrize('scale', [0.1, 2.3, 25.])
def test_every_vit_beyond_the_paper_learns_with_its_defaults_whatever_the_scale_of_its_features(vit, scale):
    cfg = read_experiment(f'cls_linear_{vit}_cub')
    torch.manual_seed(0)
    neck, head = MODELS.build(cfg.model.neck), MODELS.build(dict(cfg.model.head, num_classes=17))
    head.init_weights()
    features, labels = large_features(136, 17, head.in_channels, scale)
    optimizer = getattr(torch.optim, cfg.optim_wrapper.optimizer.type)(
        head.parameters(), **{k: v for k, v in cfg.optim_wrapper.optimizer.items() if k != 'type'})
    losses = []
    for _ in range(30):
        losses.append(torch.nn.functional.cross_entropy(head(neck((features, ))), labels))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[0].item() == pytest.approx(math.log(17), abs=0.3)
    assert losses[-1] < 0.2
    assert all(later < earlier + 0.05 for earlier, later in itertools.pairwise(losses))


def test_the_paper_keeps_its_protocol_and_only_its_vits():
    assert {name for name, row in VITS.items() if row.protocol == 'paper'} == {
        'mae', 'mae-l', 'mocov3', 'mocov3-s', 'supervised'}
    cfg = read_experiment('cls_gpt_dinov2-s_flowers')
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=3e-3, weight_decay=0.01)
    assert cfg.model.neck.type == 'ClsBatchNormNeck' and cfg.train_dataloader.drop_last
    assert read_experiment('cls_full_dinov3_flowers').optim_wrapper.optimizer.lr == 3e-5
    assert read_experiment('cls_gpt_mae_flowers').model.neck is None



# --- schedules and protocols -----------------------------------------------------------------------


def learning_rates(cfg: Config, iterations: int = 4) -> list[float]:
    """The factor of the learning rate at each iteration of a run whose epochs have so many."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.)
    schedulers = []
    for options in (dict(each) for each in cfg.param_scheduler):
        kind, by_iteration = PARAM_SCHEDULERS.get(options.pop('type')), options.pop('convert_to_iter_based', False)
        schedulers.append(kind.build_iter_from_epoch(optimizer=optimizer, epoch_length=iterations, **options)
                          if by_iteration else kind(optimizer, **options))
    rates = []
    for i in range(cfg.train_cfg.max_epochs * iterations):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch or (i + 1) % iterations == 0:
                scheduler.step()
    return rates


def test_the_learning_rate_rises_for_10_epochs_and_falls_for_90():
    rates = learning_rates(read_experiment('cls_gpt_mae_cub'))
    assert rates[0] == pytest.approx(1e-3) and rates[1] == pytest.approx(1e-3 + 0.999 / 39)
    assert rates[39] == pytest.approx(1) and rates[40] == pytest.approx(1)
    assert rates[40:] == pytest.approx([(1 + math.cos(math.pi * i / 360)) / 2 for i in range(360)])


def test_the_authors_learning_rate_is_0_in_the_first_epoch():
    cfg = read_experiment('cls_gpt_mae_cub')
    follow_the_authors(cfg)
    wanted = [e / 10 if e < 10 else (1 + math.cos(math.pi * (e - 10) / 90)) / 2 for e in range(100)]
    assert learning_rates(cfg, 1) == pytest.approx(wanted, abs=1e-8)


@pytest.mark.parametrize('name', ['cls_gpt_mae_cub', 'cls_gpt_mocov3_flowers', 'cls_vpt-deep_mae_svhn'])
def test_a_search_sees_no_test_image(name):
    assert 'test' in splits(read_experiment(name))
    cfg = read_experiment(name)
    hold_out_for_search(cfg)
    assert 'test' not in splits(cfg) and 'train800val200' not in splits(cfg)
    assert cfg.test_dataloader == cfg.val_dataloader
    assert cfg.val_dataloader.dataset != cfg.train_dataloader.dataset


def test_a_run_does_not_validate_on_test_images():
    assert 'test' not in splits(read_experiment('cls_gpt_mae_cub').val_dataloader)
    assert 'val_dataloader' not in read_experiment('cls_gpt_mae_svhn')


def test_the_authors_choose_on_test_images():
    cfg = read_config('cls_gpt_mae_cub', authors_protocol=True)
    assert cfg.val_dataloader.dataset == cfg.test_dataloader.dataset and cfg.train_cfg.val_interval == 1
    assert cfg.default_hooks.checkpoint.save_best == 'accuracy/top1'
    assert cfg.work_dir.endswith('cls_gpt_mae_cub_authors')


@pytest.mark.parametrize('protocol', ['authors_protocol', 'search_split'])
def test_segmentation_has_no_such_protocol(protocol):
    option = f'--{protocol.replace("_", "-")}: '
    with pytest.raises(SystemExit, match=option):
        read_config(CONFIGS / 'setr_pup_gpt_mae_ade20k.py', **{protocol: True})


def test_the_model_zoo_has_the_papers_numbers():
    from mmseg_gpt.lab.suite.printed import PRINTED, TOTAL
    zoo = (CONFIGS.parent / 'docs/model_zoo.md').read_text()
    for table in ('fgvc', 'vtab', 'table4', 'table7', 'table8'):
        columns, rows = PRINTED[table]
        assert f'`python tools/benchmark_suite.py {table}`' in zoo
        for numbers in rows.values():
            shown = ' | '.join(f'{n:.2f}' for name, n in zip(columns, numbers) if name != TOTAL)
            assert f'| {shown} |' in zoo


# --- slips -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(('file', 'said'), [
    ('configs/_base_/runtime_cls.py', 'has no model: it is not a whole config. It is a base, from which'),
    ('configs/_base_/heads/linear.py', 'It is a base, from which configs inherit, and not a whole config: python'),
    ('README.md', 'cannot be read as a config: Only py/yml')])
def test_what_is_no_whole_config_is_said(file, said):
    with pytest.raises(SystemExit, match=said):
        read_config(CONFIGS.parent / file)


def test_an_option_of_the_backbone_that_is_out_of_range_is_said_before_a_run():
    cfg = read_config('cls_gpt_mae_cub', ['model.backbone.start_block=12'])
    with pytest.raises(SystemExit, match=r'model\.backbone: start_block 12 is not a block'):
        check_files(cfg, (), pretrained=False)


def test_tasks_that_are_missing_take_one_screen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    datasets = [read_experiment(f'cls_gpt_mae_{task}').train_dataloader.dataset for task in ('svhn', 'dtd', 'pets')]
    said, = missing_datasets(datasets)
    assert 'looked in' in said and said.endswith('likewise:   data/vtab-1k/dtd, data/vtab-1k/oxford_iiit_pet')


@pytest.mark.parametrize(('tool', 'words', 'said'), [
    ('benchmark_serving', ['cls_gpt_mae_cub', 'cls_gpt_mocov3_cub'], 'these have different ViTs'),
    ('param_count', ['cls_gpt_mae_cub', 'cls_gpt_mae_cub'], 'a config is given twice'),
    ('search', ['cls_gpt_mae_cub', '--gate-init', 'nan'], 'nan is not a number')])
def test_tools_refuse(tool, words, said, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(CONFIGS.parent / 'tools'))
    monkeypatch.setattr(sys, 'argv', [tool, *words])
    with pytest.raises(SystemExit) as error:
        runpy.run_path(str(CONFIGS.parent / f'tools/{tool}.py'))['main']()
    assert said in f'{error.value} {capsys.readouterr().err}'
