"""Which runs the miniature consists of.

Every method has the same ViTs, data, iterations and batches. Learning rates are chosen for each task and ViT on the
validation images, with a seed of its own: first the head's, with nothing else trained, and then, with that, each
method's own for what it trains in the backbone, from one grid for all. Results are of other seeds, on the test images.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ... import resources
from ...recipes.methods import METHODS, options, tokens_per_set
from ...recipes.vits import VITS as PRETRAINED
from ..gates import PRIOR, SGD_HEAD
from ..rates import MIOU, SEARCH_SEED, Rates, best_of, iterations, with_rates
from ..runs import Run
from ..suite.plans import ACCURACY

CONFIGS = resources.CONFIGS / 'replication'
TASKS = ('scenes', 'breeds', 'distances')
CLASSIFICATION = TASKS[1:]
VITS = ('mae', 'mocov3', 'supervised')
DEPTH = 12


class Gates(NamedTuple):
    """A variant of 'gpt', to see what its gates do.

    Attributes:
        prior: Where the gates start, in gamma.
        times: The gates' learning rate over that of prompts and temperatures.
        sgd: A learning rate for SGD with momentum 0.9, as in the paper, instead of AdamW and the search. The head has
            0.1.
    """
    prior: float
    times: float = 1.
    sgd: float | None = None


GATES = {
    'prior -10': Gates(-10.),
    'prior -10, gates not trained': Gates(-10., 0.),
    'prior -10, gates at 10 x the rate': Gates(-10., 10.),
    'prior 0': Gates(0.),
    'prior 0, gates not trained': Gates(0., 0.),
    'prior 10': Gates(10.),
    'prior -10, SGD at 0.001': Gates(-10., sgd=0.001),
    'prior -10, SGD at 0.1': Gates(-10., sgd=0.1),
    'prior -5, SGD at 0.1': Gates(-5., sgd=0.1),
    'prior 0, SGD at 0.1': Gates(0., sgd=0.1),
}
# The published runs trained the ViT's own biases, which rounding and weight decay tell from updates of them.
AS_PUBLISHED = dict(bias=dict(prompt=None, type='BiasTunedViT', frozen=False))
GPT, PAPER = 'prior -5, as in the tables', 'prior -10, SGD at 0.001'
GATE_TASKS = ('scenes', 'breeds')


class Preset(NamedTuple):
    """How much is done.

    Attributes:
        name: What the preset is called.
        images: How many, by dataset and split.
        pretraining: Iterations by ViT.
        iterations: Iterations of an adaptation, by task.
        heads: The grid of learning rates of the head.
        rates: The grid of learning rates of what is trained in the backbone.
        seeds: The seeds of the results.
        prompts: How many in all; VPT-deep has a twelfth of them in each block.
        starts: Blocks at which prompts enter in Figure 1, counted from 1.
        counts: Numbers of prompts in Figure 7, by method.
        common: The learning rate of what is trained in the backbone in Figure 4, the same for all.
        vits: The ViTs of the tables.
        methods: The methods of the tables; 'linear' is one of them.
        gates: Names in ``GATES``.
    """
    name: str
    images: Mapping[str, Mapping[str, int]]
    pretraining: Mapping[str, int]
    iterations: Mapping[str, int]
    heads: tuple[float, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    prompts: int
    starts: tuple[int, ...]
    counts: Mapping[str, tuple[int, ...]]
    common: float
    vits: tuple[str, ...] = VITS
    methods: tuple[str, ...] = tuple(METHODS)
    gates: tuple[str, ...] = tuple(GATES)


FULL = Preset(
    'full',
    dict(pretraining=dict(train=12000), scenes=dict(train=1500, val=150, test=200),
         breeds=dict(train=2400, val=480, test=1200), distances=dict(train=2400, val=480, test=1200)),
    dict(mae=1500, mocov3=1500, supervised=1500), dict(scenes=300, breeds=200, distances=200),
    heads=(0.005, 0.02, 0.1, 0.5, 2.), rates=(0.0002, 0.001, 0.01, 0.1, 0.5, 2.), seeds=(1, 2, 3), prompts=12,
    starts=(1, 4, 8, 10, 11, 12),
    counts={'gpt': (1, 3, 12, 24, 48), 'vpt-deep': (12, 24, 48, 96)}, common=0.1)
QUICK = Preset(
    'quick',
    dict(pretraining=dict(train=96), scenes=dict(train=16, val=8, test=8),
         breeds=dict(train=24, val=12, test=24), distances=dict(train=20, val=10, test=20)),
    dict(mae=4, mocov3=4, supervised=4), dict(scenes=4, breeds=4, distances=4),
    heads=(0.1, 0.5), rates=(0.01, ), seeds=(1, 2), prompts=12, starts=(1, 12),
    counts={'gpt': (1, 12), 'vpt-deep': (12, )}, common=0.01, vits=('mae', 'mocov3'),
    gates=('prior 0', 'prior -10, SGD at 0.001'))


class Adaptation(NamedTuple):
    """A cell of the grid of tasks, ViTs and methods: what a learning rate is chosen for.

    Attributes:
        task: One of ``TASKS``.
        vit: One of ``VITS``.
        method: A method, or a variant of the gates.
    """
    task: str
    vit: str
    method: str

    @property
    def name(self) -> str:
        """The name of its folders."""
        return '_'.join(self).replace(', ', '_').replace(' ', '_')


Chosen = Mapping[Adaptation, Rates]


class Plan:
    """The runs of a preset in a folder.

    Args:
        preset: How much is done.
        home: The folder of data, runs and configs.
        options: Options of all commands.
    """

    def __init__(self, preset: Preset, home: Path, options: tuple[str, ...] = ()) -> None:
        self.preset, self.home, self.options = preset, home, options
        self.data, self.runs, self.configs = home / 'data', home / 'runs', home / 'configs'

    def pretrainings(self) -> list[Run]:
        """Returns the pretrainings of the ViTs."""
        root = f'train_dataloader.dataset.data_root={self.data}'
        return [Run(f'pretrain_{vit}', str(CONFIGS / f'{vit}_pretrain.py'),
                    (root, *iterations(self.preset.pretraining[vit])), self.options, tested=False)
                for vit in self.preset.vits]

    def cells(self) -> list[Adaptation]:
        """Returns the cells of the tables."""
        return [Adaptation(task, vit, method)
                for vit in self.preset.vits for task in TASKS for method in self.preset.methods]

    def gate_cells(self) -> list[Adaptation]:
        """Returns the cells of the variants of gates, on the MAE ViT; their names stand in the place of a method's."""
        return [Adaptation(task, 'mae', name) for task in GATE_TASKS for name in self.preset.gates]

    def write_configs(self) -> None:
        """Writes a config for each cell, on top of its task's."""
        self.configs.mkdir(parents=True, exist_ok=True)
        for cell in [*self.cells(), *self.gate_cells()]:
            base = os.path.relpath(CONFIGS / f'{cell.task}.py', self.configs)
            backbone = self.backbone(cell)
            text = (f'# Written by tools/replicate.py: {", ".join(cell)}.\n_base_ = [{base!r}]\n'
                    f'model = dict(backbone={backbone!r})\n')
            path = self.config(cell)
            if not path.is_file() or path.read_text() != text:
                path.write_text(text)

    def config(self, cell: Adaptation) -> Path:
        """Returns the config file of a cell."""
        return self.configs / f'{cell.name}.py'

    def backbone(self, cell: Adaptation) -> dict:
        """Returns the settings in which a cell's backbone differs from its task's, which has gates and temperatures."""
        gates, method = GATES.get(cell.method), 'gpt' if cell.method in GATES else cell.method
        # Hard gates are open in training as often as not; from the prior of the soft ones, few would ever open.
        prior = gates.prior if gates else 0. if METHODS[method].hard else PRIOR
        prompts = tokens_per_set(method, self.preset.prompts, DEPTH)
        settings = dict(temperature=False) | AS_PUBLISHED.get(method, options(method, prompts, 0. - prior))
        if settings['prompt']:
            settings['prompt']['_delete_'] = True
        if cell.task in CLASSIFICATION and PRETRAINED[cell.vit].family == 'mocov3':
            settings['out_type'] = PRETRAINED[cell.vit].out_type
        return dict(settings, init_cfg=dict(checkpoint=str(self.runs / f'pretrain_{cell.vit}' / 'vit.pth')))

    def run(self, cell: Adaptation, rates: Rates) -> Run:
        """Returns a training of a cell with its tests on the test images."""
        root = self.data / 'scenes' if cell.task == 'scenes' else self.data
        places = [f'{split}_dataloader.dataset.data_root={root}' for split in ('train', 'test')]
        # Variants of gates are not tested multi-scale.
        run = Run(cell.name, str(self.config(cell)), (*places, *iterations(self.preset.iterations[cell.task])),
                  self.options, tta=cell.task == 'scenes' and cell.method in METHODS)
        gates = GATES.get(cell.method, Gates(PRIOR))
        return with_rates(run, rates, gates.times, sgd=bool(gates.sgd))

    def searches(self, chosen: Chosen) -> dict[Adaptation, dict[Rates, Run]]:
        """Returns by cell and learning rates the runs on validation images by which one is chosen.

        Args:
            chosen: What is chosen already; without the rate of the head alone, nothing else can be searched.
        """
        found = {}
        for cell in [*self.cells(), *self.gate_cells()]:
            head = chosen.get(cell._replace(method='linear'))
            if cell.method == 'linear':
                rates = [Rates(head) for head in self.preset.heads]
            elif cell.method in GATES and GATES[cell.method].sgd:
                continue
            else:
                rates = [Rates(head.head, rate) for rate in self.preset.rates] if head else []
            found[cell] = {each_rate: self.search(cell, each_rate) for each_rate in rates}
        return found

    def search(self, cell: Adaptation, rates: Rates) -> Run:
        """Returns a run that is tested on the validation images."""
        parts = dict(img_path='images', seg_map_path='annotations')
        validation = ([f'test_dataloader.dataset.data_prefix.{key}={part}/val' for key, part in parts.items()]
                      if cell.task == 'scenes' else [f'test_dataloader.dataset.data_prefix={cell.task}/val'])
        run = self.run(cell, rates)
        return run._replace(name=f'search_{run.name}', settings=(*run.settings, *validation), tta=False).with_seed(
            SEARCH_SEED)

    def choose(self, records: Mapping[str, dict], chosen: Chosen) -> dict[Adaptation, Rates]:
        """Returns the best learning rates of each cell on the validation images, where all its runs have ended.

        A run that diverged is as bad as one can be; one that failed otherwise says nothing of its learning rate.

        Args:
            records: The records of runs, by name.
            chosen: What is known already, as for :meth:`searches`.
        """
        best = {cell: Rates(SGD_HEAD, gates.sgd) for cell in self.gate_cells() if (gates := GATES[cell.method]).sgd}
        for cell, runs in self.searches(chosen).items():
            if found := best_of(runs, records, score(cell.task)):
                best[cell] = found
        return best


def score(task: str) -> str:
    """Returns which number of a task counts."""
    return MIOU if task == 'scenes' else ACCURACY
