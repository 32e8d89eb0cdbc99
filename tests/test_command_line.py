"""The main job through the real command line: train, resume, test, infer, on one process and on two.

On drawn images, and on real ADE20K images where there are any: in ``shared/ade20k_sample`` beside the checkout, or
where MMSEG_GPT_ADE20K points, in ADE20K's layout (``images/validation``, ``annotations/validation``).
"""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from forks import run_fork
from mmengine.config import Config
from shrink import SIZE, shrink

from mmseg_gpt.engine.config import find_config
from mmseg_gpt.events import VARIABLE, read_events
from mmseg_gpt.lab.drawn import make_dataset
from mmseg_gpt.lab.finished import read_run

ROOT = Path(__file__).parents[1]
ADE20K = Path(os.environ.get('MMSEG_GPT_ADE20K', ROOT.parent / 'shared/ade20k_sample'))
LOSS_WEIGHTS = ('decode_head', 'auxiliary_head.0', 'auxiliary_head.1')


def run(folder: Path, *command: str | Path) -> str:
    """Runs ``python COMMAND...`` in ``folder`` and returns what it printed; fails the test if it fails."""
    done = subprocess.run([sys.executable, *map(str, command)], cwd=folder, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env={**os.environ, 'OMP_NUM_THREADS': '1'}, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def tool(folder: Path, name: str, *arguments: object) -> str:
    """Runs a tool in ``folder`` as a fork, and returns what it printed; fails the test if it fails."""
    done = run_fork(folder, ROOT / f'tools/{name}.py', *arguments)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def images(folder: Path) -> list[Path]:
    """The validation images."""
    return sorted((folder / 'data/ade/ADEChallengeData2016/images/validation').glob('*.jpg'))


def torchrun(folder: Path, *command: str | Path, processes: int = 2) -> str:
    """Runs COMMAND in several processes."""
    return run(folder, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes), *command)


def iterations(printed: str) -> list[int]:
    """The training iterations that a log reports."""
    return [int(i) for i in re.findall(r'Iter\(train\) *\[ *(\d+)/', printed)]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path)['state_dict']  # torch's default, safe load


def link_ade20k(place: Path) -> None:
    """Puts the real images into ADE20K's layout, the same ones for training and validation."""
    if not list((ADE20K / 'images/validation').glob('*.jpg')):
        pytest.skip(f'no ADE20K images in {ADE20K}')
    for kind in ('images', 'annotations'):
        (place / kind).mkdir(parents=True)
        for split in ('training', 'validation'):
            (place / kind / split).symlink_to((ADE20K / kind / 'validation').resolve())


def draw_sample(place: Path) -> None:
    """Draws scenes in ADE20K's layout; their 9 classes pass for the first of ADE20K's 150."""
    make_dataset(place, training=2, validation=2, processes=1)


@pytest.fixture(scope='module', params=[link_ade20k, draw_sample])
def folder(request, tmp_path_factory) -> Path:
    """A folder with a dataset at ADE20K's usual place, a pretrained ViT and a small version of the main config."""
    folder = tmp_path_factory.mktemp('run')
    request.param(folder / 'data/ade/ADEChallengeData2016')
    cfg = shrink(find_config(str(ROOT / 'configs/setr_pup_gpt_mae_ade20k.py')))
    # At the paper's -10 the gate priors cannot move in float32: three updates are far below its resolution there.
    cfg.model.backbone.prompt.gate_init = 1.
    cfg.train_cfg.update(max_iters=3, val_interval=3)
    cfg.default_hooks.logger.interval = cfg.default_hooks.checkpoint.interval = 1
    cfg.dump(folder / 'small.py')

    from mmseg_gpt.models import GatedPromptViT
    torch.manual_seed(0)
    vit = GatedPromptViT(arch=cfg.model.backbone.arch, img_size=SIZE)
    (folder / 'pretrained').mkdir()
    torch.save(dict(model=vit.state_dict()), folder / cfg.model.backbone.init_cfg.checkpoint)
    return folder


@pytest.fixture(scope='module')
def trained(folder) -> str:
    """Trains 3 iterations and returns what was printed."""
    return run(folder, ROOT / 'tools/train.py', 'small.py')


@pytest.fixture(scope='module')
def tested(folder, trained) -> dict:
    """Tests the trained checkpoint at a single scale and returns metrics.json."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, 'events.jsonl')
        run(folder, ROOT / 'tools/test.py', 'small.py', 'work_dirs/small/iter_3.pth',
            '--out', 'maps', '--show-dir', 'shown')
    return json.loads((folder / 'work_dirs/small/metrics.json').read_text())


def test_training_moves_adapters_and_heads_only(folder, trained):
    assert iterations(trained) == [1, 2, 3] and 'eta:' in trained
    before = torch.load(folder / 'pretrained/mae_pretrain_vit_base.pth')['model']
    first, last = (weights(folder / f'work_dirs/small/iter_{i}.pth') for i in (1, 3))
    for name, value in before.items():
        assert torch.equal(value, last[f'backbone.{name}']), f'{name} is frozen'
    for name in ('backbone.prompt.tokens', 'backbone.prompt.gate_prior', 'backbone.temperature',
                 'decode_head.conv_seg.weight', 'auxiliary_head.1.conv_seg.weight'):
        assert not torch.equal(first[name], last[name]), f'{name} is trained'


def test_a_finished_run_tells_what_it_was(folder, trained, tested):
    run = read_run(folder / 'work_dirs/small')
    assert (run.iterations, run.seed, run.score) == (3, 0, 'mIoU') and run.seconds > 0
    assert run.settings['model']['backbone']['prompt']['num_tokens'] == 100
    assert run.numbers['mIoU'] == tested['mIoU'] and len(run.per_class['mIoU']) == 150
    said = re.search(r'\| total +\| ([\d,]+) \(.*?\| ([\d,]+) \|', trained)
    learnt, frozen = (int(number.replace(',', '')) for number in said.groups())
    assert run.parameters == dict(trained=learnt, total=learnt + frozen)
    config = Config.fromfile(folder / 'work_dirs/small/small.py')
    assert config.load_from is None and 'output_dir' not in config.test_evaluator, 'the config of the test'


def test_the_log_shows_what_is_trained_once(trained):
    assert len(re.findall(r'\| part +\| +trained', trained)) == 1
    assert trained.count('requires_grad=False') <= 2, 'a warning for each frozen parameter'
    assert 'ViT weights loaded from pretrained/mae_pretrain_vit_base.pth' in trained


@pytest.mark.parametrize('folder', [draw_sample], indirect=True)
def test_resume_from_the_work_dir(folder, trained):
    shutil.copytree(folder / 'work_dirs/small', folder / 'resumed')
    (folder / 'resumed/last_checkpoint').write_text(str(folder / 'resumed/iter_3.pth'))
    printed = tool(folder, 'train', 'small.py', '--resume', '--work-dir', 'resumed', '--amp', '--cfg-options',
                   'train_cfg.max_iters=4')
    assert iterations(printed) == [4]


def test_the_config_that_a_resumed_run_has_written_can_be_tested(folder, trained, monkeypatch):
    """It has resume=True, with which MMEngine would look for an optimizer."""
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    cfg = Config(dict(resume=True, load_from='old.pth'))
    args = Namespace(checkpoint=str(folder / 'work_dirs/small/iter_3.pth'), tta=False, out=None, show_dir=None)
    runpy.run_path(str(ROOT / 'tools/test.py'))['apply_arguments'](cfg, args)
    assert cfg.resume is False and cfg.load_from == args.checkpoint


def test_testing_gives_the_score_of_validation(trained, tested):
    validated = float(re.findall(r'Iter\(val\).*mIoU: ([\d.]+)', trained)[-1])
    assert tested['mIoU'] == pytest.approx(validated, abs=0.005)
    assert len(tested['per_class']) == 150
    scores = [iou for iou in tested['per_class'].values() if iou is not None]
    assert np.mean(scores) == pytest.approx(tested['mIoU'], abs=0.01)


def test_testing_reports_what_it_writes(folder, tested):
    *progress, metrics = read_events(folder / 'events.jsonl')[0]
    assert metrics == dict(event='metrics', **tested)
    assert {(event['event'], event['phase'], event['total']) for event in progress} == {
        ('progress', 'test', len(images(folder)))} and progress[-1]['done'] == len(images(folder))


def test_predictions_and_pictures_are_written(folder, tested):
    for image in images(folder):
        size = cv2.imread(str(image)).shape[:2]
        labels = cv2.imread(str(folder / 'maps' / f'{image.stem}.png'), cv2.IMREAD_UNCHANGED)
        assert labels.shape == size and labels.max() < 150  # numbered as in the model, not as in ADE20K's files
        picture, = (folder / 'shown').rglob(f'*{image.stem}*.png')
        assert picture == folder / 'shown' / f'{image.stem}.png'
        assert cv2.imread(str(picture)).std() > 10


def test_multi_scale_test(folder, tested):
    tool(folder, 'test', 'small.py', 'work_dirs/small/iter_3.pth', '--tta')
    multi = json.loads((folder / 'work_dirs/small/metrics_tta.json').read_text())
    assert 0 <= multi['mIoU'] <= 100 and multi['per_class'] != tested['per_class']


@pytest.mark.parametrize('folder', [draw_sample], indirect=True)
def test_a_pretrained_file_is_not_taken_for_a_checkpoint(folder, trained):
    done = run_fork(folder, ROOT / 'tools/test.py', 'small.py', 'pretrained/mae_pretrain_vit_base.pth')
    assert done.returncode != 0
    for words in ('does not fit the model', 'missing', 'nothing was loaded', 'init_cfg'):
        assert words in done.stdout


def test_stock_inference_api(folder, trained, monkeypatch):
    monkeypatch.chdir(folder)
    from mmseg.apis import MMSegInferencer, inference_model, init_model
    image = str(images(folder)[0])
    model = init_model('small.py', 'work_dirs/small/iter_3.pth', device='cpu')
    labels = inference_model(model, image).pred_sem_seg.data
    assert labels.shape[1:] == cv2.imread(image).shape[:2]
    assert model.dataset_meta['classes'][0] == 'wall'
    inferencer = MMSegInferencer('small.py', 'work_dirs/small/iter_3.pth', device='cpu')
    again = inferencer(image, return_datasamples=True).pred_sem_seg.data
    assert torch.equal(labels, again)


@pytest.mark.parametrize('folder', [draw_sample], indirect=True)
def test_plot_gates(folder, trained):
    tool(folder, 'plot_gates', *(f'work_dirs/small/iter_{i}.pth' for i in (1, 3)), '--out', 'gates.png')
    rows = json.loads((folder / 'gates.json').read_text())['rows']
    first, third = ([row for row in rows if row['run'] == f'small/iter_{i}'] for i in (1, 3))
    assert len(first) == len(third) == 12 and sum(row['selection_ratio'] or 0 for row in third) == pytest.approx(1)
    assert [row['gate'] for row in third[:11]] == pytest.approx([0.2689] * 11, abs=1e-3)
    assert cv2.imread(str(folder / 'gates.png')).std() > 10


@pytest.mark.parametrize('folder', [draw_sample], indirect=True)
def test_two_processes_train(folder, trained):
    printed = torchrun(folder, ROOT / 'tools/train.py', 'small.py', '--work-dir', 'two', '--cfg-options',
                       'train_cfg.max_iters=2', 'train_cfg.val_interval=2')
    assert '1 in each of 2 processes' in printed and iterations(printed) == [1, 2]
    assert re.search(r'Iter\(val\).*mIoU', printed)
    assert weights(folder / 'two/iter_2.pth').keys() == weights(folder / 'work_dirs/small/iter_3.pth').keys()
    saved = Config.fromfile(folder / 'two/small.py')
    assert saved.train_dataloader.batch_size == 2 and saved.model.decode_head.norm_cfg.type == 'SyncBN'
    # The score must be that of the weights and statistics which were saved.
    tool(folder, 'test', 'small.py', 'two/iter_2.pth', '--work-dir', 'saved')
    validated = float(re.findall(r'Iter\(val\).*mIoU: ([\d.]+)', printed)[-1])
    assert json.loads((folder / 'saved/metrics.json').read_text())['mIoU'] == pytest.approx(validated, abs=0.005)


@pytest.mark.parametrize('folder', [draw_sample], indirect=True)
@pytest.mark.parametrize('tta, processes', [
    ([], 2), pytest.param(['--tta'], 2, marks=pytest.mark.slow), pytest.param([], 3, marks=pytest.mark.slow)])
def test_several_processes_test_as_one_does(folder, tested, tta, processes):
    """Testing must not care about the training batch either, which 2 processes could not share if it were 3."""
    arguments = ['small.py', 'work_dirs/small/iter_3.pth', *tta, '--cfg-options', 'train_dataloader.batch_size=3']
    name = 'metrics_tta.json' if tta else 'metrics.json'
    torchrun(folder, ROOT / 'tools/test.py', *arguments, '--work-dir', 'several', processes=processes)
    tool(folder, 'test', *arguments, '--work-dir', 'one')
    several, one = (json.loads((folder / place / name).read_text()) for place in ('several', 'one'))
    assert several == one
    confusion = f'confusion{"_tta" * bool(tta)}.csv'
    assert (folder / 'several' / confusion).read_text() == (folder / 'one' / confusion).read_text()


@pytest.mark.slow
def test_a_run_of_one_process_is_resumed_by_two_and_a_signal_stops_both(folder, trained):
    shutil.copytree(folder / 'work_dirs/small', folder / 'handed')
    (folder / 'handed/last_checkpoint').write_text('handed/iter_3.pth')
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
               str(ROOT / 'tools/train.py'), 'small.py', '--resume', '--work-dir', 'handed', '--cfg-options',
               'train_cfg.max_iters=100000']
    with subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, 'OMP_NUM_THREADS': '1'}) as process:
        printed = ''
        for line in process.stdout:
            printed += line
            if re.search(r'Iter\(train\) *\[ *6/', line):
                process.terminate()
    assert iterations(printed)[:3] == [4, 5, 6] and process.returncode != 0
    last = int(re.findall(r'stopped by SIGTERM after iteration (\d+), saved', printed)[-1])
    assert torch.load(folder / f'handed/iter_{last}.pth')['meta']['iter'] == last
    assert (folder / 'handed/last_checkpoint').read_text().endswith(f'iter_{last}.pth')


@pytest.mark.parametrize('folder', [draw_sample], indirect=True)
@pytest.mark.parametrize('number', [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_to_all_processes_of_a_run_with_workers(folder, trained, number):
    """As a terminal sends Ctrl-C, and a scheduler SIGTERM."""
    place = f'stopped-{number}'
    with subprocess.Popen(
            [sys.executable, str(ROOT / 'tools/train.py'), 'small.py', '--work-dir', place, '--cfg-options',
             'train_cfg.max_iters=100000', 'train_dataloader.num_workers=2'],
            cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, 'OMP_NUM_THREADS': '1'}) as process:
        watch = threading.Timer(100, os.killpg, (process.pid, signal.SIGKILL))
        watch.start()
        printed = ''
        for line in process.stdout:
            printed += line
            if re.search(r'Iter\(train\) *\[ *2/', line):
                os.killpg(process.pid, number)
        watch.cancel()
    assert process.returncode == 128 + number and 'Traceback' not in printed
    last = int(re.findall(r'stopped by \w+ after iteration (\d+), saved', printed)[-1])
    assert torch.load(folder / place / f'iter_{last}.pth')['meta']['iter'] == last
