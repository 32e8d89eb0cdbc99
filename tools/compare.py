"""Compares runs: one table and one picture of scores, parameters, memory, time, and differences by class.

    mmseg-gpt compare work_dirs/setr_pup_vpt-shallow_mae_ade20k work_dirs/setr_pup_gpt_mae_ade20k

The others are compared with the first. Each run is a work directory of mmseg-gpt train, with the metrics.json
(and for multi-scale metrics_tta.json) that mmseg-gpt test wrote. Seeds of one run are grouped under a name:

    mmseg-gpt compare shallow=work_dirs/a/seed_0,work_dirs/a/seed_1 gated=work_dirs/b/seed_0,work_dirs/b/seed_1

Beside the picture it writes the table as Markdown, CSV and JSON, and all classes as FILE_classes.csv and .json.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import add_figure_arguments, positive

if TYPE_CHECKING:
    from mmseg_gpt.lab.compare import Compared


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', metavar='RUN', help='work directory, or NAME=RUN,RUN,... for several seeds')
    parser.add_argument('--classes', type=positive(int), metavar='N', help='draw the N classes that differ most '
                        '(default: 20)')
    parser.add_argument('--tta', action='store_true', help='compare the classes in the multi-scale tests')
    add_figure_arguments(parser, 'compare.png')
    args = parser.parse_args()
    args.runs = [read_group(text) for text in args.runs]
    if len(args.runs) < 2:
        parser.error('give two runs or more')
    name_plain_runs(args.runs)
    names = [name for name, _ in args.runs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        parser.error(f'two runs are called {twice}')
    return args


def read_group(text: str) -> list:
    """Reads ``NAME=RUN,RUN`` into the name and the folders; a single RUN gets the name '' for now."""
    name, equals, folders = text.partition('=')
    if Path(text).is_dir() or not equals:
        return ['', [Path(text)]]
    if not name or '' in folders.split(','):
        raise SystemExit(f'{text} is not NAME=RUN,RUN,...')
    return [name, [Path(folder) for folder in folders.split(',')]]


def name_plain_runs(groups: list[list]) -> None:
    """Names runs without a name after their folders, with as many parents as it takes to tell them apart."""
    plain = [group for group in groups if not group[0]]
    parts = [folders[0].resolve().parts for _, folders in plain]
    depth = next((n for n in range(1, max(map(len, parts), default=1))
                  if len({own[-n:] for own in parts}) == len(parts)), 0)
    for group, own in zip(plain, parts):
        group[0] = str(Path(*own[-depth:]))


def write(args: argparse.Namespace, compared: list['Compared'], warnings: list[str]) -> tuple[str, list[Path]]:
    """Writes picture, tables and classes, and returns the table as Markdown, and the files.

    Raises:
        ValueError: a file cannot be written, or there are no classes to be drawn as asked.
    """
    from mmseg_gpt.analysis.figures import write_figure, write_numbers, writing
    from mmseg_gpt.files import replacing
    from mmseg_gpt.lab import compare
    from mmseg_gpt.lab.compare_figures import draw_comparison
    from mmseg_gpt.resources import command_of, this_command
    score = 'tta/mIoU' if args.tta else 'mIoU'
    rows, classes = compare.table(compared), compare.class_differences(compared, score)
    if args.tta and not classes:
        warnings = [*warnings, 'classes are left out, because not every run was tested with '
                    f'{command_of("test")} --tta']
    if args.classes and not classes:
        raise ValueError('--classes is for runs that all have scores of classes, and these have not: leave it out')
    text, command = compare.markdown(rows, warnings), this_command()
    files = [*write_figure(draw_comparison(rows, classes, args.classes or 20), args.out),
             *write_numbers(rows, args.out, command=command, warnings=warnings), args.out.with_suffix('.md')]
    with writing(files[-1]), replacing(files[-1]) as unfinished:
        unfinished.write_text(text, encoding='utf-8')
    if classes:
        files += write_numbers([found._asdict() for found in classes],
                               args.out.with_name(f'{args.out.stem}_classes{args.out.suffix}'), command=command)
    return text, files


def main() -> None:
    args = parse_args()
    from mmseg_gpt.engine import errors_in_words  # after the arguments, as importing takes seconds
    from mmseg_gpt.lab import compare
    from mmseg_gpt.lab.finished import read_run
    with errors_in_words():
        try:
            compared = [compare.Compared(name, [read_run(folder) for folder in folders]) for name, folders in args.runs]
            text, files = write(args, compared, compare.check(compared))
        except ValueError as error:
            raise SystemExit(str(error)) from error
    print(f'{text}\nwritten: {", ".join(map(str, files))}')


if __name__ == '__main__':
    main()
