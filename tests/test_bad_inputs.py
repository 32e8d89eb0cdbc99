"""A table of bad inputs: each stops with the right exception and a message that names what is wrong.

Every row but a few starts tools/train.py or tools/test.py, in this process to save the seconds of importing, on a
folder of its own with a small dataset, a pretrained ViT and a config that would train otherwise.
"""

import gc
import os
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mmengine.runner.runner
import numpy as np
import pytest
import torch
from forks import run_fork
from mmengine.config import Config
from mmengine.utils import ManagerMixin
from PIL import Image
from tiny import ARCH, CLASSES, HEIGHT, ROOT, WIDTH, image_path, label_path, write_run
from torch.utils.data import DataLoader

from mmseg_gpt import compat
from mmseg_gpt.checkpoints import CheckpointError
from mmseg_gpt.datasets import SampleError

Damage = Callable[[Path], object]
BACKBONE = 'model.backbone'


class Row(NamedTuple):
    """One bad input.

    Attributes:
        name: What is bad.
        words: What the message must hold.
        options: Arguments of the tool; those with a "=" and no dash in front go to --cfg-options.
        damage: Changes files of the run's folder first.
        error: The exception; SystemExit and CheckpointError end without a traceback.
        tool: Which tool is started.
        environment: Variables that are set.
    """
    name: str
    words: tuple[str, ...]
    options: tuple[str, ...] = ()
    damage: Damage = lambda folder: None
    error: type[BaseException] = SystemExit
    tool: str = 'train'
    environment: dict[str, str] = {}


# --- what damages a run's folder -------------------------------------------------------------------


def label(split: str, change: Callable[[np.ndarray], np.ndarray], **options) -> Damage:
    """Changes the values of the first label map."""

    def damage(folder: Path) -> None:
        path = label_path(folder / 'data', split, 0)
        Image.fromarray(change(np.array(Image.open(path)))).save(path, **options)

    return damage


def image(split: str, change: Callable[[Image.Image], Image.Image], **options) -> Damage:
    """Changes the first image."""

    def damage(folder: Path) -> None:
        path = image_path(folder / 'data', split, 0)
        change(Image.open(path)).save(path, **options)

    return damage


def with_value(value: int, dtype: type = np.uint8) -> Callable[[np.ndarray], np.ndarray]:
    """Sets some label pixels to ``value``."""

    def change(labels: np.ndarray) -> np.ndarray:
        labels = labels.astype(dtype)
        labels[:3] = value
        return labels

    return change


def turned(split: str, orientation: int) -> Damage:
    """Gives an image an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return image(split, lambda i: i, exif=exif)


def content(path: str, data: bytes | float) -> Damage:
    """Replaces a file's content, or keeps only a share of it."""

    def damage(folder: Path) -> None:
        old = (folder / path).read_bytes()
        (folder / path).write_bytes(data if isinstance(data, bytes) else old[:int(len(old) * data)])

    return damage


def size_of_both(width: int, height: int) -> Damage:
    """Resizes an image and its label map."""

    def damage(folder: Path) -> None:
        for path in (image_path, label_path):
            file = path(folder / 'data', 'training', 0)
            Image.open(file).resize((width, height), Image.Resampling.NEAREST).save(file)

    return damage


def line(text: str) -> Damage:
    """Appends a line to the config."""

    def damage(folder: Path) -> None:
        with open(folder / 'small.py', 'a') as file:
            file.write(f'\n{text}\n')

    return damage


def gray_of_2_bits(folder: Path) -> None:
    """A gray PNG of 2 bits, which Pillow cannot write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    header = struct.pack('>IIBBBBB', WIDTH, HEIGHT, 2, 0, 0, 0, 0)
    rows = zlib.compress((b'\0' + b'\x1b' * -(-WIDTH // 4)) * HEIGHT)
    label_path(folder / 'data', 'training', 0).write_bytes(
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', rows) + chunk(b'IEND', b''))


def black_16_bit_image(folder: Path) -> None:
    """An 8-bit image in a 16-bit file, of which only the high byte is read."""
    for number in range(2):
        path = image_path(folder / 'data', 'training', number)
        Image.fromarray(np.array(Image.open(path).convert('L')).astype(np.uint16)).save(path.with_suffix('.png'))
        path.unlink()


def jpeg_label(folder: Path) -> None:
    for split in ('training', 'validation'):
        for path in sorted((folder / 'data/annotations' / split).glob('*.png')):
            Image.open(path).save(path, format='JPEG')


def nothing_labelled(folder: Path) -> None:
    for path in sorted((folder / 'data/annotations/validation').glob('*.png')):
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(path)


def state(change: Callable[[dict], object]) -> Damage:
    """Changes the weights of the pretrained ViT."""

    def damage(folder: Path) -> None:
        weights = torch.load(folder / 'vit.pth')['model']
        change(weights)
        torch.save(dict(model=weights), folder / 'vit.pth')

    return damage


def whole_model(change: Callable[[dict], object] = lambda weights: None) -> Damage:
    """Writes a checkpoint of the whole model, as a run does, with changed weights."""

    def damage(folder: Path) -> None:
        from mmengine.registry import MODELS, init_default_scope
        init_default_scope('mmseg')
        cfg = Config.fromfile(folder / 'small.py').model
        weights = MODELS.build(cfg).state_dict()
        change(weights)
        torch.save(dict(state_dict=weights), folder / 'model.pth')

    return damage


def code_in(name: str) -> Damage:
    """A checkpoint that runs code where it is loaded without care."""

    class Harm:

        def __reduce__(self):
            return os.mkdir, ('harmed', )

    return lambda folder: torch.save(dict(model=Harm()), folder / name)


NAN = float('nan')
TRAIN, VAL = 'train_dataloader', 'val_dataloader'
IMAGE, LABEL = 'data/images/training/00000.jpg', 'data/annotations/training/00000.png'
VAL_IMAGE, VAL_LABEL = 'data/images/validation/00000.jpg', 'data/annotations/validation/00000.png'
DATA_OPTION = f'{TRAIN}.dataset'
WRONG, LOAD = 'Nothing was started', f'{BACKBONE}.init_cfg.checkpoint='
TEST = dict(tool='test', damage=whole_model())

LABELS = [
    Row('label above the classes in training', (WRONG, LABEL, '77', '9 classes'), (),
        label('training', with_value(77))),
    Row('label above the classes in validation', (VAL_LABEL, '10', '135 pixels'), (),
        label('validation', with_value(10))),
    Row('label that needs reduce_zero_label', ('reduce_zero_label=True', 'values 9'),
        (f'{TRAIN}.dataset.reduce_zero_label=False', f'{TRAIN}.dataset.pipeline.1.reduce_zero_label=False')),
    Row('16-bit label that would wrap', (LABEL, 'I;16', '300', '8 bits'), (),
        label('training', with_value(300, np.uint16))),
    Row('16-bit label that would wrap, in validation', (VAL_LABEL, '256', 'wrap'), (),
        label('validation', with_value(256, np.uint16))),
    Row('RGB label', (LABEL, 'RGB', 'palette'), (), label('training', lambda x: np.stack([x] * 3, -1))),
    Row('RGBA label', (VAL_LABEL, 'RGBA'), (), label('validation', lambda x: np.stack([x] * 4, -1))),
    Row('gray label with alpha', (LABEL, 'LA'), (), label('training', lambda x: np.stack([x] * 2, -1))),
    Row('gray label of 2 bits, whose values would be scaled', (LABEL, '2 or 4 bits'), (), gray_of_2_bits),
    Row('label saved as JPEG', (LABEL, 'JPEG', 'PNG'), (), jpeg_label),
    Row('label of another size', (LABEL, '45x36', '45x37'), (), label('training', lambda x: x[:-1])),
    Row('truncated PNG label', (LABEL, 'truncated'), (), content(LABEL, 0.6)),
    Row('empty label', (VAL_LABEL, 'empty'), (), content(VAL_LABEL, b'')),
    Row('validation without a labelled pixel', ('no pixel', '2 images', 'reduce_zero_label'), (), nothing_labelled,
        ValueError),
]
IMAGES = [
    Row('image with EXIF orientation 6', (IMAGE, 'EXIF orientation 6', 'rotated'), (), turned('training', 6)),
    Row('square-safe EXIF orientation 3 in validation', (VAL_IMAGE, 'EXIF orientation 3'), (), turned('validation', 3)),
    Row('zero-byte JPEG', (IMAGE, 'empty (0 bytes)'), (), content(IMAGE, b'')),
    Row('truncated JPEG', (IMAGE, 'truncated'), (), content(IMAGE, 0.5)),
    Row('JPEG without its last bytes', (VAL_IMAGE, 'truncated'), (), content(VAL_IMAGE, 0.9)),
    Row('web page saved as JPEG', (IMAGE, 'not an image'), (), content(IMAGE, b'<!DOCTYPE html><html>404</html>')),
    Row('1x1 image', (IMAGE, '1x1', '2 at least'), (), size_of_both(1, 1)),
    Row('image one pixel high', (IMAGE, '40x1'), (), size_of_both(40, 1)),
    Row('16-bit image that would be black', ('00000.png', '16 bits', 'black'), (f'{TRAIN}.dataset.img_suffix=.png', ),
        black_16_bit_image),
    Row('image of another size', (LABEL, '20x37'), (), image('training', lambda i: i.crop((0, 0, 20, HEIGHT)))),
]
DATASETS = [
    Row('no dataset', ('this is missing', 'images/training', 'annotations/validation', 'data_root'), (),
        lambda folder: shutil.rmtree(folder / 'data')),
    Row('empty image folder', ('no files in images/training', 'looked in'), (),
        lambda folder: [path.unlink() for path in (folder / 'data/images/training').iterdir()]),
    Row('wrong image suffix', ('data/images/training', '.png', '.jpg (2)'), (f'{TRAIN}.dataset.img_suffix=.png', )),
    Row('wrong label suffix', ('label maps that are not there (2)', '_labels.png', '.png (2)'),
        (f'{VAL}.dataset.seg_map_suffix=_labels.png', )),
    Row('image without a label', ('label maps that are not there (1): 00000.png', ), (),
        lambda folder: (folder / LABEL).unlink()),
    Row('label without an image', ('without an image', '(1): 00000.png'), (), lambda folder: (folder / IMAGE).unlink()),
    Row('ann_file names an absent image', ('ann_file', '(1): 00007.jpg'), (f'{TRAIN}.dataset.ann_file=list.txt', ),
        lambda folder: (folder / 'data/list.txt').write_text('00000\n00007\n')),
    Row('absent ann_file', ('train_dataloader', 'cannot be built', 'absent.txt'),
        (f'{TRAIN}.dataset.ann_file=absent.txt', )),
    Row('unknown dataset type', ('cannot be built', 'Cityscape'), (f'{TRAIN}.dataset.type=Cityscape', )),
    Row('no class names', ('class names', 'metainfo'), (), line('val_dataloader["dataset"].pop("metainfo")')),
    Row('other classes in validation', ('other classes, or another order', ), (),
        line('val_dataloader["dataset"]["metainfo"]["classes"] = list("abcdefghi")')),
    Row('head with too many classes', ('model.decode_head.num_classes is 150', '9 classes'),
        ('model.decode_head.num_classes=150', )),
    Row('head with too few classes', ('model.decode_head.num_classes is 8', '9 classes'),
        ('model.decode_head.num_classes=8', )),
    Row('auxiliary head with too few classes', ('model.auxiliary_head.1.num_classes is 3', ),
        ('model.auxiliary_head.1.num_classes=3', )),
    Row('head that ignores another number', ('model.decode_head.ignore_index is 0', '255'),
        ('model.decode_head.ignore_index=0', )),
    Row('metric that ignores another number', ('val_evaluator.ignore_index is 11', 'decode_head.ignore_index is 255',
        'val_dataloader.dataset.ignore_index is 255'), ('val_evaluator.ignore_index=11', )),
]
NUMBERS = [
    Row('negative max_iters', ('train_cfg.max_iters is -4', ), ('train_cfg.max_iters=-4', )),
    Row('no iterations', ('train_cfg.max_iters is 0', '1 or more'), ('train_cfg.max_iters=0', )),
    Row('max_iters that is no whole number', ('train_cfg.max_iters is 1.5', ), ('train_cfg.max_iters=1.5', )),
    Row('max_iters that is no number', ("train_cfg.max_iters is 'many'", ), ('train_cfg.max_iters=many', )),
    Row('no validation interval', ('train_cfg.val_interval is 0', ), ('train_cfg.val_interval=0', )),
    Row('empty batch', ('train_dataloader.batch_size is 0', ), (f'{TRAIN}.batch_size=0', )),
    Row('negative batch in validation', ('val_dataloader.batch_size is -1', ), (f'{VAL}.batch_size=-1', )),
    Row('negative number of workers', ('num_workers is -1', '0 or more'), (f'{TRAIN}.num_workers=-1', )),
    Row('persistent workers without workers', ('persistent_workers=True', 'num_workers'),
        (f'{TRAIN}.persistent_workers=True', )),
    Row('crop of no size', (f'{TRAIN}.dataset.pipeline.3.crop_size is 0', ),
        (f'{TRAIN}.dataset.pipeline.3.crop_size=[0,32]', )),
    Row('windows with gaps', ('stride (48, 48)', 'crop_size (32, 32)', 'gaps'),
        ('model.test_cfg.mode=slide', 'model.test_cfg.crop_size=[32,32]', 'model.test_cfg.stride=[48,48]')),
    Row('negative learning rate', ('optim_wrapper.optimizer.lr is -0.1', ), ('optim_wrapper.optimizer.lr=-0.1', )),
    Row('learning rate that is no number', ('optim_wrapper.optimizer.lr is nan', ), (),
        line('optim_wrapper["optimizer"]["lr"] = float("nan")')),
]
KEYS = [
    Row('misspelt param_scheduler', ('"param_schedulers"', '"param_scheduler"'), (), line('param_schedulers = []')),
    Row('misspelt randomness', ('"randomnes"', '"randomness"'), (), line('randomnes = dict(seed=1)')),
    Row('misspelt optim_wrapper', ('"optim_wraper"', '"optim_wrapper"'), (), line('optim_wraper = dict()')),
    Row('misspelt load_from', ('"load_form"', '"load_from"'), (), line('load_form = "x.pth"')),
    Row('misspelt default hook', ('"default_hooks.checkpont"', 'default_hooks.checkpoint'), (),
        line('default_hooks["checkpont"] = dict(type="CheckpointHook", interval=1)')),
    Row('misspelt environment', ('"env_cfg.cudnn_benchmrk"', ), (), line('env_cfg["cudnn_benchmrk"] = True')),
    Row('misspelt paramwise_cfg', ('paramwise_cfg.custom_key"', 'custom_keys'), (),
        line('optim_wrapper["paramwise_cfg"]["custom_key"] = dict()')),
    Row('misspelt factor of a learning rate', ('lr_mul"', 'lr_mult', '["head"]'), (),
        line('optim_wrapper["paramwise_cfg"]["custom_keys"]["head"] = {"lr_mul": 10.}')),
    Row('key of OpenMMLab 1.x', ('"lr_config"', '1.x', 'param_scheduler'), (), line('lr_config = dict(policy="poly")')),
    Row('custom key that matches nothing', ('"decode_heads"', 'no trained parameter'), (),
        line('optim_wrapper["paramwise_cfg"]["custom_keys"]["decode_heads"] = dict(lr_mult=10.)')),
    Row('custom key of frozen weights', ('"blocks"', 'no trained parameter'), (),
        line('optim_wrapper["paramwise_cfg"]["custom_keys"]["blocks"] = dict(lr_mult=.1)')),
    Row('misspelt option', ('max_iter', '"max_iters"'), ('train_cfg.max_iter=5', )),
    Row('misspelt option in the middle', ('backbone.promt.num_tokens', '"prompt"'),
        ('model.backbone.promt.num_tokens=5', )),
    Row('option that nothing reads', ('data_root', 'nothing reads'), ('data_root=elsewhere', )),
    Row('misspelt option at the top', ('"visualiser"', '"visualizer"'), ('visualiser=None', )),
    Row('option beyond the end of a list', ('param_scheduler is a list of 1', ), ('param_scheduler.3.end=5', )),
    Row('option inside a number', ('train_cfg.max_iters is 1', '"end"'), ('train_cfg.max_iters.end=5', )),
]
MACHINE = [
    Row('--device cuda without CUDA', ('--device cuda', 'torch'), ('--device', 'cuda')),
    Row('--device cuda without CUDA, in testing', ('--device cuda', ), ('--device', 'cuda'), **TEST),
    Row('a visible GPU that torch does not see', ('CUDA_VISIBLE_DEVICES=0', ),
        environment={'CUDA_VISIBLE_DEVICES': '0'}),
    Row('--amp fp16 without a GPU', ('--amp fp16', 'bf16'), ('--amp', 'fp16')),
    Row('AmpOptimWrapper without a GPU', ('AmpOptimWrapper', 'bf16'), ('optim_wrapper.type=AmpOptimWrapper', )),
    Row('work directory that is a file', ('work directory', 'not a folder'), ('--work-dir', 'small.py/run')),
    Row('no such config', ('no config', 'configs/'), damage=lambda folder: (folder / 'small.py').unlink()),
    Row('--launcher pytorch without torchrun', ('torchrun', ), ('--launcher', 'pytorch')),
    Row('absent checkpoint to resume', ('no checkpoint', 'iter_9.pth'), ('--resume', 'iter_9.pth')),
    Row('absent checkpoint to start from', ('load_from', 'absent.pth'), ('load_from=absent.pth', )),
    Row('absent checkpoint to test', ('no checkpoint model.pth', ), tool='test'),
    Row('--tta without its pipeline', ('--tta', 'tta_pipeline'), ('--tta', ), tool='test',
        damage=lambda folder: (whole_model()(folder), line('del tta_pipeline')(folder))),
]
MODELS = [
    Row('negative number of prompts', ('prompt.num_tokens is -1', ), (f'{BACKBONE}.prompt.num_tokens=-1', )),
    Row('no prompts', ('prompt.num_tokens is 0', ), (f'{BACKBONE}.prompt.num_tokens=0', )),
    Row('out_indices out of range', ('out_indices (0, 1, 3)', '0 to 2'), (f'{BACKBONE}.out_indices=[0,1,3]', )),
    Row('negative out_indices', ('out_indices', '-9'), (f'{BACKBONE}.out_indices=[-9,1,2]', )),
    Row('a block twice in out_indices', ('out_indices (0, 1, 1)', 'each block once'),
        (f'{BACKBONE}.out_indices=[0,1,1]', )),
    Row('out_indices out of order', ('ascending', ), (f'{BACKBONE}.out_indices=[2,1,0]', )),
    Row('gates in one layer', ('GatedPrompt', 'at least 2 blocks'),
        (f'{BACKBONE}.arch.num_layers=1', f'{BACKBONE}.out_indices=[0]')),
    Row('no layers', ('num_layers must be at least 1, got 0', ), (f'{BACKBONE}.arch.num_layers=0', )),
    Row('heads that do not divide the width', ('embed_dims 8', 'num_heads 3'), (f'{BACKBONE}.arch.num_heads=3', )),
    Row('unknown architecture', ('arch "giant"', 'base'), (f'{BACKBONE}.arch=giant', )),
    Row('unknown prompt', ('GatedPromt', ), (f'{BACKBONE}.prompt.type=GatedPromt', )),
    Row('temperature of 0', ('0 < min <= init', ), (f'{BACKBONE}.temperature.init=0', ),
        damage=line('model["backbone"]["temperature"] = dict(init=1.)')),
    Row('temperature that is a number', ('temperature must be True, False or a dict', ),
        (f'{BACKBONE}.temperature=2', )),
    Row('start_block after the last', ('start_block 3', ), (f'{BACKBONE}.start_block=3', )),
    Row('unknown out_type', ('out_type "map"', 'featmap'), (f'{BACKBONE}.out_type=map', )),
    Row('images of no size', ('img_size is 0', ), (f'{BACKBONE}.img_size=0', )),
    Row('negative patch', ('patch_size is -8', ), (f'{BACKBONE}.patch_size=-8', )),
    Row('hard gates without noise', ('gumbel_temperature must be positive', ),
        (f'{BACKBONE}.prompt.type=HardGatedPrompt', f'{BACKBONE}.prompt.gumbel_temperature=0')),
    Row("MMEngine's loader, which fills what fits", ('PretrainedViT', ), (f'{BACKBONE}.init_cfg.type=Pretrained', )),
    Row('unknown option of the backbone', ('depth', 'GatedPromptViT'), (f'{BACKBONE}.depth=12', )),
]
CHECKPOINTS = [
    Row('absent pretrained file', ('this is missing', 'elsewhere.pth', 'init_cfg.checkpoint'),
        (LOAD + 'elsewhere.pth', )),
    Row('pretrained file of a narrower ViT', ('width 8', 'width 16', 'misshapen'),
        (f'{BACKBONE}.arch.embed_dims=16', ),
        line('for head in [model["decode_head"], *model["auxiliary_head"]]: head["in_channels"] = 16'),
        CheckpointError),
    Row('pretrained file with fewer blocks', ('3 blocks', '5 blocks', 'blocks.3'), (f'{BACKBONE}.arch.num_layers=5', ),
        error=CheckpointError),
    Row('pretrained file with more blocks', ('unexpected', 'blocks.2'),
        (f'{BACKBONE}.arch.num_layers=2', f'{BACKBONE}.out_indices=[0,1]', 'model.decode_head.in_index=1'),
        error=CheckpointError),
    Row('NaN among the weights', ('not finite (1)', 'blocks.0.attn.qkv.bias'), (),
        state(lambda s: s['blocks.0.attn.qkv.bias'].fill_(NAN)), CheckpointError),
    Row('position embedding without CLS', ('pos_embed', '16 entries', 'CLS'), (),
        state(lambda s: s.update(pos_embed=s['pos_embed'][:, 1:])), CheckpointError),
    Row('position embedding that is not square', ('pos_embed', 'square'), (),
        state(lambda s: s.update(pos_embed=s['pos_embed'][:, :13])), CheckpointError),
    Row('missing bias of the patch embedding', ('missing (1): patch_embed.proj.bias', ), (),
        state(lambda s: s.pop('patch_embed.proj.bias')), CheckpointError),
    Row('names of another model', ('layer1.0.conv1.weight', ), (),
        state(lambda s: (s.clear(), s.update({'layer1.0.conv1.weight': torch.ones(1)}))), CheckpointError),
    Row('truncated pretrained file', ('vit.pth', 'truncated'), (), content('vit.pth', 0.7), CheckpointError),
    Row('empty pretrained file', ('vit.pth', ), (), content('vit.pth', b''), CheckpointError),
    Row('web page saved as a checkpoint', ('vit.pth', 'web page'), (), content('vit.pth', b'<!DOCTYPE html>'),
        CheckpointError),
    Row('code in a pretrained file', ('vit.pth', 'can run code'), (), code_in('vit.pth'), CheckpointError),
    Row('load_from of another grid', ('misshapen', 'pos_embed', 'nothing was loaded'),
        ('load_from=model.pth', f'{BACKBONE}.img_size=64'), whole_model(), CheckpointError),
    Row('load_from of a pretrained ViT', ('init_cfg', 'not in load_from'), ('load_from=vit.pth', ),
        error=CheckpointError),
    Row('load_from with NaN', ('not finite', 'decode_head.conv_seg.bias'), ('load_from=model.pth', ),
        whole_model(lambda s: s['decode_head.conv_seg.bias'].fill_(NAN)), CheckpointError),
    Row('checkpoint with other classes, in testing', ('misshapen', 'conv_seg.weight'), tool='test',
        damage=whole_model(lambda s: s.update({'decode_head.conv_seg.weight': torch.ones(7, 4, 1, 1)})),
        error=CheckpointError),
    Row('checkpoint without the backbone, in testing', ('missing', 'backbone'), tool='test', error=CheckpointError,
        damage=whole_model(lambda s: [s.pop(k) for k in list(s) if k.startswith('backbone')])),
]
ROWS = LABELS + IMAGES + DATASETS + NUMBERS + KEYS + MACHINE + MODELS + CHECKPOINTS
BEFORE_A_RUN = {row.name for row in ROWS if row.error is SystemExit and 'custom key' not in row.name}


# --- running a row ---------------------------------------------------------------------------------


@pytest.fixture(scope='module', autouse=True)
def quick() -> None:
    """Spares each row what takes long and is not in question: what the log shows of config and machine, and gc."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compat.formatter_module(), 'FormatCode', lambda code, **style: (code, True))
        patch.setattr(mmengine.runner.runner, 'collect_env', dict)
        patch.setattr(gc, 'collect', lambda: 0)  # each dataset collects twice
        yield


@pytest.fixture(scope='module')
def sound(tmp_path_factory) -> Path:
    """The folder of a run with nothing wrong."""
    return write_run(tmp_path_factory.mktemp('sound'))


@pytest.fixture
def folder(sound, tmp_path, monkeypatch) -> Path:
    """A copy of it, as current folder, in a process that has run nothing yet."""
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    forget(ManagerMixin)
    return tmp_path


def forget(kind: type) -> None:
    """Drops MMEngine's named loggers, visualizers and scopes."""
    for each in kind.__subclasses__():
        each._instance_dict.clear()
        forget(each)


def start(tool: str, options: tuple[str, ...], monkeypatch) -> None:
    """Runs ``python tools/TOOL.py small.py [model.pth] OPTIONS`` in this process."""
    settings = [option for option in options if '=' in option]
    rest = [option for option in options if '=' not in option]
    files = ['small.py', 'model.pth'] if tool == 'test' else ['small.py']
    monkeypatch.syspath_prepend(ROOT / 'tools')  # as for a script
    monkeypatch.setattr(sys, 'argv', [tool, *files, *rest, *(['--cfg-options', *settings] if settings else [])])
    runpy.run_path(str(ROOT / f'tools/{tool}.py'), run_name='__main__')


def test_there_are_enough_rows():
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names)) >= 60 and all(row.words for row in ROWS)


@pytest.mark.skipif(torch.cuda.is_available(), reason='some rows need a machine without a GPU')
@pytest.mark.parametrize('row', ROWS, ids=[row.name for row in ROWS])
def test_a_bad_input_is_refused(row, folder, monkeypatch):
    row.damage(folder)
    for name, value in row.environment.items():
        monkeypatch.setenv(name, value)
    before = set(folder.rglob('*'))
    with pytest.raises((row.error, SystemExit)) as stopped:
        start(row.tool, row.options, monkeypatch)
    assert type(stopped.value.__cause__ if row.error is CheckpointError else stopped.value) is row.error
    message = str(stopped.value)
    for word in row.words:
        assert word in message, message
    assert len(message.splitlines()) < 24, 'more than a screen'
    assert not (folder / 'harmed').exists(), 'code of a file was run'
    if row.name in BEFORE_A_RUN:
        assert set(folder.rglob('*')) == before, 'something was written before the check'


def test_all_that_is_wrong_is_said_at_once(folder, monkeypatch):
    for damage in (label('training', with_value(77)), content(VAL_IMAGE, b''), line('randomnes = dict()')):
        damage(folder)
    (folder / 'vit.pth').unlink()
    with pytest.raises(SystemExit) as stopped:
        start('train', ('train_cfg.max_iters=0', 'model.decode_head.num_classes=8', '--work-dir', 'small.py/x'),
              monkeypatch)
    for word in ('vit.pth', '77', VAL_IMAGE, 'randomnes', 'max_iters', 'decode_head.num_classes', 'small.py/x'):
        assert word in str(stopped.value)


@pytest.mark.parametrize('tool, damage, words', [
    ('train', content(IMAGE, b''), (IMAGE, 'empty (0 bytes)')),
    ('test', turned('validation', 8), (VAL_IMAGE, 'EXIF orientation 8')),
])
def test_a_bad_input_ends_the_real_command_without_a_traceback(tool, damage, words, folder):
    damage(folder)
    (folder / 'model.pth').touch()
    files = ['small.py', 'model.pth'] if tool == 'test' else ['small.py']
    done = run_fork(folder, ROOT / f'tools/{tool}.py', *files)
    assert done.returncode == 1 and 'Traceback' not in done.stdout and not (folder / 'work_dirs').exists()
    for word in words:
        assert word in done.stdout


# --- what gets past a sample of the files ----------------------------------------------------------


def first_batch(split: str, workers: int, **changes) -> dict:
    """The first batch of a split as a data loader with the guard gives it."""
    from mmengine.registry import DATASETS as REGISTRY
    from mmengine.registry import init_default_scope

    from mmseg_gpt.datasets import GuardedDataset
    init_default_scope('mmseg')
    config = Config.fromfile('small.py')[f'{split}_dataloader'].dataset
    config.update(changes)
    dataset = GuardedDataset(REGISTRY.build(config))
    return next(iter(DataLoader(dataset, batch_size=2, num_workers=workers, collate_fn=lambda batch: batch)))


@pytest.mark.parametrize('row', LABELS[:-1] + IMAGES, ids=[row.name for row in LABELS[:-1] + IMAGES])
def test_a_bad_pair_that_no_check_has_seen_stops_the_run_with_its_name(row, folder):
    row.damage(folder)
    split = 'val' if any('validation' in word for word in row.words) else 'train'
    changes = dict(img_suffix='.png') if '16-bit image' in row.name else {}
    if 'reduce_zero_label' in row.name:
        changes = dict(reduce_zero_label=False, pipeline=Config.fromfile('small.py').val_dataloader.dataset.pipeline)
        changes['pipeline'][1]['reduce_zero_label'] = False
    with pytest.raises(SampleError, match=r'00000|00001'):
        first_batch(split, workers=0, **changes)


@pytest.mark.slow  # torch waits 5 seconds for a worker that has raised
def test_a_worker_process_names_the_file_too(folder):
    label('training', with_value(77))(folder)
    with pytest.raises(SampleError, match=r'00000\.png.*76'):
        first_batch('train', workers=1, pipeline=Config.fromfile('small.py').val_dataloader.dataset.pipeline)


# --- what works, and must go on working ------------------------------------------------------------


def as_sixteen_bits(pixels: Image.Image) -> Image.Image:
    return Image.fromarray(np.array(pixels.convert('L')).astype(np.uint16) * 257)


def as_palette(labels: Image.Image) -> Image.Image:
    labels = Image.fromarray(np.array(labels), 'P')
    labels.putpalette(list(range(256)) * 3)
    return labels


GOOD = {
    'gray': (lambda i: i.convert('L'), None),
    'CMYK': (lambda i: i.convert('CMYK'), None),
    'RGBA': (lambda i: i.convert('RGBA'), None),
    'palette image': (lambda i: i.convert('P'), None),
    '16-bit image': (as_sixteen_bits, None),
    'palette label': (None, as_palette),
    '16-bit label without wide values': (None, lambda x: Image.fromarray(np.array(x).astype(np.uint16))),
    'ignored value 255': (None, lambda x: Image.fromarray(with_value(255)(np.array(x)))),
}
AS_PNG = ('RGBA', 'palette image', '16-bit image')


def convert(folder: Path, name: str) -> None:
    """Saves every pair as ``name`` says; all images as PNG where JPEG cannot hold it."""
    new_image, new_label = GOOD[name]
    for path in sorted((folder / 'data/images').rglob('*.jpg')):
        if new_image:
            new_image(Image.open(path)).save(path.with_suffix('.png') if name in AS_PNG else path)
            if name in AS_PNG:
                path.unlink()
    for path in sorted((folder / 'data/annotations').rglob('*.png')):
        if new_label:
            new_label(Image.open(path)).save(path)


@pytest.mark.parametrize('name', GOOD)
def test_other_kinds_of_images_and_labels_go_through_the_ade20k_pipelines(name, folder):
    from mmengine.registry import DATASETS as REGISTRY
    from mmengine.registry import init_default_scope

    from mmseg_gpt.datasets import GuardedDataset
    expected_label = np.array(Image.open(VAL_LABEL)).astype(int)
    brightness = np.array(Image.open(VAL_IMAGE).convert('L')).mean()
    convert(folder, name)
    if name == 'ignored value 255':
        expected_label = np.array(Image.open(VAL_LABEL)).astype(int)
    init_default_scope('mmseg')
    cfg = Config.fromfile(ROOT / 'configs/_base_/datasets/ade20k.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.update(data_root='data', img_suffix='.png' if name in AS_PNG else '.jpg')
        dataset = GuardedDataset(REGISTRY.build(loader.dataset))
        sample = dataset[0]
        assert sample['inputs'].shape[0] == 3 and 20 < sample['inputs'].float().mean() < 240
    assert sample['inputs'].float().mean() == pytest.approx(brightness, abs=25)
    expected = np.where(np.isin(expected_label, (0, 255)), 255, expected_label - 1)
    assert np.array_equal(sample['data_samples'].gt_sem_seg.data[0].numpy(), expected)


@pytest.mark.parametrize('name', ['sizes not divisible by the patch', 'gray', '16-bit image', 'palette label'])
def test_a_run_with_other_kinds_of_files_trains_and_validates(name, folder, monkeypatch):
    assert WIDTH % 16 and HEIGHT % 16 and ARCH['num_layers'] == 3
    options = ()
    if name in GOOD:
        convert(folder, name)
        options = [f'{loader}.dataset.img_suffix=.png' for loader in (TRAIN, VAL) if name in AS_PNG]
    start('train', tuple(options), monkeypatch)
    assert (folder / 'work_dirs/small/adapted.pth').is_file() and CLASSES == 9
