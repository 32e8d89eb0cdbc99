"""The configs and tools that belong to the package, and the commands that run the tools.

In a clone configs and tools lie beside the package, in an installed wheel inside it. Nothing but the standard library
is imported: ``mmseg-gpt`` runs this file on its own, as importing the package takes seconds.
"""

import difflib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

CLONE = Path(__file__).parents[1]
INSTALLED = Path(__file__).parent / '.mim'  # where OpenMMLab's package manager looks for them too
HOME = INSTALLED if INSTALLED.is_dir() else CLONE
CONFIGS, TOOLS = HOME / 'configs', HOME / 'tools'

PROGRAM = 'mmseg-gpt'
# What runs each tool, in the order and the groups of `mmseg-gpt --help`: {group: {command: file in TOOLS}}.
COMMANDS = {
    'Every day': {
        'adapt': 'adapt',
        'train': 'train',
        'test': 'test',
        'predict': 'predict',
        'app': 'app',
        'serve': 'serve',
        'check': 'check_dataset',
        'labels': 'labels',
        'convert': 'convert_checkpoint',
        'export': 'export',
        'push': 'push',
        'pull': 'pull',
        'configs': 'configs',
    },
    'Numbers and figures of runs': {
        'compare': 'compare',
        'params': 'param_count',
        'plot-gates': 'plot_gates',
        'plot-attention': 'plot_attention',
        'plot-start-block': 'plot_start_block',
        'plot-ablation': 'plot_ablation',
        'deep-image-prior': 'deep_image_prior',
    },
    'Many runs at once': {
        'search': 'search',
        'suite': 'benchmark_suite',
        'replicate': 'replicate',
        'study': 'study',
    },
    'A first look, without any data of your own': {
        'demo': 'demo',
        'demo-photographs': 'demo_photographs',
        'sample-dataset': 'make_sample_dataset',
    },
    'Time and memory': {
        'benchmark': 'benchmark',
        'benchmark-data': 'benchmark_data',
        'benchmark-peers': 'benchmark_peers',
        'benchmark-serving': 'benchmark_serving',
        'gpu-check': 'gpu_check',
    },
}


def config_names() -> dict[str, Path]:
    """Returns the configs of the package, parts of configs aside, by their paths below ``CONFIGS`` without suffix."""
    names = {file.relative_to(CONFIGS).with_suffix('').as_posix(): file for file in sorted(CONFIGS.rglob('*.py'))}
    return {name: file for name, file in names.items() if '_base_' not in file.parts}


def find_config_file(config: str) -> Path | None:
    """Returns the file of a config: ``config`` itself if it exists, else the package's config of this name, or None.

    Args:
        config: A path, or a name: 'setr_pup_gpt_mae_sample', 'demo/setr_pup_gpt_mae_sample', and the same with
            'configs/' before or '.py' behind it.
    """
    if Path(config).is_file():
        return Path(config)
    wanted, names = Path(config).as_posix().removeprefix('configs/').removesuffix('.py'), config_names()
    return names.get(wanted) or next((file for file in names.values() if file.stem == wanted), None)


def nearest_configs(config: str) -> list[str]:
    """Returns up to three names of the package's configs that look like ``config``, the nearest first."""
    return difflib.get_close_matches(Path(config).stem, [file.stem for file in config_names().values()])


def names_program() -> bool:
    """Returns whether users type ``mmseg-gpt``: it is installed without a clone, or this process was started so."""
    return HOME != CLONE or sys.argv[0].startswith(f'{PROGRAM} ')


def command_of(tool: str, *arguments: object) -> str:
    """Returns what a user types to run a tool of ``TOOLS``, with quotes where a shell needs them.

    That is ``mmseg-gpt NAME`` where :func:`names_program`, and else ``python tools/...``.
    """
    program = f'python tools/{tool}.py' if not names_program() else next(
        f'{PROGRAM} {name}' for group in COMMANDS.values() for name, file in group.items() if file == tool)
    return ' '.join([program, *(shlex.quote(str(each)) for each in arguments)])


def as_typed(command: Sequence[str]) -> str:
    """Returns a command as a user types it: ``mmseg-gpt`` and names of configs where tool and configs are installed.

    Args:
        command: ``python``, a script and its arguments.
    """
    script = Path(command[1]).resolve()
    if not names_program() or script.parent != TOOLS.resolve():
        return shlex.join(command)
    named = {file.resolve(): file.stem for file in config_names().values()}
    return shlex.join([*command_of(script.stem).split(), *(named.get(Path(word).resolve(), word) if word.endswith('.py')
                                                           else word for word in command[2:])])


def this_command() -> str:
    """Returns the command line of this process as it was typed: ``mmseg-gpt train ...`` or ``python tools/...``."""
    program, *arguments = sys.argv
    return shlex.join([*(program.split() if program.startswith(f'{PROGRAM} ') else ('python', program)), *arguments])
