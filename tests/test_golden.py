"""Parity with numbers measured on the authors' own model: outputs of every block, the feature, all gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mmseg_gpt.models import GatedPromptViT

ARCH = dict(embed_dims=32, num_layers=4, num_heads=4, mlp_ratio=4)
NUM_PROMPTS = 3
CASES = {
    'shallow': dict(prompt='ShallowPrompt', temperature=False),
    'gated_temp': dict(prompt='GatedPrompt', temperature=True),
    'deep': dict(prompt='DeepPrompt', temperature=False),
}


def read(file: Path, prefix: str) -> dict[str, Tensor]:
    with np.load(file) as arrays:
        return {k.removeprefix(prefix): torch.from_numpy(arrays[k]) for k in arrays.files if k.startswith(prefix)}


def to_our_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the authors' adapters; their deep prompts for the first block lie apart from the others."""
    state = dict(state)
    tokens = [state.pop(k) for k in ('prompt_embeddings', 'deep_prompt_embeddings') if k in state]
    state['prompt.tokens'] = torch.cat(tokens) if len(tokens) == 2 else tokens[0][0]
    renames = {'gate_logit': 'prompt.gate_prior', 'temp': 'temperature'}
    return {renames.get(k, k): v for k, v in state.items()}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, golden_file: Path) -> tuple[GatedPromptViT, Tensor, str]:
    """The model with the authors' weights, the images, and where in the file the case lies."""
    options = CASES[request.param]
    vit = GatedPromptViT(arch=ARCH, img_size=32, patch_size=8, out_type='mean_all',
                         prompt=dict(type=options['prompt'], num_tokens=NUM_PROMPTS),
                         temperature=options['temperature']).double().eval()
    vit.load_state_dict(to_our_names(read(golden_file, f'mae/{request.param}/state/')))
    return vit, read(golden_file, 'x')[''], f'mae/{request.param}/'


def assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_outputs_of_every_block_and_the_feature(case, golden_file):
    vit, images, prefix = case
    outputs = []
    for block in vit.blocks:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    feature, = vit(images)

    for i, output in enumerate(outputs):  # ours: CLS, patches, prompts; theirs: CLS, prompts, patches
        theirs = read(golden_file, f'{prefix}block{i}')['']
        cls, prompts, patches = theirs.split([1, NUM_PROMPTS, 16], dim=1)
        assert_same(output, torch.cat([cls, patches, prompts], dim=1)[:, -output.shape[1]:])
    assert [output.shape[1] for output in outputs] == [20, 20, 20, 19]  # nothing asks for CLS after the last block
    assert_same(feature, read(golden_file, f'{prefix}original/feature')[''])


def test_all_gradients(case, golden_file):
    vit, images, prefix = case
    feature, = vit(images)
    feature.pow(2).sum().backward()
    expected = to_our_names(read(golden_file, f'{prefix}original/grad/'))
    actual = {name: p.grad for name, p in vit.named_parameters() if p.requires_grad}
    assert set(actual) == set(expected)
    for name in expected:
        assert_same(actual[name], expected[name])
