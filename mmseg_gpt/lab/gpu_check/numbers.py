"""Whether a device computes what a CPU does, in all types, and the same twice."""

import platform
from dataclasses import dataclass

import torch
from mmengine.config import Config

from ...environment import installed_versions
from ..benchmark.parity import SIZES, TOLERANCE, Results, compare, largest, redrawn_weights, results
from ..benchmark.variants import Sizes, build, draw_weights
from ..benchmark.work import Evaluation, TrainingStep, make_batch

SMALL = Sizes(depth=3, image=128, classes=150, prompts=20, channels=256, batch=2)  # a ViT-B of 3 blocks


@dataclass
class Setting:
    """What is checked.

    Attributes:
        cfg: The config of our model.
        device: The device.
        sizes: Those of the models that are timed.
        quick: Whether to be quick rather than exact, to see that all works.
    """
    cfg: Config
    device: torch.device
    sizes: Sizes
    quick: bool = False

    @property
    def on_gpu(self) -> bool:
        """Returns whether the device is a GPU."""
        return self.device.type == 'cuda'


def machine(setting: Setting) -> dict:
    """Returns what the device is, and the versions of what runs on it."""
    about = dict(device=str(setting.device), python=platform.python_version(), platform=platform.platform(),
                 versions=installed_versions('torch', 'mmengine', 'mmcv', 'mmseg'), cuda=torch.version.cuda,
                 cudnn=torch.backends.cudnn.version())
    if setting.on_gpu:
        properties = torch.cuda.get_device_properties(setting.device)
        about.update(device=properties.name, memory_gib=round(properties.total_memory / 2**30, 1),
                     capability=f'{properties.major}.{properties.minor}', processors=properties.multi_processor_count)
    return about


def exact_float32() -> None:
    """Lets float32 be float32: torch's own choice is TF32 for convolutions, which is 1e-3 off."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = False


def float64(setting: Setting) -> dict:
    """Compares ours on the device with ours on a CPU, with the paper's formulation, and with checkpointing."""
    exact_float32()
    weights = redrawn_weights(draw_weights(setting.cfg, SIZES, 0), 0)

    def found(model: str, device: str | torch.device) -> dict:
        return results(build(model, setting.cfg, SIZES, weights).to(device, torch.float64), 0)

    mine = found('ours', setting.device)
    compared = {'ours on a CPU': compare(found('ours', 'cpu'), mine),
                "the paper's formulation": compare(found('paper', setting.device), mine),
                'ours with checkpointing': compare(found('ours-cp', setting.device), mine)}
    worst = largest(value for parts in compared.values() for value, _ in parts.values())
    return dict(compared=compared, tolerance=TOLERANCE, passed=worst <= TOLERANCE)


def shorter_types(setting: Setting) -> dict:
    """Compares float32, bfloat16 and float16 of ours and of the paper's formulation with ours in float64."""
    exact_float32()
    sizes = SIZES if setting.quick else SMALL
    weights = redrawn_weights(draw_weights(setting.cfg, sizes, 0), 0)

    def found(model: str, dtype: torch.dtype, half: torch.dtype | None = None) -> dict:
        return results(build(model, setting.cfg, sizes, weights).to(setting.device, dtype), 0, sizes, half)

    exact, compared = found('ours', torch.float64), {}
    for half in (None, torch.bfloat16, *([torch.float16] if setting.on_gpu else [])):
        for model in ('ours', 'paper'):
            name = f'{model} in {str(half or torch.float32).removeprefix("torch.")}'
            compared[name] = apart(exact, found(model, torch.float32, half))
    once, again = (found('ours', torch.float32) for _ in range(2))
    return dict(compared=compared, twice=apart(once, again))


def apart(exact: Results, other: Results) -> dict[str, tuple[float, str]]:
    """Returns what :func:`compare` does, but of labels the share that differs."""
    one, two = (dict(each, predictions={'logits': each['predictions']['logits']}) for each in (exact, other))
    labels, others = (each['predictions']['labels'] for each in (exact, other))
    return dict(compare(one, two), labels=((labels != others).double().mean().item(), 'labels'))


def deterministic(setting: Setting) -> dict:
    """Trains two steps and evaluates an image twice in torch's deterministic mode, and compares bit for bit."""
    weights = draw_weights(setting.cfg, SIZES, 0)

    def found() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        torch.manual_seed(0)
        model = build('ours', setting.cfg, SIZES, weights).to(setting.device)
        step = TrainingStep(model, setting.cfg, make_batch(SIZES, 0, setting.device))
        for _ in range(2):
            step()
        trained = [p.detach().cpu() for p in model.parameters() if p.requires_grad]
        return trained, [Evaluation(model, SIZES, setting.device)()[0].pred_sem_seg.data.cpu()]

    torch.use_deterministic_algorithms(True)
    try:
        once, again = found(), found()
    finally:
        torch.use_deterministic_algorithms(False)
    return {name: all(map(torch.equal, one, other))
            for name, one, other in zip(('weights after two steps', 'labels of an image'), once, again)}
