"""A cluster of Slurm on this machine, as Debian's slurm-wlm and munge bring it: two nodes with a place each."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

NEEDED = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'srun')
NODES = ('one', 'two')
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={home}/munge.socket,cred_expire=5
StateSaveLocation={home}
SlurmdSpoolDir={home}/spool-%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd-%n.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
KillWait=20
SlurmdTimeout=10
SchedulerParameters=sched_interval=1,requeue_delay=0
{nodes}
PartitionName=main Nodes=one,two Default=YES MaxTime=INFINITE State=UP
"""


class Nodes:
    """The processes of a cluster, until ``end``.

    Args:
        home: Its files; a path short enough for a socket.
    """

    def __init__(self, home: Path) -> None:
        self.home, host = home, socket.gethostname().partition('.')[0]
        ports = [free_port() for _ in range(3)]
        nodes = '\n'.join(f'NodeName={name} NodeHostName={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=4000'
                          for name, port in zip(NODES, ports[1:]))
        (home / 'slurm.conf').write_text(CONF.format(home=home, host=host, controller=ports[0], nodes=nodes))
        (home / 'key').write_bytes(os.urandom(128))
        (home / 'key').chmod(0o400)
        self.environment = dict(os.environ, SLURM_CONF=str(home / 'slurm.conf'))
        self.tool('munged', '--force', *(f'--{name}={home}/{file}' for name, file in (
            ('key-file', 'key'), ('socket', 'munge.socket'), ('pid-file', 'munged.pid'), ('log-file', 'munged.log'),
            ('seed-file', 'seed'))))
        self.tool('slurmctld')
        for name in NODES:
            (home / f'spool-{name}').mkdir()
            self.start(name)
        wait_until(lambda: self.tool('sinfo', '-h', '-o', '%T %D') == 'idle 2')

    def tool(self, *command: str) -> str:
        """Calls one of Slurm's tools and returns what it prints."""
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout.strip()

    def start(self, name: str) -> None:
        """Starts a node."""
        self.tool('slurmd', '-N', name)

    def pid(self, file: str) -> int:
        """The process of a file of a pid; 0 where it is not."""
        path = self.home / f'{file}.pid'
        return int(path.read_text()) if path.is_file() else 0

    def cut_off(self, name: str) -> None:
        """Lets a node vanish with all that runs on it, as a power failure does."""
        pids = [self.pid(f'slurmd-{name}'), *self.steps(name)]
        kill(pids, signal.SIGSTOP)  # so that none of them can still tell of the end of another
        kill(pids)

    def steps(self, name: str) -> list[int]:
        """The processes of a node's jobs: those with its name in their environment, and Slurm's own of these."""
        found = []
        for process in Path('/proc').glob('[0-9]*'):
            with suppress(OSError):
                words = (process / 'environ').read_bytes().split(b'\0')
                conf = f'SLURM_CONF={self.home}/slurm.conf'.encode()
                if conf in words and f'SLURMD_NODENAME={name}'.encode() in words:
                    found.append(int(process.name))
                    stepd = parent_of(found[-1])
                    if b'slurmstepd' in (Path('/proc') / str(stepd) / 'cmdline').read_bytes():
                        found.append(stepd)
        return [*dict.fromkeys(found)]

    def end(self) -> None:
        """Ends all."""
        for name in NODES:
            self.cut_off(name)
        kill([self.pid('slurmctld'), self.pid('munged')])


def parent_of(pid: int) -> int:
    """The process that started another."""
    return int(Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1])


def kill(pids: list[int], number: int = signal.SIGKILL) -> None:
    """Sends a signal to processes; by default one that ends them at once."""
    for pid in pids:
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]


def wait_until(holds: Callable[[], object], seconds: float = 120, every: float = .2) -> None:
    """Waits for something, and fails if it does not come."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, 'it has not come'
        time.sleep(every)


@pytest.fixture(scope='module')
def slurm(tmp_path_factory) -> Iterator[Nodes]:
    """The cluster; the commands of Slurm use it while the module's tests run."""
    if absent := [name for name in NEEDED if not shutil.which(name)]:
        pytest.skip(f'Slurm is not here ({", ".join(absent)}): apt-get install slurm-wlm munge')
    if os.geteuid():
        pytest.skip('only root can start Slurm')
    pytest.importorskip('submitit')
    nodes = Nodes(tmp_path_factory.mktemp('slurm'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SLURM_CONF', nodes.environment['SLURM_CONF'])
        yield nodes
    nodes.end()
