"""Reading a ViT out of any checkpoint, describing it, and writing weights to a file of their own."""

import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch

from .adapters import is_adapter_only, with_frozen_state
from .checkpoints.export import EXPORTS
from .checkpoints.fit import differences
from .checkpoints.formats import State
from .checkpoints.load import FINAL_NORM, recognise
from .checkpoints.read import CheckpointError, read_file, weights_in
from .checkpoints.seal import LENGTH, PREFIX, seal
from .checkpoints.shape import VitShape, shape_of
from .files import file_sha256, replacing
from .models import GatedPromptViT
from .models.vit import ARCHS
from .resources import command_of
from .wording import listed

# This layout keeps all weights of a file under the names they have in it; the others hold the ViT alone.
AS_IS = 'as-is'
SUFFIXES = ('.pth', '.safetensors')
# Architectures of DINOv3 whose width other ViTs have with other heads.
DINOV3_ONLY = ('huge_plus', '7b')


class VitFile(NamedTuple):
    """The ViT in a checkpoint file.

    Attributes:
        layout: The name of the file's layout.
        shape: The sizes of the ViT.
        num_heads: The number of its attention heads, or None where the file does not show it.
        rotary: What the periods of its rotary positions are rounded to, or None where the file does not show it.
        state: The weights of the ViT, by timm's names.
        left_over: The names of all other weights in the file.
    """
    layout: str
    shape: VitShape
    num_heads: int | None
    rotary: str | None
    state: State
    left_over: list[str]


def read_vit(path: Path, key: str | None = None) -> VitFile:
    """Reads the whole ViT out of a checkpoint, which may be one of stock MMEngine.

    Args:
        path: The file.
        key: Which model to take of a file with several, as in :class:`PretrainedViT`.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file holds no ViT, or an incomplete one.
    """
    content = read_file(path, old_mmengine=True)
    if is_adapter_only(content):
        raise CheckpointError(f'{path} holds adapters only, without a ViT; {how_to_make_whole(content)}')
    found = recognise(weights_in(content, path, key), path)
    state, heads = found.state, found.num_heads
    shape = shape_of(state)
    if not all((shape.width, shape.blocks, shape.hidden, shape.patch, shape.positions > 1 or shape.rotary)):
        raise CheckpointError(f'{path} (read as: {found}) holds no whole ViT, but {shape}')
    wanted = empty_vit(shape, heads, 'norm.weight' in state).vit_state()
    problems = differences(wanted, state, (*found.left_over, *FINAL_NORM))
    if problems:
        raise CheckpointError('\n'.join(
            [f'{path} (read as: {found}) holds no whole {shape}:', *problems, *found.advice()]))
    left_over = [k.removeprefix('/') for k in state if k not in wanted]
    return VitFile(str(found), shape, heads, found.rotary, {k: state[k] for k in wanted}, left_over)


def empty_vit(shape: VitShape, num_heads: int | None, has_norm: bool) -> GatedPromptViT:
    """Builds a ViT of these sizes whose tensors have names and shapes but no values, for comparisons."""
    ratio = shape.hidden / shape.width
    if int(ratio * shape.width) < shape.hidden:  # because of rounding
        ratio = math.nextafter(ratio, math.inf)
    grid = (shape.side, shape.side) if shape.side else (1, max(1, shape.positions - 1))
    with torch.device('meta'):
        return GatedPromptViT(
            arch=dict(embed_dims=shape.width, num_layers=shape.blocks, num_heads=num_heads or 1, mlp_ratio=ratio),
            **dinov3_options(shape),
            img_size=(grid[0] * shape.patch, grid[1] * shape.patch), patch_size=shape.patch,
            out_type='cls_token' if has_norm else 'featmap', layer_scale=shape.layer_scale,
            num_registers=shape.registers, in_channels=shape.channels)


def grid_of(shape: VitShape) -> str:
    """Says for which grid of patches a ViT has positions."""
    if shape.rotary:
        return 'any, by rotary positions'
    return f'{shape.side}x{shape.side}' if shape.side else f'{shape.positions - 1} patches, not square'


def dinov3_options(shape: VitShape, rotary: str | None = None) -> dict[str, object]:
    """Returns the options of a backbone with the positions, MLPs and biases of ``shape``; none if they are usual."""
    if not shape.rotary:
        return {}
    return dict(rotary=rotary or 'bfloat16', gated_mlp=shape.gated_mlp, qkv_bias='qv' if shape.qkv_bias else '')


def describe(path: Path, key: str | None = None) -> str:
    """Describes in lines of text what a checkpoint holds and how a config uses it.

    Args:
        path: A checkpoint in any layout, which may be one of stock MMEngine.
        key: Which model to take of a file with several, as in :class:`PretrainedViT`.
    """
    content = read_file(path, old_mmengine=True)
    if is_adapter_only(content):
        return describe_adapters(path, content)
    vit, digest = read_vit(path, key), file_sha256(path)
    shape = vit.shape
    dtypes = Counter(str(value.dtype).removeprefix('torch.') for value in vit.state.values())
    rows = {
        'file': path,
        'sha256': digest,
        'sealed': 'yes' if is_sealed(path) else 'no',
        'layout': vit.layout,
        'ViT': f'{shape.name}, width {shape.width}, {shape.blocks} blocks, MLP {shape.hidden}',
        'attention heads': vit.num_heads or heads_of_width(shape),
        'patch': shape.patch,
        'grid': grid_of(shape),
        'registers': shape.registers,
        'LayerScale': 'yes' if shape.layer_scale else 'no',
        'weights': count_weights(vit.state),
        'dtypes': ', '.join(f'{dtype} ({number})' for dtype, number in dtypes.items()),
        'left over': f'{len(vit.left_over)} names: {", ".join(grouped(vit.left_over))}' if vit.left_over else 'nothing',
    }
    return '\n'.join([in_columns(rows), '', 'In a config:', '', config_lines(path, vit, digest, key)])


def describe_adapters(path: Path, content: dict) -> str:
    """Describes in lines of text what an adapter-only checkpoint holds and how it is used."""
    state, frozen = weights_in(content, path), content['meta']['frozen']
    names = class_meta(content).get('dataset_meta', {}).get('classes', [])
    rows = {
        'file': path,
        'sha256': file_sha256(path),
        'sealed': 'yes' if is_sealed(path) else 'no',
        'holds': 'adapters only: what was trained, without the frozen ViT',
        'weights': count_weights(state),
        'names': ', '.join(state),
        'classes': f'{len(names)}: {listed(names)}' if names else 'not in the file',
        'ViT': f'{frozen.get("source")}, SHA-256 {frozen.get("sha256")}',
    }
    return (f'{in_columns(rows)}\n\nTo use it: {command_of("test", "CONFIG", path)}, with the config it was trained '
            'with, or\n'
            f'{how_to_make_whole(content)}')


def how_to_make_whole(content: dict) -> str:
    """Says how to make a whole checkpoint of an adapter-only one."""
    return (f'make a whole checkpoint of it with its pretrained ViT, {content["meta"]["frozen"].get("source")}: '
            f'{command_of("convert_checkpoint")} --layout {AS_IS} --vit PRETRAINED_VIT ADAPTERS.pth WHOLE.pth')


def count_weights(state: State) -> str:
    """Says how many weights and parameters a state dict has."""
    return f'{len(state)}, with {sum(value.numel() for value in state.values()):,} parameters'


def in_columns(rows: dict[str, object]) -> str:
    """Writes keys and values in two columns."""
    width = max(10, *map(len, rows))
    return '\n'.join(f'{key:<{width}}  {value}' for key, value in rows.items())


def grouped(names: list[str]) -> list[str]:
    """Returns names as they are where they are few, else their first parts with the number of names in each."""
    if len(names) <= 8:
        return names
    parts = Counter(name.partition('.')[0] for name in names)
    return [f'{part} ({number})' if number > 1 else part for part, number in parts.items()]


def config_lines(path: Path, vit: VitFile, digest: str, key: str | None) -> str:
    """Returns the part of a config that loads ``vit`` from ``path``."""
    shape = vit.shape
    sizes = dict(embed_dims=shape.width, num_layers=shape.blocks, mlp_ratio=shape.hidden / shape.width)
    named = [name for name, arch in ARCHS.items() if (name in DINOV3_ONLY) <= shape.rotary
             if sizes.items() <= arch.items() and vit.num_heads in (None, arch['num_heads'])][-1:]
    arch = repr(named[0]) if named else (f'dict(embed_dims={shape.width}, num_layers={shape.blocks}, '
                                         f'num_heads={vit.num_heads or "..."}, mlp_ratio={sizes["mlp_ratio"]:g})')
    options = [f'arch={arch}', f'patch_size={shape.patch}']
    options += ['layer_scale=True'] * shape.layer_scale
    options += [f'num_registers={shape.registers}'] * bool(shape.registers)
    options += [f'in_channels={shape.channels}'] * (shape.channels != 3)
    if shape.rotary:
        options += ['norm_eps=1e-5']
        options += [f'{name}={value!r}' for name, value in dinov3_options(shape, vit.rotary).items()]
    return (f'model = dict(backbone=dict(\n    {", ".join(options)},\n'
            f'    init_cfg=dict(type=\'PretrainedViT\', checkpoint={str(path)!r},\n'
            f'                  sha256={digest!r}{f", key={key!r}" if key else ""})))')


def heads_of_width(shape: VitShape) -> str:
    """Says that a file does not show the number of heads, and how many other ViTs of its width have."""
    usual = [arch['num_heads'] for name, arch in ARCHS.items()
             if arch['embed_dims'] == shape.width and (name in DINOV3_ONLY) <= shape.rotary][-1:]
    exception = ' (MoCo v3\'s has 12)' * (shape.width == 384)
    return 'not in the file' + (f'; a released {shape.name} has {usual[0]}{exception}' if usual else '')


def is_sealed(path: Path) -> bool:
    """Says whether the file has a seal. That the seal is right was checked when the file was read."""
    with open(path, 'rb') as file:
        file.seek(max(0, path.stat().st_size - LENGTH))
        return file.read().startswith(PREFIX)


def convert(source: Path, target: Path, layout: str, force: bool = False, vit: str | None = None,
            key: str | None = None) -> int:
    """Writes the weights in ``source`` to ``target``, which appears whole or not at all.

    Args:
        source: A checkpoint in any layout, which may be one of stock MMEngine.
        target: A ``.safetensors`` or ``.pth`` file; the latter gets a seal.
        layout: One of ``EXPORTS``, or ``AS_IS``.
        force: Whether to overwrite ``target``.
        vit: Path or address of the pretrained ViT of an adapter-only ``source``, to write a whole checkpoint; only with
            ``AS_IS``.
        key: Which model to take of a file with several, as in :class:`PretrainedViT`.

    Returns:
        int: The number of weights written.

    Raises:
        FileNotFoundError: there is no ``source``, or no folder for ``target``.
        FileExistsError: there is a ``target`` already.
        OSError: ``target`` cannot be written; the file of before is still there.
        CheckpointError: ``source`` cannot be read, or holds a weight that ``layout`` has no name for, or was trained
            on another ViT than ``vit``.
        ValueError: ``target`` has another suffix, or ``vit`` is given for a whole checkpoint.
    """
    if target.suffix not in SUFFIXES:
        raise ValueError(f'{target}: the file to write must end in {" or ".join(SUFFIXES)}')
    if target.exists() and not force:
        raise FileExistsError(f'{target} is there already; --force overwrites it')
    if not target.parent.is_dir():
        raise FileNotFoundError(f'there is no folder {target.parent} for {target.name}')
    meta = dict(source=source.name, source_sha256=file_sha256(source) if source.is_file() else '', layout=layout)
    if layout == AS_IS:
        content = read_file(source, old_mmengine=True)
        state = weights_in(content, source, key)
        if vit:
            if not is_adapter_only(content):
                raise ValueError(f'--vit is for adapter-only checkpoints, and {source} is a whole one')
            state = with_frozen_state(content, vit, source)
        elif is_adapter_only(content):
            raise CheckpointError(f'{source} holds adapters only; {how_to_make_whole(content)}')
        meta |= class_meta(content)
    else:
        try:
            state = EXPORTS[layout](read_vit(source, key).state)
        except ValueError as error:
            raise CheckpointError(f'{source}: {error}') from error
    write(state, target, meta)
    return len(state)


def class_meta(content: object) -> dict:
    """Returns what mmseg's inferencer reads in a checkpoint's ``meta``: names and colours of classes, if all plain."""
    meta = content.get('meta') if isinstance(content, dict) else None
    dataset = meta.get('dataset_meta') if isinstance(meta, dict) else None
    if not isinstance(dataset, dict):
        return {}
    kept = {}
    for key, kind in (('classes', str), ('palette', list)):
        values = dataset.get(key)
        if isinstance(values, (list, tuple)) and all(type(value) is kind for value in values):
            kept[key] = list(values)
    if not all(type(number) is int for colour in kept.get('palette', ()) for number in colour):
        kept.pop('palette')
    return {'dataset_meta': kept} if 'classes' in kept else {}


def write(state: State, target: Path, meta: dict) -> None:
    """Writes weights to ``target``, which appears whole or not at all."""
    state = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    try:
        with replacing(target) as unfinished:
            if target.suffix == '.safetensors':
                from safetensors.torch import save_file
                save_file(state, unfinished, metadata={'format': 'pt'})
            else:
                torch.save(dict(meta=meta, state_dict=state), unfinished)
                seal(unfinished)
    except Exception as error:  # torch and safetensors have errors of their own for a full disk
        raise OSError(f'{target} cannot be written: {error}') from error
