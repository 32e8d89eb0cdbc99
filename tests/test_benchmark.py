"""The benchmark: what it counts against hand computations, that it refuses variants that differ, and its tool."""

import dataclasses
import inspect
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, environment_of, randomise
from mmengine.config import Config, ConfigDict
from test_models import assert_same, images, reference
from torch import nn

from mmseg_gpt import environment
from mmseg_gpt.lab.benchmark import cuda, machine, parity, processes, sweep, timing, variants, work
from mmseg_gpt.lab.benchmark import run as benchmark
from mmseg_gpt.lab.benchmark.costs import checkpoint_bytes, count_costs
from mmseg_gpt.lab.benchmark.cuda import attention_kernels, largest_that_fits
from mmseg_gpt.lab.benchmark.flops import FlopCounter, Traffic
from mmseg_gpt.lab.benchmark.memory import LiveBytes, WithoutValues, fake_tensors, kept_bytes, parts, peak_bytes
from mmseg_gpt.lab.benchmark.plain_vit import PaperAttention, PaperViT
from mmseg_gpt.lab.benchmark.variants import MODELS_COMPARED, Sizes, Variant, build, parse_variant
from mmseg_gpt.models import GatedPromptViT

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / 'configs/setr_pup_gpt_mae_ade20k.py'
SIZES = parity.SIZES
CPU = torch.device('cpu')
tool = runpy.run_path(str(ROOT / 'tools/benchmark.py'))


@pytest.fixture(scope='module')
def cfg() -> Config:
    return variants.read_config(CONFIG)


def start(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ROOT / 'tools/benchmark.py', *arguments], text=True,
                          env=environment_of(PYTHONWARNINGS='ignore', **more),
                          capture_output=True, cwd='/', timeout=600)


# --- The tool ---


@pytest.fixture(scope='module')
def small(tmp_path_factory) -> tuple[dict, str]:
    """What the small preset measured and printed, on a machine without a C++ compiler."""
    out = tmp_path_factory.mktemp('benchmark') / 'results.json'
    result = start('--preset', 'small', '--variants', 'mmseg-full,paper,ours,ours-bf16,ours-compiled', '--allocators',
                   'no-fault', '--json', out, CXX='/nowhere')
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return json.loads(out.read_text()), result.stdout


def test_small_preset_measures_each_variant(small):
    results, _ = small
    assert set(results['times']) == {'no-fault'}
    for times in results['times'].values():
        assert set(times) == {'train', 'eval'}
        for entries in times.values():
            assert set(entries) == {'mmseg-full', 'paper', 'ours', 'ours-bf16'}
            assert entries['paper']['speedup'] == dict(median=1, quartiles=[1, 1])
            assert all(len(e['seconds']) == 2 and e['speedup']['median'] > 0 for e in entries.values())
    assert results['sizes']['image'] == 64 and results['resident'] > 2**20


def test_small_preset_says_why_a_variant_was_not_run(small):
    results, printed = small
    assert set(results['not_run']) == {'ours-compiled, train', 'ours-compiled, eval'}
    assert all('C++ compiler' in reason for reason in results['not_run'].values())
    assert 'Not run: ours-compiled, train: ' in printed


def test_small_preset_counts_and_compares(small):
    results, _ = small
    assert set(results['parity']) == {'loss', 'gradients', 'statistics', 'predictions'}
    assert max(results['parity'].values()) < 1e-12
    assert set(results['costs']) == {'mmseg-full', 'paper', 'ours', 'ours-bf16'}
    for name, costs in results['costs'].items():
        assert costs['tensors']['train'] == 'fake'
        assert costs['slope'] > sum(costs['kept'].values()) > costs['kept']['ViT'] > 0
        assert costs['train']['flops'] > costs['eval']['flops'] > 0
        assert costs['checkpoint']['whole'] >= costs['checkpoint']['trained'] > costs['checkpoint']['adapters']
        assert results['floor']['train'][name]['share']['no-fault'] > 0
    assert results['costs']['mmseg-full']['checkpoint']['adapters'] == 0
    assert 'aten::_softmax' in results['kernels']['paper'] and 'aten::_softmax' not in results['kernels']['ours']


def test_small_preset_prints_tables(small):
    results, printed = small
    for title in ('Training step', 'Evaluated image, one scale', 'Live memory', 'FLOPs, and bytes', 'Floor: train',
                  'What computes attention', results['machine']['device'], 'mmsegmentation', 'no-fault: s'):
        assert title in printed


@pytest.mark.slow
def test_compiled_variant_resident_memory_and_all_scales(tmp_path):
    result = start('--preset', 'small', '--variants', 'paper,ours-compiled', '--what', 'train', '--tta', '--rss',
                   '--allocators', 'this', '--json', tmp_path / 'results.json')
    assert result.returncode == 0, result.stderr[-3000:]
    results = json.loads((tmp_path / 'results.json').read_text())
    times, = results['times'].values()
    assert {'paper'} <= set(times['tta']) and min(results['rss'].values()) > 2**20
    assert ('ours-compiled' in times['train']) != ('ours-compiled, train' in results['not_run'])


def options(monkeypatch, *arguments: str) -> benchmark.Options:
    monkeypatch.setattr('sys.argv', ['benchmark.py', *arguments])
    return tool['read_options'](tool['parse_args']())


def test_default_is_the_full_size(monkeypatch):
    full = options(monkeypatch, '--device', 'cpu', '--batch', '1')
    assert full.sizes == Sizes('base', None, 512, 150, 100, 256, 1) and full.sizes.evaluated == (512, 683)
    assert full.variants == ['mmseg-full', 'paper', 'ours', 'ours-bf16', 'ours-compiled']
    assert full.allocators == ['default', 'no-fault'] and full.parity


def test_options_go_over_a_preset(monkeypatch):
    changed = options(monkeypatch, '--preset', 'small', '--image', '96', '--rounds', '7', '--tta')
    assert (changed.sizes.image, changed.rounds, changed.sizes.arch) == (96, 7, 'tiny') and 'tta' in changed.what


@pytest.mark.parametrize('arguments, said', [
    (['--variants', 'paper,theirs'], 'variant "theirs" is unknown'), (['--depth', '2'], '--depth 2'),
    (['--what', 'train,memory'], 'memory is none of'), (['--allocators', 'fast'], 'fast is none of'),
    (['--device', 'cpu', '--largest-batch'], '--largest-batch needs a GPU')])
def test_options_that_cannot_be_are_refused(monkeypatch, arguments, said):
    with pytest.raises(SystemExit, match=said):
        options(monkeypatch, *arguments)


def test_axes_of_the_sweep(monkeypatch):
    monkeypatch.setattr('sys.argv', ['benchmark.py', '--sweep', 'out', '--axes', 'image=32,64', 'depth'])
    args = tool['parse_args']()
    assert args.variants == ['paper', 'ours']
    assert tool['read_axes'](args) == dict(image=[32, 64], depth=[3, 6, 9, 12])
    args.axes = [('width', [])]
    with pytest.raises(SystemExit, match='width is none of image'):
        tool['read_axes'](args)


def test_importing_it_imports_neither_torchvision_nor_mmpretrain():
    code = ('import sys, mmseg_gpt.lab.benchmark.run; '
            'assert not {"torchvision", "mmpretrain", "matplotlib"} & set(sys.modules)')
    subprocess.run([sys.executable, '-c', code], check=True, env=environment_of())


# --- The variants ---


@pytest.mark.parametrize('start_of_gates', [-2., 0.5])
def test_paper_variant_agrees_with_algorithm_1(start_of_gates):
    vit = randomise(PaperViT(TINY, 32, (1, 3), num_tokens=3, dropout=0., patch_size=8).double())
    vit.prompt.gate_prior.data += start_of_gates
    weights = {k: v.detach().clone().requires_grad_(v.requires_grad) for k, v in vit.named_parameters()}
    expected = reference(weights, images, 8, 4, 'GatedPrompt', out_indices=(1, 3))
    actual = vit(images)
    for results in (actual, expected):
        sum(t.sin().sum() for t in results).backward()
    for one, other in zip(actual, expected):
        assert_same(one, other)
    trained = {name for name, p in vit.named_parameters() if p.requires_grad}
    assert trained == {'prompt.tokens', 'prompt.gate_prior', 'temperature'}
    for name in trained:
        assert_same(vit.get_parameter(name).grad, weights[name].grad)


def test_one_state_dict_fills_the_paper_variant_and_ours(cfg):
    weights = variants.draw_weights(cfg, SIZES, 0)
    for name in ('paper', 'ours'):
        state = build(name, cfg, SIZES, weights).state_dict()
        assert all(torch.equal(state[key], weight) for key, weight in weights.items())
        assert state.keys() == weights.keys()


def test_mmseg_variant_has_the_same_weights_and_trains_them_all(cfg):
    weights = variants.draw_weights(cfg, SIZES, 0)
    theirs = build('mmseg-full', cfg, SIZES, weights).double()
    plain = GatedPromptViT(arch=SIZES.vit, img_size=SIZES.image, out_indices=theirs.backbone.out_indices).double()
    vit = {k.removeprefix('backbone.'): v for k, v in weights.items() if k.startswith('backbone.')}
    plain.load_state_dict({name: vit[name] for name in plain.state_dict()})
    pictures = torch.randn(2, 3, SIZES.image, SIZES.image, dtype=torch.float64)
    for one, other in zip(theirs.backbone(pictures), plain(pictures)):
        assert_same(one, other)
    assert torch.equal(theirs.decode_head.conv_seg.weight.float(), weights['decode_head.conv_seg.weight'])
    assert all(p.requires_grad for p in theirs.parameters())


def test_heads_stay_at_their_relative_depth(cfg):
    taps = {depth: variants.ours(cfg, Sizes(depth=depth)).backbone.out_indices for depth in (3, 6, 12, 24)}
    assert taps == {3: (0, 1, 2), 6: (1, 3, 5), 12: (4, 8, 11), 24: (9, 17, 23)}
    assert variants.ours(cfg, Sizes()).test_cfg.stride == [341, 341]


def test_stock_changes_the_names_of_classes_only():
    config = ConfigDict(type='LeanEncoderDecoder', name='LeanIn', heads=[dict(type='LeanSETRUPHead', up=(2, 4))])
    assert variants.stock(config) == dict(type='EncoderDecoder', name='LeanIn',
                                          heads=[dict(type='SETRUPHead', up=(2, 4))])


def test_compared_models_are_stock_but_for_ours(cfg):
    for name in MODELS_COMPARED[:2]:
        model = build(name, cfg, SIZES)
        for module in (model, model.decode_head, *model.auxiliary_head):
            assert type(module).__module__.startswith('mmseg.'), name
    for name, with_cp in zip(MODELS_COMPARED[2:], (False, True, False, False), strict=True):
        backbone = build(name, cfg, SIZES).backbone
        assert type(backbone) is GatedPromptViT and backbone.with_cp is with_cp
        assert backbone.blocks[0].mlp.fc1.weight.dtype == (torch.bfloat16 if 'half' in name else torch.float32)
        assert backbone.blocks[0].attn.fused == name.endswith('fused')


def test_names_of_variants():
    assert parse_variant('paper-bf16') == Variant('paper-bf16', 'paper', True, False)
    assert parse_variant('ours-bf16-compiled') == Variant('ours-bf16-compiled', 'ours', True, True)
    assert parse_variant('mmseg-full') == Variant('mmseg-full', 'mmseg-full', False, False)
    assert parse_variant('ours-half-bf16') == Variant('ours-half-bf16', 'ours-half', True, False)
    with pytest.raises(ValueError, match='needs autocast, ours-half-bf16'):
        parse_variant('ours-half')


# --- Parity ---


def test_parity_holds(cfg):
    assert max(parity.check_parity(cfg).values()) < 1e-12


def test_parity_is_checked_where_all_matters(cfg):
    weights = parity.redrawn_weights(variants.draw_weights(cfg, SIZES, 0), 0)
    found = parity.results(build('paper', cfg, SIZES, weights).double(), 0)
    assert len(found['predictions']['labels'].unique()) > 3
    assert all(gradient.abs().max() > 1e-6 for gradient in found['gradients'].values())
    trained = {name for name, p in build('ours', cfg, SIZES).named_parameters() if p.requires_grad}
    assert found['gradients'].keys() == trained and len(found['statistics']) == 2 * (4 + 2 + 2)


def softmax_without_temperature(self, x, temperature):
    return original_attention(self, x, temperature.detach())


original_attention, original_paper = PaperAttention.forward, variants.paper
CHANGES = dict(  # by what differs: how the configuration of the paper's variant is changed
    loss=lambda config: config.decode_head.loss_decode.update(loss_weight=1 + 1e-9),
    statistics=lambda config: config.auxiliary_head[1].norm_cfg.update(momentum=0.11),
    predictions=lambda config: config.test_cfg.update(crop_size=(48, 48)))


@pytest.mark.parametrize('part', CHANGES)
def test_parity_refuses_a_variant_whose_config_differs(cfg, monkeypatch, part):
    def changed(*args):
        config = original_paper(*args)
        CHANGES[part](config)
        return config

    monkeypatch.setattr(variants, 'paper', changed)
    with pytest.raises(parity.ParityError, match=f'{part} '):
        parity.check_parity(cfg)


def test_parity_refuses_a_gradient_that_differs_and_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(PaperAttention, 'forward', softmax_without_temperature)
    for name in ('count_costs', 'measure_times', 'rates'):
        monkeypatch.setattr(benchmark, name, lambda *args: pytest.fail('something was measured'))
    with pytest.raises(parity.ParityError, match=r'gradients.*temperature'):
        benchmark.run(benchmark.Options(str(CONFIG), SIZES, ['paper', 'ours'], {'train', 'costs', 'floor'}, CPU))


def test_parity_refuses_nan():
    assert not parity.difference(torch.tensor([1., float('nan')]), torch.ones(2)) <= parity.TOLERANCE
    assert parity.difference(torch.ones(2), torch.ones(3)) == float('inf')
    assert parity.difference(torch.tensor([4., 2.]), torch.tensor([4., 1.])) == 0.25


# --- What goes wrong on a GPU ---


def test_work_that_is_too_large_is_not_run_and_other_errors_are_raised(monkeypatch):
    for said in ('upsample_bilinear2d_nhwc only supports output tensors with less than INT_MAX elements, but got [128]',
                 'CUDA out of memory. Tried to allocate 9 GiB'):
        def work(said=said) -> None:
            raise RuntimeError(said)

        monkeypatch.setattr(torch.cuda, 'synchronize', lambda *_: None)
        assert benchmark.why_not(work) == said and not cuda.fits_in_memory(lambda batch, work=work: work, 128)
    with pytest.raises(RuntimeError, match='tensor'):
        benchmark.why_not(lambda: torch.ones(2) @ torch.ones(3))
    assert benchmark.why_not(lambda: None) is None


@pytest.mark.parametrize('gibibytes, batch', [(80, 16), (47, 8), (24, 4), (11, 2), (6, 1)])
def test_the_batch_follows_the_memory_of_the_gpu(gibibytes, batch):
    assert cuda.usual_batch(gibibytes * 2**30) == batch


def test_numbers_are_kept_after_each_part_and_costs_counted_for_few_images(monkeypatch):
    def fail(*_) -> None:
        raise RuntimeError('CUDA error: an illegal memory access\nwas encountered')

    counted, kept = [], []
    monkeypatch.setattr(benchmark, 'check_parity', lambda *_: {})
    monkeypatch.setattr(benchmark, 'count_costs', lambda variant, cfg, sizes: counted.append(sizes.batch))
    monkeypatch.setattr(benchmark, 'attention_kernels', fail)
    found = benchmark.run(benchmark.Options(
        str(CONFIG), dataclasses.replace(SIZES, batch=16), ['paper', 'ours'], {'costs', 'kernels'}, CPU),
        lambda results: kept.append(len(results['not_run'])))
    assert counted == [2, 2] and found['counted'] == 2 and kept == [0, 1, 2]
    assert found['not_run']['ours, kernels'] == 'CUDA error: an illegal memory access was encountered'


# --- Live bytes ---


@pytest.fixture(params=['real', 'fake'])
def tensors(request):
    """Runs a test on real tensors and on fake ones."""
    if request.param == 'real':
        yield
    else:
        with fake_tensors():
            yield


def test_live_bytes_of_a_chain(tensors):
    with LiveBytes() as counter:
        a = torch.ones(100)  # 400
        b = a + 1  # 800
        view = b.view(10, 10)[2:].t()
        b += 1
        assert (counter.live, counter.peak) == (800, 800)
        del a
        assert counter.live == 400
        c = view.double()  # 80 doubles: 640
        assert (counter.live, counter.peak) == (1040, 1040)
        del b
        assert counter.live == 1040  # a view keeps all of it
        del view
        assert counter.live == 640
        del c
    assert (counter.live, counter.peak) == (0, 1040)


def test_live_bytes_of_many_that_come_and_go(tensors):
    with LiveBytes() as counter:
        for _ in range(50):  # their addresses are used again
            torch.ones(1000).exp_()
    assert (counter.live, counter.peak) == (0, 4000)


def test_live_bytes_of_what_autograd_keeps(tensors):
    x = torch.ones(100, requires_grad=True)

    def step() -> None:
        y = x.exp()  # kept: itself
        z = y.sin()  # keeps y
        del y
        z.sum().backward()

    # x, y, z; the sum and its gradient, of 4 bytes each; then cos(y) and its product with that gradient.
    assert peak_bytes(step, [x]) == 3 * 400 + 2 * 4 + 2 * 400
    assert peak_bytes(lambda: x.exp().sin(), [x, x[1:]]) == 3 * 400  # the gradient is not among what is held


def test_fake_tensors_count_as_real_ones_do(cfg):
    sizes = Sizes(arch='tiny', image=48, classes=5, prompts=3, channels=8, batch=2)
    for name in ('mmseg-full', 'paper', 'ours', 'paper-bf16', 'ours-bf16'):
        variant = parse_variant(name)
        peaks = []
        for fake in (False, True):
            model = build(variant.model, cfg, sizes)
            with fake_tensors() if fake else WithoutValues():
                model = model.to_empty(device='cpu') if fake else model
                step = work.TrainingStep(model, cfg, work.make_batch(sizes), variant.bf16)
                step()
                peaks.append(peak_bytes(step, step.tensors()))
                peaks.append(kept_bytes(parts(model), step.loss, step.tensors())[1])
        if variant.bf16:  # batch norm's statistics of a batch are float32 then, and bfloat16 where they are fake
            assert peaks[0] == pytest.approx(peaks[2], rel=1e-3)
        else:
            assert peaks[:2] == peaks[2:], name


def test_questions_about_values_are_answered_as_if_all_were_true():
    x = torch.arange(24.).view(2, 3, 4)
    with WithoutValues() as values:
        everything = x[:, torch.zeros(3, 4) > 0]
        assert bool(torch.zeros(()) > 0) and values.answers == 2
        assert torch.equal(x[:, torch.tensor([2, 0])], x[[0, 1]][:, [2, 0]]) and values.answers == 2
    assert everything.shape == (2, 12)
    with pytest.raises(RuntimeError), fake_tensors():
        torch.zeros(()).item()


def test_costs_of_code_that_needs_values_are_counted_on_real_tensors(cfg, monkeypatch, capsys):
    forward = PaperViT.forward
    monkeypatch.setattr(PaperViT, 'forward', lambda self, x: forward(self, x) if x.sum().item() > -1e9 else None)
    sizes = Sizes(arch='tiny', image=32, classes=5, prompts=3, channels=8)
    costs = count_costs(parse_variant('paper'), cfg, sizes)
    assert all(tensors.startswith('real, because') for tensors in costs['tensors'].values()) and costs['slope'] > 0
    assert 'paper, train: counted on tensors that are real' in capsys.readouterr().out


class Part(nn.Module):
    """Something that is called and keeps something."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.ones(10))

    def forward(self, x):
        return self.function(x * self.weight)


class Squares(torch.autograd.Function):
    """Keeps its argument where autograd does not look."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x
        return x.square().sum()

    @staticmethod
    def backward(ctx, slope):
        return 2 * slope * ctx.x


def test_bytes_kept_for_backward(tensors):
    first, second = Part(torch.exp), Part(Squares.apply)
    x = torch.ones(20, 10)  # 800 bytes

    def forward():
        y = first(x)  # keeps x, which is held, and what it returns, but not x * weight
        return second(y) + (y + 1).cos().sum()  # second: y * weight; rest: y + 1, and 4 bytes of the loss

    owners = {name: (part, 'forward') for name, part in dict(a=first, b=second).items()}
    loss, kept = kept_bytes(owners, forward, [x, first.weight, second.weight])
    assert kept == dict(a=800, b=800, rest=804)
    assert 'forward' not in vars(first)
    loss.backward()


# --- FLOPs and traffic ---


def attention_step(explicit: bool) -> None:
    q, k, v = (torch.randn(2, 3, length, 8, requires_grad=True) for length in (5, 7, 7))
    if explicit:
        (q @ k.transpose(-2, -1)).softmax(-1).matmul(v).sum().backward()
    else:
        F.scaled_dot_product_attention(q, k, v).sum().backward()


@pytest.mark.parametrize('explicit', [True, False])
def test_flops_of_attention(tensors, explicit):
    with FlopCounter() as counter:
        attention_step(explicit)
    product = 2 * 2 * 3 * 5 * 7 * 8  # one of QK^T and AV; the gradient has two for each
    assert counter.flops.needed == 6 * product
    assert counter.flops.recomputed == (0 if explicit else product)


def test_flops_of_layers(tensors):
    linear, conv = nn.Linear(8, 5), nn.Conv2d(3, 4, 3, padding=1)
    with FlopCounter() as counter, torch.no_grad():
        linear(torch.ones(7, 8))
        conv(torch.ones(2, 3, 6, 6))
    assert counter.flops == (2 * 7 * 8 * 5 + 2 * 2 * 36 * 4 * 3 * 9, 0)


def test_flops_of_a_frozen_layer_are_of_one_gradient(tensors):
    linear = nn.Linear(8, 5).requires_grad_(False)
    with FlopCounter() as counter:
        linear(torch.ones(7, 8, requires_grad=True)).sum().backward()
    assert counter.flops.needed == 2 * (2 * 7 * 8 * 5)


def test_traffic_is_what_goes_in_and_out(tensors):
    x, y = torch.ones(100), torch.ones(100)
    with Traffic() as traffic:
        z = x + y  # 3 times 400
        z.view(10, 10).t()
        torch.empty(1000)
    assert traffic.bytes == 1200
    with Traffic() as traffic:
        x[:1].expand(100) + 1  # what is expanded is 400 bytes of storage here, and 100 numbers
    assert traffic.bytes == 800


def test_checkpoint_sizes(cfg):
    model = build('ours', cfg, SIZES)
    sizes = checkpoint_bytes(model)
    vit = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert sizes['whole'] - sizes['trained'] == 4 * vit
    assert sizes['adapters'] == 4 * (3 * 32 + 3 + 4)  # 3 prompts of width 32, 3 gates, 4 temperatures


# --- Times ---


def test_every_round_measures_each_variant_once_in_changing_order(capsys):
    ran = []
    seconds = timing.measure({name: lambda name=name: ran.append(name) for name in 'abc'}, 8, 3, 0, CPU)
    rounds = [ran[i:i + 3] for i in range(0, len(ran), 3)]
    assert len(rounds) == 11 and all(sorted(order) == ['a', 'b', 'c'] for order in rounds)
    assert len({tuple(order) for order in rounds}) > 2
    assert {name: len(values) for name, values in seconds.items()} == dict(a=8, b=8, c=8)
    assert 'ETA' in capsys.readouterr().err


def test_speedups_are_of_rounds():
    summary = timing.summarise(dict(paper=[4., 8., 6.], ours=[2., 2., 6.]), 'paper')
    assert summary['ours']['median'] == 2 and summary['ours']['quartiles'] == [2, 4]
    assert summary['ours']['speedup'] == dict(median=2, quartiles=[1.5, 3])  # 2, 4 and 1
    assert 'speedup' not in timing.summarise(dict(ours=[2., 2.]), 'paper')['ours']


def test_floor_is_work_over_rates():
    costs = dict(train=dict(flops=300, traffic=50), eval=dict(flops=30, traffic=5), checkpoint=dict(whole=20))
    results = dict(rates=dict(float32=100, bfloat16=200, bandwidth=10), images=2, sizes=dict(batch=2), counted=2,
                   costs={'ours': costs, 'ours-bf16': costs}, times=dict(default=dict(train=dict(ours=dict(median=6)))))
    found = benchmark.floor(results, 'train')
    assert found['ours'] == dict(flops=3, traffic=5, weights=2, share=dict(default=0.5))
    assert found['ours-bf16'] == dict(flops=1.5, traffic=5, weights=2, share={})
    assert benchmark.floor(results, 'eval')['ours'] == dict(flops=0.6, traffic=1, weights=2, share={})
    results.update(sizes=dict(batch=16))  # of which two images were counted
    assert benchmark.floor(results, 'train')['ours'] == dict(flops=24, traffic=40, weights=2, share=dict(default=4))


def test_rates_are_positive():
    assert min(machine.rates(CPU, small=True).values()) > 0
    assert environment.available_bytes(CPU) > 0 and environment.cpu_name()


@pytest.mark.parametrize('allocator', processes.ALLOCATORS)
def test_a_process_of_its_own_gets_its_allocator_and_no_other(monkeypatch, allocator):
    monkeypatch.setenv('MALLOC_ARENA_MAX', '1')
    code = 'import json, os, sys; json.dump(dict(os.environ), open(sys.argv[-1], "w"))'
    environment = processes.run_again(['-c', code], allocator)
    assert {k: v for k, v in environment.items() if k.startswith('MALLOC_')} == processes.ALLOCATORS[allocator]
    for key in list(os.environ):
        if key.startswith('MALLOC_'):
            monkeypatch.delenv(key)
    for key, value in processes.ALLOCATORS[allocator].items():
        monkeypatch.setenv(key, value)
    assert benchmark.this_allocator() == allocator


def test_a_process_of_its_own_that_fails_is_an_error():
    with pytest.raises(SystemExit, match='benchmark failed'):
        processes.run_again(['-c', 'raise SystemExit(3)'])


@pytest.mark.alone
def test_memory_of_a_process_of_its_own_is_its_own():
    functions = '\n'.join(inspect.getsource(f) for f in (environment.bytes_in, environment.peak_resident_bytes))
    code = ('import json, re, resource, sys\nfrom pathlib import Path\n' + functions +
            '\njson.dump(peak_resident_bytes(), open(sys.argv[-1], "w"))')
    assert environment.peak_resident_bytes() > 150e6  # this one has torch
    assert 2e6 < processes.run_again(['-c', code]) < 100e6


@pytest.mark.parametrize('limit', [0, 1, 2, 3, 7, 8, 9, 100])
def test_largest_batch_is_found_by_bisection(limit):
    tried = []
    assert largest_that_fits(lambda n: tried.append(n) or n <= limit) == limit
    assert len(tried) < 16


def test_attention_that_ran_is_named():
    x = torch.randn(1, 2, 8, 4)
    assert attention_kernels(lambda: F.scaled_dot_product_attention(x, x, x), CPU) == {
        'aten::_scaled_dot_product_flash_attention_for_cpu': 1}


def test_work_is_that_of_the_loops(cfg):
    model = build('paper', cfg, SIZES)
    step = work.TrainingStep(model, cfg, work.make_batch(SIZES))
    labels = torch.stack([sample.gt_sem_seg.data for sample in step.batch.samples])
    assert 0.05 < (labels == work.IGNORED).double().mean() < 0.15
    before = model.backbone.prompt.tokens.clone()
    step()
    assert not torch.equal(before, model.backbone.prompt.tokens)
    frozen = model.backbone.blocks[0].mlp.fc1.weight
    assert frozen.grad is None and not frozen.requires_grad
    for evaluation in (work.Evaluation(model, SIZES, CPU, images=2),
                       work.MultiScaleEvaluation(model, SIZES, CPU, False, cfg, own=False)):
        found = evaluation()
        assert len(found) == evaluation.images
        assert found[0].pred_sem_seg.data.shape[-2:] == SIZES.evaluated
    assert [tuple(image.shape[1:]) for image, _ in evaluation.views[::2]] == [
        (round(64 * r), round(85 * r)) for r in (0.5, 0.75, 1, 1.25, 1.5, 1.75)]
    assert work.windows(cfg, SIZES) == 2


# --- The sweep ---


@pytest.mark.slow
def test_sweep_writes_numbers_and_one_figure(cfg, tmp_path, monkeypatch, capsys):
    sizes = Sizes(arch='tiny', image=32, classes=5, prompts=3, channels=8)
    monkeypatch.setattr(sweep, 'available_bytes', lambda device: 2**30)
    settings = benchmark.Options(str(CONFIG), sizes, ['paper', 'ours'], {'train'}, CPU, rounds=1)
    benchmark.run_sweep(settings, dict(image=[32, 64], prompts=[9]), str(tmp_path / 'sweep'))
    points = json.loads((tmp_path / 'sweep.json').read_text())['sweep']
    assert {axis: [p['value'] for p in values] for axis, values in points.items()} == dict(
        image=[32, 64], prompts=[9])
    few, many, prompts = (point['costs'] for values in points.values() for point in values)
    for cost in ('peak', 'flops', 'seconds'):
        assert all(costs[name][cost] > 0 for costs in (few, many, prompts) for name in ('paper', 'ours'))
    assert few['paper']['flops'] < prompts['paper']['flops'] < many['paper']['flops']
    figure = cv2.imread(str(tmp_path / 'sweep.png'))
    assert figure.shape[1] > 900 and figure.std() > 5


def test_sweep_does_not_time_what_the_memory_cannot_hold(cfg, monkeypatch):
    monkeypatch.setattr(sweep, 'available_bytes', lambda device: 50)
    monkeypatch.setattr(sweep, 'build', lambda *args: pytest.fail('a model was built'))
    costs = dict(paper=dict(peak=40), ours=dict(peak=39))
    assert sweep.step_seconds(costs, cfg, SIZES, CPU, 1) == {}
