"""mmpretrain's and mmsegmentation's own ways in take our checkpoints, and whole ones made of adapters."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from shapes_run import CONFIG, draw, small_config, train, write_vit
from tiny_run import run, tiny_config

from mmseg_gpt.checkpoints import CheckpointError, read_file
from mmseg_gpt.convert import AS_IS, convert, describe
from mmseg_gpt.engine import Runner
from mmseg_gpt.lab.drawn import SHAPES

TOOL = Path(__file__).parents[1] / 'tools/convert_checkpoint.py'


class Scores(Hook):
    """Keeps the scores of all test images by file."""

    def __init__(self) -> None:
        self.found: dict[str, np.ndarray] = {}

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                        outputs: list | None = None) -> None:
        self.found |= {sample.img_path: sample.pred_score.numpy() for sample in outputs}


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A trained classifier: whole.pth, the same run's adapters.pth, vit.pth, and the test images in data."""
    folder = tmp_path_factory.mktemp('shapes')
    draw(folder)
    cfg = small_config(CONFIG, folder, default_hooks__checkpoint__filename_tmpl='../whole.pth')
    write_vit(cfg, folder / 'vit.pth')
    train(cfg)
    train(small_config(CONFIG, folder, default_hooks__checkpoint__adapter_only=True,
                       default_hooks__checkpoint__filename_tmpl='../adapters.pth'))
    return folder


@pytest.fixture(scope='module')
def tested(folder) -> dict[str, np.ndarray]:
    """The scores that testing gives, by image."""
    runner = Runner.from_cfg(small_config(CONFIG, folder, load_from=str(folder / 'whole.pth')))
    scores = Scores()
    runner.register_hook(scores)
    runner.test()
    return scores.found


def scores_of_inferencer(config: Path | str, checkpoint: Path, images: list[str]) -> dict[str, np.ndarray]:
    from mmpretrain import ImageClassificationInferencer
    results = ImageClassificationInferencer(str(config), pretrained=str(checkpoint))(images, batch_size=7)
    for result in results:
        assert result['pred_class'] == list(SHAPES)[result['pred_scores'].argmax()]
        assert result['pred_score'] == result['pred_scores'].max()
    return {image: result['pred_scores'] for image, result in zip(images, results)}


def assert_equal_scores(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys() and len(found) == 4 * len(SHAPES)
    for image, scores in found.items():
        np.testing.assert_allclose(scores, wanted[image], rtol=1e-4)
    assert np.ptp(np.stack(list(found.values())), axis=0).min() > 1e-3  # they are not the same for all images


@pytest.mark.parametrize('config', ['the file in configs', 'the one in the work directory'])
def test_the_inferencer_gives_class_names_and_the_scores_of_testing(config, folder, tested):
    file = CONFIG if config == 'the file in configs' else folder / 'run' / CONFIG.name
    assert_equal_scores(scores_of_inferencer(file, folder / 'whole.pth', list(tested)), tested)


def test_get_model_fills_the_model_and_knows_the_classes(folder, tested):
    from mmpretrain import ImageClassificationInferencer, get_model
    model = get_model(str(CONFIG), pretrained=str(folder / 'whole.pth'))
    saved = read_file(folder / 'whole.pth')['state_dict']
    assert saved.keys() == model.state_dict().keys()
    assert all(torch.equal(weight, saved[name]) for name, weight in model.state_dict().items())
    image, scores = next(iter(tested.items()))
    (found, ) = ImageClassificationInferencer(model)(image)
    assert found['pred_class'] == list(SHAPES)[scores.argmax()]


def test_adapters_alone_are_refused_with_what_to_do_and_a_whole_checkpoint_is_made_of_them(folder, tested, tmp_path):
    with pytest.raises(CheckpointError, match=r'--layout as-is --vit PRETRAINED_VIT ADAPTERS\.pth WHOLE\.pth'):
        scores_of_inferencer(CONFIG, folder / 'adapters.pth', list(tested))
    count = convert(folder / 'adapters.pth', tmp_path / 'whole.pth', AS_IS, vit=str(folder / 'vit.pth'))
    made, wanted = (read_file(path)['state_dict'] for path in (tmp_path / 'whole.pth', folder / 'whole.pth'))
    assert made.keys() == wanted.keys() and count == len(made) > len(read_file(folder / 'adapters.pth')['state_dict'])
    assert all(torch.equal(made[name], wanted[name]) for name in wanted)
    assert_equal_scores(scores_of_inferencer(CONFIG, tmp_path / 'whole.pth', list(tested)), tested)


def test_another_vit_is_refused(folder, tmp_path):
    other = write_vit(small_config(CONFIG, folder), tmp_path / 'other.pth', seed=1)
    with pytest.raises(CheckpointError, match=r'adapters of another ViT than .*other\.pth.*trained on vit\.pth'):
        convert(folder / 'adapters.pth', tmp_path / 'whole.pth', AS_IS, vit=str(other))
    assert not (tmp_path / 'whole.pth').exists()


def test_nothing_that_a_file_names_is_built(folder, tmp_path):
    content = read_file(folder / 'adapters.pth')
    settings = json.loads(content['meta']['settings'])
    witness = tmp_path / 'witness'
    settings['model']['backbone'].update(type='os.mkdir', path=str(witness), temperature=dict(type='os.mkdir'),
                                         prompt=dict(type='os.mkdir', path=str(witness)))
    content['meta']['settings'] = json.dumps(settings)
    torch.save(content, tmp_path / 'adapters.pth')
    convert(tmp_path / 'adapters.pth', tmp_path / 'whole.pth', AS_IS, vit=str(folder / 'vit.pth'))
    assert not witness.exists() and (tmp_path / 'whole.pth').exists()


@pytest.mark.parametrize('settings', ['{}', '[]', '{"model": {"backbone": {"arch": "giant"}}}', None])
def test_adapters_that_do_not_say_of_which_model(settings, folder, tmp_path):
    content = read_file(folder / 'adapters.pth')
    content['meta']['settings'] = settings
    torch.save(content, tmp_path / 'adapters.pth')
    with pytest.raises(CheckpointError, match=r'adapters\.pth holds adapters only, and not the config of their model'):
        convert(tmp_path / 'adapters.pth', tmp_path / 'whole.pth', AS_IS, vit=str(folder / 'vit.pth'))


def test_the_tool_says_what_adapters_are(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), '--list', str(folder / 'adapters.pth')])
    runpy.run_path(str(TOOL), run_name='__main__')
    said = capsys.readouterr().out
    assert 'holds       adapters only' in said and 'backbone.prompt.gate_prior' in said and 'vit.pth, SHA-256' in said
    assert 'classes     10: arrow, bolt' in said and '--vit PRETRAINED_VIT' in said
    assert 'adapters only' not in describe(folder / 'whole.pth')


@pytest.mark.parametrize('source, layout, vit, error, message', [
    ('adapters.pth', AS_IS, False, CheckpointError, 'holds adapters only; make a whole checkpoint'),
    ('adapters.pth', 'timm', False, CheckpointError, 'holds adapters only, without a ViT'),
    ('whole.pth', AS_IS, True, ValueError, '--vit is for adapter-only checkpoints, and .*whole.pth is a whole one'),
])
def test_what_cannot_be_converted_says_so(source, layout, vit, error, message, folder, tmp_path):
    with pytest.raises(error, match=message):
        convert(folder / source, tmp_path / 'new.pth', layout, vit=str(folder / 'vit.pth') if vit else None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('arguments', [('--list', 'a.pth'), ('a.pth', 'b.pth')])
def test_vit_goes_with_as_is_only(arguments):
    result = subprocess.run([sys.executable, TOOL, *arguments, '--vit', 'v.pth'], capture_output=True, text=True)
    assert result.returncode == 2 and '--vit goes with --layout as-is and DST' in result.stderr


def test_adapters_of_segmentation_become_whole_too(tmp_path):
    from mmseg.apis import init_model
    cfg = tiny_config(tmp_path, train_cfg__max_iters=2, default_hooks__checkpoint__adapter_only=True)
    trained = run(cfg).model.state_dict()
    convert(tmp_path / 'run/iter_2.pth', tmp_path / 'whole.pth', AS_IS, vit=str(tmp_path / 'vit.pth'))
    model = init_model(cfg, str(tmp_path / 'whole.pth'), device='cpu')
    assert all(torch.equal(weight, trained[name]) for name, weight in model.state_dict().items())
