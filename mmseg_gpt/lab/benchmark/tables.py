"""The numbers of a benchmark as tables of text."""

from collections.abc import Iterable, Sequence

from prettytable import PrettyTable

MIB = 2**20
TITLES = dict(train='Training step', eval='Evaluated image, one scale', tta='Evaluated image, all scales and flips')


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Writes one table, with text in the first column and numbers of four digits in the others."""
    drawn = PrettyTable(header, title=title, align='r')
    drawn.align[header[0]] = 'l'
    drawn.add_rows([[f'{cell:.4g}' if isinstance(cell, float) else cell for cell in row] for row in rows])
    return drawn.get_string()


def tables(results: dict) -> str:
    """Writes all tables of the results of :func:`.run.run`, and says what was not run."""
    found = [header(results)]
    if 'times' in results:
        found += [time_table(results, what) for what in next(iter(results['times'].values()))]
    if 'costs' in results:
        found += [memory_table(results), work_table(results)]
    if 'floor' in results:
        found += [floor_table(results, what) for what in results['floor']]
    for key, title in dict(rss='Peak memory of a process that trains, as the system counts it (MiB)',
                           allocated='Peak memory that PyTorch gave out on the GPU (MiB)').items():
        if key in results:
            found.append(table(title, ['', 'MiB'], [(name, size / MIB) for name, size in results[key].items()]))
    if 'largest_batch' in results:
        found.append(table('Largest batch', ['', 'images'], results['largest_batch'].items()))
    if 'kernels' in results:
        rows = [(name, kernel, count) for name, kernels in results['kernels'].items()
                for kernel, count in kernels.items()]
        found.append(table('What computes attention', ['', 'kernel or operation', 'calls'], rows))
    return '\n\n'.join(found + [f'Not run: {name}: {why}' for name, why in results['not_run'].items()])


def header(results: dict) -> str:
    """Writes the table of the command, the machine, the versions and the sizes."""
    machine = results['machine']
    rows = {**{k: machine[k] for k in ('device', 'threads', 'cpus', 'python', 'date')}, **machine['versions'],
            'CUDA': machine['cuda'] or 'none', **results['sizes'], 'windows of an evaluated image': results['windows'],
            'allocators': ', '.join(results.get('times', {})) or 'not timed'}
    parity = [(f'float64, paper against ours: {part}', f'{value:.1e}') for part, value in results['parity'].items()]
    return table('python ' + ' '.join(results['command']), ['', 'value'], [*rows.items(), *parity])


def time_table(results: dict, what: str) -> str:
    """Writes the table of seconds and speedups over the variant compared with, by allocator."""
    times, against = results['times'], results['against']
    images = dict(train=results['sizes']['batch'], eval=results['images'], tta=1)[what]
    rates = {'images/s': images, **({'windows/s': images * results['windows']} if what == 'eval' else {})}
    columns, rows = [what], {}
    for allocator, found in times.items():
        columns += [f'{allocator}: {column}' for column in ('s (quartiles)', *rates, f'x {against} (quartiles)')]
        for name, entry in found[what].items():
            rows.setdefault(name, []).extend([
                with_quartiles(entry), *(count / entry['median'] for count in rates.values()),
                with_quartiles(entry['speedup']) if 'speedup' in entry else ''])
    return table(TITLES[what], columns, [[name, *cells] for name, cells in rows.items()])


def with_quartiles(entry: dict) -> str:
    """Writes a median and its quartiles."""
    low, high = entry['quartiles']
    return f'{entry["median"]:.4g} ({low:.3g} .. {high:.3g})'


def memory_table(results: dict) -> str:
    """Writes the table of live memory, bytes kept for the backward, and checkpoint sizes."""
    costs, rows = results['costs'], []
    base = costs.get(results['against'])
    for name, cost in costs.items():
        sizes = [cost['train']['peak'], cost['eval']['peak'], *cost['kept'].values(), *cost['checkpoint'].values()]
        less = base['slope'] / cost['slope'] if base else ''
        rows.append([name, cost['slope'] / MIB, less, *(size / MIB for size in sizes)])
    kept, files = (list(next(iter(costs.values()))[key]) for key in ('kept', 'checkpoint'))
    header = ['MiB', 'each image', f'x less than {results["against"]}', 'step, peak', 'eval, peak',
              *(f'kept: {part}' for part in kept), *(f'file: {content}' for content in files)]
    title = f'Live memory of {results["counted"]} images; what is kept for the backward of one; checkpoints. Counted'
    return table(title, header, rows)


def work_table(results: dict) -> str:
    """Writes the table of FLOPs and traffic."""
    costs, rows = results['costs'], []
    base = costs.get(results['against'])
    for name, cost in costs.items():
        row = [name]
        for what in ('train', 'eval'):
            less = base[what]['flops'] / cost[what]['flops'] if base else ''
            row += [cost[what]['flops'] / 1e9, less, cost[what]['recomputed_flops'] / 1e9, cost[what]['traffic'] / 1e9]
        rows.append(row)
    columns = ('GFLOP', 'x fewer', 'attention again', 'GB in and out')
    header = ['', *(f'{what}: {column}' for what in ('step', 'eval') for column in columns)]
    return table(f'FLOPs, and bytes in and out of operations, counted for {results["counted"]} training images', header,
                 rows)


def floor_table(results: dict, what: str) -> str:
    """Writes the table of the least time at the measured rates, and how near each variant comes to it."""
    rates = results['rates']
    title = (f'Floor: {what}. {rates["float32"] / 1e9:.4g} GFLOP/s float32, {rates["bfloat16"] / 1e9:.4g} bfloat16, '
             f'{rates["bandwidth"] / 1e9:.4g} GB/s')
    shares = list(results.get('times', {}))
    rows = [[name, entry['flops'], entry['weights'], entry['traffic'],
             *(f'{entry["share"][a]:.1%}' if a in entry['share'] else '' for a in shares)]
            for name, entry in results['floor'][what].items()]
    return table(title, ['s', 'FLOPs', 'weights once', 'all in and out', *(f'reached, {a}' for a in shares)], rows)
