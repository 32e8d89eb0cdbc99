"""mmseg-gpt: what it offers, how it ends, which configs it finds by name, and what is in the wheel."""

import argparse
import ast
import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment_of
from forks import run_fork
from mmengine.config import Config

import mmseg_gpt
from mmseg_gpt import resources
from mmseg_gpt.engine.config import find_config
from mmseg_gpt.models.complete import explicit

ROOT = Path(__file__).parents[1]
TOOLS = {path.stem for path in (ROOT / 'tools').glob('*.py')} - {'arguments'}
COMMANDS = {name: tool for group in resources.COMMANDS.values() for name, tool in group.items()}


def run(*arguments: str | Path, folder: Path = ROOT, program: Path = ROOT) -> subprocess.CompletedProcess:
    """Runs mmseg-gpt as it is in the folder ``program``, where it finds the package."""
    return subprocess.run([sys.executable, program / 'mmseg_gpt_cli.py', *arguments], cwd=folder, text=True,
                          env=environment_of(program, COLUMNS='120', OMP_NUM_THREADS='1'), capture_output=True,
                          check=False)


# --- commands -----------------------------------------------------------------------------------------------------


def test_every_tool_has_one_command():
    assert sorted(COMMANDS.values()) == sorted(TOOLS) and len(COMMANDS) == sum(map(len, resources.COMMANDS.values()))


def test_help_says_of_every_command_what_it_does():
    done = run('--help')
    assert done.returncode == 0 and not done.stderr
    text = ' '.join(done.stdout.split())
    for group, names in resources.COMMANDS.items():
        assert f'{group}:' in text
        for name in names:
            first_sentence = text.partition(f' {name} ')[2].partition('.')[0]
            assert first_sentence[:1].isupper() and 20 < len(first_sentence) < 200, name
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert 'Trains the model of a config: segmentation or classification, on CUDA or on CPU.' in text


def test_help_and_version_import_nothing_heavy():
    code = ('import sys, mmseg_gpt_cli\nmmseg_gpt_cli.main()\n'
            'assert not {"torch", "numpy", "mmengine", "mmseg_gpt"} & sys.modules.keys()')
    for option, said in (('--help', 'sample-dataset'), ('--version', f'mmseg_gpt {mmseg_gpt.__version__}\n')):
        done = subprocess.run([sys.executable, '-c', code, option], cwd=ROOT, text=True, capture_output=True)
        assert done.returncode == 0 and said in done.stdout, done.stderr


@pytest.mark.parametrize(('typed', 'said'), [
    ('trian', 'Did you mean train?'), ('plot_gates', 'Did you mean plot-gates?'), ('check_dataset', 'mean check?'),
    ('params.py', 'Did you mean params?'), ('xyzzy', 'xyzzy. mmseg-gpt --help lists them all')])
def test_an_unknown_command_is_refused_with_the_nearest(typed, said):
    done = run(typed)
    assert done.returncode == 2 and said in done.stderr and 'Traceback' not in done.stderr


def test_no_command_at_all_shows_the_help():
    done = run()
    assert done.returncode == 2 and 'usage: mmseg-gpt COMMAND' in done.stderr


@pytest.mark.parametrize(('arguments', 'code', 'said'), [
    (('train', '--help'), 0, 'usage: mmseg-gpt train [-h]'),
    (('train', ), 2, 'mmseg-gpt train: error: the following arguments are required: config'),
    (('convert', '--list', 'nowhere.pth'), 1, 'nowhere.pth'),
    (('plot-gates', '--help'), 0, 'By block: mmseg-gpt plot-gates work_dirs/')])
def test_usage_errors_and_exit_codes_are_those_of_the_tool(arguments, code, said, tmp_path):
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == code and said in ' '.join((done.stdout + done.stderr).split())


def test_python_m_does_the_same(tmp_path):
    done = subprocess.run([sys.executable, '-m', 'mmseg_gpt', 'train', '--no-such-option'], cwd=tmp_path, text=True,
                          capture_output=True, env=environment_of(), check=False)
    assert done.returncode == 2 and 'usage: mmseg-gpt train' in done.stderr


@pytest.mark.parametrize('tool', ['export', 'predict', 'pull', 'push', 'serve'])
def test_a_command_that_is_interrupted_says_only_that(tool, monkeypatch):
    def interrupted(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_known_args', interrupted)
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_known_intermixed_args', interrupted)
    with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:  # the latter would end pytest
        runpy.run_path(str(ROOT / f'tools/{tool}.py'), run_name='__main__')
    assert ended.type is SystemExit and ended.value.code == '\nstopped'


def test_commands_are_shown_as_they_are_typed(monkeypatch):
    command = ['python', str(resources.TOOLS / 'plot_gates.py'), 'a b.pth']
    assert resources.as_typed(command) == f"python {resources.TOOLS}/plot_gates.py 'a b.pth'"
    assert resources.command_of('plot_gates', 'a b.pth') == "python tools/plot_gates.py 'a b.pth'"
    with monkeypatch.context() as typed:
        typed.setattr(sys, 'argv', ['mmseg-gpt pull', 'me/camvid'])
        assert resources.command_of('plot_gates') == 'mmseg-gpt plot-gates'
        assert resources.command_of('adapt', Path('my photos'), '--val', 0.1) == "mmseg-gpt adapt 'my photos' --val 0.1"
        assert resources.as_typed(command) == "mmseg-gpt plot-gates 'a b.pth'"
    monkeypatch.setattr(resources, 'HOME', resources.INSTALLED)
    assert resources.as_typed(command) == "mmseg-gpt plot-gates 'a b.pth'"
    training = ['python', str(resources.TOOLS / 'train.py'), str(resources.CONFIGS / 'demo/cls_gpt_shapes.py'), 'my.py']
    assert resources.as_typed(training) == 'mmseg-gpt train cls_gpt_shapes my.py'
    assert resources.as_typed(['python', 'own/plot_gates.py']) == 'python own/plot_gates.py'
    monkeypatch.setattr(sys, 'argv', ['mmseg-gpt plot-gates', 'a b.pth'])
    assert resources.this_command() == "mmseg-gpt plot-gates 'a b.pth'"
    monkeypatch.setattr(sys, 'argv', ['tools/plot_gates.py', 'a.pth'])
    assert resources.this_command() == 'python tools/plot_gates.py a.pth'


@pytest.mark.parametrize('file', sorted((ROOT / 'mmseg_gpt').rglob('*.py')), ids=lambda file: file.stem)
def test_messages_name_commands_that_an_installed_package_has_too(file):
    tree = ast.parse(file.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node.value for node in ast.walk(tree)
             if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings]
    notes_in_files = 'made by tools/|Written by tools/'
    assert not [text for text in texts if re.search(r'tools/\w+\.py', text) and not re.search(notes_in_files, text)]


@pytest.mark.parametrize('tool', resources.COMMANDS['Every day'].values())
def test_everyday_tools_do_not_need_the_laboratory(tool):
    assert 'mmseg_gpt.lab' not in (resources.TOOLS / f'{tool}.py').read_text()


NO_MEANING = {
    'push': ('a/b a.py README.md --only-write out --public', 'leave out --public'),
    'train': ('a.py --resume --overwrite', 'not allowed with argument --resume'),
    'convert_checkpoint': ('--list --force a.pth', '--list writes nothing'),
    'benchmark_suite': ('fgvc --price 2', '--price has no meaning without --estimate'),
    'search': ('a.py --dry-run --watch', 'not allowed with argument'),
    'replicate': ('--cancel --report-only', 'not allowed with argument'),
    'study': ('dtd10 --look', '--look has no meaning without --parts'),
    'benchmark': ('--axes image=256', '--axes has no meaning without --sweep'),
    'benchmark_serving': ('a.py --threads 1', '--threads has no meaning without --tasks'),
    'plot_ablation': ('run --suite suite', 'not allowed with argument')}


@pytest.mark.parametrize('tool', NO_MEANING)
def test_an_option_that_would_do_nothing_is_refused(tool, monkeypatch, capsys):
    typed, said = NO_MEANING[tool]
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', [tool, *typed.split()])
    with pytest.raises(SystemExit):
        importlib.import_module(tool).parse_args()
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(('given', 'said'), [
    (dict(on='slurm', jobs=2), '--jobs is for this'), (dict(watch=True, retry_failed=True), '--watch runs nothing')])
def test_an_option_about_runs_is_refused_where_it_does_nothing(given, said, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    usual = dict(on='local', slurm=[], ray=[], jobs=None, watch=False, cancel=False)
    with pytest.raises(SystemExit, match=said):
        importlib.import_module('arguments').where_to_work(argparse.Namespace(**usual | given))


def test_an_installed_package_has_no_documentation_to_publish_in(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(resources.TOOLS))
    replicate = importlib.import_module('replicate')
    monkeypatch.setattr(importlib.import_module('arguments'), 'CLONE', Path('site-packages/mmseg_gpt/.mim'))
    monkeypatch.setattr(sys, 'argv', ['mmseg-gpt replicate', '--publish'])
    with pytest.raises(SystemExit):
        replicate.parse_args()
    assert 'this is an installed package' in capsys.readouterr().err


# --- configs by name ------------------------------------------------------------------------------------------------


def test_names_of_configs_are_of_one_file_each():
    names = resources.config_names()
    assert len({file.stem for file in names.values()}) == len(names) > 20
    assert not any('_base_' in name for name in names)


@pytest.mark.parametrize('name', [
    'setr_pup_gpt_mae_sample', 'setr_pup_gpt_mae_sample.py', 'demo/setr_pup_gpt_mae_sample',
    'configs/demo/setr_pup_gpt_mae_sample.py', './configs/demo/setr_pup_gpt_mae_sample.py'])
def test_a_config_is_found_by_its_name_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = ROOT / 'configs/demo/setr_pup_gpt_mae_sample.py'
    found = find_config(name)
    assert found.filename == str(expected) and found.to_dict() == explicit(Config.fromfile(expected)).to_dict()


def test_a_file_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('setr_pup_gpt_mae_sample').mkdir()  # of a run, for example
    assert find_config('setr_pup_gpt_mae_sample').filename.endswith('demo/setr_pup_gpt_mae_sample.py')
    Path('setr_pup_gpt_mae_sample.py').write_text('model = dict(type="Own")')
    assert find_config('setr_pup_gpt_mae_sample.py').model == dict(type='Own')


@pytest.mark.parametrize(('name', 'said'), [
    ('setr_pup_gpt_mae_ad20k', 'Did you mean setr_pup_gpt_mae_ade20k'),
    ('elsewhere/setr_pup_gpt_mae_ade20k.py', 'there is no config elsewhere/.*Did you mean setr_pup_gpt_mae_ade20k'),
    ('setr_pup', 'there is no config setr_pup: it is neither'),
    ('_base_/runtime_seg', 'there is no config _base_'),
    ('cls_gpt_mae_cubs', 'the task "cubs" is none of')])
def test_what_is_no_config_is_refused_with_the_nearest(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=said):
        find_config(name)


def test_configs_lists_all_and_copies_what_can_be_changed(tmp_path):
    listed = run('configs', folder=tmp_path)
    assert listed.returncode == 0, listed.stderr
    rows = dict(line.split(maxsplit=1) for line in listed.stdout.partition('\n\n')[0].splitlines())
    assert rows.keys() == resources.config_names().keys()
    assert rows['setr_pup_gpt_mae_ade20k'].endswith('Gated Prompt Tuning, 100 prompts (Table 3).')
    assert 'TASK    cub flowers' in listed.stdout

    program = ROOT / 'mmseg_gpt_cli.py'
    for name in ('replication/breeds', 'cls_vpt-deep_mocov3_cars'):
        copied = run_fork(tmp_path, program, 'configs', '--copy', name, '--out', 'own')
        assert copied.returncode == 0, copied.stdout
        new = tmp_path / f'own/{name}.py'
        ours = find_config(name).to_dict()
        assert Config.fromfile(new).to_dict() == ours
    assert {path.relative_to(tmp_path / 'own').as_posix() for path in tmp_path.rglob('_base_/*')} >= {
        '_base_/runtime.py', '_base_/runtime_cls.py'}

    (tmp_path / 'own/replication/breeds.py').write_text('# mine')
    for name in ('breeds', 'cls_vpt-deep_mocov3_cars'):
        refused = run_fork(tmp_path, program, 'configs', '--copy', name, '--out', 'own')
        assert refused.returncode == 1 and 'is left as it is' in refused.stdout
    assert (tmp_path / 'own/replication/breeds.py').read_text() == '# mine'


# --- the wheel ------------------------------------------------------------------------------------------------------


def sources(folder: Path, parts: tuple[str, ...]) -> set[str]:
    """The Python files below some parts of a folder."""
    return {path.relative_to(folder).as_posix() for part in parts for path in (folder / part).rglob('*.py')}


def test_a_wheel_holds_the_package_with_configs_and_tools_and_works_on_its_own(tmp_path):
    wheel, elsewhere = tmp_path / 'wheel', tmp_path / 'elsewhere'
    elsewhere.mkdir()
    stale = wheel / 'mmseg_gpt/gone.py'
    stale.parent.mkdir(parents=True)
    stale.touch()
    subprocess.run([sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', str(wheel)], cwd=ROOT, check=True)
    inside = wheel / 'mmseg_gpt/.mim'
    assert sources(inside, ('configs', 'tools')) == sources(ROOT, ('configs', 'tools'))
    packaged = {path for path in sources(wheel, ('mmseg_gpt', )) if '.mim' not in path}
    assert packaged == sources(ROOT, ('mmseg_gpt', ))
    assert {path.name for path in wheel.iterdir()} == {'mmseg_gpt', 'mmseg_gpt_cli.py'}
    assert not [path for path in wheel.rglob('*') if path.is_file() and path.suffix not in ('.py', '.mplstyle')]

    done = run('train', 'setr_pup_gpt_mae_ade20k', folder=elsewhere, program=wheel)
    assert done.returncode == 1 and 'data/ade/ADEChallengeData2016' in done.stderr and 'Traceback' not in done.stderr
    assert not list(elsewhere.iterdir())
