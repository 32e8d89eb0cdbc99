"""torch.export and ONNX: the exported program is the model, for any batch and image size, and training is unchanged."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from test_configs import HEADS, build
from test_heads import small
from torch import Tensor, nn
from torch.export import Dim, export

from mmseg_gpt.models import GatedPromptViT

BATCH = Dim('batch', min=1, max=64)
STRATEGIES = [None, *(dict(type=name, num_tokens=3) for name in (
    'ShallowPrompt', 'DeepPrompt', 'GatedPrompt', 'HardGatedPrompt'))]
OPTIONS = [dict(out_type='cls_token', num_registers=2), dict(out_indices=(0, 2)), dict(out_type='mean_patch'),
           dict(out_type='mean_all', layer_scale=True), dict(out_type='normed_featmap', start_block=1)]


def draw(*shape: int, **options) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), **options)


def assert_same(one: tuple[Tensor, ...], other: tuple[Tensor, ...], tolerance: float = 1e-12) -> None:
    assert len(one) == len(other)
    for ours, theirs in zip(one, other):
        torch.testing.assert_close(torch.as_tensor(ours), theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('prompt, options', zip(STRATEGIES, OPTIONS))
def test_an_exported_vit_takes_any_batch_and_size_of_images(prompt, options, tiny_vit):
    vit = tiny_vit(prompt=prompt, temperature=True, **options)
    sizes = {0: BATCH, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = export(vit, (draw(2, 3, 32, 32).double(), ), dynamic_shapes=(sizes, ))
    for size in ((2, 32, 32), (1, 40, 56), (3, 37, 45)):
        images = draw(size[0], 3, *size[1:]).double()
        assert_same(program.module()(images), vit(images))


@pytest.mark.parametrize('strict', [False, True])
@pytest.mark.parametrize('grad', [False, True])
def test_a_program_of_one_size_is_exported_without_resizing(grad, strict, tiny_vit):
    vit = tiny_vit(prompt=STRATEGIES[3], temperature=True)
    images = draw(2, 3, 32, 32).double()
    with torch.set_grad_enabled(grad):
        program = export(vit, (images, ), strict=strict)
    assert torch.equal(program.module()(images)[0], vit(images)[0])
    assert not any('upsample' in str(node.target) or 'pad' in str(node.target) for node in program.graph.nodes)


@pytest.mark.parametrize('record', [
    lambda vit, images: export(vit, (images, )).module(),
    lambda vit, images: torch.jit.trace(vit, images, check_trace=False)])
def test_a_program_clamps_temperatures_and_changes_no_weight(record, tiny_vit):
    vit = tiny_vit(temperature=True)
    wild = torch.tensor([20., 0.001, 1., -3.], dtype=torch.float64)
    with torch.no_grad():
        vit.temperature.copy_(wild)
    images = draw(2, 3, 32, 32).double()
    program = record(vit, images)
    assert torch.equal(vit.temperature, wild)
    found = program(images)
    assert torch.equal(vit.temperature, wild)
    assert torch.equal(found[0], vit(images)[0])
    assert vit.temperature.tolist() == [10., 0.01, 1., 0.01]


class Before(GatedPromptViT):
    """The projection of the authors: the weights themselves are clamped in every forward."""

    def _temperatures(self) -> tuple[Tensor, ...]:
        self.temperature.data.clamp_(*self.temperature_range)
        return self.temperature.unbind()


@pytest.mark.parametrize('optimizer', [lambda p: torch.optim.SGD(p, lr=30., momentum=0.9),
                                       lambda p: torch.optim.AdamW(p, lr=4.)])
def test_training_at_the_bounds_is_bit_for_bit_that_of_the_authors(optimizer):
    arch = dict(embed_dims=16, num_layers=4, num_heads=2, mlp_ratio=2)
    torch.manual_seed(0)
    ours = GatedPromptViT(arch=arch, img_size=16, patch_size=8, temperature=True, prompt=dict(STRATEGIES[3], dropout=0))
    with torch.no_grad():
        for p in ours.parameters():
            p.normal_(std=0.5)
        ours.temperature.copy_(torch.tensor([0.02, 9.9, 1., 0.5]))
    theirs = Before(arch=arch, img_size=16, patch_size=8, temperature=True, prompt=dict(STRATEGIES[3], dropout=0))
    theirs.load_state_dict(ours.state_dict())
    steps = [optimizer([p for p in vit.train().parameters() if p.requires_grad]) for vit in (ours, theirs)]
    hit = set()
    for i in range(12):
        for vit, step in zip((ours, theirs), steps):
            step.zero_grad()
            (vit(draw(2, 3, 16, 16) + i)[0] * draw(2, 16, 2, 2)).sum().backward()
            step.step()
            if i % 4 == 3:  # evaluation between the steps
                with torch.no_grad():
                    vit.eval()(draw(2, 3, 16, 16))
                vit.train()
        hit |= {bound for bound in (0.01, 10.) if (ours.temperature <= 0.01).any() or (ours.temperature >= 10).any()}
        for (name, p), other in zip(ours.named_parameters(), theirs.parameters()):
            assert torch.equal(p, other), name
            assert (p.grad is None and other.grad is None) or torch.equal(p.grad, other.grad), name
        for one, other in zip(steps[0].state.values(), steps[1].state.values()):
            assert all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in one)
    assert hit


class EncodeDecode(nn.Module):
    """The logits of a segmentor at the size of the images."""

    def __init__(self, segmentor: nn.Module) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, images: Tensor) -> Tensor:
        return self.segmentor.encode_decode(images, [dict(img_shape=images.shape[2:])])


@pytest.mark.parametrize('backbone, whole', [('mae_b', True), ('dinov2_reg_s', False)])
@pytest.mark.parametrize('head', HEADS)
def test_an_exported_segmentor_is_the_segmentor(head, backbone, whole, tmp_path):
    model = build(Config.fromfile(small(tmp_path, backbone, head))).eval()
    side = model.backbone.grid[0] * model.backbone.patch_embed.patch_size
    model = EncodeDecode(model) if whole else model
    # UPerNet pools to grids of fixed sizes, and in such a program torch leaves only the number of images open.
    sizes = {} if head == 'upernet' else {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = export(model, (draw(2, 3, side, side), ), dynamic_shapes=({0: BATCH, **sizes}, ))
    for images in (draw(3, 3, side, side), *([draw(1, 3, 37, 90)] if sizes else ())):
        with torch.no_grad():
            assert_same((program.module()(images), ), (model(images), ), 1e-5)


def test_an_exported_classifier_is_the_classifier():
    pytest.importorskip('mmpretrain')
    arch = dict(embed_dims=24, num_layers=3, num_heads=2, mlp_ratio=2)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(
            type='ImageClassifier', head=dict(type='LinearClsHead', in_channels=24, num_classes=5),
            backbone=dict(type='GatedPromptViT', arch=arch, img_size=32, patch_size=8, out_type='cls_token',
                          prompt=STRATEGIES[3], temperature=True))).eval()
    program = export(model, (draw(2, 3, 32, 32), ), dynamic_shapes=dict(inputs={0: BATCH}))
    images = draw(5, 3, 32, 32)
    assert_same((program.module()(images), ), (model(images), ), 1e-5)


@pytest.mark.parametrize('prompt, options', zip(STRATEGIES, reversed(OPTIONS)))
def test_onnx_runtime_computes_the_same(prompt, options, tmp_path, tiny_vit):
    pytest.importorskip('onnxscript')
    runtime = pytest.importorskip('onnxruntime')
    vit = tiny_vit(prompt=prompt, temperature=True, **options).float()
    torch.onnx.export(vit, (draw(2, 3, 32, 32), ), tmp_path / 'vit.onnx', dynamo=True, verbose=False,
                      input_names=['images'], dynamic_shapes=({0: 'batch', 2: 'height', 3: 'width'}, ))
    session = runtime.InferenceSession(tmp_path / 'vit.onnx', providers=['CPUExecutionProvider'])
    for size in ((2, 32, 32), (3, 37, 45)):
        images = draw(size[0], 3, *size[1:])
        with torch.no_grad():
            assert_same(session.run(None, dict(images=images.numpy())), vit(images), 1e-3)


def test_a_compiled_vit_trains_alike(tiny_vit):
    vit = tiny_vit(prompt=dict(STRATEGIES[3], dropout=0), temperature=True).train()
    other = copy.deepcopy(vit)
    images = draw(2, 3, 32, 32).double()
    for each in (vit, torch.compile(other, backend='aot_eager')):
        each(images)[0].pow(2).sum().backward()
    for p, theirs in zip(vit.parameters(), other.parameters()):
        if p.requires_grad:
            torch.testing.assert_close(theirs.grad, p.grad)
