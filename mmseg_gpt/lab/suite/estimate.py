"""How long the paper's tables take on so many GPUs, reckoned before anything is started.

What is reckoned, and what is assumed:

* How many images each run trains on and evaluates follows from its config and the sizes of the datasets.
* How many floating point operations an image takes follows from the sizes of the ViT and the number of tokens; for
  SETR-PUP on ADE20K it is what ``tools/benchmark.py`` has counted, with any number of prompts.
* Time is taken to be in proportion to operations, with a rate for training and one for evaluation. Both come from the
  images per second of the benchmark's model, which somebody has measured on the GPU in question. This is too optimistic
  for small images and small ViTs, which use a GPU less well, and where loading images is what takes the time.
* An image at several scales with flips takes its windows' operations: the areas of all views together.
* A run has one GPU. The runs start in their order, each on the GPU that is free first, ``START`` seconds after that.
"""

import heapq
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from ...models.vit import ARCHS
from ...recipes.methods import METHODS
from ...recipes.protocols import images
from ...wording import markdown_table
from ..runs import Run, config_of
from .plans import Table

START = 60  # seconds from a free GPU to the first iteration: starting, reading the ViT, looking at the data
# Training, validation and test images. FGVC and VTAB-1K: Visual Prompt Tuning (ECCV 2022), appendix, table of datasets.
IMAGES = {
    'cub': (5394, 600, 5794), 'nabirds': (21536, 2393, 24633), 'flowers': (1020, 1020, 6149),
    'dogs': (10800, 1200, 8580), 'cars': (7329, 815, 8041), 'ade20k': (20210, 2000, 2000),
    **{task: (1000, 0, test) for task, test in dict(
        cifar100=10000, caltech101=6084, dtd=1880, flowers102=6149, pets=3669, svhn=26032, sun397=21750, camelyon=32768,
        eurosat=5400, resisc45=6300, retinopathy=42670, clevr_count=15000, clevr_dist=15000, dmlab=22735,
        kitti_dist=711, dspr_loc=73728, dspr_ori=73728, snorb_azim=12150, snorb_elev=12150).items()}}
# Operations for one image with ViT-B/16, SETR-PUP and 100 prompts. tools/benchmark.py counts them: see
# docs/performance.md.
BENCHMARKED = dict(train=995.8e9, eval=695.3e9)  # a training image of 512 x 512, an evaluated one of 512 x 683


class Work(NamedTuple):
    """What a run has to do.

    Attributes:
        trained: Images, each as often as it is seen.
        evaluated: Images.
        train_flops: Operations of all training.
        eval_flops: Operations of all evaluation.
    """
    trained: float
    evaluated: float
    train_flops: float
    eval_flops: float


class OperationRates(NamedTuple):
    """Operations per second.

    Attributes:
        train: In training.
        eval: In evaluation.
        source: Where they are from, for people.
    """
    train: float
    eval: float
    source: str


def rates_by_hand(train: float, evaluated: float) -> OperationRates:
    """Returns rates from the images per second of the benchmark's model, in training and in evaluation."""
    return OperationRates(train * BENCHMARKED['train'], evaluated * BENCHMARKED['eval'],
                 f'given: {train:g} training and {evaluated:g} evaluated images a second of the benchmark\'s model')


def rates_of_benchmark(path: Path, variant: str = 'ours') -> OperationRates:
    """Returns the rates that ``tools/benchmark.py --json`` has measured.

    Args:
        path: The file.
        variant: Which model of it.

    Raises:
        ValueError: it is not there, or has not measured training, evaluation and operations of that model.
    """
    if not path.is_file():
        raise ValueError(f'there is no file {path}; mmseg-gpt benchmark --what train,eval,costs --json FILE writes one')
    try:
        known = json.loads(path.read_text())
        way, times = next(iter(known['times'].items()))
        # Steps are timed with more images than operations are counted for; in files that do not say, with as many.
        batch = known['sizes']['batch']
        images = dict(train=batch / known.get('counted', batch), eval=known.get('images', 1))
        found = {what: images[what] * known['costs'][variant][what]['flops'] / times[what][variant]['median']
                 for what in ('train', 'eval')}
        device = known['machine']['device']
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise ValueError(f'{path} has no times and costs of "{variant}" ({type(error).__name__}: {error}); '
                         'mmseg-gpt benchmark --what train,eval,costs --json FILE writes them') from error
    cpu = known['machine'].get('type') == 'cpu'
    threads = f' with {known["machine"]["threads"]} threads, which stands for a GPU here' if cpu else ''
    return OperationRates(**found, source=f'measured on {device}{threads} ({path.name}: {variant}, allocator {way})')


def forward_flops(arch: Mapping, tokens: int, patches: int, patch_size: int) -> tuple[float, float]:
    """Returns a ViT's operations for an image: those of its linear layers, and those of attention.

    Args:
        arch: ``embed_dims``, ``num_layers`` and ``mlp_ratio``.
        tokens: All, in each block.
        patches: Those of the image.
        patch_size: In pixels.
    """
    width, blocks = arch['embed_dims'], arch['num_layers']
    linear = blocks * tokens * width**2 * (8 + 4 * arch['mlp_ratio']) + 2 * patches * 3 * patch_size**2 * width
    return linear, blocks * 4 * tokens**2 * width


@cache
def work_of(run: Run, method: str, task: str) -> Work:
    """Returns what a run has to do."""
    cfg = config_of(run)
    number, held_out, tested = IMAGES[task]
    if cfg.train_cfg.get('by_epoch') or 'max_epochs' in cfg.train_cfg:
        trained, rounds = cfg.train_cfg.max_epochs * number, cfg.train_cfg.max_epochs // cfg.train_cfg.val_interval
    else:
        trained = cfg.train_cfg.max_iters * cfg.train_dataloader.batch_size
        rounds = cfg.train_cfg.max_iters // cfg.train_cfg.val_interval
    validated = 0
    if cfg.get('val_dataloader'):  # by the authors' protocol, of test images
        of_tests = images(cfg.val_dataloader.dataset) == images(cfg.test_dataloader.dataset)
        validated = rounds * (tested if of_tests else held_out)
    if task == 'ade20k':
        whole = (validated + tested * (1 + views(cfg) * run.tta))
        return Work(trained, whole, trained * BENCHMARKED['train'], whole * BENCHMARKED['eval'])
    linear, attention = forward_flops(*shape(cfg))
    # Backward: of linear layers the gradient of the input, and of weights that are trained; of attention both factors;
    # in frozen blocks before the first prompts nothing, nor in the whole ViT where only the head is trained.
    frozen, adapts = METHODS[method].frozen, METHODS[method].adapts
    below = cfg.model.backbone.get('start_block', 0) / shape(cfg)[0]['num_layers'] if frozen else 0
    backward = (linear * (1 if frozen else 2) + 2 * attention) * (1 - below) if adapts or not frozen else 0
    return Work(trained, validated + tested, trained * (linear + attention + backward),
                (validated + tested) * (linear + attention))


def shape(cfg: Config) -> tuple[Mapping, int, int, int]:
    """Returns the arguments of :func:`forward_flops` for a model of classification."""
    backbone = cfg.model.backbone
    size, patch_size = backbone.get('img_size', 224), backbone.get('patch_size', 16)
    patches = ((size if isinstance(size, int) else size[0]) // patch_size)**2
    prompts = (backbone.get('prompt') or {}).get('num_tokens', 0)
    arch = backbone.get('arch', 'base')
    arch = arch if isinstance(arch, Mapping) else ARCHS[arch]
    return arch, patches + 1 + prompts, patches, patch_size


def views(cfg: Config) -> float:
    """Returns how many times the pixels of the image all views of test-time augmentation have together."""
    resizes, flips = cfg.tta_pipeline[1].transforms[:2]
    return len(flips) * sum((min(step.scale) / 512)**2 for step in resizes)


def seconds_of(work: Work, rates: OperationRates) -> float:
    """Returns how long a run takes on one GPU."""
    return START + work.train_flops / rates.train + work.eval_flops / rates.eval


def finished_after(seconds: Sequence[float], places: int) -> float:
    """Returns when the last run ends if each starts in its order on the place that is free first."""
    free = [0.] * places
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def estimate(tables: Mapping[str, Table], seeds: Sequence[int], rates: OperationRates | None, places: Sequence[int],
             price: float | None = None) -> str:
    """Returns the estimate as Markdown; what follows from rates is left blank where there are none.

    Args:
        tables: By name; runs that several share are counted in the first.
        seeds: Each run is done once for each.
        rates: What has been measured.
        places: Numbers of GPUs.
        price: Of an hour of a GPU, in any currency.
    """
    rows, counted, seconds = [], set(), []
    for name, table in tables.items():
        new = {entry.run: entry for entry in table.entries if entry.run not in counted}
        counted.update(new)
        works = [work_of(run, entry.method, entry.task) for run, entry in new.items()] * len(seeds)
        taken = [seconds_of(work, rates) for work in works] if rates else []
        seconds += taken
        rows.append(row_of(name, works, taken))
    of_tables = [row for row in rows if not row[0].startswith('figure')]
    shown = [*rows, *([['**all tables**', *sums(of_tables)]] if len(rows) > len(of_tables) > 1 else []),
             ['**all**', *sums(rows)]]
    lines = [markdown_table(('table', 'runs', 'images trained', 'images evaluated', 'PFLOP', 'GPU-hours'),
                            [[name, *map(said, numbers)] for name, *numbers in shown]), '',
             markdown_table(('GPUs', 'hours', 'days', 'of the GPUs used'), [
                 (str(n), *(time_of(seconds, n) if rates else ('', '', ''))) for n in places]), '']
    if rates:
        hours = sum(seconds) / 3600
        lines += [f'Cost: {hours:,.0f} GPU-hours at {price:g} are {hours * price:,.0f}.'] if price is not None else []
        lines += [f'Rates: {rates.source}.', f'The longest run takes {max(seconds) / 3600:,.1f} h.']
    else:
        lines.append('No rate is known: --benchmark FILE reads one, --images-per-second TRAIN EVAL gives one.')
    return '\n'.join([*lines, f'Time is taken to be in proportion to operations, and {START} s are added for the start '
                      'of each run. Runs that tables share are counted once.'])


def row_of(name: str, works: Sequence[Work], seconds: Sequence[float]) -> list:
    """Returns a table's row: name, runs, images trained and evaluated, PFLOP, and GPU-hours (None if not known)."""
    flops = sum(work.train_flops + work.eval_flops for work in works)
    return [name, len(works), sum(work.trained for work in works), sum(work.evaluated for work in works), flops / 1e15,
            sum(seconds) / 3600 if seconds or not works else None]


def sums(rows: Sequence[Sequence]) -> list:
    """Returns the sums of the columns of numbers; None for one with a number that is not known."""
    return [None if None in column else sum(column) for column in list(zip(*rows))[1:]]


def said(number: float | None) -> str:
    """Returns a number as people write it; '' for none."""
    if number is None:
        return ''
    return f'{number:,.1f}' if isinstance(number, float) and 0 < number < 100 else f'{number:,.0f}'


def time_of(seconds: Sequence[float], places: int) -> tuple[str, str, str]:
    """Returns hours and days until all runs have ended, and how much of the GPUs is used until then."""
    end = finished_after(seconds, places)
    return f'{end / 3600:,.1f}', f'{end / 86400:,.1f}', f'{sum(seconds) / end / places:.0%}'
