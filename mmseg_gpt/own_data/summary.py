"""The result of an adaptation in the lines that end the command."""

from importlib.util import find_spec
from pathlib import Path

from ..resources import command_of
from ..wording import duration
from .look import NAMES
from .report import number, three_lines


def summary(result: dict, work_dir: Path) -> str:
    """Returns the result as text: the classes, the files, how to predict, and at last the score.

    Args:
        result: What is in ``result.json``.
        work_dir: Where all was written.
    """
    columns = [name for name in result['per_class'][0] if name != 'class']
    width = max(len(row['class']) for row in result['per_class']) + 2
    table = [f'{"class":{width}}' + ''.join(f'{name:>11}' for name in columns),
             *(f'{row["class"]:{width}}' + ''.join(f'{number(row[name]):>11}' for name in columns)
               for row in result['per_class'])]
    absent = [f'The mean is over {len(result["classes"]) - len(result["absent"])} of {len(result["classes"])} classes; '
              f'without pixels: {", ".join(result["absent"])}'] if result['absent'] else []
    return '\n'.join([
        '', *table, '', *absent,
        f'measured on {result["images"]} {NAMES[result["measured_on"]]} images, after {duration(result["seconds"])} of '
        'training and testing', f'report, pictures and confusions: {work_dir / "report.md"}',
        f'config:     {result["config"]}', f'checkpoint: {result["checkpoint"]}', 'To predict in Python:',
        *(f'    {line}' for line in three_lines(work_dir, result['task'])), *how_to_share(work_dir), '',
        f'{result["metric"]}: {result["score"]:.2f}'])


def how_to_share(work_dir: Path) -> list[str]:
    """Returns the line that says how to share a model, where the library for it is installed."""
    return [f'To share it: {command_of("push", "OWNER/NAME", work_dir)}'] if find_spec('huggingface_hub') else []
