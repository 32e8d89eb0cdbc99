"""Recognising a checkpoint's layout by its names, and renaming it to timm's.

Each layout has a pure function from state dict to state dict. To add a layout, add a
:class:`Layout` to ``LAYOUTS``: the first whose ``mark`` is among the names is taken. Before that the steps of wrappers
are dropped from the names (:func:`.parts.bare`), and the ViT may be a part of a larger model.
"""

import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from . import dinov3
from .parts import bare, how_to_choose, two_models
from .periods import rounding_of
from .renaming import State, drop_prefix, join, join_qkv, rename


class Layout(NamedTuple):
    """The names of weights in one family of checkpoints, without the steps of wrappers such as ``module.``.

    Attributes:
        name: Its name in error messages and the log.
        mark: A regular expression for a whole name that files of this layout have and those of later layouts lack.
        convert: Function from the file's state dict to one with timm's names.
        left_over: Names, after ``convert``, of other weights in these files; one that ends in '.' or '_' is a prefix.
        num_heads: Function from the file's state dict to the number of attention heads, None where it is not shown.
        fits: Function from the file's state dict to whether it is of this layout, where names alone do not tell.
    """
    name: str
    mark: str
    convert: Callable[[State], State]
    left_over: tuple[str, ...] = ()
    num_heads: Callable[[State], int | None] = lambda state: None
    fits: Callable[[State], bool] = lambda state: True


class Recognised(NamedTuple):
    """What :func:`to_timm` recognised.

    Attributes:
        name: The name of the layout.
        state: The state dict with timm's names, heads and decoders still in it.
        prefix: What the names in the file begin with, where the ViT is a part of a larger model; it ends in a dot.
        left_over: Names in it that need not be the ViT's, as those of :class:`Layout`.
        num_heads: The number of attention heads, None where the file does not show it.
        rotary: What the periods of rotary positions are rounded to, None where the file does not hold them.
    """
    name: str
    state: State
    prefix: str
    left_over: tuple[str, ...]
    num_heads: int | None
    rotary: str | None = None

    def __str__(self) -> str:
        return f'{self.name}, under "{self.prefix}"' if self.prefix else self.name

    def advice(self) -> list[str]:
        """Says how to leave out what stands beside the ViT and is not known to; one line, or none."""
        allowed = tuple(name for name in self.left_over if name.endswith(('.', '_')))
        if not self.prefix or all(k in self.left_over or k.startswith(allowed) for k in self.state if k[:1] == '/'):
            return []
        return ['  Names that begin with / are not in the ViT. If they are no part of it, '
                f'{how_to_choose([self.prefix.removesuffix(".")])}']


def from_openmmlab(prefix: str) -> Callable[[State], State]:
    """Makes a converter for the names of mmpretrain's and mmsegmentation's VisionTransformer under ``prefix``."""
    layer = r'^(layers\.\d+)\.'
    rules = ((r'^ln1\.', 'norm.'), (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
             (rf'{layer}ln([12])\.', r'\1.norm\2.'), (rf'{layer}attn\.gamma1\.weight$', r'\1.ls1.gamma'),
             (rf'{layer}ffn\.gamma2\.weight$', r'\1.ls2.gamma'), (rf'{layer}ffn\.layers\.0\.0\.', r'\1.mlp.fc1.'),
             (rf'{layer}ffn\.layers\.1\.', r'\1.mlp.fc2.'), (rf'{layer}attn\.attn\.in_proj_', r'\1.attn.qkv.'),
             (rf'{layer}attn\.attn\.out_proj\.', r'\1.attn.proj.'), (r'^layers\.', 'blocks.'))
    return lambda state: rename(drop_prefix(prefix, state), *rules)


def from_mmseg_gpt(prefix: str) -> Callable[[State], State]:
    """Makes a converter for the names of our own backbone under ``prefix``, whose updates get '/update.' in front."""

    def convert(state: State) -> State:
        state = drop_prefix(prefix, state) if prefix else state
        state = {f'/update.{k}' if UPDATE.fullmatch(k) and not k.startswith(('/', 'prompt.')) else k: v
                 for k, v in state.items()}
        return rename(state, (r'^(blocks\..+)\.original_layer\.', r'\1.'))  # LoRAViT in older files

    return convert


def from_dinov2(prefix: str) -> Callable[[State], State]:
    """Makes a converter for the names of DINOv2's own code under ``prefix``.

    DINOv2's training groups the blocks into chunks: ``blocks.1.3`` is block 3, in chunk 1.
    """

    def convert(state: State) -> State:
        state = rename(drop_prefix(prefix, state), (r'^register_tokens$', 'reg_token'))
        chunked = {match.groups() for match in (re.match(r'blocks\.(\d+)\.(\d+)\.', k) for k in state) if match}
        if len({block for _, block in chunked}) < len(chunked):
            raise ValueError(f'one of its blocks is in two chunks: {sorted(chunked)}')
        return rename(state, (r'^blocks\.\d+\.(\d+)\.', r'blocks.\1.'))

    return convert


def from_timm_with_registers(state: State) -> State:
    """Adds a position embedding of 0 for CLS; with registers, timm has added it to the CLS token already.

    Raises:
        ValueError: the position embedding has other entries than those of a square grid.
    """
    pos_embed = state.get('pos_embed')
    if pos_embed is None or pos_embed.ndim != 3:
        return state
    if math.isqrt(pos_embed.shape[1])**2 != pos_embed.shape[1]:
        raise ValueError(f'pos_embed has {pos_embed.shape[1]} entries, which is not a square grid without CLS, as timm '
                         'has it beside a reg_token. Names of our own begin with "backbone."')
    return {**state, 'pos_embed': torch.cat([torch.zeros_like(pos_embed[:, :1]), pos_embed], dim=1)}


def from_huggingface(state: State) -> State:
    """Converts the names of ViT, ViT-MAE, Dinov2 and Dinov2WithRegisters of Hugging Face's transformers.

    Raises:
        ValueError: two names become one.
    """
    layer = r'^encoder\.layer\.(\d+)\.'
    state = rename(
        state, (r'^embeddings\.patch_embeddings\.projection\.', 'patch_embed.proj.'),
        (r'^embeddings\.position_embeddings$', 'pos_embed'), (r'^embeddings\.register_tokens$', 'reg_token'),
        (r'^embeddings\.(cls_token|mask_token)$', r'\1'), (r'^layernorm\.', 'norm.'),
        (rf'{layer}attention\.attention\.', r'blocks.\1.attn.'),
        (rf'{layer}attention\.output\.dense\.', r'blocks.\1.attn.proj.'),
        (rf'{layer}intermediate\.dense\.', r'blocks.\1.mlp.fc1.'), (rf'{layer}output\.dense\.', r'blocks.\1.mlp.fc2.'),
        (rf'{layer}layernorm_before\.', r'blocks.\1.norm1.'), (rf'{layer}layernorm_after\.', r'blocks.\1.norm2.'),
        (rf'{layer}layer_scale([12])\.lambda1$', r'blocks.\1.ls\2.gamma'), (layer, r'blocks.\1.'))
    return join_qkv(state)


def from_jax(state: State) -> State:
    """Converts the published JAX ViT names; kernels there are (in, out) and images (H, W, C).

    Raises:
        ValueError: an array is missing or has other axes than JAX's; the message names it.
    """
    rest = dict(state)

    def take(name: str, *shape: int | None) -> Tensor:
        if name not in rest:
            raise ValueError(f'{name} is missing')
        value = rest.pop(name)
        if len(shape) != value.ndim or any(n not in (None, m) for n, m in zip(shape, value.shape)):
            raise ValueError(f'{name} has the shape {tuple(value.shape)} instead of {shape} (None: any)')
        return value

    converted = {'cls_token': take('cls', 1, 1, None)}
    dims = converted['cls_token'].shape[-1]
    converted['pos_embed'] = take('Transformer/posembed_input/pos_embedding', 1, None, dims)
    converted['patch_embed.proj.weight'] = take('embedding/kernel', None, None, 3, dims).permute(3, 2, 0, 1)
    converted['patch_embed.proj.bias'] = take('embedding/bias', dims)
    norms = {'Transformer/encoder_norm': 'norm'}
    heads = jax_heads(state)
    for block in sorted({k.split('/')[1] for k in state if k.startswith('Transformer/encoderblock_')}):
        source, target = f'Transformer/{block}', f'blocks.{block.removeprefix("encoderblock_")}'
        attention = f'{source}/MultiHeadDotProductAttention_1'
        qkv = [(take(f'{attention}/{part}/kernel', dims, heads, dims // heads).flatten(1).T,
                take(f'{attention}/{part}/bias', heads, dims // heads).flatten()) for part in ('query', 'key', 'value')]
        converted[f'{target}.attn.qkv.weight'] = join([kernel for kernel, _ in qkv], f'{attention}/query/kernel')
        converted[f'{target}.attn.qkv.bias'] = join([bias for _, bias in qkv], f'{attention}/query/bias')
        converted[f'{target}.attn.proj.weight'] = take(
            f'{attention}/out/kernel', heads, dims // heads, dims).flatten(0, 1).T
        converted[f'{target}.attn.proj.bias'] = take(f'{attention}/out/bias', dims)
        for old, new in (('Dense_0', 'fc1'), ('Dense_1', 'fc2')):
            converted[f'{target}.mlp.{new}.weight'] = take(f'{source}/MlpBlock_3/{old}/kernel', None, None).T
            converted[f'{target}.mlp.{new}.bias'] = take(f'{source}/MlpBlock_3/{old}/bias', None)
        norms |= {f'{source}/LayerNorm_0': f'{target}.norm1', f'{source}/LayerNorm_2': f'{target}.norm2'}
    for old, new in norms.items():
        converted[f'{new}.weight'] = take(f'{old}/scale', dims)
        converted[f'{new}.bias'] = take(f'{old}/bias', dims)
    return converted | {k.replace('/', '.'): v for k, v in rest.items()}


def jax_heads(state: State) -> int:
    """Returns the number of attention heads, which is an axis of JAX's query kernel (D, heads, d).

    Raises:
        ValueError: the kernel is missing or has other axes.
    """
    name = 'Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel'
    if name not in state or state[name].ndim != 3 or not state[name].shape[1]:
        raise ValueError(f'{name} is missing, or not (width, heads, width of a head)')
    return state[name].shape[1]


def moco_heads(state: State) -> int | None:
    """Returns 12 for MoCo v3's ViT-S, which has 6 heads everywhere else; no weight shows that. Else None."""
    cls_token = state.get('base_encoder.cls_token', state.get('cls_token'))
    return 12 if cls_token is not None and cls_token.shape[-1:] == (384, ) else None


def is_moco_probe(state: State) -> bool:
    """Says whether a ViT with a linear head is MoCo v3's, which alone has this fixed position embedding.

    It holds sines and cosines of the row, then of the column, and 0 for CLS.
    """
    pos_embed = state.get('pos_embed')
    if pos_embed is None or pos_embed.ndim != 3 or not pos_embed.is_floating_point():
        return False
    number, length, width = pos_embed.shape
    side = math.isqrt(max(length - 1, 0))
    if number != 1 or not side or side**2 + 1 != length or width % 4 or pos_embed.numel() > 10**8:
        return False
    angles = torch.arange(side)[:, None] * 10000**(-4 * torch.arange(width // 4) / width)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    fixed = torch.cat([waves[:, None].expand(-1, side, -1), waves.expand(side, -1, -1)], dim=2).flatten(0, 1)
    # Files in half precision are rounded.
    return not pos_embed[:, 0].any() and torch.allclose(pos_embed[0, 1:].float(), fixed, rtol=0, atol=1e-2)


# Parts of OpenMMLab's segmentors, classifiers and self-supervised models beside the backbone.
OPENMMLAB_PARTS = ('/decode_head.', '/auxiliary_head.', '/neck.', '/head.', '/data_preprocessor.', '/momentum_encoder.',
                   '/target_generator.')
# The norm is that of an option of DINOv3's training.
DINOV3_OTHERS = ('mask_token', 'rope_embed.periods', 'local_cls_norm.')
ADAPTERS = ('prompt.', 'temperature', '/update.')
# Names of trained updates of the ViT's layers: see mmseg_gpt/models/updates.py. The last two are those of older files.
UPDATE = re.compile(r'.+\.(lora_[ab]|bias_update|adapter\.(down|up)\.(weight|bias)|lora_(down|up)\.weight)')
TIMM_HEADS = ('head.', 'fc_norm.', 'pre_logits.')
# Parts of larger models beside a ViT that is found inside, and counters of torch's averaging.
BESIDE = ('/head.', '/classifier.', '/fc.', '/decoder.', '/criterion.', '/loss.', *OPENMMLAB_PARTS)
COUNTERS = ('n_averaged', '/n_averaged')

LAYOUTS = (
    Layout('MoCo v3 pretraining', r'base_encoder\.cls_token', partial(drop_prefix, 'base_encoder.'),
           ('head.', '/momentum_encoder.', '/predictor.'), moco_heads),
    Layout('MoCo v3 linear probe', r'head\.weight', dict, ('head.', ), moco_heads, is_moco_probe),
    Layout('JAX ViT (.npz)', 'embedding/kernel', from_jax, ('pre_logits.', 'head.'), jax_heads),
    Layout('DINOv3', r'storage_tokens|rope_embed\.periods|blocks\.\d+\.attn\.qkv\.bias_mask', dinov3.from_official,
           DINOV3_OTHERS, dinov3.num_heads),
    Layout('DINOv3 of timm', r'blocks\.\d+\.gamma_[12]', dinov3.from_timm, TIMM_HEADS, fits=dinov3.is_dinov3),
    Layout('DINOv3 of Hugging Face', r'embeddings\.(cls_token|register_tokens)', dinov3.from_huggingface,
           ('mask_token', '/classifier.'), fits=lambda state: 'embeddings.position_embeddings' not in state),
    Layout('Hugging Face ViT or Dinov2', r'embeddings\.cls_token', from_huggingface,
           ('mask_token', 'pooler.', '/decoder.', '/classifier.')),
    Layout('mmpretrain or mmsegmentation', r'backbone\.layers\.\d+\.ln1\.weight', from_openmmlab('backbone.'),
           OPENMMLAB_PARTS),
    Layout('mmpretrain or mmsegmentation backbone', r'layers\.\d+\.ln1\.weight', from_openmmlab('')),
    Layout('DINO training', r'head\.(mlp|last_layer)\..+', partial(drop_prefix, 'backbone.'), ('/head.', )),
    Layout('DINOv2 training, teacher', r'teacher\.backbone\.cls_token', from_dinov2('teacher.backbone.'),
           ('mask_token', '/student.', '/teacher.', '/dino_loss.', '/ibot_patch_loss.')),
    Layout('DINOv2 training, teacher', r'dino_head\..+|backbone\.(mask_token|blocks\.\d+\.\d+\.norm1\.weight)',
           from_dinov2('backbone.'), ('mask_token', '/dino_head.', '/ibot_head.')),
    Layout('mmseg_gpt', r'backbone\.blocks\.\d+\.norm1\.weight', from_mmseg_gpt('backbone.'),
           (*ADAPTERS, *OPENMMLAB_PARTS)),
    Layout('mmseg_gpt backbone', rf'prompt\..+|temperature|{UPDATE.pattern}', from_mmseg_gpt(''), ADAPTERS),
    Layout('MAE pretraining', r'decoder_embed\.weight', dict, ('decoder_', 'mask_token')),
    Layout('DINOv2', r'mask_token|register_tokens|blocks\.\d+\.\d+\.norm1\.weight', from_dinov2(''),
           ('mask_token', )),
    Layout('timm names, with registers', 'reg_token', from_timm_with_registers, TIMM_HEADS),
    Layout('timm names (MAE, DINO, timm)', r'blocks\.\d+\.norm1\.weight', dict, TIMM_HEADS),
)


def to_timm(state: State) -> Recognised:
    """Recognises the layout of a state dict and renames it to timm's names.

    Args:
        state: The weights of a file, by the names they have there.

    Raises:
        ValueError: the layout is unknown or its names are incomplete; or there are two ViTs, the ViT has SwiGLU or
            low-rank updates beside its weights. The message says which.
    """
    state = rename(state, ('^.+$', lambda name: bare(name[0])))
    for layout in LAYOUTS:
        found = places_of(layout, state)
        if not found:
            continue
        if len(found) > 1:
            raise ValueError('it ' + two_models(
                sorted(vits_in(state)) if len(vits_in(state)) > 1 else [place.removesuffix('.') for place in found]))
        (prefix, (within, converted)), = found.items()
        recognised = Recognised(layout.name, converted, prefix,
                                (*layout.left_over, *COUNTERS, *(BESIDE if prefix else ())), layout.num_heads(within),
                                rounding_of(within['rope_embed.periods']) if 'rope_embed.periods' in within else None)
        refuse_others(recognised, state)
        refuse_swiglu(converted)
        return recognised
    known = '\n'.join(f'  {layout.name}: {layout.mark}' for layout in LAYOUTS).replace('\\.', '.')
    raise ValueError(f'its first names are {list(state)[:4]}, and none is the mark of a known layout:\n{known}')


def places_of(layout: Layout, state: State) -> dict[str, tuple[State, State]]:
    """Returns where in a model there are ViTs of this layout: for each prefix the state dict without it, and by timm's
    names. A part without a patch embedding, such as MAE's decoder, counts only where nothing else is found.
    """
    mark = re.compile(rf'((?:.*\.)?)(?:{layout.mark})')
    found = {}
    for prefix in sorted({match[1] for match in map(mark.fullmatch, state) if match}):
        within = drop_prefix(prefix, state)
        if layout.fits(within):
            converted = layout.convert(within)
            if any(name.startswith('blocks.') for name in converted):
                found[prefix] = within, converted
    whole = {prefix: pair for prefix, pair in found.items() if 'patch_embed.proj.weight' in pair[1]}
    return whole or found


def refuse_others(recognised: Recognised, state: State) -> None:
    """Refuses a second ViT beside the one that was recognised, and updates that were not merged into its weights.

    Raises:
        ValueError: there is one.
    """
    allowed = tuple(name for name in recognised.left_over if name.endswith(('.', '_')))
    others = vits_in(k.removeprefix('/') for k in recognised.state if k[:1] == '/' and not k.startswith(allowed))
    if others := others & vits_in(state) - {''}:
        here = vits_in(name for name in state if not f'/{name}'.startswith(allowed)) - others
        raise ValueError('it ' + two_models([*(here or {recognised.prefix.removesuffix('.')}), *sorted(others)]))
    lora = [name for name in recognised.state
            if re.search(r'\.(lora_[A-Z]|lora_embedding_|lora_magnitude|base_layer|modules_to_save)', name)]
    if lora:
        raise ValueError('it holds low-rank updates or copies beside the weights, as PEFT saves them '
                         f'({lora[0]}): save the model after merge_and_unload()')


def refuse_swiglu(state: State) -> None:
    """Refuses a ViT with SwiGLU and a position embedding, such as DINOv2's giant.

    timm names its MLP like a plain one of twice the width.

    Raises:
        ValueError: the MLP of the first block is SwiGLU.
    """
    fc1, fc2 = (state.get(f'blocks.0.mlp.{name}.weight') for name in ('fc1', 'fc2'))
    is_packed = fc1 is not None and fc2 is not None and fc1.ndim == fc2.ndim == 2 and len(fc1) == 2 * fc2.shape[1]
    named = [k for k in state if re.fullmatch(r'blocks\.0\.mlp\.(w12|w3|weights_in|weights_out)\..+', k)]
    named += [k for k in state if k == 'blocks.0.mlp.fc1_g.weight' and 'pos_embed' in state]
    if is_packed or named:
        raise ValueError('its MLPs are SwiGLU, as in DINOv2\'s ViT-g, which is not supported: take DINOv2\'s ViT-S, '
                         'ViT-B or ViT-L, or a DINOv3, whose gated MLPs are')


def vits_in(names: Iterable[str]) -> set[str]:
    """Returns where among these names there are ViTs, by their CLS tokens."""
    found = (re.fullmatch(r'(?:(.+?)\.)??(?:embeddings\.)?cls_token', name) for name in names)
    return {match[1] or '' for match in found if match}
