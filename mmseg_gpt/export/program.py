"""The program that is exported: from images to labels, with all that was trained folded into the weights."""

import copy

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from ..models import GatedPromptViT
from ..models.prompts import DeepPrompt, GatedPrompt
from ..models.updates import without_updates

OUTPUTS = ('labels', 'probabilities', 'logits')
LAYOUTS = ('nchw', 'nhwc')


def folded(vit: GatedPromptViT) -> GatedPromptViT:
    """Returns a copy of a ViT that computes the same with fewer operations and weights.

    LoRA and updates of biases are added to the weights, temperatures divide the weights of the queries (equation 9),
    gates are numbers, and blocks and prompts that are not used are left out. Bottlenecks stay, as they are no change
    of weights. The copy is for evaluation only.

    Args:
        vit: A GatedPromptViT, which stays as it is.
    """
    vit = without_updates(vit).eval().requires_grad_(False)
    last = max(vit.out_indices)
    vit.blocks = vit.blocks[:last + 1]
    if vit.temperature is not None:
        temperatures = vit.temperature.clamp(*vit.temperature_range)
        vit.temperature = None
        for block, temperature in zip(vit.blocks, temperatures):
            qkv = block.attn.qkv
            for weight in (qkv.weight, *([] if qkv.bias is None else [qkv.bias])):
                weight[:len(weight) // 3] /= temperature  # the queries are the first third
    prompt = vit.prompt
    if isinstance(prompt, GatedPrompt):
        prompt.gate = [prompt.gate(block).item() for block in range(last)].__getitem__
        del prompt.gate_prior
    if isinstance(prompt, DeepPrompt):
        tokens = prompt.tokens
        del prompt.tokens
        prompt.tokens = nn.ParameterList(
            nn.Parameter(tokens[i].clone() if i >= vit.start_block else tokens.new_empty(0), requires_grad=False)
            for i in range(last + 1))
    return vit


class Program(nn.Module):
    """A segmentor or classifier as one function of images.

    Args:
        model: The model, in eval mode.
        output: What is returned: 'labels', (B, H, W) or (B,) of int64; 'probabilities', (B, C, H, W) or (B, C), the
            softmax, or the sigmoid of a single channel; or 'logits'.
        preprocess: Whether images are uint8, with red first if they have 3 channels, and are normalised here. Else they
            are normalised (B, C, H, W). Both are padded to whole patches here, and the answers are cropped, unless the
            config of a segmentor pads nothing.
        layout: With ``preprocess``, 'nchw' for images (B, C, H, W), 'nhwc' for (B, H, W, C).
        fold: Whether the ViT is :func:`folded`. The model stays as it is.
        with_logits: Whether the logits are returned before the output.
        without_slices: Whether answers are cropped by padding of negative width. From a slice torch.export concludes
            that images of all sizes are padded, or none; but other tools may not take such a padding.
    """

    def __init__(self, model: BaseModel, output: str = 'labels', preprocess: bool = False, layout: str = 'nchw',
                 fold: bool = True, with_logits: bool = False, without_slices: bool = False) -> None:
        super().__init__()
        if output not in OUTPUTS:
            raise ValueError(f'output must be one of {", ".join(OUTPUTS)}, got {output!r}')
        if layout not in LAYOUTS:
            raise ValueError(f'layout must be one of {", ".join(LAYOUTS)}, got {layout!r}')
        if layout == 'nhwc' and not preprocess:
            raise ValueError("layout 'nhwc' is for images of uint8: it needs preprocess")
        self.model = evaluated(model) if fold else model
        self.output, self.preprocess, self.layout, self.with_logits = output, preprocess, layout, with_logits
        self.without_slices = without_slices
        self.is_segmentor = hasattr(model, 'encode_decode')
        self.patch = model.backbone.patch_embed.patch_size
        # A segmentor whose config pads nothing resizes logits of whole patches to the image; so does its program.
        self.pads = not self.is_segmentor or bool(getattr(model.data_preprocessor, 'test_cfg', None))
        normalised, self.flips = normalisation(model)
        for name, values in normalised.items():
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Returns the output for a batch of images, or logits and output.

        Args:
            images: A batch, as ``preprocess`` and ``layout`` say.
        """
        logits = self.logits(self.prepared(images))
        if self.is_segmentor:
            logits = self.cropped(logits, images)
        answer = self.answer(logits)
        return (logits, answer) if self.with_logits and self.output != 'logits' else answer

    def cropped(self, logits: Tensor, images: Tensor) -> Tensor:
        """Returns logits (B, C, H', W') of whole patches without those of the padding: (B, C, H, W)."""
        if self.without_slices:
            right, bottom = self.missing(images)
            return F.pad(logits, (0, -right, 0, -bottom))
        height, width = self.size_of(images)
        return logits[:, :, :height, :width]

    def size_of(self, images: Tensor) -> tuple[int, int]:
        """Returns height and width of images."""
        return images.shape[1:3] if self.layout == 'nhwc' else images.shape[2:]

    def missing(self, images: Tensor) -> tuple[int, int]:
        """Returns how many columns and rows images lack to be of whole patches, if they are padded."""
        height, width = self.size_of(images)
        return (-width % self.patch, -height % self.patch) if self.pads else (0, 0)

    def prepared(self, images: Tensor) -> Tensor:
        """Turns images into normalised ones (B, C, H', W') of whole patches, padded below and right."""
        right, bottom = self.missing(images)
        if self.preprocess:
            images = (images.permute(0, 3, 1, 2) if self.layout == 'nhwc' else images).float()
            images = ((images.flip(1) if self.flips else images) - self.mean) / self.std
        return F.pad(images, (0, right, 0, bottom))

    def logits(self, images: Tensor) -> Tensor:
        """Returns the logits (B, C, H, W) or (B, C) of normalised images."""
        if self.is_segmentor:
            return self.model.encode_decode(images, [dict(img_shape=images.shape[2:])])
        logits = self.model(images, mode='tensor')
        return logits[-1] if isinstance(logits, tuple) else logits

    def answer(self, logits: Tensor) -> Tensor:
        """Returns the output that is asked for."""
        if self.output == 'logits':
            return logits
        if logits.shape[1] == 1 and self.is_segmentor:
            probabilities = logits.sigmoid()
            above = probabilities[:, 0] > self.model.decode_head.threshold
            return probabilities if self.output == 'probabilities' else above.long()
        return logits.softmax(1) if self.output == 'probabilities' else logits.argmax(1)


def evaluated(model: BaseModel) -> BaseModel:
    """Returns a copy of a model with what an evaluation needs: a folded ViT, and no auxiliary heads."""
    vit = model.backbone
    model = copy.deepcopy(model, {id(vit): vit})
    model.backbone = folded(vit)
    if getattr(model, 'auxiliary_head', None) is not None:
        del model.auxiliary_head
    return model.eval().requires_grad_(False)


def normalisation(model: BaseModel) -> tuple[dict[str, Tensor], bool]:
    """Returns ``mean`` and ``std`` (C, 1, 1) in the order in which the model takes channels, and whether blue is first.

    Args:
        model: A model whose preprocessor is mmsegmentation's or mmpretrain's.
    """
    preprocessor, channels = model.data_preprocessor, model.backbone.in_channels
    is_enabled = getattr(preprocessor, '_enable_normalize', False)
    mean = preprocessor.mean if is_enabled else torch.zeros(channels, 1, 1)
    std = preprocessor.std if is_enabled else torch.ones(channels, 1, 1)
    # Files are read with blue first, which both preprocessors turn round if they are asked to.
    red_first = getattr(preprocessor, 'channel_conversion', False) or getattr(preprocessor, 'to_rgb', False)
    return dict(mean=mean.clone().cpu(), std=std.clone().cpu()), channels == 3 and not red_first
