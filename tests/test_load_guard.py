"""Every other way into the model: none may leave a weight of the backbone as it was."""

import copy
import random
from collections.abc import Callable

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule, ExponentialMovingAverage
from mmengine.runner import load_checkpoint
from shrink import shrink
from test_checkpoints import mutate
from test_configs import CONFIGS
from torch import nn
from vit_files import REGISTERS, assert_filled, build, prefixed, save, without

from mmseg_gpt.checkpoints import CheckpointError
from mmseg_gpt.engine.config import find_config
from mmseg_gpt.models import GatedPromptViT


def outer(vit: GatedPromptViT) -> BaseModule:
    """A model with this backbone and a head."""
    model = BaseModule()
    model.backbone, model.head = vit, nn.Linear(16, 2)
    return model


def whole(vit: nn.Module) -> dict:
    """A state dict that fills all of it, of random numbers."""
    return {k: torch.rand_like(v) for k, v in vit.state_dict().items()}


ROUTES: dict[str, Callable] = {
    'load_state_dict, strict': lambda model, state, path: model.load_state_dict(state),
    'load_state_dict': lambda model, state, path: model.load_state_dict(state, strict=False),
    'load_state_dict, assign': lambda model, state, path: model.load_state_dict(state, strict=False, assign=True),
    'load_checkpoint': lambda model, state, path: load_checkpoint(model, str(save(dict(state_dict=state), path))),
}


@pytest.mark.parametrize('route', ROUTES)
@pytest.mark.parametrize('message, change', [
    (r'missing \(1\): blocks.1.norm1.bias', lambda s: without(s, 'backbone.blocks.1.norm1.bias')),
    (r'missing \(1\): prompt.tokens', lambda s: without(s, 'backbone.prompt.tokens')),
    (r'missing \(1\): temperature', lambda s: without(s, 'backbone.temperature')),
    (r'missing \(45\): cls_token', lambda s: {k: v for k, v in s.items() if k.startswith('head')}),
    (r'missing \(45\): cls_token', lambda s: {k.removeprefix('backbone.'): v for k, v in s.items()}),
    (r'misshapen \(1\): pos_embed', lambda s: {**s, 'backbone.pos_embed': torch.ones(1, 5, 16)}),
    (r'not finite \(1\): norm.bias', lambda s: {**s, 'backbone.norm.bias': torch.full((16, ), torch.nan)}),
    (r'not of its type \(1\): norm.bias', lambda s: {**s, 'backbone.norm.bias': torch.ones(16).int()}),
    (r'unexpected \(1\): blocks.0.ls1.gamma', lambda s: {**s, 'backbone.blocks.0.ls1.gamma': torch.ones(16)}),
])
def test_a_state_dict_that_does_not_fill_the_backbone_is_refused(message, change, route, tmp_path):
    model = outer(build())
    before, state = copy.deepcopy(model.backbone.state_dict()), whole(model)
    with pytest.raises(CheckpointError, match=rf'all 45 weights under "backbone."(?s:.*){message}') as error:
        ROUTES[route](model, change(state), tmp_path / 'a.pth')
    assert 'merge it first: load_state_dict({**model.state_dict(), **part})' in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())
    ROUTES[route](model, state, tmp_path / 'a.pth')
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_no_mutation_is_let_through():
    vit, dice = build(**REGISTERS), random.Random(5)
    good = whole(vit)
    before = copy.deepcopy(vit.state_dict())
    for _ in range(1000):
        mutant, _ = mutate(good, list(good), dice)
        with pytest.raises(CheckpointError):
            vit.load_state_dict(mutant, strict=False)
    assert all(torch.equal(value, before[name]) for name, value in vit.state_dict().items())


def test_a_part_is_loaded_by_merging():
    vit = build()
    part = {'prompt.tokens': torch.randn(2, 16)}
    rest = copy.deepcopy(without(vit.state_dict(), *part))
    vit.load_state_dict({**vit.state_dict(), **part})
    assert torch.equal(vit.prompt.tokens, part['prompt.tokens'])
    assert_filled(vit, rest, {**part, **rest})


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda vit: torch.load(_pickled(vit), weights_only=False)])
def test_a_copy_is_guarded_for_itself(copied):
    vit = build()
    twin = copied(vit)
    del vit.prompt.gate_prior  # the copy must not look at the one it was made from
    twin.load_state_dict(whole(twin))
    with pytest.raises(CheckpointError, match=r'prompt\.gate_prior'):
        twin.load_state_dict(without(whole(twin), 'prompt.gate_prior'), strict=False)


def _pickled(vit: GatedPromptViT):
    import io
    file = io.BytesIO()
    torch.save(vit, file)
    file.seek(0)
    return file


class Wrapper(nn.Module):
    """Names its module as DistributedDataParallel does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_it_works_under_other_prefixes_and_in_a_moving_average():
    model = outer(build())
    state = whole(model)
    Wrapper(model).load_state_dict(prefixed(state, 'module.'))
    assert torch.equal(model.backbone.cls_token, state['backbone.cls_token'])
    average = ExponentialMovingAverage(model)
    average.load_state_dict({**prefixed(whole(model), 'module.'), 'steps': torch.tensor(3)})
    average.update_parameters(model)
    with pytest.raises(CheckpointError, match=r'under "module\.backbone\."'):
        average.load_state_dict(prefixed(without(state, 'backbone.cls_token'), 'module.'), strict=False)
    with pytest.raises(CheckpointError, match=r'under "module\.backbone\."'):
        Wrapper(model).load_state_dict(state, strict=False)


def test_a_model_without_numbers_is_filled_by_assigning():
    vit = build()
    state = whole(vit)
    with torch.device('meta'):
        empty = build()
    empty.load_state_dict(state, assign=True)
    assert torch.equal(empty.cls_token, state['cls_token']) and not empty.cls_token.is_meta


@pytest.fixture(scope='module')
def segmentor() -> tuple[Config, dict]:
    """A small config, and the state dict of a model of it."""
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import MODELS, init_default_scope
    cfg = shrink(find_config(str(CONFIGS / 'setr_pup_gpt_mae_ade20k.py')))
    init_default_scope('mmseg')
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    return cfg, {k: torch.rand_like(v) if v.is_floating_point() else v for k, v in model.state_dict().items()}


def inferencer(cfg: Config, checkpoint: str) -> nn.Module:
    from mmseg.apis import MMSegInferencer
    cfg = copy.deepcopy(cfg)
    cfg.model.backbone.init_cfg = None
    cfg.test_dataloader = dict(dataset=dict(cfg.test_dataloader.dataset, type='ADE20KDataset'))
    return MMSegInferencer(cfg, checkpoint, device='cpu').model


def inference_model(cfg: Config, checkpoint: str) -> nn.Module:
    from mmseg.apis import init_model
    return init_model(copy.deepcopy(cfg), checkpoint, device='cpu')


@pytest.mark.parametrize('route', [inference_model, inferencer])
def test_mmsegs_own_ways_in_are_guarded(route, segmentor, tmp_path):
    cfg, state = segmentor
    meta = dict(dataset_meta=dict(classes=['a'] * 150, palette=[[0, 0, 0]] * 150))
    good = save(dict(state_dict=state, meta=meta), tmp_path / 'good.pth')
    model = route(cfg, str(good))
    assert torch.equal(model.backbone.blocks[11].mlp.fc2.weight, state['backbone.blocks.11.mlp.fc2.weight'])
    pretrained = {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}
    for bad in (pretrained, without(state, 'backbone.blocks.3.norm1.weight')):
        path = save(dict(state_dict=bad, meta=meta), tmp_path / 'bad.pth')
        with pytest.raises(CheckpointError, match='does not fill the backbone'):
            route(cfg, str(path))
