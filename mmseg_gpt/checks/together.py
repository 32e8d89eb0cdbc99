"""Stopping all processes of a run for what is wrong in one."""

import platform

from mmengine.dist import all_gather_object, get_rank, is_distributed

from ..environment import is_first_process


def stop_together(problem: str) -> None:
    """Ends all processes where one has a problem; only the first speaks, and says where it is. All must call this.

    Processes that have not been joined each end for themselves, and only the first speaks.

    Args:
        problem: That of this process; '' if it has none.

    Raises:
        SystemExit: some process has one.
    """
    if not is_distributed():
        if problem:
            raise SystemExit(problem if is_first_process() else 1)
        return
    problems = all_gather_object((problem, platform.node()))
    if found := [each for each in problems if each[0]]:
        words, host = found[0]
        raise SystemExit((words if problems[0][0] else f'On {host}: {words}') if get_rank() == 0 else 1)
