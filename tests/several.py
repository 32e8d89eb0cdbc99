"""Several processes of a test, which begin where it stands and can talk to each other over gloo."""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import torch


def in_processes(folder: Path, function: Callable[[int], object], processes: int = 2) -> list:
    """Calls a function in forked processes that form a group, and returns what it returns in each.

    Args:
        folder: For what they return, and for the file by which they find each other.
        function: Gets the number of its process.
        processes: How many.
    """
    def work(rank: int) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes))
        try:
            torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/group', rank=rank,
                                                 world_size=processes)
            torch.save(function(rank), folder / f'{rank}.returned')
            torch.distributed.barrier()
        except BaseException:
            (folder / f'{rank}.error').write_text(traceback.format_exc())
        os._exit(0)  # what the parent would do at its end is not ours to do

    (folder / 'group').unlink(missing_ok=True)
    started = [multiprocessing.get_context('fork').Process(target=work, args=(rank, )) for rank in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
        process.kill()
    errors = [file.read_text() for file in folder.glob('*.error')]
    assert not errors, '\n'.join(errors)
    return [torch.load(folder / f'{rank}.returned', weights_only=False) for rank in range(processes)]
