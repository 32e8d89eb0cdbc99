"""The backbone: a (frozen) ViT that runs its blocks itself and carries the prompts beside the sequence.

``GatedPromptViT.forward`` is Algorithm 1 of the paper; the equations of prompts and gates are in :mod:`.prompts`.
"""

import logging

import torch
from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..checkpoints.fit import differences
from ..checkpoints.formats import UPDATE
from ..checkpoints.read import CheckpointError
from ..resources import command_of
from .rotary import Rotation
from .updates import add_bias_updates, add_bottlenecks, add_lora, rename_old
from .vit import ALL, Block, VisionTransformer, is_recorded

FEATURE_MAPS = ('featmap', 'normed_featmap')
OUT_TYPES = (*FEATURE_MAPS, 'cls_token', 'mean_patch', 'mean_prompt', 'mean_all')


@MODELS.register_module()
class GatedPromptViT(VisionTransformer):
    """ViT adapted by prompts, gates and attention temperatures (arXiv 2306.05067), or updates of its layers, or both.

    Its parameters have timm's names, plus ``prompt.tokens`` (N_p, D), or (L, N_p, D) for deep prompts,
    ``prompt.gate_prior`` (L-1,), ``temperature`` (L,), and those of the updates, such as
    ``blocks.0.attn.qkv.lora_a``. The class is registered in mmengine's root registry, so
    the configs of mmsegmentation and of mmpretrain find it without a prefix.

    Args:
        arch: 'small', 'base', 'large', 'huge', 'huge_plus', '7b', or a dict of embed_dims, num_layers, num_heads,
            mlp_ratio.
        img_size: Side in pixels (or height, width) for which ``pos_embed`` is made. Images of other sizes work too;
            the position embedding is then resized in every forward.
        patch_size: Side of a patch in pixels.
        out_indices: Blocks whose outputs are returned, counted from 0; default the last one. Blocks
            after the highest are not run.
        out_type: 'featmap' returns patch features (B, D, h, w) without a final norm, as SETR uses them, and
            'normed_featmap' the same after ``norm``, as the linear heads of DINOv2 use them. The others are for
            classification and return (B, D), pooled and then normalised by ``norm``: 'cls_token',
            'mean_patch', 'mean_prompt', or 'mean_all', the mean of prompts and patches, the authors' MAE pooling.
        prompt: None, or the config of a prompt strategy such as
            ``dict(type='GatedPrompt', num_tokens=100, gate_init=10.)``. Its type is ShallowPrompt, DeepPrompt,
            GatedPrompt, HardGatedPrompt or any other registered module with their interface.
        temperature: False, True, or a dict with any of init (1.), min (0.01), max (10.): a learnable
            attention temperature for each block (equation 9).
        lora: None, or a dict with any of rank (4), alpha (4) and targets (('attn.qkv', )): low-rank updates of the
            linear layers whose names end in one of the targets, see :class:`mmseg_gpt.models.updates.LoRALinear`.
        biases: True trains an update of each bias of the ViT (BitFit).
        adapter: None, or a dict with any of width (64) and scale (0.1): a bottleneck beside each MLP, see
            :class:`mmseg_gpt.models.updates.Bottleneck`.
        start_block: Block, counted from 0, from which prompts join the sequence (Figure 1 counts from 1).
        frozen: True trains prompts, gates, temperatures and updates only. False is full fine-tuning, but for blocks
            that are not run.
        norm_eps: Epsilon of the layer norms: 1e-5 for DINOv3; 1e-6 for MAE, MoCo v3, DINO, DINOv2 and supervised ViTs.
        layer_scale: True for DINOv2, whose blocks scale their residual branches (``blocks.0.ls1.gamma``).
        num_registers: Number of register tokens between CLS and patches (``reg_token``), which outputs leave out;
            4 for DINOv3 and DINOv2 with registers.
        in_channels: Number of channels of an image; 3 unless images are multispectral, depth or the like. A pretrained
            patch embedding of 3 channels is converted to this number, see
            :func:`mmseg_gpt.checkpoints.load.adapt_channels`. It is frozen like the rest of the ViT.
        rotary: For DINOv3, the type to which the periods of its rotary positions are rounded: 'bfloat16' (its own
            files) or 'float32' (timm's and transformers'). There is then no ``pos_embed``, prompts have no position
            either, and ``img_size`` has no effect.
        gated_mlp: True for DINOv3's ViT-S+, ViT-H+ and ViT-7B, whose MLPs are gated (``blocks.0.mlp.fc1_g``).
        qkv_bias: Which of queries, keys and values have a bias: 'qkv', 'qv' for DINOv3, '' for its ViT-7B.
        with_cp: True recomputes the activations of each block in the backward pass instead of keeping them
            (gradient checkpointing). It saves memory and costs one more forward pass of the ViT.
        init_cfg: ``dict(type='PretrainedViT', checkpoint=PATH)`` loads a pretrained ViT, strictly.

    Raises:
        ValueError: an option is out of its range; the message names it.
    """

    def __init__(self,
                 arch: str | dict = 'base',
                 img_size: int | tuple[int, int] = 224,
                 patch_size: int = 16,
                 out_indices: tuple[int, ...] | None = None,
                 out_type: str = 'featmap',
                 prompt: dict | None = None,
                 temperature: bool | dict = False,
                 lora: dict | None = None,
                 biases: bool = False,
                 adapter: dict | None = None,
                 start_block: int = 0,
                 frozen: bool = True,
                 norm_eps: float = 1e-6,
                 layer_scale: bool = False,
                 num_registers: int = 0,
                 in_channels: int = 3,
                 rotary: str | None = None,
                 gated_mlp: bool = False,
                 qkv_bias: str = 'qkv',
                 with_cp: bool = False,
                 init_cfg: dict | None = None) -> None:
        check_init_cfg(init_cfg)
        # SETR reads the blocks without a final norm, because its heads have a norm of their own.
        super().__init__(arch, img_size, patch_size, norm_eps, final_norm=out_type != 'featmap',
                         layer_scale=layer_scale, num_registers=num_registers, in_channels=in_channels, rotary=rotary,
                         gated_mlp=gated_mlp, qkv_bias=qkv_bias, init_cfg=init_cfg)
        dims, depth = self.arch['embed_dims'], self.arch['num_layers']
        out_indices = (depth - 1, ) if out_indices is None else tuple(out_indices)
        check_outputs(depth, out_indices, out_type)
        check_adapters(depth, out_indices, out_type, prompt, temperature, start_block)
        check_updates(lora, biases, adapter, frozen)
        self.out_indices = out_indices
        self.out_type = out_type
        self.start_block = start_block
        self.frozen = frozen
        self.with_cp = with_cp
        self.temperature_range = (0.01, 10.)
        used, unused = self.blocks[:max(out_indices) + 1], self.blocks[max(out_indices) + 1:]
        if frozen:
            self.requires_grad_(False)
        unused.requires_grad_(False)  # data-parallel training would wait for its gradients

        # Parameters declared from here on are trained even when the ViT is frozen.
        sizes = dict(embed_dims=dims, num_layers=depth, patch_size=patch_size)
        self.prompt = None if prompt is None else MODELS.build(prompt, default_args=sizes)
        if start_block == max(out_indices) and hasattr(self.prompt, 'gate_prior'):
            # No gate is used then, and data-parallel training would wait for its gradient.
            self.prompt.gate_prior.requires_grad_(False)
        options = temperature if isinstance(temperature, dict) else {}
        self.temperature = None if temperature is False else self._declare_temperature(depth, **options)
        self.lora = None if lora is None else add_lora(used, **lora)
        self.biases = biases
        if biases:
            add_bias_updates([self.patch_embed, *used, *([] if self.norm is None else [self.norm])])
        self.adapter = None if adapter is None else add_bottlenecks(used, dims, **adapter)
        self.register_load_state_dict_pre_hook(rename_old)
        self.register_load_state_dict_pre_hook(check_complete)

    def _declare_temperature(self, depth: int, init: float = 1., min: float = 0.01, max: float = 10.) -> nn.Parameter:
        if not 0 < min <= init <= max:
            raise ValueError(f'temperature needs 0 < min <= init <= max, got min={min}, init={init}, max={max}')
        self.temperature_range = (min, max)
        return nn.Parameter(torch.full((depth, ), float(init)))

    def vit_state(self) -> dict[str, Tensor]:
        """Returns the weights of the ViT itself by timm's names: all but prompts, gates, temperatures and updates."""
        adapters = {id(p) for p in (*(self.prompt.parameters() if self.prompt is not None else ()), self.temperature)}
        return {name: p for name, p in self.named_parameters() if id(p) not in adapters and not UPDATE.fullmatch(name)}

    @property
    def frozen_children(self) -> list[nn.Module]:
        """Modules whose weights are frozen, which stay in eval mode; empty if the ViT is not frozen."""
        return [m for m in (self.patch_embed, self.blocks, self.norm) if m is not None] if self.frozen else []

    def train(self, mode: bool = True) -> 'GatedPromptViT':
        """Sets the training mode of all modules but the frozen ones, which stay in eval mode; updates have no mode."""
        super().train(mode)
        for module in self.frozen_children:
            module.eval()
        return self

    def init_weights(self) -> None:
        """Loads the pretrained ViT that ``init_cfg`` names, and warns where frozen weights would be random."""
        if self.frozen and not self.init_cfg and not self.is_init:
            print_log('GatedPromptViT: the frozen backbone has RANDOM weights, because init_cfg is not set. Unless a '
                      'checkpoint is loaded over them, set init_cfg=dict(type="PretrainedViT", checkpoint=...)',
                      logger='current', level=logging.WARNING)
        super().init_weights()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Runs images through the blocks, with prompts, gates and temperatures (Algorithm 1).

        Prompts stand last in the sequence. They have no position embedding, so their place does not change the
        result, and patches never move. The last block computes only the tokens that are returned.

        Args:
            images: Normalised images (B, in_channels, H, W).

        Returns:
            tuple: One tensor for each of ``out_indices``: (B, D, h, w) for feature maps, with
            ``h = ceil(H / patch_size)``, else (B, D).
        """
        x, grid = self.embed(images)  # equation 1
        return tuple(self._output(tokens, grid)
                     for tokens in self.run_blocks(x, self._temperatures(), self.rotation(grid)))

    def run_blocks(self, x: Tensor, temperatures: tuple[Tensor | None, ...],
                   rotation: Rotation | None = None) -> tuple[Tensor, ...]:
        """Runs the blocks on the tokens of images. This is what :class:`mmseg_gpt.engine.CompileHook` compiles.

        Args:
            x: CLS, registers and patches (B, 1 + R + h*w, D).
            temperatures: One for each block; None for 1.
            rotation: The rotary positions of the patches; None for none.

        Returns:
            tuple: The tokens (B, n, D) of each of ``out_indices`` that the outputs are made of.
        """
        length = x.shape[1]
        wanted = wanted_tokens(self.out_type, self.first_patch, length)
        run = checkpointed if self.with_cp and torch.is_grad_enabled() else Block.__call__
        last = max(self.out_indices)
        prompts = None
        outputs = []
        for i, block in enumerate(self.blocks[:last + 1]):
            if self.prompt is not None and i == self.start_block:
                prompts = self.prompt.first(i, x.shape[0])
            tokens = x if prompts is None else torch.cat([x, prompts.to(x.dtype)], dim=1)
            if i == last:
                outputs.append(run(block, tokens, temperatures[i], wanted, rotation))
                break
            tokens = run(block, tokens, temperatures[i], ALL, rotation)  # equation 2, with equation 9's temperature
            if i in self.out_indices:
                outputs.append(tokens[:, wanted])
            x = tokens
            if prompts is not None:
                x, after = tokens.split((length, prompts.shape[1]), dim=1)  # whose backward is one copy
                prompts = self.prompt.next(i, prompts, after)  # equation 4, 5 or 7
        return tuple(outputs)

    def _temperatures(self) -> tuple[Tensor | None, ...]:
        """Clamps the temperatures to their range, as the authors do before every forward, and returns one per block.

        The optimizer goes on from the clamped values. A recorded program clamps too, and its weights stay as they are.
        """
        if self.temperature is None:
            return (None, ) * len(self.blocks)
        if is_recorded():
            return self.temperature.clamp(*self.temperature_range).unbind()
        self.temperature.data.clamp_(*self.temperature_range)
        return self.temperature.unbind()

    def _output(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Turns the wanted tokens (B, n, D) of a block into the output that ``out_type`` names."""
        if self.out_type not in FEATURE_MAPS:
            return self.norm(tokens.mean(dim=1))
        if self.norm is not None:
            tokens = self.norm(tokens)
        return tokens.transpose(1, 2).unflatten(2, grid)


def wanted_tokens(out_type: str, first_patch: int, length: int) -> slice:
    """Returns the tokens that ``out_type`` needs.

    The first ``length`` tokens are CLS, registers and, from ``first_patch``, patches; prompts follow.
    """
    return {
        'featmap': slice(first_patch, length),
        'normed_featmap': slice(first_patch, length),
        'cls_token': slice(0, 1),
        'mean_patch': slice(first_patch, length),
        'mean_prompt': slice(length, None),
        'mean_all': slice(first_patch, None),
    }[out_type]


def checkpointed(block: Block, *inputs: Tensor | slice | Rotation | None) -> Tensor:
    """Runs ``block`` and recomputes its activations in the backward pass instead of keeping them."""
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)


def check_complete(vit: GatedPromptViT, state: dict[str, Tensor], prefix: str, *_) -> None:
    """Refuses a state dict that does not fill every weight of ``vit``, whatever ``strict`` says.

    This hook runs before every ``load_state_dict``. It is needed because MMEngine's ``load_checkpoint`` loads whatever
    happens to fit, prints the rest, and goes on with a frozen backbone of random weights.

    Raises:
        CheckpointError: a weight is missing, unexpected, misshapen or not finite. Nothing is changed then.
    """
    wanted = vit.state_dict()
    problems = differences(wanted, {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    if problems:
        where = f' under "{prefix}"' if prefix else ''
        if not any(prefix + name in state for name in vit.vit_state()):
            problems.append('It holds no weight of the ViT itself. If it is an adapter-only checkpoint, test it with '
                            f'{command_of("test")}, or make it whole: {command_of("convert_checkpoint")} '
                            '--layout as-is --vit PRETRAINED_VIT ADAPTERS.pth WHOLE.pth')
        raise CheckpointError(
            f'the state dict does not fill the backbone: it must hold all {len(wanted)} weights{where}:\n' +
            '\n'.join(problems) + '\nBuild the model from the config the checkpoint was trained with. Name a '
            'pretrained ViT in init_cfg=dict(type="PretrainedViT", checkpoint=...). To load a part on purpose, merge '
            'it first: load_state_dict({**model.state_dict(), **part})')


def check_init_cfg(init_cfg: dict | list[dict] | None) -> None:
    """Refuses mmengine's own loader, which leaves the weights that a file lacks at random, and goes on.

    Raises:
        ValueError: ``init_cfg`` names it.
    """
    for cfg in [init_cfg] if isinstance(init_cfg, dict) else init_cfg or []:
        if cfg.get('type') in ('Pretrained', PretrainedInit):
            raise ValueError('init_cfg of type "Pretrained" does not check that the file fills the backbone: '
                             'use dict(type="PretrainedViT", checkpoint=...)')


def check_outputs(depth: int, out_indices: tuple[int, ...], out_type: str) -> None:
    """Refuses outputs that a ViT of ``depth`` blocks does not have.

    Raises:
        ValueError: ``out_type`` is unknown, or ``out_indices`` are not blocks in ascending order.
    """
    if out_type not in OUT_TYPES:
        raise ValueError(f'out_type "{out_type}" is unknown: choose from {OUT_TYPES}')
    if not out_indices or any(not 0 <= i < depth for i in out_indices):
        raise ValueError(f'out_indices {out_indices}: blocks are counted from 0 to {depth - 1}, and one is needed')
    if list(out_indices) != sorted(set(out_indices)):
        raise ValueError(f'out_indices {out_indices} must be in ascending order, each block once')


def check_updates(lora: dict | None, biases: bool, adapter: dict | None, frozen: bool) -> None:
    """Refuses updates of a ViT that is trained anyway, and options that are of another type.

    Raises:
        ValueError: there are such.
    """
    for name, value in (('lora', lora), ('adapter', adapter)):
        if not (value is None or isinstance(value, dict)):
            raise ValueError(f'{name} must be None or a dict of its options, which may be empty, got {value}')
    if not isinstance(biases, bool):
        raise ValueError(f'biases must be True or False, got {biases}')
    if not frozen and (lora is not None or biases or adapter is not None):
        raise ValueError('lora, biases and adapter update a frozen ViT, and frozen=False trains all of its weights: '
                         'leave one of them out')


def check_adapters(depth: int, out_indices: tuple[int, ...], out_type: str, prompt: dict | None,
                   temperature: bool | dict, start_block: int) -> None:
    """Refuses prompts that no output would depend on, and a number given as ``temperature``.

    Raises:
        ValueError: there are such, or ``start_block`` is not a block.
    """
    if not 0 <= start_block < depth:
        raise ValueError(f'start_block {start_block} is not a block: blocks are counted from 0 to {depth - 1}')
    if prompt is not None and start_block > max(out_indices):
        raise ValueError(f'start_block {start_block} comes after the last block of out_indices {out_indices}, '
                         'so the prompts would never be used')
    if out_type == 'mean_prompt' and (prompt is None or start_block > min(out_indices)):
        raise ValueError(f'out_type "mean_prompt" needs prompts in each block of out_indices {out_indices}, got '
                         f'prompt={prompt}, start_block={start_block}')
    if not isinstance(temperature, (bool, dict)):
        raise ValueError(f'temperature must be True, False or a dict of init, min, max, got {temperature}')
