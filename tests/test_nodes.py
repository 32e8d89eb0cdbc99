"""A training on several nodes: two torchruns, and srun, on this machine; what they see is made to differ."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment_of
from slurm_nodes import Nodes, free_port, slurm  # noqa: F401
from tiny_run import differing, tiny_config

from mmseg_gpt.checkpoints import read_file

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
TRAIN = str(ROOT / 'tools/train.py')
COUNTING = f"""
import os, runpy, sys
from mmseg_gpt.checkpoints import load
read = load.load_vit
def counted(*arguments):
    with open('reads', 'a') as reads:
        reads.write(os.environ['GROUP_RANK'])
    read(*arguments)
load.load_vit = counted
sys.argv[0] = {TRAIN!r}
sys.path.insert(0, {str(ROOT / 'tools')!r})
runpy.run_path({TRAIN!r}, run_name='__main__')
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A folder with a config of 4 iterations, its data and its pretrained ViT."""
    made = tmp_path_factory.mktemp('nodes')
    tiny_config(made, train_cfg__max_iters=4, log_level='INFO').dump(made / 'tiny.py')
    (made / 'counting.py').write_text(COUNTING)
    return made


def environment(**variables: str) -> dict[str, str]:
    paths = os.pathsep.join(map(str, (ROOT, ROOT / 'tools')))
    return environment_of(paths, OMP_NUM_THREADS='1', **variables)


def torchrun(folder: Path, work_dir: str, hide: str = '', script: str = TRAIN) -> tuple[int, str]:
    """Trains on two nodes of one process each; before the second one starts, ``hide`` is done to what it sees."""
    port = str(free_port())
    nodes = []
    for rank, before in enumerate(('', hide)):
        command = [sys.executable, '-m', 'torch.distributed.run', '--nnodes', '2', '--node-rank', str(rank),
                   '--nproc-per-node', '1', '--master-addr', '127.0.0.1', '--master-port', port, script, 'tiny.py',
                   '--work-dir', work_dir]
        alone = ['unshare', '--mount', 'sh', '-c', f'{before} && exec "$@"', 'sh'] if before else []
        nodes.append(subprocess.Popen([*alone, *command], cwd=folder, env=environment(), stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True))
    said = [node.communicate(timeout=300)[0] for node in nodes]
    return nodes[0].returncode, ''.join(said)


def needs_namespaces() -> None:
    if os.geteuid() or not shutil.which('unshare') or subprocess.run(
            ['unshare', '--mount', 'true'], check=False, capture_output=True).returncode:
        pytest.skip('this process may not give another one a view of its own of the file system')


@pytest.mark.parametrize('hide, said', [
    ('mkdir -p hidden && mount -t tmpfs none hidden', r'hidden/run is not the work directory that the first process'),
    ('cp -r data other && mount --bind other data && rm $(ls data/images/training/*|tail -n 1) '
     '$(ls data/annotations/training/*|tail -n 1)', 'has other training images than'),
    ('cp vit.pth other.pth && python -c "import torch; s = torch.load(\'vit.pth\'); s[\'cls_token\'] += 1; '
     'torch.save(s, \'other.pth\')" && mount --bind other.pth vit.pth', 'has read other weights than'),
    ('touch empty && mount --bind empty vit.pth', 'On .*: .*vit.pth'),
])
def test_nodes_that_see_other_files_are_refused_in_a_sentence(hide, said, folder):
    needs_namespaces()
    hide = hide.replace('python', sys.executable)
    code, printed = torchrun(folder, 'hidden/run' if 'hidden' in hide else f'run_{abs(hash(hide))}', hide)
    assert code and len(re.findall(said, printed)) == 1, printed[-3000:]
    assert 'Traceback' not in printed.split('torch/distributed')[0]


def test_two_nodes_train_what_one_trains_and_read_the_vit_once_each(folder):
    code, printed = torchrun(folder, 'two', script='counting.py')
    assert code == 0, printed[-3000:]
    assert sorted((folder / 'reads').read_text()) == ['0', '1']
    (folder / 'reads').unlink()
    one = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
                          'counting.py', 'tiny.py', '--work-dir', 'one'], cwd=folder, env=environment(), check=True,
                         text=True, capture_output=True)
    assert (folder / 'reads').read_text() == '0', 'one of the two processes reads it'
    assert differing(read_file(folder / 'two/iter_4.pth'), read_file(folder / 'one/iter_4.pth')) == []
    assert not [path for path in (folder / 'two').iterdir() if path.name.startswith('.seen')]
    assert 'Traceback' not in one.stderr


def test_srun_trains_like_torchrun(slurm: Nodes, folder):  # noqa: F811
    subprocess.run(['srun', '--kill-on-bad-exit=1', '--nodes=2', '--ntasks=2', '--mem=1500', sys.executable, TRAIN,
                    'tiny.py', '--work-dir', 'srun'], cwd=folder, env=environment(MASTER_ADDR='127.0.0.1'), check=True,
                   timeout=300)
    subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', TRAIN,
                    'tiny.py', '--work-dir', 'like'], cwd=folder, env=environment(), check=True)
    assert differing(read_file(folder / 'srun/iter_4.pth'), read_file(folder / 'like/iter_4.pth')) == []
