"""Every head with every family of ViTs and every adapter: builds, trains, resumes, evaluates, exports its adapter.

Heads, ViTs and adapters are found where they are named, so that a new one is covered by itself. In the quick tests each
pair of two of them occurs; all combinations are slow.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from test_configs import CONFIGS, HEADS
from test_prompts import STRATEGIES
from torch import Tensor, nn

import mmseg_gpt.segmentation  # noqa: F401  registers
from mmseg_gpt.adapters import frozen_source, frozen_state, load_model_state
from mmseg_gpt.checkpoints import read_file
from mmseg_gpt.checkpoints.write import write_checkpoint
from mmseg_gpt.models import GatedPrompt, GatedPromptViT
from mmseg_gpt.models.complete import explicit
from mmseg_gpt.recipes.vits import settings_of_vit

CLASSES = 5
ARCH = dict(embed_dims=16, num_layers=4, num_heads=2, mlp_ratio=2)
VITS = ('mae', 'dinov2-s', 'dinov2-reg-s', 'dinov3-s', 'dinov3-splus')
# What an adapter sets in the backbone, and what the names of its trained weights contain.
ADAPTERS = {
    'none': ({}, ()),
    'full': (dict(frozen=False), ('', )),
    **{kind.__name__: (dict(prompt=dict(type=kind.__name__, num_tokens=2, **(
        dict(gate_init=1.) if issubclass(kind, GatedPrompt) else {}))), ('prompt.', )) for kind in STRATEGIES},
    'temperatures': (dict(temperature=True), ('temperature', )),
    'lora': (dict(lora=dict(rank=2)), ('.lora_', )),
    'biases': (dict(biases=True), ('.bias_update', )),
    'bottlenecks': (dict(adapter=dict(width=8)), ('.mlp.adapter.', )),
    'all': (dict(prompt=dict(type='GatedPrompt', num_tokens=2, gate_init=1.), temperature=True, lora=dict(rank=2),
                 biases=True, adapter=dict(width=8)),
            ('prompt.', 'temperature', '.lora_', '.bias_update', '.mlp.adapter.')),
}
SCHEDULE = Config.fromfile(CONFIGS / '_base_/schedules/sgd_160k.py').optim_wrapper
SCHEDULE.optimizer.lr = 1.  # so that every weight moves by more than its rounding


def pairwise(*lists: tuple) -> Iterator[tuple]:
    """Chooses combinations of three lists so that any two entries of two lists occur together."""
    order = sorted(range(3), key=lambda i: -len(lists[i]))
    one, two, three = (lists[i] for i in order)
    for (i, first), (j, second) in itertools.product(enumerate(one), enumerate(two)):
        chosen = dict(zip(order, (first, second, three[(i + j) % len(three)])))
        yield tuple(chosen[i] for i in range(3))


QUICK = list(pairwise(HEADS, VITS, tuple(ADAPTERS)))
CASES = [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
         for case in itertools.product(HEADS, VITS, ADAPTERS)]


def config(head: str, vit: str, adapter: str, folder: Path) -> Config:
    """A head's config on a ViT of width 16 whose weights are in ``folder``, for crops of 32 pixels and 5 classes."""
    options = settings_of_vit(vit) | dict(arch=ARCH)
    path = folder / f'{vit}.pth'
    options['init_cfg'] = dict(type='PretrainedViT', checkpoint=str(path))
    cfg = Config.fromfile(CONFIGS / f'_base_/heads/{head}.py')
    blocks = cfg.model.backbone.get('out_indices')
    if isinstance(blocks, dict):  # by depth: as many of the last ones here
        cfg.model.backbone.out_indices = tuple(range(-len(blocks[12]), 0))
    cfg.merge_from_dict(dict(model=dict(num_classes=CLASSES, crop_size=(32, 32),
                                        backbone=options | ADAPTERS[adapter][0])))
    for each in [cfg.model.decode_head, cfg.model.get('auxiliary_head')]:
        if each is not None and 'channels' in each:
            each.channels = 8
    cfg = explicit(cfg)
    if not path.exists():
        plain = {name: cfg.model.backbone[name] for name in options.keys() & cfg.model.backbone.keys()}
        with torch.random.fork_rng():
            write_vit(path, plain | dict(img_size=cfg.model.backbone.img_size))
    return cfg


def write_vit(path: Path, options: dict) -> None:
    """Writes a pretrained ViT whose blocks all matter: DINOv2's scales are no longer nearly 0."""
    torch.manual_seed(0)
    vit = GatedPromptViT(**{k: v for k, v in options.items() if k not in ('init_cfg', 'frozen')}, out_type='cls_token')
    for name, weight in vit.named_parameters():
        if name.endswith('.gamma'):
            nn.init.uniform_(weight, 0.5, 1.)
        if name.endswith('qkv.bias') and vit.blocks[0].attn.qkv.bias is not None and options.get('qkv_bias') == 'qv':
            weight.data.view(3, -1)[1] = 0.
    torch.save({f'backbone.{name}': weight for name, weight in vit.state_dict().items()}, path)


def build(cfg: Config) -> nn.Module:
    """The model as a run makes it, with random weights."""
    init_default_scope('mmseg')
    from mmengine.model import revert_sync_batchnorm
    return revert_sync_batchnorm(MODELS.build(cfg.model)).train()


def batch(width: int, original: tuple[int, int]) -> dict:
    """Three images of noise, 32 pixels high, and their labels; ``original`` is the size to label them at.

    Of two images, of which UPerNet pools each into a pixel, batch norm would leave nothing but which one has the more.
    """
    from mmseg.structures import SegDataSample
    generator = torch.Generator().manual_seed(1)
    samples = []
    for _ in range(3):
        labels = torch.randint(0, CLASSES, (1, 32, width), generator=generator)
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels)))
        samples[-1].set_metainfo(dict(img_shape=(32, width), ori_shape=original))
    images = torch.randint(0, 256, (3, 3, 32, width), generator=generator, dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=samples)


def step(model: nn.Module, optimizer: OptimWrapper, seed: int) -> Tensor:
    """Trains an iteration; returns its loss."""
    torch.manual_seed(seed)  # of dropout
    return model.train_step(batch(32, (32, 32)), optimizer)['loss']


def evaluate(model: nn.Module) -> list[Tensor]:
    """Labels images that are wider than a window."""
    with torch.no_grad():
        return [sample.pred_sem_seg.data for sample in model.eval().test_step(batch(48, (30, 41)))]


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys() and [name for name in one if not torch.equal(one[name], other[name])] == []


def wanted_names(model: nn.Module, adapter: str) -> set[str]:
    """The weights that are to be trained: of the backbone the adapter's, and all of heads and neck."""
    parts = ADAPTERS[adapter][1]
    return {name for name, _ in model.named_parameters()
            if not name.startswith('backbone.') or any(part in name for part in parts)}


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """Where the pretrained ViTs are."""
    return tmp_path_factory.mktemp('vits')


@pytest.mark.parametrize('head, vit, adapter', CASES)
def test_it_trains_resumes_evaluates_and_exports_its_adapter(head, vit, adapter, folder, tmp_path):
    cfg = config(head, vit, adapter, folder)
    model = build(cfg)
    model.init_weights()
    optimizer, wanted = build_optim_wrapper(model, SCHEDULE), wanted_names(model, adapter)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == wanted

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for i in range(2):  # in LoRA's first step only one of the two matrices has a gradient
        assert torch.isfinite(step(model, optimizer, i))
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    # A batch norm takes back a bias or a scale before it, and a ReLU that is never active hides what is before it.
    hidden = ('.bias', 'backbone.norm.weight', '.adapter.down.weight')
    still = {name for name in wanted - moved if not name.endswith(hidden)}
    assert moved <= wanted and not still and len(moved) > 0.9 * len(wanted)

    write_checkpoint(dict(state_dict=model.state_dict(), optimizer=optimizer.state_dict(), meta={}), tmp_path / 'a.pth')
    resumed, saved = build(cfg), read_file(tmp_path / 'a.pth')
    load_model_state(resumed, saved, 'a.pth')
    its_optimizer = build_optim_wrapper(resumed, SCHEDULE)
    its_optimizer.load_state_dict(saved['optimizer'])
    assert torch.equal(step(resumed, its_optimizer, 2), step(model, optimizer, 2))
    assert_same(resumed.state_dict(), model.state_dict())

    labels = evaluate(model)
    assert [each.shape for each in labels] == [(1, 30, 41)] * 3 and max(each.max() for each in labels) < CLASSES
    if adapter == 'full':
        return
    frozen = frozen_state(model)
    state = {name: weight for name, weight in model.state_dict().items() if name not in frozen}
    write_checkpoint(dict(state_dict=state, meta=dict(frozen=frozen_source(model))), tmp_path / 'adapter.pth')
    other = build(cfg)
    load_model_state(other, read_file(tmp_path / 'adapter.pth'), 'adapter.pth')
    assert_same(other.state_dict(), model.state_dict())
    assert all(map(torch.equal, evaluate(other), labels))


def test_each_pair_is_among_the_quick_ones():
    lists = (HEADS, VITS, tuple(ADAPTERS))
    for i, j in itertools.combinations(range(3), 2):
        assert {(case[i], case[j]) for case in QUICK} == set(itertools.product(lists[i], lists[j]))
    assert len(QUICK) == len(ADAPTERS) * max(len(HEADS), len(VITS)) and set(QUICK) < set(
        itertools.product(*lists))


def coloured_batch() -> dict:
    """Four images of noise in which each corner has the colour of its class."""
    from mmseg.structures import SegDataSample
    generator = torch.Generator().manual_seed(2)
    colours = torch.randint(0, 256, (CLASSES, 3, 1, 1), generator=generator)
    images, samples = [], []
    for _ in range(4):
        corners = torch.randint(0, CLASSES, (2, 2), generator=generator)
        labels = corners.repeat_interleave(16, 0).repeat_interleave(16, 1)
        noise = torch.randint(-20, 21, (3, 32, 32), generator=generator)
        images.append((colours[labels].squeeze(-1).squeeze(-1).permute(2, 0, 1) + noise).clamp(0, 255).byte())
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels[None])))
        samples[-1].set_metainfo(dict(img_shape=(32, 32), ori_shape=(32, 32)))
    return dict(inputs=images, data_samples=samples)


@pytest.mark.parametrize('scale', [0.1, 2.3, 25.])
@pytest.mark.parametrize('head', HEADS)
def test_every_head_learns_with_its_defaults_whatever_the_scale_of_the_features(head, scale, folder):
    model = build(config(head, 'mae', 'none', folder))
    model.init_weights()
    images, patches = coloured_batch(), model.backbone.patch_embed.proj
    with torch.no_grad():  # the blocks add to what is this large
        patches.weight.mul_(scale / patches(model.data_preprocessor(images, True)['inputs']).std())
    optimizer = build_optim_wrapper(model, Config.fromfile(CONFIGS / '_base_/schedules/adamw_40k.py').optim_wrapper)
    torch.manual_seed(0)
    losses = [model.train_step(images, optimizer)['decode.loss_ce'].item() for _ in range(40)]
    assert losses[0] < 2 and losses[-1] < losses[0] - 0.1  # a guess has log(5) = 1.6
    assert all(later < earlier + 0.1 for earlier, later in itertools.pairwise(losses))
