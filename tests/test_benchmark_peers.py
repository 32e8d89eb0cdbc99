"""The benchmark beside EoMT and PEFT: what it compares is what it says, and it runs without them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmseg_gpt.checkpoints.load import load_vit
from mmseg_gpt.lab.benchmark import peers
from mmseg_gpt.lab.benchmark.peer_costs import OPTIMIZER, Square, measure_peers, peers_table
from mmseg_gpt.lab.benchmark.peers import VIT, EomtEvaluation, EomtStep, PeftViT, build_peer, check_names, in_regions
from mmseg_gpt.lab.benchmark.work import IGNORED, make_batch
from mmseg_gpt.models import GatedPromptViT

ROOT = Path(__file__).parents[1]
TINY = Square('tiny', None, 64, 7, 5)
CPU = torch.device('cpu')


@pytest.fixture
def transformers():
    return pytest.importorskip('transformers', exc_type=ImportError)


def test_our_models_are_measured_in_turn():
    results = measure_peers(['linear:lora', 'linear:full'], TINY, CPU, 2, 1, 0, 'linear:lora')
    head = 2 * 32 + 32 * 7 + 7
    assert results['models']['linear:lora']['trained'] == 3 * 4 * (32 + 96) + head
    assert results['models']['linear:full']['trained'] == results['models']['linear:full']['whole'] > 50_000
    for what, found in results['times'].items():
        assert found['linear:lora']['speedup'] == dict(median=1, quartiles=[1, 1])
        assert all(len(entry['seconds']) == 2 for entry in found.values())
        assert all(model['peak'][what] > 4 * model['whole'] for model in results['models'].values())
    table = peers_table(results)
    assert '64x64, batch 1' in table and 'linear:full' in table


@pytest.mark.parametrize(('name', 'words'), [
    ('linear:loro', 'neither eomt nor HEAD:METHOD.*linear, linear_4.*gpt, .*, peft'),
    ('mask:lora', '"mask:lora" is neither'), ('eomt', r'eomt needs the package transformers: pip install "mmseg_gpt'),
    ('linear:peft', 'linear:peft needs the package')])
def test_names_that_cannot_be_measured_are_refused(name, words, monkeypatch):
    def absent(package):
        raise ImportError(f'No module named {package!r}')

    monkeypatch.setattr(peers, 'import_module', absent)
    with pytest.raises(ValueError, match=words):
        check_names(['linear:lora', name])


@pytest.mark.parametrize(('arguments', 'words'), [
    (('linear:lora', '--against', 'eomt'), '--against eomt: this is none of the models'),
    (('linear:lora', 'linear:lora'), 'a model is named twice'), (('upernet:lora', ), 'needs --batch 2'),
    (('--image', '100'), 'multiple of 16')])
def test_the_tool_refuses_before_it_imports(arguments, words):
    done = subprocess.run([sys.executable, ROOT / 'tools/benchmark_peers.py', *arguments], text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 2 and words in done.stderr


def test_regions_are_rectangles_of_one_class_each():
    batch = in_regions(make_batch(Square('tiny', image=48, classes=150, batch=2)), 3, 150, seed=0)
    for sample in batch.samples:
        blocks = sample.gt_sem_seg.data.unfold(1, 16, 16).unfold(2, 16, 16)
        assert blocks.shape[1:3] == (3, 3) and (blocks == blocks[..., :1, :1]).all() and blocks.unique().numel() > 5


@pytest.mark.parametrize(('out_type', 'blocks'), [('normed_featmap', (2, )), ('featmap', (0, 2))])
def test_pefts_vit_is_ours(out_type, blocks, transformers, tmp_path):
    pytest.importorskip('peft', exc_type=ImportError)
    torch.manual_seed(0)
    theirs, images = PeftViT(TINY, out_type, blocks), torch.randn(2, 3, 64, 64)
    trained = {name for name, p in theirs.named_parameters() if p.requires_grad}
    assert len(trained) == 3 * 3 * 2 and all('.lora_' in name for name in trained)
    plain = transformers.Dinov2WithRegistersBackbone(theirs.vit.get_base_model().config)
    plain.save_pretrained(tmp_path)
    ours = GatedPromptViT(arch=TINY.vit, img_size=64, **VIT, out_type=out_type, out_indices=blocks)
    load_vit(ours, tmp_path / 'model.safetensors')
    theirs.vit.get_base_model().load_state_dict({
        name: value for name, value in zip(frozen(theirs), plain.state_dict().values(), strict=True)}, strict=False)
    with torch.no_grad():
        for one, other in zip(ours(images), theirs(images), strict=True):
            torch.testing.assert_close(one, other)
        for p in theirs.parameters():
            p += 0.1 * torch.randn_like(p)
        for one, other in zip(theirs(images), theirs.eval()(images), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def frozen(vit: PeftViT) -> list[str]:
    """Returns the names of the weights of transformers' ViT under LoRA."""
    return [name for name in vit.vit.get_base_model().state_dict() if 'lora_' not in name]


def test_eomt_trains_all_of_it_on_a_mask_for_each_class(transformers):
    torch.manual_seed(0)
    model, batch = build_peer('eomt', TINY), make_batch(TINY)
    batch.samples[0].gt_sem_seg.data[:, :20] = IGNORED
    step = EomtStep(model, OPTIMIZER, batch)
    labels = batch.samples[0].gt_sem_seg.data
    assert torch.equal(step.masks[0].sum(0), (labels[0] != IGNORED).float())
    assert (step.masks[0] * step.classes[0].view(-1, 1, 1)).sum(0).equal((labels[0] * (labels[0] != IGNORED)).float())
    before = {name: p.clone() for name, p in model.named_parameters()}
    step()
    assert {name for name, p in model.named_parameters() if p.equal(before[name])} <= {'embeddings.mask_token'}
    found = EomtEvaluation(model, TINY, CPU)()
    assert found.shape == (64, 64) and found.min() >= 0 and found.max() < 7 and not model.attn_mask_probs.any()
