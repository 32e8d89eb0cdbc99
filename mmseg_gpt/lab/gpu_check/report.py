"""The results of a check as a page of Markdown."""

from collections.abc import Iterable, Sequence

from ...wording import markdown_table

TITLES = dict(
    machine='The machine', float64='The same numbers in float64', shorter_types='float32, bfloat16 and float16',
    deterministic='The same twice', rate='Measured rates', images_per_second='Images per second',
    cuda_graph='The training step as a CUDA graph', deterministic_graph='The CUDA graph in the deterministic mode',
    compiled='Compiled', kernels='Kernels of a training step', sample_training='Training on drawn data',
    marked_tests='The tests that need a GPU')


def report(results: dict) -> str:
    """Writes the results of :func:`.run.check`, as far as there are any, as Markdown."""
    lines = ['# GPU check', '', 'Written by `mmseg-gpt gpu-check`. Relative differences are the largest of any entry, '
             'over the largest entry of its tensor.']
    for name, title in TITLES.items():
        found = results.get(name)
        if found is None:
            continue
        lines += ['', f'## {title}', '']
        if isinstance(found, dict) and 'not_run' in found:
            lines.append(f'Not measured: {found["not_run"]}')
        else:
            lines += SECTIONS[name](found)
    seconds = results.get('seconds', {})
    return '\n'.join([*lines, '', f'All of it took {sum(seconds.values()):.0f} s.', ''])


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Writes a table, with words to the left and numbers to the right."""
    return markdown_table(header, [[cell(value) for value in row] for row in rows]).split('\n')


def cell(value: object) -> str:
    """Writes a value in few digits."""
    if isinstance(value, bool):
        return 'yes' if value else '**no**'
    return '' if value is None else f'{value:.4g}' if isinstance(value, float) else str(value)


def pairs(found: dict) -> list[str]:
    """Writes names and values."""
    flat = {name: ', '.join(f'{k} {v}' for k, v in value.items()) if isinstance(value, dict) else value
            for name, value in found.items()}
    return table(('', 'value'), flat.items())


def differences(compared: dict) -> list[str]:
    """Writes what :func:`.benchmark.parity.compare` found, by what was compared."""
    kinds = list(next(iter(compared.values())))
    return table(('', *kinds), ([name, *(f'{parts[kind][0]:.1e}' for kind in kinds)]
                                for name, parts in compared.items()))


def in_float64(found: dict) -> list[str]:
    """Writes the comparison in float64."""
    verdict = 'holds' if found['passed'] else '**is exceeded**'
    return ['Ours on this device against', '', *differences(found['compared']), '',
            f'The tolerance of {found["tolerance"]:.0e} {verdict}.']


def in_shorter_types(found: dict) -> list[str]:
    """Writes the comparison of types."""
    return ['Against ours in float64, with TF32 off; of labels, the share that differs:', '',
            *differences({**found['compared'], 'ours in float32, twice': found['twice']})]


def of_rates(found: dict) -> list[str]:
    """Writes rates in readable units."""
    return table(('', 'rate'), [
        *((f'matrix products, {kind}, TFLOP/s', found[kind] / 1e12) for kind in ('float32', 'bfloat16')),
        ('copying, GB/s', found['bandwidth'] / 1e9)])


def of_speed(found: dict) -> list[str]:
    """Writes the table of images per second."""
    titles = dict(train='trained', eval='evaluated')
    rows = []
    for row in found['rows']:
        images = f'{titles[row["what"]]}, {row["images"]}{" (largest)" if row.get("largest") else ""}'
        share = None if 'share' not in row else f'{row["share"]:.1%}'
        rows.append([row['variant'], images, row.get('not_run') or float(row['images_per_second']), row.get('ms'),
                     row.get('launch_ms'), share, row.get('gib')])
    return table(('', 'images', 'images/s', 'ms', 'ms to launch', 'of the matrix rate', 'GiB'), rows)


def of_graphs(found: dict) -> list[str]:
    """Writes times with and without a CUDA graph."""
    return table(('', 'usual: ms', 'graph: ms', 'graph: ms to launch', 'recorded', 'the same gradients'), (
        [name, row['usual']['ms'], row['graph']['ms'], row['graph']['launch_ms'], row['recorded'], row.get('equal')]
        for name, row in found.items()))


def of_compiled(found: dict) -> list[str]:
    """Writes times with and without compiling."""
    return table(('', 'value'), [
        ('compiled', found['worked']), ('seconds to compile', found['seconds_to_compile']),
        ('usual step, ms', found['usual']['ms']), ('compiled step, ms', found['compiled']['ms']),
        ('gradients apart', float(found['gradients_apart']))])


def of_kernels(found: dict) -> list[str]:
    """Writes the longest kernels by variant."""
    lines = []
    for name, of in found.items():
        waits = ', '.join(f'{key} x{count}' for key, count in of['waits'].items()) or 'none'
        attention = ', '.join(f'`{key}` x{count}' for key, count in of['attention'].items())
        lines += [f'`{name}`: {of["launches"]} launches, {of["ms"]} ms. Attention: {attention}. Waits: {waits}.', '',
                  *table(('kernel', 'calls', 'ms'), ([f'`{row["name"]}`', row['count'], row['ms']]
                                                     for row in of['longest'])), '']
    return lines


def of_training(found: dict) -> list[str]:
    """Writes losses of the trainings in two types, and whether two deterministic ones are equal."""
    one, other = found['float32'], found['bfloat16']
    steps = [step for step in one['losses'] if step in other['losses']]
    shown = steps[:: max(1, len(steps) // 10)]
    lines = table(('iteration', 'loss, float32', 'loss, bfloat16'),
                  ([step, one['losses'][step], other['losses'][step]] for step in shown))
    for name in ('float32', 'bfloat16', 'deterministic', 'again', 'graphed'):
        if problem := found.get(name, {}).get('problem'):
            lines += ['', f'`{name}` failed: `{" ".join(problem.split())[-300:]}`']
    same, graphed = ('not measured' if found.get(key) is None else cell(found[key])
                     for key in ('same_weights', 'same_with_graph'))
    return [*lines, '', f'mIoU: {one["miou"]} and {other["miou"]}; seconds an iteration: '
            f'{one["seconds_an_iteration"]} and {other["seconds_an_iteration"]}. Two trainings with '
            f'`randomness.deterministic=True` have the same losses and weights: {same}; and one with `--cuda-graph`: '
            f'{graphed}.']


def of_tests(found: dict) -> list[str]:
    """Writes how the tests ended."""
    return [f'Exit status {found["status"]}.', '', '```', found['printed'].strip(), '```']


SECTIONS = dict(
    machine=pairs, float64=in_float64, shorter_types=in_shorter_types, deterministic=pairs, rate=of_rates,
    images_per_second=of_speed, cuda_graph=of_graphs, deterministic_graph=pairs, compiled=of_compiled,
    kernels=of_kernels, sample_training=of_training, marked_tests=of_tests)
