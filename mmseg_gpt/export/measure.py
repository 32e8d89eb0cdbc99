"""The score of an ONNX file beside that of the model, on the validation images of a config."""

import tempfile
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor

from ..engine import Runner
from . import onnx_file
from .program import normalisation
from .write import Choices

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def measure(cfg: Config, checkpoint: str | Path, file: Path | None = None,
            choices: Choices | None = None) -> dict[str, float]:
    """Evaluates a checkpoint, or the ONNX file that was made of it, with the config's windows and metrics.

    The images are those of the config's ``val_dataloader``, or of its ``test_dataloader`` if it has none.

    Args:
        cfg: The config, which stays as it is.
        checkpoint: The checkpoint.
        file: The ONNX file, or None for the checkpoint itself.
        choices: How the file was written.

    Returns:
        dict: The metrics by name, such as mIoU in percent.

    Raises:
        ValueError: the data is not there.
    """
    cfg = cfg.copy()
    if cfg.get('val_dataloader') and cfg.get('val_evaluator'):
        cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
        cfg.test_cfg = cfg.get('test_cfg') or dict()
    with tempfile.TemporaryDirectory() as folder:
        cfg.update(load_from=str(checkpoint), resume=False, work_dir=folder, launcher='none', log_level='ERROR',
                   experiment_name=f'measured {Path(folder).name}')
        if cfg.get('visualizer'):
            cfg.visualizer.update(name=Path(folder).name, vis_backends=[])
        try:
            runner = Runner.from_cfg(cfg)
            if file is not None:
                answer_by(runner.model, onnx_file.session_of(file, with_logits=True), choices or Choices())
            found = runner.test()
        except FileNotFoundError as error:
            raise ValueError(f'--measure: the validation images of the config are not there: {error}') from error
    return {name: float(value) for name, value in found.items() if isinstance(value, Real)}


def answer_by(model: BaseModel, session: 'InferenceSession', choices: Choices) -> None:
    """Lets a model take its logits from an ONNX file; windows, merging and metrics stay its own.

    Args:
        model: The model, which is changed.
        session: The file, with logits among its outputs.
        choices: How the file was written. One that takes images of uint8 gets those of which the model has made what is
            normalised, and the colour of the mean for padding, which is 0 there.
    """
    normal, flips = normalisation(model)

    def logits_of(images: Tensor) -> Tensor:
        images = images.detach().cpu().float()
        if choices.preprocess:
            images = (images * normal['std'] + normal['mean']).round().clamp(0, 255).byte()
            images = images.flip(1) if flips else images
            images = images.permute(0, 2, 3, 1) if choices.layout == 'nhwc' else images
        return torch.from_numpy(onnx_file.run(session, images.contiguous().numpy())[onnx_file.LOGITS])

    if hasattr(model, 'encode_decode'):
        model.encode_decode = lambda images, _: logits_of(images).to(images.device)
    else:
        model.extract_feat = lambda images, *_, **__: logits_of(images).to(images.device)
        model.head.forward = lambda logits: logits
