"""How fast a device trains and evaluates, what of its speed is used, and by which kernels."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from mmengine.optim import OptimWrapper
from torch import nn
from torch.profiler import ProfilerActivity, profile

from ...engine.graphed import CudaGraph, GraphedStep, why_not_graphed
from ...engine.hooks.compile import Compiled
from ...engine.precision import Bf16OptimWrapper
from ..benchmark.costs import count_work
from ..benchmark.cuda import allocated_peak, attention_kernels, fits_in_memory, let_go, why_too_large
from ..benchmark.machine import rates
from ..benchmark.memory import fake_tensors
from ..benchmark.parity import difference, largest
from ..benchmark.variants import Variant, build, parse_variant
from ..benchmark.work import Evaluation, TrainingStep, make_batch, make_sample
from .numbers import Setting

VARIANTS = ('ours', 'ours-half-bf16', 'paper', 'paper-bf16')  # ours-half-bf16 is what --amp trains
GIB = 2**30


def milliseconds(work: Callable[[], object], setting: Setting, rounds: int = 5, warmup: int = 2) -> dict[str, float]:
    """Returns the median times of a call: until the device has done it, and until the CPU has asked for it."""
    whole, asked = [], []
    for i in range(warmup + rounds):
        wait(setting)
        begin = time.perf_counter()
        work()
        done = time.perf_counter()
        wait(setting)
        if i >= warmup:
            asked.append(done - begin)
            whole.append(time.perf_counter() - begin)
    return dict(ms=round(1000 * sorted(whole)[rounds // 2], 3), launch_ms=round(1000 * sorted(asked)[rounds // 2], 3))


def wait(setting: Setting) -> None:
    """Waits until the device has done all that it was asked for."""
    if setting.on_gpu:
        torch.cuda.synchronize()


def rate(setting: Setting) -> dict[str, float]:
    """Measures FLOP/s of large matrix products by type, and bytes/s."""
    return rates(setting.device, setting.quick)


def count_flops(setting: Setting) -> dict[str, dict[str, int]]:
    """Counts the FLOPs of one trained and of one evaluated image, by model, without computing anything."""
    counted, one = {}, replace(setting.sizes, batch=1)
    for model in ('ours', 'paper'):
        made = build(model, setting.cfg, one)
        with fake_tensors():
            made = made.to_empty(device='cpu')
            works = dict(train=TrainingStep(made, setting.cfg, make_batch(one)),
                         eval=Evaluation(made, one, torch.device('cpu')))
            counted[model] = {what: count_work(work)['flops'] for what, work in works.items()}
    return counted


def images_per_second(setting: Setting, rates: dict[str, float]) -> dict:
    """Measures training and evaluation of each variant at the usual batch, and of ours at the largest one.

    Args:
        setting: What is checked.
        rates: FLOP/s by type; empty where they are not known.

    Returns:
        dict: A list of rows, each with ``variant``, ``what``, ``images``, the times of :func:`milliseconds`,
        ``images_per_second``, the ``share`` of the matrix rate, and ``gib`` of memory; or ``not_run``.
    """
    flops, rows = count_flops(setting), []
    torch.backends.cudnn.benchmark = not setting.quick
    torch.backends.cudnn.allow_tf32 = True  # torch's own choice, which trainings have
    for name in VARIANTS:
        variant = parse_variant(name)
        matrix = rates.get('bfloat16' if variant.bf16 else 'float32')
        for row in rows_of(variant, setting):
            if matrix and 'images_per_second' in row:
                counted = flops[variant.model.removesuffix('-half')][row['what']]
                row['share'] = round(counted * row['images_per_second'] / matrix, 4)
            rows.append(row)
        let_go()
    return dict(rows=rows, flops=flops)


def rows_of(variant: Variant, setting: Setting) -> Iterator[dict]:
    """Yields the rows of :func:`images_per_second` of one variant, without the share."""
    model = build(variant.model, setting.cfg, setting.sizes).to(setting.device)
    step = TrainingStep(model, setting.cfg, make_batch(setting.sizes, 0, setting.device), variant.bf16)
    works = [('train', images) for images in dict.fromkeys((2, setting.sizes.batch))]
    works += [('eval', images) for images in dict.fromkeys((1, setting.sizes.batch))]
    if variant.model.startswith('ours') and setting.on_gpu:
        works.insert(2, ('train', None))
    for what, images in works:
        row = dict(variant=variant.name, what=what, images=images, largest=images is None)
        try:
            if images is None:
                row['images'] = images = largest_batch(step, setting)
            if what == 'train':
                work = step
                step.batch = make_batch(replace(setting.sizes, batch=images), 0, setting.device)
            else:
                work = Evaluation(model, setting.sizes, setting.device, variant.bf16, images)
            row.update(measured(work, images, setting))
        except Exception as error:
            row['not_run'] = why_too_large(error) or f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
        let_go()
        yield row


def measured(work: Callable[[], object], images: int, setting: Setting) -> dict[str, float]:
    """Returns the time of some work, its images per second, and on a GPU the most memory that it takes."""
    found = milliseconds(work, setting, 3 if setting.quick else 5, 1 if setting.quick else 2)
    found['images_per_second'] = round(1000 * images / found['ms'], 2)
    if setting.on_gpu:
        found['gib'] = round(allocated_peak(work, setting.device) / GIB, 2)
    return found


def largest_batch(step: TrainingStep, setting: Setting) -> int:
    """Finds the largest batch, to an eighth of itself, that a step can be made of.

    Args:
        step: The step, whose batch is changed.
        setting: What is checked.

    Raises:
        RuntimeError: not even the usual batch fits.
    """
    def make(images: int) -> TrainingStep:
        step.batch = None
        let_go()
        step.batch = make_batch(replace(setting.sizes, batch=images), 0, setting.device)
        return step

    good, bad = 0, None
    images, most = setting.sizes.batch, 4 * setting.sizes.batch if setting.quick else 4096
    while images <= most and images > good:
        if fits_in_memory(make, images):
            good = images
        else:
            bad = images
        if not good:
            raise RuntimeError(f'not even {images} images fit')
        images = 2 * good if bad is None else (good + bad) // 2 if bad - good > good // 8 else good
    return good


def raw_batch(setting: Setting, images: int) -> dict:
    """Draws a batch as a data loader gives it: images of 8 bits, and labels."""
    sizes = replace(setting.sizes, batch=images)
    labels = [sample.gt_sem_seg.data for sample in make_batch(sizes).samples]
    shape = (3, sizes.image, sizes.image)
    return dict(inputs=[torch.randint(256, shape, dtype=torch.uint8) for _ in range(images)],
                data_samples=[make_sample(shape[1:], label) for label in labels])


def cuda_graph(setting: Setting) -> dict:
    """Measures the training step by ``--cuda-graph`` beside the usual one, and compares their gradients bit for bit."""
    found = {}
    for name in ('ours', 'ours-half-bf16'):
        model, wrapper = graphable(setting, name)
        if reason := why_not_graphed(model, wrapper, distributed=False):
            return dict(not_run=reason)
        for images in (2, setting.sizes.batch):
            found[f'{name}, {images} images'] = beside_usual(setting, model, wrapper, images)
            let_go()
    return found


def graphable(setting: Setting, name: str) -> tuple[nn.Module, OptimWrapper]:
    """Returns a variant's model, and an optimizer whose steps are too small to matter."""
    variant = parse_variant(name)
    model = build(variant.model, setting.cfg, setting.sizes).to(setting.device).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    return model, (Bf16OptimWrapper if variant.bf16 else OptimWrapper)(optimizer)


def beside_usual(setting: Setting, model: nn.Module, wrapper: OptimWrapper, images: int) -> dict:
    """Measures an iteration as usual and by a graph, from images of 8 bits to the optimizer's step."""
    data, step = raw_batch(setting, images), GraphedStep(model, warm_up=2)
    usual = milliseconds(partial(model.train_step, data, wrapper), setting)
    graph = milliseconds(partial(step, data, wrapper), setting, warmup=4)
    found = dict(usual=usual, graph=graph, recorded=step.graph is not None)
    return dict(found, equal=same_gradients(step, wrapper)) if step.graph else found


def same_gradients(step: GraphedStep, wrapper: OptimWrapper) -> bool:
    """Returns whether replaying a graph gives the gradients, bit for bit, of the usual step on the same batch."""
    wrapper.zero_grad()
    torch.manual_seed(0)
    step.graph.replay()
    replayed = [None if g is None else g.clone() for g in step.graph.outcome[0]]
    torch.manual_seed(0)
    loss, _ = step.loss(step.static, wrapper)
    loss.backward()
    usual = [p.grad for p in step.trained]
    wrapper.zero_grad()
    return all(a is b or torch.equal(a, b) for a, b in zip(replayed, usual))


def deterministic_graph(setting: Setting) -> dict:
    """Compares a recorded step with the usual one in torch's deterministic mode, where both must be equal."""
    model, wrapper = graphable(setting, 'ours')
    if reason := why_not_graphed(model, wrapper, distributed=False):
        return dict(not_run=reason)
    torch.use_deterministic_algorithms(True)
    try:
        step = GraphedStep(model, CudaGraph, warm_up=1)
        for _ in range(2):
            step(raw_batch(setting, 2), wrapper)
        return dict(recorded=step.graph is not None, equal=step.graph is not None and same_gradients(step, wrapper))
    finally:
        torch.use_deterministic_algorithms(False)


def compiled(setting: Setting) -> dict:
    """Measures ``--compile`` in bfloat16: seconds until compiled, time of a step, and how far gradients are apart."""
    torch._dynamo.reset()
    model = build('ours-half', setting.cfg, setting.sizes).to(setting.device)
    model.backbone.prompt.dropout.p = 0.
    step = TrainingStep(model, setting.cfg, make_batch(setting.sizes, 0, setting.device), bf16=True)
    found = dict(usual=milliseconds(step, setting))
    before = gradients(model, step)
    part = Compiled(model.backbone.run_blocks, 'GatedPromptViT', 'inductor')
    model.backbone.run_blocks = part
    begin = time.perf_counter()
    after = gradients(model, step)
    found['seconds_to_compile'] = round(time.perf_counter() - begin, 1)
    found['compiled'] = milliseconds(step, setting)
    found['worked'] = part.fast is not None
    found['gradients_apart'] = largest(difference(before[name], after[name]) for name in before)
    return found


def gradients(model: nn.Module, step: TrainingStep) -> dict[str, torch.Tensor]:
    """Computes the gradients of a step, in float64 on the CPU."""
    model.zero_grad()
    step.loss().backward()
    return {name: p.grad.double().cpu() for name, p in model.named_parameters() if p.grad is not None}


def kernels(setting: Setting) -> dict:
    """Lists the kernels of a training step by time, those of attention, and what waits for the device.

    Returns:
        dict: By variant; or ``not_run``.
    """
    found = {}
    for name in ('ours', 'ours-half-bf16'):
        variant = parse_variant(name)
        model = build(variant.model, setting.cfg, setting.sizes).to(setting.device)
        step = TrainingStep(model, setting.cfg, make_batch(setting.sizes, 0, setting.device), variant.bf16)
        attention = attention_kernels(step.features, setting.device)
        step()
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if setting.on_gpu else [])]) as seen:
            step()
            wait(setting)
        rows, key = seen.key_averages(), 'self_device_time_total' if setting.on_gpu else 'self_cpu_time_total'
        ran = [row for row in rows if getattr(row, key) and (
            not setting.on_gpu or row.device_type == torch.autograd.DeviceType.CUDA)]
        if not ran:
            return dict(not_run='the profiler has seen no kernel: it needs CUPTI, and the right to profile')
        ran.sort(key=lambda row: -getattr(row, key))
        found[name] = dict(
            attention=attention, launches=sum(row.count for row in ran),
            ms=round(sum(getattr(row, key) for row in ran) / 1000, 2),
            waits={row.key: row.count for row in rows if 'Synchronize' in row.key or row.key == 'aten::item'},
            longest=[dict(name=row.key[:120], count=row.count, ms=round(getattr(row, key) / 1000, 3))
                     for row in ran[:15]])
        model = step = None
        let_go()
    return found
