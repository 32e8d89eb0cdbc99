"""Configs as data: the settings in a file that somebody else has made, which may name nothing but what is listed here.

A config of MMEngine is a program, and one in JSON still says what to build: ``type`` may be any function that Python
can import, and strings may be files that are unpickled. So every string in the config of an adapter file must be one of
``TYPES`` or ``WORDS``, and every number within bounds. No file, address or module can be written with these.
"""

import math
import re

# What ``type`` may be: classes that only compute. None of them reads a file, but for the image that is predicted.
TYPES = frozenset((
    # models and their ViT
    'LeanEncoderDecoder', 'EncoderDecoder', 'ImageClassifier', 'GatedPromptViT', 'LoRAViT', 'BiasTunedViT',
    'GatedPrompt', 'HardGatedPrompt', 'DeepPrompt', 'ShallowPrompt',
    # necks and heads
    'Feature2Pyramid', 'ClsBatchNormNeck', 'LeanSETRUPHead', 'SETRUPHead', 'LinearHead', 'LeanUPerHead', 'UPerHead',
    'LeanFCNHead', 'FCNHead', 'LeanSegmenterMaskTransformerHead', 'SegmenterMaskTransformerHead', 'LinearClsHead',
    # layers
    'BN', 'BN1d', 'SyncBN', 'LN', 'GN', 'ReLU', 'GELU', 'Conv2d',
    # how images are prepared, and views of them averaged
    'SegDataPreProcessor', 'ClsDataPreprocessor', 'LoadImageFromFile', 'LoadBands', 'LoadAnnotations', 'Resize',
    'ResizeEdge', 'CenterCrop', 'RandomFlip', 'TestTimeAug', 'PackSegInputs', 'PackInputs', 'LeanSegTTAModel',
    'SegTTAModel', 'AverageClsScoreTTA'))

# What any other string may be.
WORDS = frozenset((
    'small', 'base', 'large', 'huge', 'huge_plus', '7b', 'qkv', 'qv', '', 'bfloat16', 'float32', 'float64',
    'featmap', 'normed_featmap', 'cls_token', 'mean_patch', 'mean_prompt', 'mean_all',
    'attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2', 'mlp.fc3', 'mlp', 'attn', 'parallel', 'sequential',
    'slide', 'whole', 'resize_concat', 'multiple_select', 'bilinear', 'nearest', 'bicubic', 'area', 'lanczos', 'box',
    'hamming', 'pillow', 'cv2', 'short', 'long', 'width', 'height', 'color', 'grayscale', 'unchanged', 'horizontal',
    'vertical', 'diagonal', 'constant', 'zero', 'same', 'corner',
    'uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32'))

# Settings that are not carried along: a model that is filled from a file needs no other weights and computes no loss.
LEFT_OUT = frozenset(('init_cfg', 'pretrained', 'train_cfg', 'loss_decode', 'loss', 'sampler',
                      'backend_args', 'file_client_args'))
PARTS = frozenset(('model', 'data_preprocessor', 'test_pipeline', 'tta_pipeline', 'tta_model'))
TUPLE = 'tuple'  # JSON has no tuples, and some transforms take nothing else: {'tuple': [512, 512]}
KEY = re.compile('[a-z][a-z0-9_]{0,39}')
MOST, DEEPEST, LARGEST = 5000, 16, 100_000  # values in a config, levels, and how large a number may be
# What is built as often as the number says.
REPEATED = {'num_layers': 100, 'num_convs': 100, 'num_fcs': 100, 'num_stages': 100, 'num_heads': 1024}
MOST_VIEWS = 64


class NotPlain(ValueError):
    """A config holds something that the config of an adapter file cannot; the message names the place."""


def plain(settings: object, place: str = '') -> object:
    """Returns settings of a config as the plain data of an adapter file: types by their names, tuples marked.

    Args:
        settings: A value of a loaded config.
        place: Its dotted path, for messages.

    Raises:
        NotPlain: it holds something that cannot be carried along.
    """
    if isinstance(settings, dict):
        return {key: kind(value, place) if key == 'type' else plain(value, f'{place}.{key}' if place else key)
                for key, value in settings.items() if key not in LEFT_OUT}
    if isinstance(settings, (list, tuple)):
        values = [plain(value, f'{place}.{i}') for i, value in enumerate(settings)]
        return {TUPLE: values} if isinstance(settings, tuple) else values
    return settings


def kind(value: object, place: str) -> str:
    """Returns the name under which a class is registered, without scope and module.

    Raises:
        NotPlain: it is a class of other packages, which readers of the file may not have.
    """
    name = value if isinstance(value, str) else getattr(value, '__name__', str(value))
    name = name.rpartition('.')[2]
    if name not in TYPES:
        raise NotPlain(f'{place}.type is {name}, which is none of the classes that a shared config may name')
    return name


def restored(value: object) -> object:
    """Returns a checked value of an adapter file's config with its tuples."""
    if isinstance(value, dict):
        if set(value) == {TUPLE}:
            return tuple(restored(each) for each in value[TUPLE])
        return {key: restored(each) for key, each in value.items()}
    return [restored(each) for each in value] if isinstance(value, list) else value


def check_plain(config: object) -> None:
    """Refuses a config that is more than data, or could not be one of ours.

    Args:
        config: What JSON gave.

    Raises:
        NotPlain: the message says where.
    """
    if not isinstance(config, dict) or not {'model', 'test_pipeline'} <= config.keys() <= PARTS:
        raise NotPlain(f'the config must have model and test_pipeline, and may have {", ".join(sorted(PARTS))}')
    for name, settings in config.items():
        wanted = list if name.endswith('_pipeline') else dict
        if not isinstance(settings, wanted):
            raise NotPlain(f'{name} is no {wanted.__name__}')
    check_value(config, '', 'config', MOST, 0)
    check_views(config.get('tta_pipeline', []))


def check_value(value: object, place: str, key: str, left: int, depth: int) -> int:
    """Checks a value and all inside it; returns how many more values there may be.

    Args:
        value: What JSON gave.
        place: Its dotted path.
        key: The last name in it that is no number.
        left: How many values there may be, with this one.
        depth: How many levels it is below the top.

    Raises:
        NotPlain: it is not allowed.
    """
    if left < 1 or depth > DEEPEST:
        raise NotPlain(f'the config has more than {MOST} values, or more than {DEEPEST} levels')
    left -= 1
    if isinstance(value, dict):
        for name, inner in value.items():
            if not KEY.fullmatch(name) or name in LEFT_OUT or (name == TUPLE and not isinstance(inner, list)):
                raise NotPlain(f'{place or "the config"} has the setting {name[:60]!r}, which is not allowed')
            left = check_value(inner, f'{place}.{name}' if place else name, key if name == TUPLE else name, left,
                               depth + 1)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            left = check_value(inner, f'{place}.{i}', key, left, depth + 1)
    elif isinstance(value, str):
        if value not in (TYPES if key == 'type' else WORDS):
            raise NotPlain(f'{place} is {value[:60]!r}, which is none of the {"classes" if key == "type" else "words"} '
                           'that a shared config may name')
    elif key == 'type' or (isinstance(value, (int, float)) and not isinstance(value, bool) and not (
            math.isfinite(value) and abs(value) <= REPEATED.get(key, LARGEST))):
        raise NotPlain(f'{place} is {str(value)[:60]}, which is not allowed there')
    return left


def check_views(pipeline: list) -> None:
    """Refuses a test-time augmentation of very many views.

    Raises:
        NotPlain: there are too many.
    """
    for step in pipeline:
        if isinstance(step, dict) and isinstance(step.get('transforms'), list):
            views = math.prod(max(len(each), 1) for each in step['transforms'] if isinstance(each, list))
            if views > MOST_VIEWS:
                raise NotPlain(f'tta_pipeline makes {views} views of an image; at most {MOST_VIEWS} are allowed')
