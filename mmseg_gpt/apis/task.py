"""A task that is ready to answer: the model of a config, loaded from a checkpoint, and the config's preprocessing."""

import copy
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, DefaultScope
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor

from ..adapters import frozen_backbones, load_model_state
from ..checkpoints import CheckpointError, fetch, read_file
from ..checks.checkpoint import check_backbone
from ..datasets import LoadBands, PixelError, SampleError, check_headers, inspect_pair, label_rule
from ..datasets.introspect import known_reader
from ..datasets.pairs import error_line
from ..engine.config import load_config
from ..models import GatedPromptViT
from ..models.labels import confidence_of, threshold_of
from ..models.mixed import program
from ..settings import unwrapped_datasets

# What mmsegmentation's heads warn of when they are built, and nobody who predicts can act on.
OF_HEADS = ('``build_loss`` would be deprecated', 'Default ``avg_non_ignore`` is',
            'For binary segmentation, we suggest')
Image = str | Path | np.ndarray


@dataclass(eq=False)
class ServedTask:
    """Model and preprocessing of one task, made by ``load_task``.

    Attributes:
        model: A segmentor or classifier in eval mode.
        vit: Its backbone, which is frozen unless ``load_task`` was called with ``frozen=False``.
        origin: The source of the ViT's weights, in words.
        reader: The transform of the config's test pipeline that reads the file.
        transform: The transforms after it, without those that load annotations.
        classes: Names of the classes, if the checkpoint has them.
        palette: Colours of the classes (red, green, blue), if the checkpoint has them.
        cfg: The config.
        augmented: The model around ``model`` that answers by the mean of several views of an image, or None.
        whole: Whether the checkpoint holds the ViT too, so that no other file of it was read.
        shapes: Shapes (n, 3, h, w) of :meth:`crops` that are known, by the size of the image.
    """
    model: BaseModel
    vit: GatedPromptViT
    origin: str
    reader: LoadImageFromFile
    transform: Compose
    classes: Sequence[str] | None = None
    palette: Sequence[Sequence[int]] | None = None
    cfg: Config | None = None
    augmented: BaseModel | None = None
    whole: bool = False
    shapes: dict[torch.Size, tuple[int, ...]] = field(default_factory=dict, init=False, repr=False)

    @property
    def segments(self) -> bool:
        """Whether pixels are labelled, and not images classified."""
        return hasattr(self.model, 'decode_head')

    @property
    def threshold(self) -> float | None:
        """The probability above which a single channel is foreground; None of several channels, and of classes."""
        return threshold_of(self.model.decode_head) if self.segments else None

    def read(self, image: Image) -> dict:
        """Reads an image into the dict that the transforms take, with its pixels (H, W, 3) in ``img``, BGR.

        Args:
            image: A file; or the pixels (H, W, 3), uint8, BGR, as OpenCV reads them. For a ViT of another
                number of channels C, (H, W, C) in the order of training, uint8, uint16 or float32. Where the config
                reads with LoadBands: all bands of a file, (H, W, bands), in the order and the type of the files.

        Raises:
            SampleError: the file is not there or cannot be read, or is another kind of image than the config's reader
                is for.
            TypeError: it is neither a file nor an array.
            ValueError: the array has another shape or type.
        """
        if not isinstance(image, (np.ndarray, str, os.PathLike)):
            raise TypeError(f'an image is a file or an array, got {type(image).__name__}: of an image of Pillow, give '
                            'np.asarray(image.convert("RGB"))[..., ::-1]; of several images, one at a time')
        if not isinstance(image, np.ndarray):
            if '://' not in str(image) and not Path(image).is_file():
                raise SampleError(f'there is no image file {image}')
            if Path(image).is_file() and (problems := check_headers(image, reader=known_reader(self.reader))):
                raise SampleError('; '.join(problems))
            try:
                return self.reader(dict(img_path=str(image)))
            except PixelError as error:
                raise SampleError(str(error)) from error
            except Exception as error:  # decoders raise many types
                found = inspect_pair(image, reader=known_reader(self.reader)).problems if Path(image).is_file() else []
                raise SampleError('; '.join(found) or f'{image} cannot be read: {error_line(error)}') from error
        if isinstance(self.reader, LoadBands):
            return self.reader.from_array(image)
        channels = self.vit.in_channels
        is_known = image.dtype == np.uint8 or (channels != 3 and image.dtype in (np.uint16, np.float32))
        if not is_known or image.ndim != 3 or image.shape[2] != channels or not image.size:
            wanted = '3) of uint8, BGR' if channels == 3 else f'{channels}) of uint8, uint16 or float32'
            raise ValueError(f'an image is a file, or an array (height, width, {wanted}; got {image.shape} of '
                             f'{image.dtype}')
        size = image.shape[:2]
        pixels = image.astype(np.float32) if self.reader.to_float32 else image
        return dict(img=pixels, img_path=None, img_shape=size, ori_shape=size)

    def prepare(self, image: Image) -> dict:
        """Prepares an image; returns the model's ``inputs`` (3, h, w) and ``data_samples``, or lists of its views.

        Args:
            image: As for ``read``.
        """
        return self.transform(self.read(image))

    def view(self, image: Image) -> tuple[np.ndarray, Tensor]:
        """Returns a picture of an image for people, and the same pixels as the backbone gets them.

        If a segmentor slides windows over the image, this is a window of that size in the middle.

        Args:
            image: As for ``read``.

        Raises:
            ValueError: the ViT takes images of another number of channels than 3, of which there is no picture.

        Returns:
            tuple: The picture (H, W, 3), uint8, red first; and the normalised input (1, 3, H, W) of the backbone.
        """
        if self.vit.in_channels != 3:
            raise ValueError(f'an image of {self.vit.in_channels} channels has no red, green and blue to '
                             'make a picture of')
        prepared = self.prepare(image)
        batch = {key: [prepared[key]] for key in ('inputs', 'data_samples')}
        inputs = self.model.data_preprocessor(batch, False)['inputs']
        pixels = prepared['inputs'].clamp(0, 255).byte()
        missing = np.subtract(inputs.shape[-2:], pixels.shape[-2:])  # the preprocessor pads at the bottom and right
        pixels = F.pad(pixels, (0, int(missing[1]), 0, int(missing[0])))
        test_cfg = getattr(self.model, 'test_cfg', None) or {}
        window = test_cfg['crop_size'] if test_cfg.get('mode') == 'slide' else inputs.shape[-2:]
        rows, columns = (slice(max(0, (side - part) // 2), max(0, (side - part) // 2) + part)
                         for side, part in zip(inputs.shape[-2:], window))
        return pixels[:, rows, columns].permute(1, 2, 0).numpy()[..., ::-1], inputs[..., rows, columns]

    def predict(self, prepared: list[dict]) -> list[BaseDataElement]:
        """Returns the model's answers, one for each image.

        Args:
            prepared: Images from ``prepare``, all of the same size.
        """
        if self.augmented is not None:
            data = {key: [list(views) for views in zip(*(each[key] for each in prepared))]
                    for key in ('inputs', 'data_samples')}
            answers = self.augmented.test_step(data)
        else:
            data = {key: [each[key] for each in prepared] for key in ('inputs', 'data_samples')}
            answers = self.model.test_step(data)
        return with_probabilities(answers, self.threshold)

    @cached_property
    def program(self) -> dict[str, object] | None:
        """What must be the same in another task for both to go through the ViT in one pass; see :func:`program`."""
        return program(self.vit)

    def normalise(self, prepared: Sequence[dict]) -> dict:
        """Returns a batch as the model takes it: normalised ``inputs`` (B, 3, H, W) on its device, and samples.

        Args:
            prepared: Images from ``prepare``, all of the same size.
        """
        return self.model.data_preprocessor({key: [each[key] for each in prepared]
                                             for key in ('inputs', 'data_samples')}, False)

    def crops(self, data: dict) -> Tensor:
        """Returns what the model will give to its backbone (n, 3, h, w), in this order.

        Args:
            data: What :meth:`normalise` returned.
        """
        if not hasattr(self.model, 'crops'):
            return data['inputs']
        return torch.cat([self.model.crops(image) for image in data['inputs']])

    def answer(self, data: dict) -> list[BaseDataElement]:
        """Returns the model's answers to a batch of :meth:`normalise`, one for each image."""
        return with_probabilities(self.model(**data, mode='predict'), self.threshold)

    def label_values(self) -> np.ndarray:
        """Returns the value (C,) of each class in the label files of the config's test data.

        Raises:
            ValueError: the config has no test data whose label files are known, or a class has no value of its own.
        """
        cfg = self.cfg or {}
        source = next(unwrapped_datasets((cfg.get('test_dataloader') or {}).get('dataset', {})))
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
            try:
                rule = label_rule(DATASETS.build(dict(source, lazy_init=True, pipeline=[])))
            except Exception as error:
                raise ValueError('the dataset in test_dataloader, whose label files say the numbers of the classes, '
                                 f'cannot be built: {error_line(error)}') from error
        if rule.num_classes is None:
            raise ValueError('the dataset in test_dataloader has no class names, so that the numbers of the classes in '
                             'its label files are not known')
        return rule.value_of_class(rule.num_classes)

    def class_name(self, label: int) -> str:
        """Returns the name of a class, or its number if the checkpoint has no names.

        Args:
            label: Number of the class, from 0.
        """
        return self.classes[label] if self.classes else str(label)


def load_task(name: str, config: str | Path | Config, checkpoint: str | Path, frozen: bool = True,
              tta: bool = False) -> ServedTask:
    """Builds the model and the preprocessing of a config, in its own scope, and loads the checkpoint on the CPU.

    Args:
        name: Name of the task, for messages.
        config: A file, or a loaded ``Config``.
        checkpoint: A checkpoint of this project. If it holds adapters only, the ViT is read from the file that the
            config names.
        frozen: Whether to refuse a fully fine-tuned model, whose ViT no other task can share.
        tta: Whether to answer by the mean of several views of an image, by the config's ``tta_pipeline``.

    Returns:
        ServedTask: The task, with its model in eval mode.

    Raises:
        CheckpointError: the checkpoint is damaged or of another model, or its ViT is missing or another one.
        ValueError: the model has no ViT, or none to share, or the config does not say how images are prepared.
    """
    cfg = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        model = build_model(cfg).eval()
        vit = frozen_vit(model, name) if frozen else only_vit(model, name)
        reader, transform = build_preprocessing(cfg, name, tta)
        augmented = MODELS.build(dict(cfg.tta_model, module=model)).eval() if tta else None
    content = read_file(fetch(str(checkpoint)))
    if not isinstance(content, dict):
        raise CheckpointError(f'{checkpoint} holds no weights')
    load_model_state(model, content, checkpoint)
    check_backbone(model, content, checkpoint)
    meta = content.get('meta', {})
    dataset, frozen = meta.get('dataset_meta') or {}, meta.get('frozen')
    origin = f'{frozen["source"]} (SHA-256 {frozen["sha256"][:12]}...)' if frozen else f'the one inside {checkpoint}'
    return ServedTask(model, vit, origin, reader, transform, dataset.get('classes'), dataset.get('palette'),
                      cfg, augmented, whole=not frozen)


def with_probabilities(answers: list[BaseDataElement], threshold: float | None) -> list[BaseDataElement]:
    """Adds to the answers of a stock segmentor what is asked for, and returns all answers."""
    for sample in answers:
        if 'seg_logits' in sample and (sample.get('probabilities') or sample.get('confidence')):
            keep_probabilities(sample, threshold)
    return answers


def keep_probabilities(sample: BaseDataElement, threshold: float | None) -> None:
    """Adds what :class:`LeanEncoderDecoder` gives to an answer with ``seg_logits``, as far as its metainfo asks for it.

    Args:
        sample: The answer. The logits of a single channel are probabilities already.
        threshold: That of a single channel.
    """
    logits, asked = sample.seg_logits.data, sample.get('probabilities')
    kept = logits if len(logits) == 1 else logits.softmax(0)
    if sample.get('confidence'):
        sample.set_data(dict(seg_confidence=PixelData(data=confidence_of(kept.amax(0), threshold)[None])))
    if asked:
        kept = kept.half().cpu()
        if asked is not True:
            np.save(asked, kept.numpy())
        sample.set_data(dict(seg_probabilities=PixelData(data=kept)))


def build_model(cfg: Config) -> BaseModel:
    """Builds the model of a config as the runner does, with random weights."""
    if cfg.get('data_preprocessor'):  # mmpretrain's configs have it outside the model
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with warnings.catch_warnings():
        for usual in OF_HEADS:
            warnings.filterwarnings('ignore', usual)
        return MODELS.build(cfg.model)


def frozen_vit(model: BaseModel, name: str) -> GatedPromptViT:
    """Returns the frozen backbone of a model, whose weights can be shared.

    Raises:
        ValueError: there is none, or more than one.
    """
    found = list(frozen_backbones(model).values())
    if len(found) == 1:
        return found[0]
    if any(isinstance(module, GatedPromptViT) for module in model.modules()) and not found:
        raise ValueError(f'task "{name}" is a full fine-tuning (model.backbone.frozen=False): its ViT is its own, so '
                         'there is nothing to share. Use the inferencers of mmsegmentation and mmpretrain for it')
    raise ValueError(f'task "{name}": the model needs one frozen GatedPromptViT, this one has {len(found)}')


def only_vit(model: BaseModel, name: str) -> GatedPromptViT:
    """Returns the backbone of a model, frozen or not.

    Raises:
        ValueError: there is none, or more than one.
    """
    found = [module for module in model.modules() if isinstance(module, GatedPromptViT)]
    if len(found) != 1:
        raise ValueError(f'task "{name}": the model needs one GatedPromptViT, this one has {len(found)}')
    return found[0]


def build_preprocessing(cfg: Config, name: str, tta: bool = False) -> tuple[LoadImageFromFile, Compose]:
    """Builds the transforms of a config's test pipeline: the one that reads an image file, and those that follow.

    Transforms that load annotations are left out.

    Args:
        cfg: The config.
        name: Name of the task, for messages.
        tta: Whether to take ``tta_pipeline``.

    Raises:
        ValueError: there is no such pipeline, or it does not begin with reading the file.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset', {})
    pipeline = cfg.get('tta_pipeline') if tta else next(unwrapped_datasets(dataset)).get('pipeline')
    if tta and not (pipeline and cfg.get('tta_model')):
        raise ValueError(f'task "{name}": the config has no tta_pipeline and tta_model, which say how --tta augments '
                         'images')
    if not pipeline:
        raise ValueError(f'task "{name}": the config has no test_dataloader.dataset.pipeline, which says how images '
                         'are prepared')
    reader, *transforms = [TRANSFORMS.build(step) for step in without_annotations(pipeline)]
    if not isinstance(reader, LoadImageFromFile):
        raise ValueError(f'task "{name}": {"tta_pipeline" if tta else "test_dataloader.dataset.pipeline"} must begin '
                         'with LoadImageFromFile or LoadBands; without it, the order of the colours is not known')
    reader.ignore_empty = False
    return reader, Compose(transforms)


def without_annotations(pipeline: Sequence) -> list:
    """Returns a pipeline, or the lists of transforms in its TestTimeAug, without those that load annotations."""
    kept = []
    for step in pipeline:
        if isinstance(step, (list, tuple)):
            if inner := without_annotations(step):
                kept.append(inner)
        elif not loads_annotations(step):
            views = dict(transforms=without_annotations(step['transforms'])) if 'transforms' in step else {}
            kept.append(dict(step, **views))
    return kept


def loads_annotations(step: dict) -> bool:
    """Says whether a transform loads annotations."""
    kind = step['type']
    if isinstance(kind, str):
        with TRANSFORMS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    return isinstance(kind, type) and issubclass(kind, LoadAnnotations)
