"""Attention: weights against the fused kernels, numbers against hand-computed ones, figures by what is in them."""

import csv
import json
import math
import runpy
import sys
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from PIL import Image
from tiny import HEIGHT, WIDTH, small_config

from mmseg_gpt.analysis import attention_figures as figures
from mmseg_gpt.analysis.attention import (
    Study,
    Summary,
    Tokens,
    attention_maps,
    early_middle_late,
    query_map,
    study,
    summarise,
    summarise_uniform,
    switched_off,
    variants,
)
from mmseg_gpt.analysis.attention_figures import Column, MapRow, draw_maps
from mmseg_gpt.apis import load_task
from mmseg_gpt.apis.task import build_model
from mmseg_gpt.datasets import SampleError
from mmseg_gpt.models import GatedPromptViT
from mmseg_gpt.models.vit import heads_of

TOOLS = Path(__file__).parents[1] / 'tools'
GATED = dict(type='GatedPrompt', num_tokens=3)
images = torch.randn(2, 3, 27, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(7))  # a grid of 4 x 4
# A sequence of CLS, 2 x 2 patches of 8 pixels and 3 prompts.
TOKENS = Tokens(first_patch=1, grid=(2, 2), num_prompts=3, patch_size=8)


# Weights of the real model

@pytest.mark.parametrize('options', [
    dict(),
    dict(prompt=GATED, temperature=True),
    dict(prompt=dict(type='DeepPrompt', num_tokens=2), out_type='cls_token'),
    dict(prompt=dict(type='ShallowPrompt', num_tokens=2), out_type='mean_prompt', temperature=True),
    dict(prompt=dict(type='HardGatedPrompt', num_tokens=2), out_type='mean_all', start_block=2, temperature=True),
    dict(prompt=GATED, temperature=True, layer_scale=True, num_registers=4, out_indices=(0, 2)),
], ids=str)
def test_weights_times_values_are_the_output_of_the_fused_attention(options, tiny_vit):
    vit = tiny_vit(**options)
    last, seen = max(vit.out_indices), {}
    for i, block in enumerate(vit.blocks):
        block.attn.register_forward_hook(lambda attn, inputs, output, i=i: seen.update({i: (attn, inputs, output)}))
    maps = attention_maps(vit, images, iter(range(last + 1)))
    assert list(maps) == list(seen) == list(range(last + 1))
    for i, (attn, (x, temperature, *wanted), output) in seen.items():
        prompts = vit.prompt.tokens.shape[-2] if vit.prompt is not None and i >= vit.start_block else 0
        assert maps[i].shape == (2, 4, *[vit.first_patch + 16 + prompts] * 2)
        _, _, v = heads_of(attn.qkv(x), attn.num_heads)
        expected = attn.proj((maps[i] @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(output, expected[:, wanted[0]] if wanted else expected, rtol=1e-12, atol=1e-12)
        assert (temperature is None) == (vit.temperature is None)


def test_looking_changes_nothing_and_leaves_no_hook(tiny_vit):
    vit = tiny_vit(prompt=GATED, temperature=True)
    before = vit(images)[0]
    attention_maps(vit, images, [0, 3])
    with pytest.raises(ValueError, match='block 4 is not run: blocks are counted from 0 to 3'):
        attention_maps(vit, images, [1, 4])
    with pytest.raises(ValueError, match='"prompt:4": prompts are counted from 1 to 3'):
        study(vit, [images[:1]], ['prompt:4'], [1])
    assert not any(block.attn._forward_pre_hooks for block in vit.blocks)
    assert torch.equal(vit(images)[0], before)
    with pytest.raises(ValueError, match='training mode'):
        attention_maps(vit.train(), images, [0])


@pytest.mark.parametrize('off', [dict(prompts=True), dict(temperatures=True), dict(prompts=True, temperatures=True)])
def test_what_is_switched_off_is_as_if_it_had_never_been_there(off, tiny_vit):
    vit = tiny_vit(prompt=GATED, temperature=True, start_block=1)
    other = tiny_vit(prompt=None if 'prompts' in off else GATED, temperature='temperatures' not in off,
                     start_block=1)
    other.load_state_dict({name: vit.state_dict()[name] for name in other.state_dict()})
    own, before = dict(vit.named_parameters()), vit(images)[0]
    with pytest.raises(KeyError), switched_off(vit, **off):
        assert torch.equal(vit(images)[0], other(images)[0]) and not torch.equal(vit(images)[0], before)
        raise KeyError
    assert torch.equal(vit(images)[0], before)
    restored = dict(vit.named_parameters())
    assert list(own) == list(restored) and all(restored[name] is own[name] for name in own)


def test_pooled_prompts_can_be_switched_off_too(tiny_vit):
    vit = tiny_vit(prompt=GATED, out_type='mean_prompt')
    with switched_off(vit, prompts=True):
        assert attention_maps(vit, images, [3])[3].shape == (2, 4, 17, 17)


def test_the_columns_are_what_the_model_has(tiny_vit):
    both = variants(tiny_vit(prompt=GATED, temperature=True))
    assert both == {'ViT alone': dict(prompts=True, temperatures=True), 'with prompts': dict(temperatures=True),
                    'with prompts and temperatures': {}}
    assert list(variants(tiny_vit(temperature=True))) == ['ViT alone', 'with temperatures']
    assert list(variants(tiny_vit(frozen=False))) == ['fine-tuned ViT']
    assert [early_middle_late(depth) for depth in (12, 24, 4, 2, 1)] == [
        [2, 6, 11], [5, 13, 23], [0, 1, 3], [0, 1], [0]]


# Numbers

def one_hot(target: list[int]) -> torch.Tensor:
    """Weights (1, 1, 8, 8) of TOKENS with which each token attends to one other."""
    return torch.eye(8, dtype=torch.float64)[target][None, None]


def test_summaries_by_hand():
    # From one of 2 x 2 patches of 8 pixels to all: 0, 8, 8 and 8 sqrt(2) pixels.
    uniform = summarise_uniform(TOKENS)
    assert [each.item() for each in uniform] == pytest.approx([(16 + 8 * 2**.5) / 4, math.log(8), 3 / 8])
    assert [each.item() for each in summarise(one_hot(list(range(8))), TOKENS)] == [0, 0, 0]
    # Half to itself and half to the patch on the other side of its row; two further heads: to a prompt or to CLS.
    side = one_hot([0, 2, 1, 4, 3, 5, 6, 7]) / 2 + one_hot(list(range(8))) / 2
    found = summarise(torch.cat([side, one_hot([5] * 8) / 2 + side / 2, one_hot([0] * 8) / 2 + side / 2], 1), TOKENS)
    assert found.distance.tolist() == pytest.approx([4, 4, 4])  # what goes elsewhere does not count
    assert found.entropy.tolist() == pytest.approx([math.log(2), 1.5 * math.log(2), 1.5 * math.log(2)])
    assert found.prompt_share.tolist() == [0, .5, 0]
    nowhere = summarise(one_hot([5] * 8), TOKENS)
    assert nowhere.distance.isnan().item() and nowhere.prompt_share.item() == 1


def test_distances_are_in_pixels_of_an_oblong_grid():
    tokens = Tokens(first_patch=5, grid=(1, 3), num_prompts=0, patch_size=14)
    assert summarise_uniform(tokens).distance.item() == pytest.approx((0 + 14 + 28 + 14 + 0 + 14 + 28 + 14 + 0) / 9)


def test_maps_of_queries_by_hand():
    weights = torch.arange(64.).reshape(1, 1, 8, 8)  # of query i to token j: 8 i + j
    for query, expected in [
            ('cls', [[8, 16], [24, 32]]),  # times 8 tokens
            ('prompt:2', [[(48 + j) * 8 for j in row] for row in ([1, 2], [3, 4])]),
            ('prompts', [[(48 + j) * 8 for j in row] for row in ([1, 2], [3, 4])]),
            ('8,7', [[(16 + j) * 8 for j in row] for row in ([1, 2], [3, 4])]),  # row 0, column 1: token 2
            ('7,8', [[(24 + j) * 8 for j in row] for row in ([1, 2], [3, 4])]),  # row 1, column 0: token 3
            ('to-prompts', [[3 * 8 * i + 5 + 6 + 7 for i in row] for row in ([1, 2], [3, 4])])]:
        assert query_map(weights, TOKENS, query).tolist() == [[expected]], query
    uniform = torch.full((1, 2, 8, 8), 1 / 8)
    assert (query_map(uniform, TOKENS, '0,0') == 1).all() and (query_map(uniform, TOKENS, 'to-prompts') == 3 / 8).all()


def test_a_pixel_of_an_oblong_picture_is_found():
    weights = torch.arange(49.).reshape(1, 1, 7, 7)  # of CLS and 2 x 3 patches
    expected = weights[0, 0, 5, 1:] * 7  # the second of the second row
    tokens = Tokens(first_patch=1, grid=(2, 3), num_prompts=0, patch_size=8)
    assert query_map(weights, tokens, '15,8').flatten().tolist() == expected.tolist()


@pytest.mark.parametrize('query, message', [
    ('prompt:4', 'prompts are counted from 1 to 3'), ('16,0', 'outside of the picture, of 2 x 2 patches of 8 pixels'),
    ('0,16', 'outside of the picture')])
def test_queries_that_are_not_there(query, message):
    with pytest.raises(ValueError, match=message):
        query_map(one_hot([0] * 8), TOKENS, query)
    for of_prompts in ('prompt:1', 'prompts', 'to-prompts'):
        with pytest.raises(ValueError, match='this block has no prompts'):
            query_map(torch.eye(5)[None, None], replace(TOKENS, num_prompts=0), of_prompts)


def test_a_study_is_of_the_first_image_and_its_summaries_are_of_all(tiny_vit):
    vit = tiny_vit(prompt=GATED, temperature=True, start_block=1)
    small = images[1:, :, :16, :24]
    found = study(vit, [images[:1], small], ['cls', 'prompt:1'], [0, 3])
    weights = attention_maps(vit, images[:1], range(4))
    assert list(found.maps) == [('cls', 0), ('cls', 3), ('prompt:1', 3)]  # prompts join at block 1
    torch.testing.assert_close(found.maps['prompt:1', 3], weights[3][0, :, 17, 1:17].unflatten(-1, (4, 4)) * 20)
    parts = [summarise(attention_maps(vit, image, [2])[2], Tokens(1, grid, 3, 8))
             for image, grid in ((images[:1], (4, 4)), (small, (2, 3)))]
    for i in range(3):
        torch.testing.assert_close(found.summaries[2][i], (parts[0][i] + parts[1][i]) / 2)
    assert found.uniform[0].prompt_share == 0 and found.uniform[1].prompt_share == pytest.approx((3 / 20 + 3 / 10) / 2)


def test_registers_are_neither_patches_nor_prompts(tiny_vit):
    vit = tiny_vit(prompt=GATED, num_registers=4, layer_scale=True)
    found = study(vit, [images[:1]], ['prompt:1'], [3])
    weights = attention_maps(vit, images[:1], [3])[3]
    torch.testing.assert_close(found.maps['prompt:1', 3], weights[0, :, 21, 5:21].unflatten(-1, (4, 4)) * 24)
    torch.testing.assert_close(found.summaries[3].prompt_share, weights[0, :, 5:21, 21:].sum(-1).mean(-1))


# Figures

def column(name: str, bright: tuple[int, int], prompts: bool = True) -> Column:
    """A model of 2 heads and 2 blocks, whose maps (2, 2) of CLS are 2 in one patch of 8 pixels and 0 elsewhere."""
    maps = torch.zeros(2, 2, 2)
    maps[:, bright[0], bright[1]] = torch.tensor([1., 3.])
    share = .5 * prompts
    summaries = [Summary(*torch.tensor([[4., 6.], [block, block], [share, share]])) for block in (1., 2.)]
    uniform = [Summary(*torch.tensor([[7.], [3.], [share]]))] * 2
    return Column(name, Study({('cls', 0): maps} | ({('prompts', 0): maps} if prompts else {}), summaries, uniform), 8)


PICTURE = np.full((13, 16, 3), 128, np.uint8)


def pixels_of(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def test_maps_are_drawn_where_their_patches_are():
    picture = PICTURE.copy()
    picture[:4, :4] = (250, 0, 0)
    columns = [column('one', (0, 1)), column('other', (1, 0), prompts=False)]
    figure = draw_maps(picture, columns, [MapRow('cls', 0, None), MapRow('prompts', 0, 1)], 'title')
    drawn, panels = pixels_of(figure), np.reshape(figure.axes[:6], (2, 3))

    def colour(panel: object, x: float, y: float) -> np.ndarray:
        column, row = panel.transData.transform((x, y))
        return drawn[len(drawn) - 1 - int(row), int(column)].astype(int)

    assert np.abs(colour(panels[0, 0], 2, 2) - (250, 0, 0)).max() < 5  # red first, as people see it
    for panel, bright, dark in ((panels[0, 1], (12, 4), (4, 12)), (panels[0, 2], (4, 12), (12, 4))):
        assert colour(panel, *bright).sum() > 2 * colour(panel, *dark).sum()
        assert panel.get_xlim() == (-0.5, 15.5) and panel.get_ylim() == (12.5, -0.5)  # the second row is cut off
    assert [panel.get_title() for panel in panels[0]] == ['image as the\nmodel sees it', 'one', 'other']
    assert [text.get_text() for text in panels[1, 2].texts] == ['no prompts']
    assert panels[1, 0].get_ylabel() == 'mean prompt\nblock 1\nhead 2'
    bars = [axis.get_ylabel() for axis in figure.axes if axis not in panels]
    assert bars == ['times uniform', 'times uniform']


def test_maps_that_are_not_square_lie_on_their_patches():
    wide = column('wide', (0, 0))
    wide.study.maps['cls', 0] = torch.arange(12.).reshape(2, 2, 3)
    figure = draw_maps(np.full((16, 24, 3), 128, np.uint8), [wide], [MapRow('cls', 0, 0)], 'title')
    assert figure.axes[1].images[1].get_extent() == [-0.5, 23.5, 15.5, -0.5]  # x before y, y downwards


def test_a_row_has_one_scale_and_the_patch_that_asks_is_framed():
    columns = [column('one', (0, 0)), column('other', (1, 1))]
    for each in columns:
        each.study.maps['9,1', 0] = each.study.maps['cls', 0]
    columns[1].study.maps['9,1', 0] = columns[1].study.maps['cls', 0] * 10
    figure = draw_maps(PICTURE, columns, [MapRow('9,1', 0, 0)], 'title')
    overlays = [axis.images[1] for axis in figure.axes[1:3]]
    assert overlays[0].get_clim() == overlays[1].get_clim() == (0, pytest.approx(9.37))  # the 99th percentile
    assert np.array_equal(overlays[1].get_array(), [[0, 0], [0, 10]])
    for axis in figure.axes[:3]:
        assert {patch.get_bbox().bounds for patch in axis.patches} == {(7.5, -0.5, 8, 8)}


def test_rows_that_no_model_has_are_refused():
    columns = [column('other', (0, 0), prompts=False)]
    with pytest.raises(ValueError, match='"prompts": block 1 has no prompts'):
        draw_maps(PICTURE, columns, [MapRow('prompts', 0, None)], 'title')
    with pytest.raises(ValueError, match='there is no head 3: heads are counted from 1 to 2'):
        draw_maps(PICTURE, columns, [MapRow('cls', 0, 2)], 'title')


def test_the_summary_has_a_point_for_each_head_and_a_line_for_their_mean():
    figure = figures.draw_summaries([column('one', (0, 0)), column('other', (0, 0), prompts=False)])
    distance, entropy, share = figure.axes
    assert [axis.get_title() for axis in figure.axes] == [
        'Mean attention distance\n(pixels)', 'Entropy of attention\n(nats)', 'Attention to prompts\n(share)']
    line, uniform = distance.lines[:2]
    assert line.get_ydata().tolist() == [5, 5] and uniform.get_ydata().tolist() == [7, 7]
    assert entropy.lines[0].get_xdata().tolist() == [1, 2] and entropy.lines[0].get_ydata().tolist() == [1, 2]
    assert sorted(distance.collections[0].get_offsets()[:, 1]) == [4, 4, 6, 6]
    assert len(share.collections) == 1, 'a model without prompts has no share of them'
    assert [text.get_text() for text in figure.legends[0].texts][:2] == ['one', 'other']
    assert len(figures.draw_summaries([column('other', (0, 0), prompts=False)]).axes) == 2


def test_numbers_are_those_of_the_figures():
    columns = [column('one', (0, 1)), column('other', (1, 0), prompts=False)]
    lines, maps = figures.map_numbers(columns, [MapRow('cls', 0, None), MapRow('prompts', 0, 1)])
    assert [(line['query'], line['head'], line['model'], line['largest']) for line in lines] == [
        ('cls', 'mean', 'one', 2), ('cls', 'mean', 'other', 2), ('prompts', 2, 'one', 3)]
    assert (lines[1]['largest_row'], lines[1]['largest_column'], lines[1]['mean']) == (1, 0, .5)
    assert maps == [[[0, 2], [0, 0]], [[0, 0], [2, 0]], [[0, 3], [0, 0]]]
    numbers = figures.summary_numbers(columns)
    assert len(numbers) == 2 * 2 * 4 and numbers[0] == dict(
        model='one', block=1, head=1, distance_pixels=4, entropy_nats=1, prompt_share=.5)
    assert [line['distance_pixels'] for line in numbers[:4]] == [4, 6, 5, 7]


class Window(FigureCanvasAgg):
    """A canvas that says it is a window."""
    required_interactive_framework = 'any'


@pytest.mark.parametrize('clicked, canvas, message', [
    ([(4.4, 2.6)], Window, None), ([], Window, 'closed without a click'),
    ([(4.4, 2.6)], FigureCanvasAgg, 'there is no display.*--query X,Y')])
def test_a_click_is_a_pixel(monkeypatch, clicked, canvas, message):
    def window() -> Figure:
        figure = Figure()
        canvas(figure)
        figure.ginput = lambda number, timeout: clicked
        return figure

    monkeypatch.setattr('matplotlib.pyplot.figure', window)
    if message is None:
        assert figures.ask_for_point(PICTURE) == (4, 3)
    else:
        with pytest.raises(ValueError, match=message):
            figures.ask_for_point(PICTURE)


# Configs, checkpoints and images

@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """``seg.py`` and ``full.py``, with checkpoints of random weights beside them, and an image of noise."""
    folder = tmp_path_factory.mktemp('attention')
    torch.manual_seed(0)
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / 'image.png'), noise)
    cfg = small_config()
    cfg.model.test_cfg = dict(mode='slide', crop_size=(16, 24), stride=(8, 8))
    cfg.model.data_preprocessor.test_cfg = None  # windows are whole patches, and so need no padding
    save(cfg, folder / 'seg.py')
    cfg.model.backbone.update(frozen=False, prompt=None, temperature=False)
    save(cfg, folder / 'full.py')
    return folder


def save(cfg: Config, path: Path) -> None:
    """Writes a config, and a checkpoint whose model has weights of a size at which attention is not uniform."""
    cfg.dump(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build_model(cfg)
    for module in model.modules():
        if isinstance(module, GatedPromptViT):
            for parameter in module.blocks.parameters():
                parameter.data.normal_(std=0.5)
    torch.save(dict(state_dict=model.state_dict(), meta={}), path.with_suffix('.pth'))


def test_a_segmentor_is_seen_through_a_window_in_the_middle(folder):
    task = load_task('seg', folder / 'seg.py', folder / 'seg.pth')
    picture, inputs = task.view(folder / 'image.png')
    whole = cv2.imread(str(folder / 'image.png'))[..., ::-1]
    assert np.array_equal(picture, whole[10:26, 10:34])  # of 37 x 45 pixels
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    assert inputs[0].permute(1, 2, 0).numpy() == pytest.approx((picture - mean) / std, abs=1e-5)
    task.model.test_cfg.crop_size = (64, 24)  # higher than the image
    picture, inputs = task.view(folder / 'image.png')
    assert picture.shape == (37, 24, 3) and inputs.shape == (1, 3, 37, 24)
    with pytest.raises(SampleError, match=r'seg\.py is not an image'):
        task.view(folder / 'seg.py')
    with pytest.raises(SampleError, match=r'there is no image file nowhere\.png'):
        task.view('nowhere.png')
    with pytest.raises(TypeError, match='got Image: of an image of Pillow'):
        task.view(Image.fromarray(whole))


def test_a_full_fine_tuning_can_be_looked_at_but_not_shared(folder):
    with pytest.raises(ValueError, match='is a full fine-tuning'):
        load_task('full', folder / 'full.py', folder / 'full.pth')
    assert not load_task('full', folder / 'full.py', folder / 'full.pth', frozen=False).vit.frozen
    cfg = Config.fromfile(folder / 'seg.py')
    cfg.model.backbone = dict(type='ResNet', depth=18)
    with pytest.raises(ValueError, match='needs one GatedPromptViT, this one has 0'):
        load_task('other', cfg, folder / 'full.pth', frozen=False)


def test_a_classifier_sees_what_its_test_pipeline_gives(folder):
    pytest.importorskip('mmpretrain')
    cfg = Config.fromfile(Path(__file__).parents[1] / 'configs/demo/cls_gpt_shapes.py')
    cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='Resize', scale=(32, 32), backend='pillow'))
    save(cfg, folder / 'cls.py')
    picture, inputs = load_task('cls', cfg, folder / 'cls.pth').view(folder / 'image.png')
    assert picture.shape == (32, 32, 3)
    assert inputs[0].permute(1, 2, 0).numpy() == pytest.approx((picture - 127.5) / 58, abs=1e-5)
    assert picture.mean((0, 1)) == pytest.approx(cv2.imread(str(folder / 'image.png'))[..., ::-1].mean((0, 1)), abs=1)


@pytest.fixture
def tool(folder, monkeypatch, capsys):
    """Runs the tool on a config and the image, and gives its exit code, and what it printed."""
    def run(config: str, *arguments: str | Path) -> tuple[int | str | None, str]:
        files = [folder / f'{config}.py', folder / f'{config}.pth', folder / 'image.png']
        monkeypatch.setattr(sys, 'argv', ['plot_attention.py', *map(str, [*files, *arguments])])
        code = None
        try:
            runpy.run_path(str(TOOLS / 'plot_attention.py'), run_name='__main__')
        except SystemExit as end:
            code = end.code
        return code, ''.join(capsys.readouterr())

    monkeypatch.syspath_prepend(TOOLS)
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict(MMLogger._instance_dict))
    return run


def test_the_tool_writes_what_the_models_attend_to(tool, folder, tmp_path):
    out = tmp_path / 'new/attention.png'
    code, printed = tool('seg', '--query', '9,1', 'prompt:2', '--blocks', '3', '--heads', 'mean', '2', '--out', out,
                         '--also', 'another', folder / 'full.py', folder / 'full.pth')
    written = [out.with_name(f'{stem}.{suffix}') for stem in ('attention', 'attention_summary')
               for suffix in ('png', 'svg', 'csv', 'json')]
    assert code is None and f'written: {", ".join(map(str, written))}' in printed
    assert all(file.is_file() for file in written)

    facts = json.loads(out.with_suffix('.json').read_text())
    table = list(csv.DictReader(out.with_suffix('.csv').open()))
    assert len(table) == len(facts['maps']) == (4 + 2) * 2 and 'plot_attention.py ' in facts['command']
    task, other = (load_task(name, folder / f'{name}.py', folder / f'{name}.pth', frozen=False)
                   for name in ('seg', 'full'))
    models = {name: (task, off) for name, off in variants(task.vit).items()} | dict(another=(other, {}))
    for name, (task, off) in models.items():
        with switched_off(task.vit, **off):
            weights = attention_maps(task.vit, task.view(folder / 'image.png')[1], [2])[2][0]
        i = next(i for i, row in enumerate(table) if (row['query'], row['head'], row['model']) == ('9,1', '2', name))
        expected = weights[1, 2, 1:7].reshape(2, 3) * weights.shape[1]
        assert np.array(facts['maps'][i]) == pytest.approx(expected.numpy(), rel=1e-4)
        assert float(table[i]['largest']) == pytest.approx(expected.max().item(), rel=1e-4)
    summary = json.loads(written[-1].read_text())['rows']
    assert len(summary) == 4 * 3 * (2 + 2)
    shares = {row['model']: row['prompt_share'] for row in summary if row['head'] == 'uniform'}
    assert list(shares) == list(models) and list(shares.values()) == pytest.approx([0, 2 / 9, 2 / 9, 0], rel=1e-4)


def test_models_that_see_another_picture_are_not_laid_beside(tool, folder, tmp_path):
    cfg = Config.fromfile(folder / 'full.py')
    cfg.model.test_cfg.crop_size = (16, 16)
    cfg.dump(tmp_path / 'other.py')
    code, _ = tool('seg', '--also', 'other', tmp_path / 'other.py', folder / 'full.pth', '--out', tmp_path / 'c.png')
    assert '--also other: this model sees a picture of 16 x 16 pixels, the first one 24 x 16' in code


def test_prompts_are_looked_for_in_the_usual_blocks_that_have_them(tool, tmp_path):
    code, _ = tool('seg', '--query', 'prompt:1', '--cfg-options', 'model.backbone.start_block=2', '--out',
                   tmp_path / 'a.png')
    rows = json.loads((tmp_path / 'a.json').read_text())['rows']
    assert code is None and {row['block'] for row in rows} == {3}


@pytest.mark.parametrize('arguments, message', [
    (['--blocks', '4'], '--blocks 4: the model runs 3 blocks, counted from 1'),
    (['--query', '24,0'], '"24,0" is outside of the picture'),
    (['--query', 'prompt:3'], '"prompt:3": prompts are counted from 1 to 2'),
    (['--heads', '3'], 'there is no head 3'),
    (['--query', 'prompts', '--blocks', '1', '--cfg-options', 'model.backbone.start_block=2'],
     '"prompts": block 1 has no prompts'),
])
def test_the_tool_says_what_is_not_there(tool, tmp_path, arguments, message):
    code, _ = tool('seg', *arguments, '--out', tmp_path / 'a.png')
    assert message in code and not list(tmp_path.iterdir())


@pytest.mark.parametrize('arguments, message', [
    (['--query', 'prompt:0'], 'prompt:0 is none of cls, prompt:K'),
    (['--blocks', '0'], '0 is not above 0'),
    (['--also', 'x', 'a.py', 'nowhere.pth'], 'there is no file nowhere.pth'), (['--out', 'a.gif'], 'must end in .png')])
def test_the_tool_says_what_is_wrong_with_its_arguments(tool, arguments, message):
    code, printed = tool('seg', *arguments)
    assert code == 2 and message in printed
