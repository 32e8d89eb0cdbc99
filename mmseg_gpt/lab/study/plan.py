"""Which runs a study consists of: one set of photographs, one ViT, all methods, at equal budgets.

Learning rates are chosen on the validation images with a seed of its own: first the head's, with nothing else trained,
and then, with that, each method's own for what it trains in the ViT, from one grid for all. Results are of other seeds.
Every run is measured on the validation images; see :mod:`.look` for the test images.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from pprint import pformat
from typing import NamedTuple

from mmengine.config import Config

from ...recipes.experiment import PIXELS, classifier
from ...recipes.linear import PROTOCOLS
from ...recipes.methods import METHODS, options, tokens_per_set
from ...recipes.vits import VITS, settings_of_vit
from ...resources import CONFIGS
from ..rates import SEARCH_SEED, Rates, best_of, iterations, with_rates
from ..runs import Run
from .sets import MIOU, SETS, list_file

COMPARED = ('linear', 'vpt-shallow', 'vpt-deep', 'gates-only', 'temperatures-only', 'gpt', 'hard-gates', 'bias', 'lora',
            'lora-gpt', 'full')
FEW_LABELS = ('linear', 'vpt-deep', 'gpt', 'bias', 'lora', 'full')
PRIOR = -5.  # of soft gates, the most frequent one in Table 5
SGD_HEAD = 0.1


class Gates(NamedTuple):
    """A variant of Gated Prompt Tuning, to see what its gates do.

    Attributes:
        prior: Where the gates start, in gamma.
        trained: Whether they are trained; else they stay there.
        sgd: Whether with SGD at the paper's learning rate, instead of AdamW at that of 'gpt'.
    """
    prior: float
    trained: bool = True
    sgd: bool = False

    @property
    def name(self) -> str:
        """The name in tables, and of its config."""
        return (f'prior {self.prior:g}, {"SGD" if self.sgd else "AdamW"}'
                f'{"" if self.trained else ", gates not trained"}')


GATES = {gates.name: gates for gates in (Gates(prior, trained, sgd) for sgd in (True, False)
                                         for prior in (-10., -5., 0.) for trained in (True, False))}
PAPER = Gates(-10., sgd=True).name


class Preset(NamedTuple):
    """How much is done.

    Attributes:
        name: What the preset is called.
        heads: The grid of learning rates of the head.
        rates: The grid of learning rates of what is trained in the ViT, ascending. The second, the fourth and so on are
            tried, and then the two beside the best of these.
        seeds: The seeds of the results.
        prompts: How many in all; VPT-deep has a twelfth of them in each block.
        iterations: Of every training, where it is not that of the set.
        images: No more than so many images of each class, or None for all.
        methods: Those that are compared.
    """
    name: str
    heads: tuple[float, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    prompts: int = 12
    iterations: int | None = None
    images: int | None = None
    methods: tuple[str, ...] = COMPARED


FULL = Preset('full', heads=(0.001, 0.003, 0.01, 0.03), rates=(8e-6, 4e-5, 2e-4, 1e-3, 5e-3, 2.5e-2, 0.125),
              seeds=(1, 2, 3))
QUICK = Preset('quick', heads=(0.003, 0.01), rates=(2e-4, 1e-3), seeds=(1, 2), iterations=4, images=2,
               methods=('linear', 'gpt', 'lora', 'full'))


class Variant(NamedTuple):
    """What is trained: a method, or a variant of the gates, with a head.

    Attributes:
        method: One of ``METHODS``, or of ``GATES``.
        head: A head of segmentation; '' for the first one, and in classification.
    """
    method: str
    head: str = ''

    @property
    def name(self) -> str:
        """The name of its config, and of its folders."""
        return '_'.join(filter(None, self)).replace(', ', '_').replace(' ', '_')


Chosen = Mapping[Variant, Rates]
LINEAR = Variant('linear')


class Plan:
    """The runs of a study in a folder.

    Args:
        name: One of ``SETS``.
        preset: How much is done.
        home: The folder of lists, configs and runs.
        data: The folder of the photographs.
        vit: One of ``VITS``.
        checkpoint: Its file; None for the one that its config names.
        options: Options of all commands.
    """

    def __init__(self, name: str, preset: Preset, home: Path, data: Path, vit: str = 'dinov2-s',
                 checkpoint: Path | None = None, options: tuple[str, ...] = ()) -> None:
        self.name, self.photographs, self.preset, self.data, self.options = name, SETS[name], preset, data, options
        self.home, self.lists, self.configs, self.runs = home, home / 'lists', home / 'configs', home / 'runs'
        self.vit = vit
        self.settings_of_vit = settings_of_vit(vit)
        if checkpoint:
            self.settings_of_vit['init_cfg']['checkpoint'] = str(checkpoint)

    @property
    def is_segmentation(self) -> bool:
        """Whether pixels are labelled, and not images."""
        return self.photographs.score == MIOU

    def variants(self) -> list[Variant]:
        """Returns what is compared with the first head."""
        return [Variant(method) for method in self.preset.methods]

    def backbone(self, variant: Variant) -> dict:
        """Returns the settings of the ViT and of what adapts it."""
        gates, method = GATES.get(variant.method), 'gpt' if variant.method in GATES else variant.method
        # Hard gates are open in training as often as not; from the prior of the soft ones, few would ever open.
        prior = gates.prior if gates else 0. if METHODS[method].hard else PRIOR
        prompts = tokens_per_set(method, self.preset.prompts, VITS[self.vit].blocks)
        vit = {name: value for name, value in self.settings_of_vit.items() if name not in PIXELS}
        return vit | options(method, prompts, 0. - prior)

    def model(self, variant: Variant) -> dict:
        """Returns the settings of the whole model."""
        backbone, classes, size = self.backbone(variant), self.photographs.classes, self.photographs.size
        if not self.is_segmentation:
            usual = dict(type='GatedPromptViT', img_size=size, out_type=VITS[self.vit].out_type, frozen=True)
            return classifier(usual | backbone, classes, PROTOCOLS['normalised'])
        base = Config.fromfile(CONFIGS / f'_base_/heads/{variant.head or "linear"}.py').model.to_dict()
        whole_patches = dict(test_cfg=dict(size_divisor=backbone.get('patch_size', 16)))
        return base | dict(
            num_classes=classes, crop_size=(size, size), test_cfg=dict(mode='whole'),
            backbone=base['backbone'] | backbone,
            data_preprocessor=base['data_preprocessor'] | self.pixels() | whole_patches)

    def pixels(self) -> dict:
        """Returns the mean and the standard deviation of the pixels that the ViT was trained on."""
        return {name: self.settings_of_vit.get(name, usual) for name, usual in PIXELS.items()}

    def write_configs(self, variants: Iterable[Variant]) -> None:
        """Writes a config for each variant, on top of that of the set."""
        self.configs.mkdir(parents=True, exist_ok=True)
        base = os.path.relpath(CONFIGS / 'photographs' / f'{self.name}.py', self.configs)
        loaders = ('train_dataloader', 'test_dataloader')
        loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=str(self.data)))
        for variant in variants:
            parts = dict(model=dict(_delete_=True, **self.model(variant)), **dict.fromkeys(loaders, loader))
            if self.is_segmentation:
                parts.update(dict.fromkeys(('val_dataloader', 'val_evaluator', 'val_cfg')))
            else:
                parts['data_preprocessor'] = self.pixels()
            if variant.method == 'linear':  # nothing in the backbone has a learning rate
                parts['optim_wrapper'] = dict(paramwise_cfg=dict(_delete_=True, custom_keys={}))
            if not parts['model']['backbone']['frozen']:
                parts['default_hooks'] = dict(checkpoint=dict(adapter_only=False))
            text = '\n'.join([f'# Written by tools/study.py: {self.name}, {", ".join(filter(None, variant))}.',
                              f'_base_ = [{base!r}]', *(f'{name} = {pformat(value, width=110, sort_dicts=False)}'
                                                        for name, value in parts.items())]) + '\n'
            path = self.config(variant)
            if not path.is_file() or path.read_text(encoding='utf-8') != text:
                path.write_text(text, encoding='utf-8')

    def config(self, variant: Variant) -> Path:
        """Returns the config file of a variant."""
        return self.configs / f'{variant.name}.py'

    def run(self, variant: Variant, rates: Rates) -> Run:
        """Returns a training of a variant with its test on the validation images."""
        gates = GATES.get(variant.method, Gates(PRIOR))
        settings = (*self.listed('train', 'train'), *self.listed('test', 'val'), *self.budget(), *self.size())
        run = Run(variant.name, str(self.config(variant)), settings, self.options)
        return with_rates(run, rates, 1. if gates.trained else 0., gates.sgd)

    def budget(self) -> tuple[str, ...]:
        """Returns the settings of batch and iterations."""
        number = self.preset.iterations or self.photographs.iterations
        return (f'train_dataloader.batch_size={self.photographs.batch}', *iterations(number))

    def size(self) -> tuple[str, ...]:
        """Returns the settings of the size of images; for segmentation the config has them."""
        if self.is_segmentation:
            return ()
        size = self.photographs.size
        return (f'train_dataloader.dataset.pipeline.1.scale={size}',
                f'test_dataloader.dataset.pipeline.1.scale={size * 8 // 7}',
                f'test_dataloader.dataset.pipeline.2.crop_size={size}')

    def listed(self, loader: str, split: str) -> tuple[str, ...]:
        """Returns the settings that let a data loader take a split."""
        dataset = f'{loader}_dataloader.dataset'
        folders = (f'{dataset}.data_prefix.img_path={split}', f'{dataset}.data_prefix.seg_map_path={split}annot')
        return (f'{dataset}.ann_file={list_file(self.lists, split)}', *(folders if self.is_segmentation else ()))

    def searches(self, records: Mapping[str, dict], chosen: Chosen) -> dict[Variant, dict[Rates, Run]]:
        """Returns by variant and learning rates the runs by which one is chosen, as far as they are known.

        Args:
            records: The records of runs, by name.
            chosen: What is chosen already; without the rate of the head alone, nothing else can be searched.
        """
        head = chosen.get(LINEAR)
        found = {LINEAR: {each: self.search(LINEAR, each) for each in map(Rates, self.preset.heads)}}
        for variant in self.variants():
            if variant != LINEAR and head:
                coarse = self.coarse(variant, head)
                best = best_of(coarse, records, self.photographs.score)
                found[variant] = coarse | self.beside(variant, best) if best else coarse
        return found

    def coarse(self, variant: Variant, head: Rates) -> dict[Rates, Run]:
        """Returns the runs with every other learning rate of the grid."""
        rates = [Rates(head.head, rate) for rate in self.preset.rates[1::2]]
        return {each: self.search(variant, each) for each in rates}

    def beside(self, variant: Variant, best: Rates) -> dict[Rates, Run]:
        """Returns the runs with the learning rates beside one of the grid."""
        grid = self.preset.rates
        at = grid.index(best.backbone)
        rates = [best._replace(backbone=rate) for rate in (*grid[max(at - 1, 0):at], *grid[at + 1:at + 2])]
        return {each: self.search(variant, each) for each in rates}

    def search(self, variant: Variant, rates: Rates) -> Run:
        """Returns a run of the search."""
        run = self.run(variant, rates)
        return run._replace(name=f'search_{run.name}').with_seed(SEARCH_SEED)

    def choose(self, records: Mapping[str, dict], chosen: Chosen) -> dict[Variant, Rates]:
        """Returns the best learning rates of each variant on the validation images, where all its runs have ended."""
        best = {variant: best_of(runs, records, self.photographs.score)
                for variant, runs in self.searches(records, chosen).items()}
        return {variant: rates for variant, rates in best.items() if rates}
