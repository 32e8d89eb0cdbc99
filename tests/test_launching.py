"""Compiled parts and the training step as a CUDA graph: the same numbers, and reasons where it cannot be.

A CPU has no CUDA graphs. In their place stands a double that repeats the recorded function into the tensors of its
first outcome, which is what a graph does: static tensors, copies, sizes, and what happens between steps are real.
"""

import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmseg.registry import MODELS
from tiny_run import MAIN, At, differing, run, saved, tiny_config
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend

from mmseg_gpt.engine import CompileHook, CudaGraphHook, set_launching
from mmseg_gpt.engine.graphed import CudaGraph, GraphedStep, why_not_graphed
from mmseg_gpt.engine.hooks.compile import Compiled
from mmseg_gpt.lab.benchmark.parity import SIZES
from mmseg_gpt.lab.benchmark.variants import read_config
from mmseg_gpt.lab.gpu_check.numbers import Setting
from mmseg_gpt.lab.gpu_check.speed import deterministic_graph
from mmseg_gpt.models import GatedPromptViT


class Repeated:
    """The double of a CUDA graph. A replay fills tensors and calls nothing that a hook has put into the model."""

    made, replays = 0, 0

    def __init__(self, work) -> None:
        Repeated.made += 1
        used = inspect.getclosurevars(work).nonlocals
        self.model, self.wrapper = used['self'].model, used['optim_wrapper']
        self.buffers = list(self.model.buffers())
        state, kept = torch.get_rng_state(), [buffer.clone() for buffer in self.buffers]
        self.work, self.outcome = work, work()
        torch.set_rng_state(state)  # nothing runs while a graph is recorded
        for buffer, value in zip(self.buffers, kept):
            buffer.copy_(value)

    def replay(self) -> None:
        Repeated.replays += 1
        done = self.wrapper._inner_count
        hooked = {name: vars(self.model).pop(name) for name in ('parse_losses', ) if name in vars(self.model)}
        (gradients, losses), (new, numbers) = self.outcome, self.work()
        vars(self.model).update(hooked)
        self.wrapper._inner_count = done
        for old, each in [*zip(gradients, new), *((losses[name], numbers[name]) for name in losses)]:
            if torch.is_tensor(old):  # a graph knows of no others
                old.detach().copy_(each)


@pytest.fixture(scope='module')
def usual(tmp_path_factory):
    """A run without a graph: its folder."""
    folder = tmp_path_factory.mktemp('usual')
    run(tiny_config(folder, default_hooks__logger__interval=1))
    return folder


def logged(folder: Path) -> list[dict[str, float]]:
    """The losses and accuracies of each iteration of the run in ``folder``."""
    scalars, = (folder / 'run').glob('*/vis_data/scalars.json')
    lines = map(json.loads, scalars.read_text().splitlines())
    return [{name: line[name] for name in line if 'loss' in name or 'acc' in name} for line in lines if 'loss' in line]


@pytest.fixture(autouse=True)
def counted() -> None:
    Repeated.made = Repeated.replays = 0


def test_a_graphed_run_and_its_resumption_give_the_usual_checkpoints_bit_for_bit(usual, tmp_path):
    cfg = tiny_config(usual, work_dir=str(tmp_path / 'run'), default_hooks__logger__interval=1)
    runner = run(cfg, CudaGraphHook(1, Repeated))
    assert (Repeated.made, Repeated.replays) == (1, 5) and 'train_step' not in vars(runner.model)
    assert differing(saved(tmp_path, 6), saved(usual, 6)) == []
    assert len(logged(usual)) == 6 and logged(tmp_path) == logged(usual)
    (tmp_path / 'run/iter_6.pth').unlink()
    cfg = tiny_config(usual, work_dir=str(tmp_path / 'run'), resume=True, load_from=str(tmp_path / 'run/iter_4.pth'))
    run(cfg, CudaGraphHook(1, Repeated))
    assert Repeated.made == 2 and differing(saved(tmp_path, 6), saved(usual, 6)) == []


def test_weights_that_have_moved_are_seen_and_the_step_is_recorded_anew(usual, tmp_path):
    def move(runner, batch) -> None:
        for p in runner.model.backbone.blocks.parameters():
            p.data = p.data.clone()

    run(tiny_config(usual, work_dir=str(tmp_path / 'run')), CudaGraphHook(1, Repeated), At(4, move))
    assert Repeated.made == 2 and differing(saved(tmp_path, 6), saved(usual, 6)) == []


class Toy(torch.nn.Module):
    """A model whose loss is the mean of w * inputs, with what GraphedStep asks of MMEngine's."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(3))

    def data_preprocessor(self, data: dict, training: bool) -> dict:
        return dict(inputs=data['inputs'].clone())

    def _run_forward(self, data: dict, mode: str) -> dict:
        return dict(loss=(self.w * data['inputs']).mean())

    def parse_losses(self, losses: dict) -> tuple:
        return losses['loss'], losses


def step_once(step: GraphedStep, wrapper: OptimWrapper, rows: int) -> float:
    return float(step(dict(inputs=torch.rand(rows, 3)), wrapper)['loss'].detach())


def test_a_batch_of_another_size_goes_the_usual_way_and_is_told_of_once(log):
    model = Toy()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    step = GraphedStep(model, Repeated, warm_up=0)
    before = model.w.detach().clone()
    for rows in (4, 2, 4, 2):
        step_once(step, wrapper, rows)
        assert not torch.equal(before, model.w) and wrapper._inner_count
        before = model.w.detach().clone()
    assert Repeated.replays == 2 and wrapper._inner_count == 4
    assert len([r for r in log if 'is computed without' in r.getMessage()]) == 1


def test_what_cannot_be_recorded_goes_on_as_usual_with_the_reason(log):
    def refuse(work) -> None:
        work()
        raise RuntimeError('operation not permitted when stream is capturing\nand more')

    model = Toy()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    step = GraphedStep(model, refuse, warm_up=0)
    for _ in range(3):
        step_once(step, wrapper, 4)
    said = [r.getMessage() for r in log if 'cannot be recorded' in r.getMessage()]
    assert len(said) == 1 and said[0].endswith('goes on without: operation not permitted when stream is capturing')
    assert wrapper._inner_count == 3 and model.w.grad is None


def test_reasons_against_a_graph():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    here, there = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1, device='meta')
    there.parameters = lambda: iter([SimpleNamespace(device=SimpleNamespace(type='cuda'))])
    plain = OptimWrapper(optimizer)
    for expected, arguments in {
            'only CUDA': (here, plain, False), 'exchange gradients': (there, plain, True),
            'several optimizers': (there, OptimWrapperDict(a=plain), False),
            'accumulated': (there, OptimWrapper(optimizer, accumulative_counts=2), False),
            'a train_step of its own': (there, plain, False)}.items():
        assert expected in why_not_graphed(*arguments)


def test_without_a_gpu_the_log_says_why_and_the_run_is_the_usual_one(usual, tmp_path, log):
    cfg = tiny_config(usual, work_dir=str(tmp_path / 'run'))
    set_launching(cfg, graphed=True)
    run(cfg)
    assert differing(saved(tmp_path, 6), saved(usual, 6)) == []


def blocks() -> GatedPromptViT:
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, mlp_ratio=2)
    return GatedPromptViT(arch=arch, img_size=32, patch_size=8, out_indices=(0, 1), temperature=True,
                          prompt=dict(type='GatedPrompt', num_tokens=3, gate_init=0.)).double().train()


def outcome(vit: GatedPromptViT, images: torch.Tensor) -> list[torch.Tensor]:
    vit.zero_grad()
    torch.manual_seed(0)  # dropout of prompts
    outputs = vit(images)
    sum((y**2).sum() for y in outputs).backward()
    return [*(y.detach() for y in outputs), *(p.grad for p in vit.parameters() if p.grad is not None)]


def test_compiled_blocks_give_the_same_numbers_at_all_sizes_and_are_compiled_once():
    vit = blocks()
    counter, usual = CompileCounterWithBackend('aot_eager'), vit.run_blocks
    fast = Compiled(usual, 'ViT', counter)
    graphs = []
    for size in ((2, 3, 32, 32), (3, 3, 32, 32), (2, 3, 40, 64), (5, 3, 61, 24)):
        images = torch.randn(size, dtype=torch.float64)
        vit.run_blocks = fast
        found = outcome(vit, images)
        graphs.append(counter.frame_count)  # in the first call torch may begin again, for the sake of a Python number
        vit.run_blocks = usual
        expected = outcome(vit, images)
        assert len(found) == len(expected) == 5
        assert all(torch.allclose(a, b, rtol=0, atol=1e-11 * b.abs().max()) for a, b in zip(found, expected))
    assert fast.fast is not None and graphs[0] > 0 and len(set(graphs)) == 1


@pytest.mark.slow
def test_compiled_heads(log):
    head = MODELS.build(dict(
        type='mmseg.LeanSegmenterMaskTransformerHead', in_channels=16, channels=16, num_classes=5, num_layers=1,
        num_heads=2, embed_dims=16, dropout_ratio=0)).double()
    counter, usual = CompileCounterWithBackend('aot_eager'), head.forward
    fast = Compiled(usual, 'head', counter)
    for size in ((2, 16, 4, 4), (3, 16, 5, 4), (2, 16, 6, 7)):
        x = torch.randn(size, dtype=torch.float64)
        assert torch.allclose(fast((x, )), usual((x, )), rtol=0, atol=1e-12)
    assert counter.frame_count == 1 and fast.fast is not None


@pytest.mark.slow
def test_a_compiled_run_is_the_usual_one_and_leaves_nothing_behind(usual, tmp_path):
    runner = run(tiny_config(usual, work_dir=str(tmp_path / 'run'), train_cfg__max_iters=2), CompileHook('aot_eager'))
    assert not any({'run_blocks', 'forward'} & set(vars(m)) for m in runner.model.modules())
    one, other = (saved(folder, 2)['state_dict'] for folder in (tmp_path, usual))
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name].double(), other[name].double(), atol=1e-6) for name in one)


def broken(graph: torch.fx.GraphModule, inputs: list) -> None:
    raise RuntimeError('no compiler')


@pytest.mark.parametrize('backend', [broken, aot_autograd(fw_compiler=lambda graph, _: graph, bw_compiler=broken)],
                         ids=['forward', 'backward'])
def test_what_cannot_be_compiled_goes_on_as_usual_with_the_reason(backend, log):
    part = Compiled(lambda x: x.sin() + 1, 'part', backend)
    for rows in (2, 3):
        x = torch.zeros(rows, 2, requires_grad=True)
        y = part(x)
        y.sum().backward()
        assert torch.equal(y, torch.ones(rows, 2)) and torch.equal(x.grad, torch.ones(rows, 2))
    said = [r.getMessage() for r in log if 'cannot be compiled' in r.getMessage()]
    assert len(said) == 1 and 'part cannot be compiled' in said[0] and 'no compiler' in said[0]


@pytest.mark.cuda
def test_a_recorded_step_gives_the_gradients_of_the_usual_one_on_a_gpu(monkeypatch):
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    cfg = read_config(MAIN)
    assert deterministic_graph(Setting(cfg, torch.device('cuda'), SIZES)) == dict(recorded=True, equal=True)


@pytest.mark.cuda
def test_a_recording_that_fails_leaves_the_generator_usable_on_a_gpu(log):
    with pytest.raises(RuntimeError, match='captur'):
        CudaGraph(lambda: torch.rand(3, device='cuda').sum().item())
    torch.cuda.manual_seed(1)
    one = torch.rand(3, device='cuda')
    torch.cuda.manual_seed(1)
    assert torch.equal(one, torch.rand(3, device='cuda'))


@pytest.mark.cuda
def test_compiled_blocks_on_a_gpu():
    vit = blocks().float().cuda()
    usual = vit.run_blocks
    images = torch.randn(2, 3, 32, 32, device='cuda')
    expected = outcome(vit, images)
    vit.run_blocks = Compiled(usual, 'ViT', 'inductor')
    found = outcome(vit, images)
    assert vit.run_blocks.fast is not None
    assert all(torch.allclose(a, b, rtol=0, atol=1e-4 * b.abs().max()) for a, b in zip(found, expected))
