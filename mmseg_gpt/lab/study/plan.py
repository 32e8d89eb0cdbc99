"""Which runs a study consists of: one set of photographs, one ViT, all methods, at equal budgets.

Learning rates are chosen on the validation images with a seed of its own: first the head's, with nothing else trained,
and then, with that, each method's own for what it trains in the ViT, from one grid for all. Results are of other seeds.
Every run is measured on the validation images; see :mod:`.look` for the test images.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from pprint import pformat
from typing import NamedTuple

from ...files import replacing
from ...recipes.experiment import PIXELS, classifier
from ...recipes.heads import segmentor
from ...recipes.linear import PROTOCOLS
from ...recipes.methods import METHODS, options, tokens_per_set
from ...recipes.vits import VITS, settings_of_vit
from ...resources import CONFIGS
from ..gates import PRIOR
from ..rates import MIOU, Rates, iterations, with_rates
from ..runs import Run
from .sets import SETS, list_file

COMPARED = ('linear', 'vpt-shallow', 'vpt-deep', 'gates-only', 'temperatures-only', 'gpt', 'hard-gates', 'bias', 'lora',
            'lora-gpt', 'full')
WHOLE = (480, 360)  # width and height of a whole image of segmentation, by its config


class GateSetting(NamedTuple):
    """A variant of Gated Prompt Tuning, to see what its gates do.

    Attributes:
        prior: Where the gates start, in gamma.
        trained: Whether they are trained; else they stay there.
        sgd: Whether with SGD at a learning rate of the paper, which is not searched, instead of AdamW at that of 'gpt'.
    """
    prior: float
    trained: bool = True
    sgd: bool = False

    @property
    def name(self) -> str:
        """The name in tables, and of its config."""
        return (f'prior {self.prior:g}, {"SGD" if self.sgd else "AdamW"}'
                f'{"" if self.trained else ", gates not trained"}')


GATES = {gates.name: gates for gates in (GateSetting(prior, trained, sgd) for sgd in (True, False)
                                         for prior in (-10., -5., 0.) for trained in (True, False))}
LOWEST = -10.  # the prior that others are compared with, as in the paper's ADE20K


def compared_with(gates: GateSetting) -> GateSetting | None:
    """Returns the setting beside which one is judged, with the same optimizer; None for the one that others are beside.

    Gates that are held are beside trained ones of the same prior, and trained ones beside those of the lowest prior.
    """
    if not gates.trained:
        return gates._replace(trained=True)
    return None if gates.prior == LOWEST else gates._replace(prior=LOWEST)


class StudySize(NamedTuple):
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


FULL = StudySize('full', heads=(0.001, 0.003, 0.01, 0.03), rates=(8e-6, 4e-5, 2e-4, 1e-3, 5e-3, 2.5e-2, 0.125),
              seeds=(1, 2, 3))
QUICK = StudySize('quick', heads=(0.003, 0.01), rates=(2e-4, 1e-3), seeds=(1, 2), iterations=4, images=2,
               methods=('linear', 'gpt', 'lora', 'full'))


class StudyVariant(NamedTuple):
    """What is trained: a method, or a variant of the gates, with a head, on images of a size.

    Attributes:
        method: One of ``METHODS``, or of ``GATES``.
        head: A head of segmentation; '' for the first one, and in classification.
        scale: Of the images, over their size in the comparison of methods.
    """
    method: str
    head: str = ''
    scale: int = 1

    @property
    def name(self) -> str:
        """The name of its config, and of its folders."""
        parts = (self.method, self.head, f'x{self.scale}' if self.scale > 1 else '')
        return '_'.join(filter(None, parts)).replace(', ', '_').replace(' ', '_')

    @property
    def head_title(self) -> str:
        """What its head is called in tables, with the size of the images where it is another."""
        return f'{self.head or "linear"} head' + (f', {self.scale} x the size' if self.scale > 1 else '')


Chosen = Mapping[StudyVariant, Rates]
LINEAR = StudyVariant('linear')


class StudyPlan:
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

    def __init__(self, name: str, preset: StudySize, home: Path, data: Path, vit: str = 'dinov2-s',
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

    def backbone(self, variant: StudyVariant) -> dict:
        """Returns the settings of the ViT and of what adapts it."""
        gates, method = GATES.get(variant.method), 'gpt' if variant.method in GATES else variant.method
        # Hard gates are open in training as often as not; from the prior of the soft ones, few would ever open.
        prior = gates.prior if gates else 0. if METHODS[method].hard else PRIOR
        prompts = tokens_per_set(method, self.preset.prompts, VITS[self.vit].blocks)
        vit = {name: value for name, value in self.settings_of_vit.items() if name not in PIXELS}
        return vit | options(method, prompts, 0. - prior)

    def model(self, variant: StudyVariant) -> dict:
        """Returns the settings of the whole model."""
        backbone, classes = self.backbone(variant), self.photographs.classes
        size = self.photographs.size * variant.scale
        if not self.is_segmentation:
            usual = dict(type='GatedPromptViT', img_size=size, out_type=VITS[self.vit].out_type, frozen=True)
            return classifier(usual | backbone, classes, PROTOCOLS['normalised'])
        whole_patches = dict(test_cfg=dict(size_divisor=backbone.get('patch_size', 16)))
        return segmentor(variant.head or 'linear', backbone, classes, size, self.pixels() | whole_patches)

    def pixels(self) -> dict:
        """Returns the mean and the standard deviation of the pixels that the ViT was trained on."""
        return {name: self.settings_of_vit.get(name, usual) for name, usual in PIXELS.items()}

    def write_config(self, variant: StudyVariant) -> Path:
        """Writes the config of a variant, on top of that of the set, and returns its file."""
        self.configs.mkdir(parents=True, exist_ok=True)
        base = os.path.relpath(CONFIGS / 'photographs' / f'{self.name}.py', self.configs)
        loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=str(self.data)))
        parts = dict(model=dict(_delete_=True, **self.model(variant)), train_dataloader=loader, test_dataloader=loader)
        if self.is_segmentation:
            parts['test_dataloader'] = dict(loader, batch_size=4)  # whole images are of one size
            parts.update(dict.fromkeys(('val_dataloader', 'val_evaluator', 'val_cfg')))
        else:
            parts['data_preprocessor'] = self.pixels()
        if variant.method == 'linear':  # nothing in the backbone has a learning rate
            parts['optim_wrapper'] = dict(paramwise_cfg=dict(_delete_=True, custom_keys={}))
        if not parts['model']['backbone']['frozen']:
            parts['default_hooks'] = dict(checkpoint=dict(adapter_only=False))
        text = '\n'.join(f'{name} = {pformat(value, width=110, sort_dicts=False)}' for name, value in parts.items())
        path = self.configs / f'{variant.name}.py'
        # One that inherits from another clone's stays, as runs may be going on with it.
        if not path.is_file() or not path.read_text(encoding='utf-8').endswith(f']\n{text}\n'):
            with replacing(path) as unfinished:
                unfinished.write_text(f'# Written by tools/study.py: {self.name}, {variant.name}.\n'
                                      f'_base_ = [{base!r}]\n{text}\n', encoding='utf-8')
        return path

    def run(self, variant: StudyVariant, rates: Rates, searching: bool = False) -> Run:
        """Returns a training of a variant with its test on the validation images; its config is written.

        Args:
            variant: What is trained.
            rates: Its learning rates.
            searching: Whether something is chosen by it, and it may be shorter than a result.
        """
        gates = GATES.get(variant.method, GateSetting(PRIOR))
        settings = (*self.listed('train', 'train'), *self.listed('test', 'val'), *self.budget(variant, searching),
                    *self.size(variant), *(('optim_wrapper.optimizer.weight_decay=0', ) if gates.sgd else ()))
        run = Run(variant.name, str(self.write_config(variant)), settings, self.options)
        return with_rates(run, rates, 1. if gates.trained else 0., gates.sgd)

    def budget(self, variant: StudyVariant, searching: bool) -> tuple[str, ...]:
        """Returns the settings of batch and iterations."""
        return f'train_dataloader.batch_size={self.photographs.batch}', *iterations(self.iterations(variant, searching))

    def iterations(self, variant: StudyVariant, searching: bool = False) -> int:
        """Returns how many iterations a training has."""
        usual = self.photographs.iterations if variant.scale == 1 else self.photographs.longer
        return self.preset.iterations or (self.photographs.searching if searching else usual)

    def size(self, variant: StudyVariant) -> tuple[str, ...]:
        """Returns the settings of the size of images, where they are not those of the config."""
        train, test = (f'{loader}_dataloader.dataset.pipeline' for loader in ('train', 'test'))
        size = self.photographs.size * variant.scale
        if not self.is_segmentation:
            return f'{train}.1.scale={size}', f'{test}.1.scale={size * 8 // 7}', f'{test}.2.crop_size={size}'
        if variant.scale == 1:
            return ()
        whole = '({},{})'.format(*(side * variant.scale for side in WHOLE))
        return f'{train}.2.scale={whole}', f'{train}.3.crop_size=({size},{size})', f'{test}.1.scale={whole}'

    def listed(self, loader: str, split: str) -> tuple[str, ...]:
        """Returns the settings that let a data loader take a split."""
        dataset = f'{loader}_dataloader.dataset'
        folders = (f'{dataset}.data_prefix.img_path={split}', f'{dataset}.data_prefix.seg_map_path={split}annot')
        return (f'{dataset}.ann_file={list_file(self.lists, split)}', *(folders if self.is_segmentation else ()))
