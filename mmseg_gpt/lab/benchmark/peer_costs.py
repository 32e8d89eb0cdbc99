"""Seconds and memory of our models and of their peers, measured in turn in one process, and their table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from mmengine.config import Config
from torch import nn

from ...environment import installed_versions
from .machine import describe
from .memory import peak_bytes
from .peers import EOMT, EomtEvaluation, EomtStep, build_peer, in_regions
from .tables import MIB, table, with_quartiles
from .timing import measure, summarise
from .variants import Sizes
from .work import Evaluation, TrainingStep, make_batch

# The same for all; its values do not change what a step costs.
OPTIMIZER = Config(dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.01))))
SIDE = 3  # labels are so many regions high and wide


@dataclass(frozen=True)
class Square(Sizes):
    """Sizes with evaluated images as large as those of training: one window."""

    @property
    def evaluated(self) -> tuple[int, int]:
        """Height and width of the evaluated image."""
        return self.image, self.image


def measure_peers(names: Sequence[str], sizes: Square, device: torch.device, rounds: int, warmup: int, seed: int,
                  against: str) -> dict:
    """Measures a training step, with AdamW, and the evaluation of one image, of all models in turn.

    Args:
        names: Names of the models, see :func:`.peers.build_peer`.
        sizes: Sizes of models and images.
        device: Device to measure on.
        rounds: Number of measurements of each time.
        warmup: Rounds before these, which do not count.
        seed: Seed of weights, images and orders.
        against: The model with which the others are compared.

    Returns:
        dict: The ``machine``, ``sizes`` and ``against``; ``models`` by name, with the numbers ``trained`` and in all,
        and peaks of live bytes; ``times`` by kind of work as of :func:`.timing.summarise`.
    """
    torch.manual_seed(seed)
    models = {name: build_peer(name, sizes).to(device) for name in names}
    batch = in_regions(make_batch(sizes, seed, device), SIDE, sizes.classes, seed)
    steps = {name: (EomtStep if name == EOMT else TrainingStep)(model, OPTIMIZER, batch)
             for name, model in models.items()}
    images = {name: (EomtEvaluation if name == EOMT else Evaluation)(model, sizes, device)
              for name, model in models.items()}
    times, peaks = {}, {}
    for what, work in dict(train=steps, eval=images).items():
        times[what] = summarise(measure(work, rounds, warmup, seed, device), against)
        peaks[what] = {name: peak_bytes(each, each.tensors()) for name, each in work.items()}
    machine = describe(device)
    machine['versions'] |= installed_versions('transformers', 'peft')
    return dict(machine=machine, sizes=dict(asdict(sizes), depth=sizes.vit['num_layers']), against=against, times=times,
                models={name: dict(sizes_of(model), peak={what: found[name] for what, found in peaks.items()})
                        for name, model in models.items()})


def sizes_of(model: nn.Module) -> dict[str, int]:
    """Counts the numbers in a model's parameters, and those that are trained."""
    parameters = list(model.parameters())
    return dict(trained=sum(p.numel() for p in parameters if p.requires_grad),
                whole=sum(p.numel() for p in parameters))


def peers_table(results: dict) -> str:
    """Writes the table of the results of :func:`measure_peers`."""
    kinds = dict(train='step', eval='image')
    header = ['', 'trained', *(f'{title}: {column}' for title in kinds.values()
                               for column in ('s (quartiles)', f'x {results["against"]}', 'MiB'))]
    rows = []
    for name, model in results['models'].items():
        row = [name, f'{model["trained"]:,}']
        for what in kinds:
            entry = results['times'][what][name]
            row += [with_quartiles(entry), with_quartiles(entry['speedup']), model['peak'][what] / MIB]
        rows.append(row)
    sizes, machine = results['sizes'], results['machine']
    versions = ', '.join(f'{name} {version}' for name, version in machine['versions'].items())
    return table(f'ViT-{sizes["arch"]}/16, {sizes["image"]}x{sizes["image"]}, batch {sizes["batch"]}, float32, '
                 f'{machine["device"]}, {machine["threads"]} threads, {versions}', header, rows)
