"""Lists the configs that the package brings along, or copies one to be changed."""

import argparse
import ast
import re
import shutil
import sys
from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog='Whatever takes a config takes these names. A config '
                                     'of your own can also start from one: _base_ = [PATH_OF_THE_COPY].')
    parser.add_argument('--copy', metavar='NAME', help='copy this config and those that it inherits from; of an '
                        'experiment, which has no file, write all its settings into one')
    parser.add_argument('--out', type=Path, metavar='DIR', help='with --copy: where to (default: configs)')
    args = parser.parse_args()
    if args.out and not args.copy:
        parser.error('--out goes with --copy')
    return args


def description(config: Path) -> str:
    """Returns the comment at the top of a config, up to the first line that ends a sentence."""
    comment = re.match(r'(?:#.*\n)*', config.read_text(encoding='utf-8'))[0]
    return re.sub(r'\s*# ?', ' ', re.split(r'(?<=\.)\n', comment, maxsplit=1)[0]).strip()


def bases(config: Path) -> list[Path]:
    """Returns the files that a config inherits from, directly or not."""
    found = []
    for line in ast.parse(config.read_text(encoding='utf-8')).body:
        if isinstance(line, ast.Assign) and getattr(line.targets[0], 'id', '') == '_base_':
            named = ast.literal_eval(line.value)
            for base in [named] if isinstance(named, str) else named:
                file = (config.parent / base).resolve()
                found += [file, *bases(file)]
    return found


def copy(name: str, folder: Path) -> list[Path]:
    """Copies a config with all that it inherits from, in the folders that they have here; returns the new files.

    Raises:
        SystemExit: there is no such config, or a file of the same name and other content is there.
    """
    from mmseg_gpt.engine.config import find_config
    from mmseg_gpt.resources import find_config_file
    file = find_config_file(name)
    if file is None:
        cfg, new = find_config(name), folder / f'{Path(name).stem}.py'
        if new.exists():
            raise SystemExit(f'{new} is there already, and is left as it is')
        made(folder)
        cfg.dump(new)
        return [new]
    if not file.resolve().is_relative_to(CONFIGS):
        raise SystemExit(f'{name} is a file already, and none of the package\'s configs')
    sources = dict.fromkeys([file.resolve(), *bases(file.resolve())])
    copies = {source: folder / source.relative_to(CONFIGS) for source in sources}
    for source, new in copies.items():
        if new.exists() and new.read_bytes() != source.read_bytes():
            raise SystemExit(f'{new} is there already with other content, and is left as it is')
    for source, new in copies.items():
        if not new.exists():
            made(new.parent)
            shutil.copyfile(source, new)
    return list(copies.values())


def made(folder: Path) -> None:
    """Makes a folder if it is not there.

    Raises:
        SystemExit: nothing can be written there.
    """
    from mmseg_gpt.files import FolderError, make_folder
    try:
        make_folder(folder)
    except FolderError as error:
        raise SystemExit(str(error)) from error


def list_all() -> str:
    """Returns all names, with what they are, and of what names of experiments are made."""
    from mmseg_gpt.recipes.methods import METHODS
    from mmseg_gpt.recipes.tasks import TASKS
    from mmseg_gpt.recipes.vits import VITS
    from mmseg_gpt.resources import config_names
    names = config_names()
    width = max(map(len, names))
    parts = dict(METHOD=METHODS, VIT=VITS, TASK=TASKS)
    return '\n'.join([*(f'{name:{width}}  {description(file)}' for name, file in names.items()),
                      '\nand experiments of classification, cls_METHOD_VIT_TASK:',
                      *(f'  {part:6}  {" ".join(known)}' for part, known in parts.items())])


def main() -> None:
    args = parse_args()
    if args.copy:
        print('written:', *copy(args.copy, args.out or Path('configs')))
    else:
        print(list_all())


if __name__ == '__main__':
    try:
        main()
    except BrokenPipeError:  # of a pager
        sys.stderr.close()
