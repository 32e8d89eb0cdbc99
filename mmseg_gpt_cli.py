"""The command ``mmseg-gpt``: runs the tools by name, from any folder.

It is a module beside the package and not inside it, because importing the package takes seconds, which ``--help`` and
a mistyped argument shall not cost.
"""

import ast
import difflib
import re
import runpy
import shutil
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

PACKAGE = Path(find_spec('mmseg_gpt').origin).parent  # finding it does not import it
RESOURCES = SimpleNamespace(**runpy.run_path(str(PACKAGE / 'resources.py')))
COMMANDS = {name: RESOURCES.TOOLS / f'{tool}.py'
            for group in RESOURCES.COMMANDS.values() for name, tool in group.items()}


def main() -> None:
    """Runs the command that ``sys.argv`` names.

    Raises:
        SystemExit: at the end of the tool, with its exit code; 2 where there is no such command.
    """
    command = sys.argv[1] if len(sys.argv) > 1 else None
    if command in COMMANDS:
        run(command, sys.argv[2:])
    elif command in ('-h', '--help'):
        print(describe_all())
    elif command == '--version':
        print(f'mmseg_gpt {version()}')
    else:
        print(describe_all() if command is None else refusal(command), file=sys.stderr)
        sys.exit(2)


def run(command: str, arguments: list[str]) -> None:
    """Goes on as the tool of ``command``, as if Python had been started with its file.

    Unlike :func:`runpy.run_path` it lets ``sys.argv[0]`` be what the tool says in its usage, and leaves the tool's
    module in place for what the tool starts.
    """
    tool = COMMANDS[command]
    sys.argv = [f'{RESOURCES.PROGRAM} {command}', *arguments]
    sys.path.insert(0, str(tool.parent))
    sys.modules['__main__'] = module = ModuleType('__main__')
    module.__file__ = str(tool)
    exec(compile(tool.read_bytes(), str(tool), 'exec'), module.__dict__)


def describe_all() -> str:
    """Returns the help: all commands, each with the first sentence of its tool's docstring."""
    width = max(map(len, COMMANDS)) + 4
    columns = max(min(shutil.get_terminal_size().columns, 120), width + 40)
    lines = [f'usage: {RESOURCES.PROGRAM} COMMAND ...', '',
             'Gated Prompt Tuning of frozen vision transformers, for segmentation and classification in OpenMMLab.']
    for group, names in RESOURCES.COMMANDS.items():
        lines += ['', f'{group}:']
        for name in names:
            lines += textwrap.wrap(f'{name:{width - 4}}  {summary(COMMANDS[name])}', columns, initial_indent='  ',
                                   subsequent_indent=' ' * width, break_on_hyphens=False)
    return '\n'.join([*lines, '', f'{RESOURCES.PROGRAM} COMMAND --help explains one, '
                      f'{RESOURCES.PROGRAM} --version says which version this is. Several GPUs:',
                      'torchrun --nproc-per-node 8 -m mmseg_gpt train CONFIG'])


def summary(tool: Path) -> str:
    """Returns the first sentence of a tool's docstring."""
    text = ast.get_docstring(ast.parse(tool.read_text(encoding='utf-8'))) or ''
    return ' '.join(re.split(r'(?<=\.)\s', text, maxsplit=1)[0].split())


def version() -> str:
    """Returns the version of the package."""
    return re.search(r"^__version__ = '(.+)'", (PACKAGE / '__init__.py').read_text(encoding='utf-8'), re.MULTILINE)[1]


def refusal(command: str) -> str:
    """Says that there is no such command, and which are nearest; a tool's file name counts as its command's."""
    known = {**{tool.stem: name for name, tool in COMMANDS.items()}, **{name: name for name in COMMANDS}}
    similar = [command] if command in known else difflib.get_close_matches(command, known)
    nearest = dict.fromkeys(known[name] for name in similar)
    hint = f' Did you mean {" or ".join(nearest)}?' if nearest else ''
    return f'{RESOURCES.PROGRAM}: there is no command {command}.{hint} {RESOURCES.PROGRAM} --help lists them all.'


if __name__ == '__main__':
    main()
