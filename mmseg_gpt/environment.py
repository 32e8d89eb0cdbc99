"""The machine and the packages that a process runs on."""

import os
import platform
import re
import resource
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path

import torch


def available_cpus() -> int:
    """Returns the number of CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def is_first_process() -> bool:
    """Returns whether this is the first process of torchrun, Slurm or MPI, or the only one.

    Only the environment is asked, so that it is known before processes are joined in a group.
    """
    ranks = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
    return next((rank for rank in ranks if rank is not None), '0') == '0'


def cpu_name() -> str:
    """Returns the processor's name as the system has it."""
    info = Path('/proc/cpuinfo')
    names = re.findall(r'^model name\s*: (.+)$', info.read_text(), re.MULTILINE) if info.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def installed_versions(*modules: str) -> dict[str, str]:
    """Returns the versions of the distributions that brought these modules, if installed.

    The keys are the distributions' names, which differ from the modules' where a fork of OpenMMLab is installed.
    """
    installed = packages_distributions()
    return {name: version(name) for module in modules for name in installed.get(module, ())}


def available_bytes(device: torch.device) -> float:
    """Returns the bytes of memory that are free for use; infinity where the system does not say."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    return bytes_in('/proc/meminfo', 'MemAvailable') or float('inf')


def peak_resident_bytes() -> int:
    """Returns the most physical memory this process ever had, in bytes, as the operating system counts it."""
    # Linux's getrusage begins with what the process had that started this one.
    peak = bytes_in('/proc/self/status', 'VmHWM')
    return peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def bytes_in(file: str, name: str) -> int:
    """Returns the number of bytes that a file of Linux's /proc gives under a name, or 0 where there is none."""
    found = re.search(rf'^{name}:\s+(\d+) kB$', Path(file).read_text(), re.MULTILINE) if Path(file).is_file() else None
    return int(found[1]) * 1024 if found else 0
