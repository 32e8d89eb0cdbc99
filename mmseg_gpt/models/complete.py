"""Fills what a segmentor's settings leave out because it follows from the rest: widths, classes, blocks, windows.

The bases in ``configs/_base_`` say each fact once: a ViT its width and patches, a head what it does with features, a
dataset its classes and the size of its crops. :class:`LeanEncoderDecoder` puts them together when it is built, and our
tools as soon as they have read a config, so that what they check, compare and store says every number.
"""

import copy

from mmengine.config import Config
from mmengine.registry import MODELS

from ..settings import type_name
from .vit import VisionTransformer, read_arch

# Variables by which a config joins its bases; nothing reads them afterwards.
CONFIG_VARIABLES = ('vit', 'num_classes', 'crop_size')


def explicit(cfg: Config) -> Config:
    """Returns a copy of a config in which ``model`` is complete, if it is a LeanEncoderDecoder; else the config itself.

    Raises:
        ValueError: as :func:`complete` and :func:`check_channels`; or a base names a ViT that does not reach the model.
    """
    model, vit = cfg.get('model') or {}, cfg.get('vit')
    if isinstance(vit, dict) and not vit.keys() <= (model.get('backbone') or {}).keys():
        raise ValueError('a base names a ViT, but model.backbone does not have its settings. A config needs a base of '
                         '_base_/heads, and model = dict(backbone=dict(**_base_.vit))')
    if type_name(model) != 'LeanEncoderDecoder':
        preprocessor = model.get('data_preprocessor') or cfg.get('data_preprocessor')
        check_channels(model.get('backbone') or {}, preprocessor)
        return cfg
    cfg = cfg.copy()
    cfg.model = complete(model)
    if vit is not None:
        for name in CONFIG_VARIABLES:
            cfg.pop(name, None)
    return cfg


def complete(model: dict) -> dict:
    """Returns a copy of a segmentor's settings in which nothing that follows from other settings is left out.

    * ``num_classes`` goes into every head that does not say it.
    * ``crop_size``, height and width of the crops in training, goes into ``data_preprocessor``, ``backbone.img_size``
      and the sliding windows of ``test_cfg``, each made whole patches.
    * ``backbone.mean`` and ``backbone.std``, of the pixels a ViT was trained on, go into ``data_preprocessor``.
    * ``backbone.out_indices`` may be a dict of blocks by the ViT's depth; those of its depth are chosen. Negative ones
      are counted from the end.
    * A head that does not say ``in_channels`` reads the last output, or those in its ``in_index``, and has the ViT's
      width, which its ``channels`` get too, times the number of outputs that it concatenates. Segmenter's mask
      transformer is as wide, and has an attention head for each 64 channels, as in its paper.
    * An ``auxiliary_head`` without ``in_channels`` and ``in_index`` is copied, one for each output but the last.
    * ``neck`` may be a Feature2Pyramid, whose ``embed_dim`` is the ViT's width.

    Complete settings stay as they are.

    Args:
        model: The arguments of LeanEncoderDecoder, with or without its ``type``.

    Raises:
        ValueError: a setting is missing and follows from no other, or two contradict each other; the message names it.
    """
    if 'backbone' not in model:
        raise ValueError('model.backbone is missing')
    model = copy.deepcopy(model)
    num_classes, crop_size = model.pop('num_classes', None), model.pop('crop_size', None)
    backbone = model['backbone']
    preprocessor = model.get('data_preprocessor')
    preprocessor = preprocessor if isinstance(preprocessor, dict) else {}  # none, or built already
    preprocessor.update({name: backbone.pop(name) for name in ('mean', 'std') if name in backbone})
    if crop_size is not None:
        fit_windows(backbone, preprocessor, model.get('test_cfg') or {}, crop_size)
    check_channels(backbone, preprocessor)
    width = None
    if is_vit(backbone):
        arch = read_arch(backbone.get('arch', 'base'))
        width = arch['embed_dims']
        choose_blocks(backbone, arch['num_layers'])
    if neck := model.get('neck'):
        if type_name(neck) != 'Feature2Pyramid':
            width = None  # the heads have the neck's
        elif width is not None:
            neck.setdefault('embed_dim', width)
    outputs = len(backbone.get('out_indices') or (-1, ))
    auxiliary = model.get('auxiliary_head')
    if isinstance(auxiliary, dict) and not auxiliary.keys() & {'in_index', 'in_channels'}:
        model['auxiliary_head'] = [copy.deepcopy(auxiliary) for _ in range(outputs - 1)]
        for i, head in enumerate(model['auxiliary_head']):
            head['in_index'] = i
    for path, head in heads(model):
        fill_width(head, path, width, outputs)
        fill_classes(head, path, num_classes)
    return model


def is_vit(backbone: dict) -> bool:
    """Returns whether a backbone is GatedPromptViT or another of our ViTs, which all have its ``arch``."""
    kind = backbone.get('type')
    kind = kind if isinstance(kind, type) else MODELS.module_dict.get(type_name(backbone))
    return isinstance(kind, type) and issubclass(kind, VisionTransformer)


def check_channels(backbone: dict, preprocessor: dict | None) -> None:
    """Refuses a data preprocessor for images of another number of channels than the ViT's ``in_channels``.

    Raises:
        ValueError: ``mean`` or ``std`` has another number of entries; or red and blue are to be swapped in images that
            do not have 3 channels, which mmsegmentation would not do, and mmpretrain would with all channels.
    """
    if not (is_vit(backbone) and isinstance(preprocessor, dict)):
        return
    channels = backbone.get('in_channels', 3)
    for name in ('mean', 'std'):
        numbers = preprocessor.get(name)
        if isinstance(numbers, (list, tuple)) and len(numbers) not in (1, channels):
            raise ValueError(f'data_preprocessor.{name} has {len(numbers)} entries, but images have {channels} '
                             f'channels (model.backbone.in_channels): give it {channels}, in the order of the channels')
    for name in ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb'):
        if channels != 3 and preprocessor.get(name):
            raise ValueError(f'data_preprocessor.{name} is for images of 3 channels, and these have {channels} '
                             '(model.backbone.in_channels): set it to False, and give the channels in the order that '
                             'the ViT is to see, red first where there is red')


def heads(model: dict) -> list[tuple[str, dict]]:
    """Returns the heads of a segmentor with their dotted paths."""
    found = []
    for name in ('decode_head', 'auxiliary_head'):
        head = model.get(name)
        several = enumerate(head) if isinstance(head, (list, tuple)) else ()
        found += [(f'model.{name}', head)] if isinstance(head, dict) else [(f'model.{name}.{i}', h) for i, h in several]
    return found


def fit_windows(backbone: dict, preprocessor: dict, test_cfg: dict, crop_size: tuple[int, int]) -> None:
    """Makes training, the position embedding and sliding windows use crops of ``crop_size``, padded to whole patches.

    Padding is the preprocessor's, whose labels are then padded with what is ignored: left to the backbone, a map of 518
    pixels would be stretched over labels of 512. So are images that are tested as a whole. Windows move on by two
    thirds of their side, as in SETR.
    """
    patch = backbone.get('patch_size', 16)
    window = tuple(-(-side // patch) * patch for side in crop_size)
    preprocessor.setdefault('size', window)
    if window != tuple(crop_size) or test_cfg.get('mode', 'whole') == 'whole':
        preprocessor.setdefault('test_cfg', dict(size_divisor=patch))
    backbone.setdefault('img_size', window[0] if window[0] == window[1] else window)
    if test_cfg.get('mode') == 'slide':
        test_cfg.setdefault('crop_size', window)
        test_cfg.setdefault('stride', tuple(2 * side // 3 for side in test_cfg['crop_size']))


def choose_blocks(backbone: dict, depth: int) -> None:
    """Chooses the blocks to read of a ViT of ``depth`` blocks, where they are given by depth or from the end.

    Raises:
        ValueError: not for this depth.
    """
    blocks = backbone.get('out_indices')
    if isinstance(blocks, (list, tuple)) and any(block < 0 for block in blocks):
        if min(blocks) < -depth:
            raise ValueError(f'model.backbone.out_indices is {tuple(blocks)}, and this ViT has {depth} blocks: set it '
                             'to a tuple of blocks, counted from 0, or from the end with -1')
        backbone['out_indices'] = tuple(block % depth if block < 0 else block for block in blocks)
    if not isinstance(blocks, dict):
        return
    if depth not in blocks:
        raise ValueError('model.backbone.out_indices says which blocks the heads read of a ViT of '
                         f'{" or ".join(map(str, blocks))} blocks, and this one has {depth}: set it to a tuple of '
                         'blocks, counted from 0')
    backbone['out_indices'] = blocks[depth]


def fill_width(head: dict, path: str, width: int | None, outputs: int) -> None:
    """Fills ``in_channels``, and with it ``in_index``, ``channels`` and sizes of attention, where they are not said.

    Raises:
        ValueError: the width is not known.
    """
    if 'in_channels' in head:
        return
    if width is None:
        raise ValueError(f'{path}.in_channels is missing. It follows only from a GatedPromptViT or its like, without '
                         'a neck or with Feature2Pyramid: set it to the number of channels that the head gets')
    index = head.setdefault('in_index', outputs - 1)
    head['in_channels'] = [width] * len(index) if isinstance(index, (list, tuple)) else width
    head.setdefault('channels', width * len(index) if head.get('input_transform') == 'resize_concat' else width)
    if type_name(head).removeprefix('Lean') == 'SegmenterMaskTransformerHead':
        dims = head.setdefault('embed_dims', head['channels'])
        head.setdefault('num_heads', max(1, dims // 64))


def fill_classes(head: dict, path: str, num_classes: int | None) -> None:
    """Fills ``num_classes`` where it is not said.

    Raises:
        ValueError: it is not known, or the head says another number and is no boundary head.
    """
    if num_classes is None and 'num_classes' not in head:
        raise ValueError(f'{path}.num_classes is missing: set model.num_classes, which all heads then have, to the '
                         'number of classes of the dataset')
    said = head.setdefault('num_classes', num_classes)
    # STDC's boundary head has its own two classes.
    if num_classes not in (None, said) and 'boundary_threshold' not in head:
        raise ValueError(f'{path}.num_classes is {said}, but model.num_classes is {num_classes}: leave one of them out')
