"""Methods, ViTs and tasks are named once, and everything else reads it there."""

import ast
from collections import Counter
from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_gpt.engine.config import find_config
from mmseg_gpt.lab.miniature.plan import FULL
from mmseg_gpt.lab.suite import plan
from mmseg_gpt.lab.suite.plans import COMPARED
from mmseg_gpt.models.vit import ARCHS
from mmseg_gpt.recipes.heads import HEADS
from mmseg_gpt.recipes.methods import METHODS, method_of, options
from mmseg_gpt.recipes.tasks import ADE20K, TASKS
from mmseg_gpt.recipes.titles import title
from mmseg_gpt.recipes.vits import VITS, settings_of_vit
from mmseg_gpt.resources import CONFIGS

PACKAGE = Path(__file__).parents[1] / 'mmseg_gpt'


def test_every_title_means_one_thing():
    rows = [row for table in (METHODS, VITS, TASKS, ADE20K) for row in table.values()]
    names = {name for table in (METHODS, VITS, TASKS, ADE20K) for name in table}
    assert len(names) == len(rows) == len({row.title for row in rows})
    assert title('mae-l') == 'MAE (ViT-L)' and title('linear') == 'Heads only' and title('AVG') == 'AVG'


@pytest.mark.parametrize('method', METHODS)
def test_the_settings_of_a_method_show_the_method(method):
    settings = options(method, 10, 5)
    assert method_of(settings) == method
    assert (settings['prompt'] or {}).get('gate_init') == (5. if METHODS[method].gates else None)


@pytest.mark.parametrize('file', sorted(CONFIGS.glob('setr_pup_*_ade20k.py')), ids=lambda file: file.stem)
def test_the_configs_of_ade20k_have_the_settings_of_the_method_in_their_name(file):
    _, _, name, vit, _ = file.stem.split('_')
    written = name.removesuffix('-24')
    method = next((method for method, row in METHODS.items() if row.ade20k == written), written)
    prompts = (2 if name.endswith('-24') else 10) if METHODS[method].each_block else 24 if name.endswith('-24') else 100
    backbone = Config.fromfile(file).model.backbone.to_dict()
    assert method_of(backbone) == method
    assert {key: backbone[key] for key in options(method, prompts, 10)} == options(method, prompts, 10)
    assert backbone['init_cfg'] == settings_of_vit(vit)['init_cfg']


def test_the_table_of_vits_has_every_file_and_says_what_it_says():
    assert {row.file for row in VITS.values()} == {file.stem for file in (CONFIGS / '_base_/backbones').glob('*.py')}
    for vit, row in VITS.items():
        arch = settings_of_vit(vit).get('arch', 'base')
        assert (ARCHS[arch] if isinstance(arch, str) else arch)['num_layers'] == row.blocks


def test_the_table_of_heads_has_every_file():
    assert list(HEADS) == sorted(file.stem for file in (CONFIGS / '_base_/heads').glob('*.py'))
    assert len({row.title for row in HEADS.values()}) == len(HEADS)


def test_ade20k_has_the_classes_and_the_folder_of_its_config():
    cfg, task = find_config(str(CONFIGS / 'setr_pup_gpt_mae_ade20k.py')), ADE20K['ade20k']
    assert cfg.model.decode_head.num_classes == task.classes
    assert cfg.test_dataloader.dataset.type == task.kind and cfg.test_dataloader.dataset.data_root == task.data_root


def test_a_method_of_the_table_is_in_the_miniature_and_can_be_asked_for_in_a_suite():
    assert FULL.methods == tuple(METHODS)
    table = plan('fgvc', METHODS)
    assert {entry.method for entry in table.entries} == set(METHODS)
    assert {entry.method for entry in plan('fgvc').entries} == set(COMPARED)
    assert {entry.run.settings for entry in table.entries if not METHODS[entry.method].frozen} == {()}


def test_a_public_class_name_means_one_thing():
    found = Counter(node.name for file in PACKAGE.rglob('*.py') for node in ast.walk(ast.parse(file.read_text('utf-8')))
                    if isinstance(node, ast.ClassDef) and not node.name.startswith('_'))
    assert {name for name, times in found.items() if times > 1} == set()
