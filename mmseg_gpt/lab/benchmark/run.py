"""The benchmark from its options to its numbers."""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from ...environment import peak_resident_bytes
from .costs import count_costs
from .cuda import allocated_peak, attention_kernels, fits_in_memory, largest_that_fits, let_go, why_too_large
from .machine import describe, rates
from .parity import check_parity
from .processes import ALLOCATORS, run_again
from .sweep import sweep
from .sweep_figure import plot
from .timing import measure, summarise
from .variants import Sizes, Variant, build, draw_weights, parse_variant, read_config
from .work import Evaluation, MultiScaleEvaluation, TrainingStep, make_batch, windows

TIMED = ('train', 'eval', 'tta')
MOST_COUNTED = 2  # images of a step whose costs are counted: more take minutes, and cost as much each
THIS = 'this'


@dataclass
class Options:
    """Options of the benchmark.

    Attributes:
        config: The config of our model.
        sizes: Sizes of models and images.
        variants: Names of the variants, see :func:`.variants.parse_variant`.
        what: Any of 'train', 'eval', 'tta' (times), 'costs' (memory, FLOPs, checkpoint, without a clock), 'floor',
            'rss', 'kernels', 'largest-batch'.
        device: Device to measure on.
        rounds: Number of measurements of each time.
        warmup: Rounds before these, which do not count.
        seed: Seed of weights, images and orders.
        against: The variant with which the others are compared.
        allocators: On a CPU, the allocators to measure times with; 'this' is the one of this process.
        images: Number of images evaluated at once.
        small: Whether to be quick rather than exact.
        parity: Whether to check parity; False if the process that started this one has checked it.
        command: The tool and its arguments, for further runs in new processes.
    """
    config: str
    sizes: Sizes
    variants: list[str]
    what: set[str]
    device: torch.device
    rounds: int = 10
    warmup: int = 2
    seed: int = 0
    against: str = 'paper'
    allocators: list[str] = field(default_factory=lambda: [THIS])
    images: int = 1
    small: bool = False
    parity: bool = True
    command: list[str] = field(default_factory=list)


def run(options: Options, keep: Callable[[dict], None] = lambda results: None) -> dict:
    """Checks parity, then makes the measurements in ``options.what``.

    Args:
        options: What to measure, and of what.
        keep: Is given the numbers so far after each part, so that none is lost where a later part fails.

    Returns:
        dict: All numbers, in plain types; :mod:`.tables` prints them. ``not_run`` says of which there is none, and why.

    Raises:
        ParityError: variants that should compute the same do not; then nothing is measured.
    """
    cfg = read_config(options.config)
    torch.backends.cudnn.benchmark = cfg.env_cfg.cudnn_benchmark
    parity = check_parity(cfg, options.seed, options.device) if options.parity else {}
    counted = replace(options.sizes, batch=min(options.sizes.batch, MOST_COUNTED))
    results = dict(setting(options), parity=parity, against=options.against, images=options.images,
                   windows=windows(cfg, options.sizes), counted=counted.batch, not_run={})
    variants = [parse_variant(name) for name in options.variants]
    if 'costs' in options.what or 'floor' in options.what:
        results['costs'] = {v.name: count_costs(v, cfg, counted) for v in variants if not v.compiled}
        keep(results)
    if options.what.intersection(TIMED):
        results['times'] = time_with_allocators(options, cfg, variants, results['not_run'])
        keep(results)
    if 'floor' in options.what:
        results['rates'] = rates(options.device, options.small)
        results['floor'] = {what: floor(results, what) for what in ('train', 'eval')}
        keep(results)
    if 'rss' in options.what:
        results['rss'] = {v.name: run_again([*options.command, '--variants', v.name, '--only', 'train', '--rounds', '1',
                                             '--warmup', '1', '--allocators', THIS])['resident']
                          for v in variants}
    for variant in (v for v in variants if not v.compiled):
        ask_device(options, cfg, variant, results)
        keep(results)
    return dict(results, resident=peak_resident_bytes())


def setting(options: Options) -> dict:
    """Returns the facts that are needed to understand and repeat a measurement."""
    return dict(command=options.command, machine=describe(options.device),
                sizes=dict(asdict(options.sizes), depth=options.sizes.vit['num_layers']))


def run_sweep(options: Options, axes: dict[str, list[int]], prefix: str) -> dict:
    """Checks parity, then measures costs by size, writes them to PREFIX.json and PREFIX.png, and returns them."""
    cfg = read_config(options.config)
    results = dict(setting(options), parity=check_parity(cfg, options.seed))
    results['sweep'] = sweep(options.variants, cfg, options.sizes, axes, options.device, options.rounds,
                             timed='train' in options.what)
    write_json(results, f'{prefix}.json')
    plot(results['sweep'], f'{prefix}.png')
    return results


def write_json(results: dict, path: str | Path) -> None:
    """Writes numbers to a JSON file that people can read too."""
    Path(path).write_text(json.dumps(results, indent=2) + '\n')


def time_with_allocators(options: Options, cfg: Config, variants: list[Variant], not_run: dict) -> dict:
    """Measures times by allocator: in this process, or in a new process for each allocator."""
    if options.allocators == [THIS] or platform.libc_ver()[0] != 'glibc':
        return {this_allocator(): measure_times(options, cfg, variants, not_run)}
    times = {}
    for name in options.allocators:
        print(f'allocator {name}:', flush=True)
        child = run_again([*options.command, '--only', ','.join(options.what.intersection(TIMED)), '--allocators',
                           THIS], name)
        not_run.update(child['not_run'])
        times[name], = child['times'].values()
    return times


def this_allocator() -> str:
    """Returns the name of the allocator settings with which this process was started, or the settings themselves."""
    settings = {k: v for k, v in os.environ.items() if k.startswith('MALLOC_')}
    names = [name for name, wanted in ALLOCATORS.items() if wanted == settings]
    return names[0] if names else ' '.join(f'{k}={v}' for k, v in settings.items())


def measure_times(options: Options, cfg: Config, variants: list[Variant], not_run: dict[str, str]) -> dict:
    """Measures times in this process, by kind of work and then by variant; adds reasons for failures to ``not_run``."""
    weights = draw_weights(cfg, options.sizes, options.seed)
    models = {}
    for variant in variants:
        models[variant] = build(variant.model, cfg, options.sizes, weights).to(options.device)
        if variant.compiled:
            models[variant].backbone.compile()
    times = {}
    for what in (what for what in TIMED if what in options.what):
        work = {v.name: make_work(what, v, model, cfg, options) for v, model in models.items()}
        for name in list(work):
            if reason := why_not(work[name]):
                not_run[f'{name}, {what}'] = reason
                del work[name]
                let_go()
        print(f'{what}: {len(work)} variants, {options.warmup} + {options.rounds} rounds', flush=True)
        seconds = measure(work, options.rounds, options.warmup, options.seed, options.device)
        times[what] = summarise(seconds, options.against)
    return times


def why_not(work: Callable[[], object]) -> str | None:
    """Runs ``work`` for the first time, which may compile it, and returns the reason if it cannot be done."""
    try:
        work()
    except TorchDynamoException as error:
        return ' '.join(str(error).split('\n\n')[0].split())
    except RuntimeError as error:
        if (reason := why_too_large(error)) is None:
            raise
        return reason
    return None


def make_work(what: str, variant: Variant, model: nn.Module, cfg: Config,
              options: Options) -> TrainingStep | Evaluation:
    """Makes the work of one variant for one of ``TIMED``."""
    device, sizes = options.device, options.sizes
    if what == 'train':
        return TrainingStep(model, cfg, make_batch(sizes, options.seed, device), variant.bf16)
    if what == 'eval':
        return Evaluation(model, sizes, device, variant.bf16, options.images)
    return MultiScaleEvaluation(model, sizes, device, variant.bf16, cfg, own=variant.model.startswith('ours'))


def floor(results: dict, what: str) -> dict[str, dict]:
    """Computes the least time that the counted work can take at the measured rates.

    Returns:
        dict: Seconds by variant: ``flops``; ``traffic``, for all bytes in and out of each operation, an upper bound;
        ``weights``, for reading each weight once, a lower bound; and ``share`` by allocator, the share of ``flops`` in
        the median time, which is the share of the matrix rate that is reached.
    """
    found, rate = {}, results['rates']
    for name, costs in results['costs'].items():
        count = results['sizes']['batch'] / results['counted'] if what == 'train' else results['images']
        seconds = count * costs[what]['flops'] / rate['bfloat16' if parse_variant(name).bf16 else 'float32']
        medians = {allocator: times[what][name]['median'] for allocator, times in results.get('times', {}).items()
                   if name in times.get(what, {})}
        found[name] = dict(
            flops=seconds, traffic=count * costs[what]['traffic'] / rate['bandwidth'],
            weights=costs['checkpoint']['whole'] / rate['bandwidth'],
            share={allocator: seconds / median for allocator, median in medians.items()})
    return found


def ask_device(options: Options, cfg: Config, variant: Variant, results: dict) -> None:
    """Finds out which attention kernels a variant runs and, on CUDA, its memory and the largest batch.

    Args:
        options: What to find out.
        cfg: The config of our model.
        variant: The variant.
        results: Where to add what was found, and reasons for what was not.
    """
    device, on_gpu = options.device, options.device.type == 'cuda'
    step = partial(new_step, variant, cfg, options)
    asked = dict(
        kernels=('kernels', lambda: attention_kernels(step(options.sizes.batch).features, device)),
        allocated=('costs', lambda: allocated_peak(step(options.sizes.batch), device)),
        largest_batch=('largest-batch', lambda: largest_that_fits(partial(fits_in_memory, step))))
    for key, (wanted, find) in asked.items():
        if wanted not in options.what or not (on_gpu or key == 'kernels'):
            continue
        let_go()  # of the models before
        try:
            results.setdefault(key, {})[variant.name] = find()
        except RuntimeError as error:
            results['not_run'][f'{variant.name}, {key}'] = ' '.join(str(error).split())[:200]


def new_step(variant: Variant, cfg: Config, options: Options, batch: int) -> TrainingStep:
    """Makes a training step of a new model, with ``batch`` images."""
    model = build(variant.model, cfg, options.sizes).to(options.device)
    images = make_batch(replace(options.sizes, batch=batch), options.seed, options.device)
    return TrainingStep(model, cfg, images, variant.bf16)
