"""Several processes of one run, on one machine or several: how they find each other, and whether they see the same.

Each of them speaks for itself until they are joined. From then on what stops one of them stops all, and the first one
says why in a sentence: without that, the others would wait for it in vain.
"""

import hashlib
import os
import platform
import re
import socket
import subprocess
import time
import traceback
import uuid
from datetime import timedelta
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, broadcast, broadcast_object_list, get_rank, is_distributed
from torch import distributed, nn
from torch.utils.data import Dataset

from ..checkpoints import CheckpointError
from ..checkpoints.digest import digest_of
from ..checks.together import stop_together
from ..wording import reason

PORTS = range(10000, 30000)  # below those that systems give away
PATIENCE = 30  # seconds in which a file must be seen by other machines: NFS may answer from memory for a while
SAMPLES = 64  # files of a dataset that are compared
LONGEST_WAIT = 3600  # seconds that a process waits for another; NCCL's own choice is 600


def under_srun() -> bool:
    """Returns whether srun has started this process together with others."""
    return 'SLURM_PROCID' in os.environ and int(os.environ.get('SLURM_STEP_NUM_TASKS', 1)) > 1


def adopt_slurm() -> None:
    """Sets the variables that torchrun would set from those of srun; what is set already stays.

    Raises:
        SystemExit: srun has not started this process.
    """
    absent = [name for name in ('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_JOB_ID') if name not in os.environ]
    if absent:
        raise SystemExit(f'--launcher slurm: {absent[0]} is not set; start the tool with srun, one task for each GPU')
    slurm = os.environ
    job, step = int(slurm['SLURM_JOB_ID']), int(slurm.get('SLURM_STEP_ID', 0))
    # Where each task sees its own GPU only, that is the first.
    own = slurm.get('CUDA_VISIBLE_DEVICES', '').count(',') == 0 and 'CUDA_VISIBLE_DEVICES' in slurm
    found = dict(RANK=slurm['SLURM_PROCID'], LOCAL_RANK='0' if own else slurm['SLURM_LOCALID'],
                 WORLD_SIZE=slurm.get('SLURM_STEP_NUM_TASKS') or slurm.get('SLURM_NTASKS', '1'),
                 MASTER_PORT=str(PORTS[(job * 7 + step) % len(PORTS)]))
    if 'MASTER_ADDR' not in slurm:
        found['MASTER_ADDR'] = first_host(slurm.get('SLURM_STEP_NODELIST') or slurm.get('SLURM_NODELIST', ''))
    for name, value in found.items():
        os.environ.setdefault(name, value)


def first_host(nodes: str) -> str:
    """Returns the first name of a list of Slurm, such as ``gpu[003-005,7]``."""
    if '[' not in nodes:
        return nodes.partition(',')[0]
    said = subprocess.run(['scontrol', 'show', 'hostnames', nodes], capture_output=True, text=True, check=False)
    return said.stdout.split()[0] if said.stdout.split() else re.sub(r'\[(\w+).*', r'\1', nodes)


def join(cfg: Config) -> None:
    """Joins the processes of a run, and checks that all see one work directory, which the first one makes.

    Args:
        cfg: The config; ``launcher`` is changed, as afterwards it does not matter any more how they were started.

    Raises:
        SystemExit: they cannot find each other, or see different folders.
    """
    if cfg.launcher not in ('slurm', 'pytorch') or distributed.is_initialized():
        return
    started_by, cfg.launcher = cfg.launcher, 'pytorch'
    if started_by == 'slurm':
        adopt_slurm()
    check_places()
    place = f'{os.environ["MASTER_ADDR"]}:{os.environ["MASTER_PORT"]}'
    if started_by == 'slurm' and os.environ['RANK'] == '0':  # a shell may be one of many tasks by mistake
        print(f'{os.environ["WORLD_SIZE"]} tasks of srun join at {place}; --launcher none is for a single one',
              flush=True)
    options = with_long_wait(cfg.get('env_cfg', {}).get('dist_cfg'))
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ['LOCAL_RANK']))
            waited = timedelta(seconds=options.pop('timeout'))
            distributed.init_process_group(**{'backend': 'nccl', **options}, timeout=waited)
        else:
            start_gloo_without_cuda(options['timeout'])
    except (RuntimeError, ValueError) as error:  # torch's errors of connections are RuntimeErrors
        raise SystemExit(f'process {os.environ["RANK"]} on {platform.node()} cannot join the others at {place}: '
                         f'{str(error).splitlines()[0]}') from error
    check_work_dir(Path(cfg.work_dir))


def with_long_wait(dist_cfg: dict | None) -> dict:
    """Returns ``env_cfg.dist_cfg`` with a timeout in seconds: ours, where it has none.

    Processes wait for each other at a validation's end, and while the first one saves: minutes on a slow disk.
    """
    return {'timeout': LONGEST_WAIT, **(dist_cfg or {})}


def start_gloo_without_cuda(timeout: float) -> None:
    """Starts gloo where there is no GPU and no group of processes yet; MMEngine would start NCCL.

    Args:
        timeout: Seconds after which a process gives up waiting for another.
    """
    if not torch.cuda.is_available() and not distributed.is_initialized():
        distributed.init_process_group('gloo', timeout=timedelta(seconds=timeout))


def check_places() -> None:
    """Stops where the variables that number processes make no sense, or the port of the first is not free.

    Raises:
        SystemExit: it says what is wrong.
    """
    names = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_PORT')
    for name in (*names, 'MASTER_ADDR'):
        value = os.environ.get(name, '')
        if not value or (name in names and not value.isdecimal()):
            raise SystemExit(f'{name} is {value!r}: it must be set for each process, as torchrun and srun do')
    rank, local, size, port = (int(os.environ[name]) for name in names)
    if rank >= size:
        raise SystemExit(f'RANK is {rank} and WORLD_SIZE {size}: processes are numbered from 0 to {size - 1}')
    if torch.cuda.is_available() and local >= torch.cuda.device_count():
        raise SystemExit(f'process {rank} on {platform.node()} is number {local} there, which has '
                         f'{torch.cuda.device_count()} GPUs: start one process for each')
    if rank == 0 and os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True':
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(('', port))
            except OSError as error:
                raise SystemExit(f'port {port} of {platform.node()} is not free ({reason(error)}): set MASTER_PORT '
                                 'to another one for all processes') from error


def check_work_dir(folder: Path) -> None:
    """Stops where not all processes see the folder in which the first one writes.

    Raises:
        SystemExit: some machine does not see it, or the first cannot write there.
    """
    name, problem = [f'.seen-{uuid.uuid4().hex}'], ''
    if get_rank() == 0:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name[0]).touch()
        except OSError as error:
            problem = f'the work directory {folder} cannot be written: {reason(error)}'
    stop_together(problem)
    broadcast_object_list(name)
    deadline = time.monotonic() + PATIENCE
    while name[0] not in (os.listdir(folder) if folder.is_dir() else []) and time.monotonic() < deadline:
        time.sleep(.5)
    if name[0] not in (os.listdir(folder) if folder.is_dir() else []):
        problem = f'{folder.absolute()} is not the work directory that the first process sees under this name: it ' \
                  'must be on a file system that all machines share'
    try:
        stop_together(problem)
    finally:
        if get_rank() == 0:
            (folder / name[0]).unlink(missing_ok=True)


def check_same_data(dataset: Dataset) -> None:
    """Stops where the processes have different images to train on.

    Raises:
        SystemExit: they have.
    """
    if is_distributed():
        first, *_ = said = all_gather_object((fingerprint(dataset), platform.node()))
        others = [host for found, host in said if found != first[0]]
        stop_together(f'{others[0]} has other training images than {first[1]}: all machines must see the same data'
                      if others and get_rank() == 0 else '')


def fingerprint(dataset: Dataset) -> str:
    """Returns what tells a dataset from others: its length, and the names and sizes of some images."""
    number = len(dataset)
    found: list[object] = [number]
    if hasattr(dataset, 'get_data_info'):
        for i in range(0, number, max(1, number // SAMPLES)):
            path = Path(str(dataset.get_data_info(i).get('img_path', '')))
            found.append((path.name, path.stat().st_size if path.is_file() else None))
    return hashlib.sha256(repr(found).encode()).hexdigest()


def node_of_this_process() -> str:
    """Returns what tells the node of this process from the others of its run."""
    boot = Path('/proc/sys/kernel/random/boot_id')
    machine = boot.read_text().strip() if boot.is_file() else platform.node()
    return f'{machine} {os.environ.get("SLURMD_NODENAME") or os.environ.get("GROUP_RANK", "")}'


def read_once_a_node(model: nn.Module) -> None:
    """Initialises a model, with its pretrained file, in one process of each node, and sends it to all others.

    Args:
        model: Without its wrapper; it must be the same in all processes but for its numbers.

    Raises:
        SystemExit: a node cannot initialise it, or has another file.
    """
    node = node_of_this_process()
    reads, problem, found = all_gather_object(node).index(node) == get_rank(), '', ''
    if reads:
        try:
            model.init_weights()
            found = digest_of(model.state_dict())
        except (CheckpointError, OSError) as error:
            problem = str(error)
        except Exception:  # the others must not wait for this process, whatever has gone wrong
            problem = traceback.format_exc()
    stop_together(problem)
    all_found = all_gather_object((found, platform.node()))
    others = [host for each, host in all_found if each and each != all_found[0][0]]
    stop_together(f'{others[0]} has read other weights than {all_found[0][1]}: the pretrained file must be the same '
                  'on all machines' if others and get_rank() == 0 else '')
    for tensor in model.state_dict().values():
        broadcast(tensor)
