"""Reading a ViT out of any checkpoint, describing it, and writing weights to a file of their own."""

import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch

from .adapters import is_adapter_only, with_frozen_state
from .checkpoints.export import EXPORTS
from .checkpoints.fit import differences
from .checkpoints.formats import State, to_timm
from .checkpoints.load import FINAL_NORM
from .checkpoints.read import CheckpointError, read_file, weights_in
from .checkpoints.seal import LENGTH, PREFIX, seal
from .checkpoints.shape import VitShape, shape_of
from .files import file_sha256, replacing
from .models import GatedPromptViT
from .models.vit import ARCHS
from .resources import command_of
from .wording import listed

# All weights of a file under the names they have in it; the other layouts are those of the ViT alone.
AS_IS = 'as-is'
SUFFIXES = ('.pth', '.safetensors')


class VitFile(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        layout: The name of its layout.
        shape: The sizes of its ViT.
        num_heads: Its number of attention heads, None where the file does not tell.
        state: The weights of the ViT, by timm's names.
        left_over: The names of all else.
    """
    layout: str
    shape: VitShape
    num_heads: int | None
    state: State
    left_over: list[str]


def read_vit(path: Path) -> VitFile:
    """Reads the whole ViT out of a checkpoint, one of stock MMEngine too.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it holds no ViT, or a broken one.
    """
    content = read_file(path, old_mmengine=True)
    if is_adapter_only(content):
        raise CheckpointError(f'{path} holds adapters only, without a ViT; {needed_vit(content)}')
    content = weights_in(content, path)
    try:
        layout, state = to_timm(content)
        heads = layout.num_heads(content)
    except ValueError as error:
        raise CheckpointError(f'{path} is not a ViT checkpoint I know: {error}') from error
    shape = shape_of(state)
    if not all((shape.width, shape.blocks, shape.hidden, shape.patch, shape.positions > 1)):
        raise CheckpointError(f'{path} (read as: {layout.name}) holds no whole ViT, but {shape}')
    wanted = empty_vit(shape, heads, 'norm.weight' in state).vit_state()
    problems = differences(wanted, state, (*layout.left_over, *FINAL_NORM))
    if problems:
        raise CheckpointError(f'{path} (read as: {layout.name}) holds no whole {shape}:\n' + '\n'.join(problems))
    left_over = [k.removeprefix('/') for k in state if k not in wanted]
    return VitFile(layout.name, shape, heads, {k: state[k] for k in wanted}, left_over)


def empty_vit(shape: VitShape, num_heads: int | None, has_norm: bool) -> GatedPromptViT:
    """A ViT of these sizes without any numbers in it, to compare names and shapes with."""
    ratio = shape.hidden / shape.width
    if int(ratio * shape.width) < shape.hidden:  # by rounding
        ratio = math.nextafter(ratio, math.inf)
    grid = (shape.side, shape.side) if shape.side else (1, shape.positions - 1)
    with torch.device('meta'):
        return GatedPromptViT(
            arch=dict(embed_dims=shape.width, num_layers=shape.blocks, num_heads=num_heads or 1, mlp_ratio=ratio),
            img_size=(grid[0] * shape.patch, grid[1] * shape.patch), patch_size=shape.patch,
            out_type='cls_token' if has_norm else 'featmap', layer_scale=shape.layer_scale,
            num_registers=shape.registers)


def describe(path: Path) -> str:
    """Says in lines what a checkpoint holds, and how a config uses it.

    Args:
        path: A checkpoint in any layout, one of stock MMEngine too.
    """
    content = read_file(path, old_mmengine=True)
    if is_adapter_only(content):
        return describe_adapters(path, content)
    vit, digest = read_vit(path), file_sha256(path)
    shape = vit.shape
    dtypes = Counter(str(value.dtype).removeprefix('torch.') for value in vit.state.values())
    rows = {
        'file': path,
        'sha256': digest,
        'sealed': 'yes' if is_sealed(path) else 'no',
        'layout': vit.layout,
        'ViT': f'{shape.name}, width {shape.width}, {shape.blocks} blocks, MLP {shape.hidden}',
        'heads': vit.num_heads or 'not in the file',
        'patch': shape.patch,
        'grid': f'{shape.side}x{shape.side}' if shape.side else f'{shape.positions - 1} patches, not square',
        'registers': shape.registers,
        'LayerScale': 'yes' if shape.layer_scale else 'no',
        'weights': count(vit.state),
        'dtypes': ', '.join(f'{dtype} ({number})' for dtype, number in dtypes.items()),
        'left over': f'{len(vit.left_over)} names: {", ".join(vit.left_over)}' if vit.left_over else 'nothing',
    }
    return '\n'.join([as_lines(rows), '', 'In a config:', '', config_lines(path, vit, digest)])


def describe_adapters(path: Path, content: dict) -> str:
    """Says in lines what an adapter-only checkpoint holds, and how it is used."""
    state, frozen = weights_in(content, path), content['meta']['frozen']
    names = plain_meta(content).get('dataset_meta', {}).get('classes', [])
    rows = {
        'file': path,
        'sha256': file_sha256(path),
        'sealed': 'yes' if is_sealed(path) else 'no',
        'holds': 'adapters only: what was trained, without the frozen ViT',
        'weights': count(state),
        'names': ', '.join(state),
        'classes': f'{len(names)}: {listed(names)}' if names else 'not in the file',
        'ViT': f'{frozen.get("source")}, SHA-256 {frozen.get("sha256")}',
    }
    return (f'{as_lines(rows)}\n\nTo use it: tools/test.py CONFIG {path}, with the config it was trained with, or\n'
            f'{needed_vit(content)}')


def needed_vit(content: dict) -> str:
    """How an adapter-only checkpoint becomes a whole one."""
    return (f'make a whole checkpoint of it with its pretrained ViT, {content["meta"]["frozen"].get("source")}: '
            f'{command_of("convert_checkpoint")} --layout {AS_IS} --vit PRETRAINED_VIT ADAPTERS.pth WHOLE.pth')


def count(state: State) -> str:
    """How many weights and parameters there are, for people."""
    return f'{len(state)}, with {sum(value.numel() for value in state.values()):,} parameters'


def as_lines(rows: dict[str, object]) -> str:
    """Keys and values in two columns."""
    return '\n'.join(f'{key:<11} {value}' for key, value in rows.items())


def config_lines(path: Path, vit: VitFile, digest: str) -> str:
    """The part of a config that loads ``vit`` from ``path``."""
    shape = vit.shape
    sizes = dict(embed_dims=shape.width, num_layers=shape.blocks, mlp_ratio=shape.hidden / shape.width)
    named = [name for name, arch in ARCHS.items()
             if sizes.items() <= arch.items() and vit.num_heads in (None, arch['num_heads'])]
    arch = repr(named[0]) if named else (f'dict(embed_dims={shape.width}, num_layers={shape.blocks}, '
                                         f'num_heads={vit.num_heads or "..."}, mlp_ratio={sizes["mlp_ratio"]:g})')
    options = [f'arch={arch}', f'patch_size={shape.patch}']
    options += ['layer_scale=True'] * shape.layer_scale
    options += [f'num_registers={shape.registers}'] * bool(shape.registers)
    return (f'model = dict(backbone=dict(\n    {", ".join(options)},\n'
            f'    init_cfg=dict(type=\'PretrainedViT\', checkpoint={str(path)!r},\n'
            f'                  sha256={digest!r})))')


def is_sealed(path: Path) -> bool:
    """Whether our own checksum travels in the file; that it is right was checked when the file was read."""
    with open(path, 'rb') as file:
        file.seek(max(0, path.stat().st_size - LENGTH))
        return file.read().startswith(PREFIX)


def convert(source: Path, target: Path, layout: str, force: bool = False, vit: str | None = None) -> int:
    """Writes the weights in ``source`` to ``target``, which appears whole or not at all.

    Args:
        source: A checkpoint in any layout, one of stock MMEngine too.
        target: A ``.safetensors`` or ``.pth`` file; the latter gets a seal.
        layout: One of ``EXPORTS``, or ``AS_IS``.
        force: Whether ``target`` may be there already.
        vit: Path or address of the pretrained ViT of an adapter-only ``source``, of which a whole checkpoint is made;
            only with ``AS_IS``.

    Returns:
        int: How many weights were written.

    Raises:
        FileNotFoundError: there is no ``source``, or no folder for ``target``.
        FileExistsError: there is a ``target``.
        OSError: ``target`` cannot be written; what was there before is still there.
        CheckpointError: ``source`` cannot be read, or holds what ``layout`` has no place for, or ``vit`` is not its.
        ValueError: ``target`` has another suffix, or ``vit`` is given without need.
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
        state = weights_in(content, source)
        if vit:
            if not is_adapter_only(content):
                raise ValueError(f'--vit is for adapter-only checkpoints, and {source} is none')
            state = with_frozen_state(content, vit, source)
        elif is_adapter_only(content):
            raise CheckpointError(f'{source} holds adapters only; {needed_vit(content)}')
        meta |= plain_meta(content)
    else:
        try:
            state = EXPORTS[layout](read_vit(source).state)
        except ValueError as error:
            raise CheckpointError(f'{source}: {error}') from error
    write(state, target, meta)
    return len(state)


def plain_meta(content: object) -> dict:
    """What mmseg's inferencer asks of a checkpoint's ``meta``: the names and colours of the classes, if all plain."""
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
