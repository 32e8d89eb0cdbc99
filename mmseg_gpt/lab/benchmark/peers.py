"""What else users would pick: EoMT, and PEFT's LoRA around transformers' DINOv2, both measured beside our models.

All have the same ViT, that of DINOv2 with registers and patches of 16 pixels, with random weights. The packages
``transformers`` and ``peft`` are imported where they are needed.
"""

import copy
from importlib import import_module
from types import ModuleType

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

from ...models.complete import complete
from ...recipes.heads import HEADS
from ...recipes.methods import METHODS, options
from ...resources import CONFIGS
from ...wording import listed
from .variants import Sizes, construct
from .work import IGNORED, Batch, Evaluation, TrainingStep

EOMT, PEFT = 'eomt', 'peft'
VIT = dict(patch_size=16, num_registers=4, layer_scale=True)
# As EoMT's config of ADE20K at 512x512 has it, and section 4.1 of its paper, arXiv 2503.19108.
QUERIES, QUERY_BLOCKS = 100, dict(small=3, base=3, large=4, tiny=1)
RANK = METHODS['lora'].lora['rank']


def check_names(names: list[str]) -> None:
    """Refuses names of models that cannot be built.

    Args:
        names: Names as :func:`build_peer` takes them.

    Raises:
        ValueError: a name is unknown, or the package that it needs is not installed.
    """
    for name in names:
        head, _, method = name.partition(':')
        if name != EOMT and (head not in HEADS or method not in {*METHODS, PEFT}):
            raise ValueError(f'"{name}" is neither {EOMT} nor HEAD:METHOD, such as linear:lora, where HEAD is one of '
                             f'{listed([*HEADS], 99)}, and METHOD one of {listed([*METHODS, PEFT], 99)}')
        for package in ('transformers', 'peft')[:1 if name == EOMT else 2 if method == PEFT else 0]:
            package_of_peer(package, name)


def package_of_peer(package: str, name: str) -> ModuleType:
    """Imports a package that the model ``name`` needs.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ValueError(f'{name} needs the package {package}: pip install "mmseg_gpt[peers]", or leave {name} out '
                         f'({error})') from error


def build_peer(name: str, sizes: Sizes) -> nn.Module:
    """Builds a model with random weights, with BN in the place of SyncBN as on one device.

    Args:
        name: 'eomt', or HEAD:METHOD, such as 'linear:lora': one of ``HEADS``, and one of ``METHODS`` or 'peft',
            PEFT's LoRA around transformers' ViT.
        sizes: Sizes; heads have the width of their config.
    """
    if name == EOMT:
        return eomt(sizes)
    head, _, method = name.partition(':')
    model = Config.fromfile(CONFIGS / f'_base_/heads/{head}.py').model
    model.update(num_classes=sizes.classes, crop_size=(sizes.image, sizes.image))
    model.backbone.update(VIT, arch=sizes.vit, **({} if method == PEFT else options(method, sizes.prompts, 10.)))
    depth, blocks = sizes.vit['num_layers'], model.backbone.get('out_indices')
    if isinstance(blocks, dict) and depth not in blocks:
        model.backbone.out_indices = tuple(round((i + 1) * depth / 12) - 1 for i in blocks[12])
    model = ConfigDict(complete(model))
    if method == PEFT:
        model.backbone = dict(type=PeftViT, sizes=sizes, out_type=model.backbone.out_type,
                              out_indices=model.backbone.get('out_indices') or (depth - 1, ))
    return revert_sync_batchnorm(construct(model))


def eomt(sizes: Sizes) -> nn.Module:
    """Builds transformers' EoMT, of which everything is trained, as its authors do."""
    transformers = package_of_peer('transformers', EOMT)
    return transformers.EomtForUniversalSegmentation(transformers.EomtConfig(
        **vit_settings(sizes), num_queries=QUERIES, num_blocks=QUERY_BLOCKS[sizes.arch], num_labels=sizes.classes))


def vit_settings(sizes: Sizes) -> dict:
    """Returns the ViT's settings by the names of transformers."""
    arch = sizes.vit
    return dict(hidden_size=arch['embed_dims'], num_hidden_layers=arch['num_layers'],
                num_attention_heads=arch['num_heads'], mlp_ratio=arch['mlp_ratio'], image_size=sizes.image,
                patch_size=VIT['patch_size'], num_register_tokens=VIT['num_registers'])


class PeftViT(nn.Module):
    """transformers' DINOv2 with registers, adapted by PEFT's LoRA, as a backbone under our heads.

    LoRA has our rank, and updates the queries, keys and values, which are three layers there. In evaluation it is
    merged into the weights, once.

    Args:
        sizes: Sizes of the ViT.
        out_type: 'featmap' or 'normed_featmap', as of :class:`mmseg_gpt.models.GatedPromptViT`.
        out_indices: Blocks whose outputs are returned, counted from 0.
    """

    def __init__(self, sizes: Sizes, out_type: str, out_indices: tuple[int, ...]) -> None:
        super().__init__()
        transformers, peft = (package_of_peer(name, PEFT) for name in ('transformers', 'peft'))
        vit = transformers.Dinov2WithRegistersBackbone(transformers.Dinov2WithRegistersConfig(
            **vit_settings(sizes), out_indices=[i + 1 for i in out_indices], reshape_hidden_states=True,
            apply_layernorm=out_type == 'normed_featmap'))
        layers = {name.rpartition('.')[2] for name, _ in vit.named_modules()}
        targets = layers & {'query', 'key', 'value', 'q_proj', 'k_proj', 'v_proj'}  # by version of transformers
        self.vit = peft.get_peft_model(vit, peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=sorted(targets)))

    def train(self, mode: bool = True) -> 'PeftViT':
        """Sets the mode, and merges LoRA for evaluation or takes it out for training."""
        if mode != self.training:
            (self.vit.unmerge_adapter if mode else self.vit.merge_adapter)()
        return super().train(mode)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns the feature maps (B, D, h, w) of normalised images (B, 3, H, W)."""
        return self.vit(pixel_values=images).feature_maps


class EomtStep(TrainingStep):
    """Training step of EoMT: forward, its losses after every block with queries, backward and optimizer.

    What its data loader makes, a mask for each class of an image, is made before.

    Args:
        model: EoMT.
        cfg: The config, which has the settings of the optimizer.
        batch: The images.
    """

    def __init__(self, model: nn.Module, cfg: Config, batch: Batch) -> None:
        super().__init__(model, cfg, batch)
        labels = [sample.gt_sem_seg.data for sample in batch.samples]
        self.classes = [label.unique()[label.unique() != IGNORED] for label in labels]
        self.masks = [(label == classes.view(-1, 1, 1)).float() for label, classes in zip(labels, self.classes)]

    def loss(self) -> Tensor:
        """Computes the sum of all losses, with masked attention as at the start of a training."""
        self.model.attn_mask_probs.fill_(1)
        return self.model(self.batch.inputs, mask_labels=self.masks, class_labels=self.classes).loss

    def tensors(self) -> list[Tensor]:
        """Returns all tensors that live between two steps."""
        return [*super().tensors(), *self.masks, *self.classes]


class EomtEvaluation(Evaluation):
    """Evaluation of an image by EoMT, as large as in training; a call returns its labels (H, W).

    The attention is not masked any more, as after a training. Labels are made by transformers' own code.

    Args:
        model: EoMT.
        sizes: The sizes, which decide that of an image.
        device: Device of the image.
    """

    def __init__(self, model: nn.Module, sizes: Sizes, device: torch.device) -> None:
        super().__init__(model, sizes, device)
        self.processor = package_of_peer('transformers', EOMT).EomtImageProcessor()

    @torch.no_grad()
    def __call__(self) -> Tensor:
        self.model.eval()
        self.model.attn_mask_probs.fill_(0)
        (image, _), = self.views
        mean, std = (image.new_tensor(numbers, dtype=torch.float32).view(3, 1, 1) for numbers in (
            (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
        outputs = self.model(((image - mean) / std)[None])
        height, width = image.shape[1:]
        return self.processor.post_process_semantic_segmentation(
            outputs, target_sizes=[(height, width)], size=dict(shortest_edge=height, longest_edge=width))[0]


def in_regions(batch: Batch, side: int, classes: int, seed: int) -> Batch:
    """Returns a batch whose labels are ``side`` x ``side`` rectangles of drawn classes.

    EoMT's loss makes a mask of each class in an image, and an image of ADE20K has about ten. Our losses cost the same
    whatever the labels are.
    """
    generator = torch.Generator().manual_seed(seed)
    samples = copy.deepcopy(batch.samples)
    for sample in samples:
        label = sample.gt_sem_seg.data
        drawn = torch.randint(classes, (1, 1, side, side), generator=generator).float()
        sample.gt_sem_seg.data = nn.functional.interpolate(drawn, label.shape[1:])[0].to(label)
    return batch._replace(samples=samples)
