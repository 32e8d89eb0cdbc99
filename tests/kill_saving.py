"""Kills a run at random moments of saving, again and again, and prints what was left each time, as JSON.

Usage: python kill_saving.py FOLDER KILLS
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from tiny_run import next_name, tiny_config

from mmseg_gpt.adapters import unwrap
from mmseg_gpt.engine import AtomicCheckpointHook, Runner
from mmseg_gpt.engine.resume import check_resumable_file, newest_checkpoint


def prepare(folder: Path) -> tuple[Runner, AtomicCheckpointHook]:
    """A run that has done 2 iterations and keeps one checkpoint."""
    cfg = tiny_config(folder, train_cfg__max_iters=2, default_hooks__checkpoint__max_keep_ckpts=1,
                      train_dataloader__num_workers=0)
    cfg.experiment_name = next_name()
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner, next(hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook))


def mark(runner: Runner, iteration: int) -> None:
    """Writes the iteration into a weight, so that a file tells whether it belongs together."""
    runner.train_loop._iter = iteration - 1
    unwrap(runner.model).decode_head.conv_seg.bias.data.fill_(iteration)


def save_until_killed(runner: Runner, hook: AtomicCheckpointHook, first: int) -> None:
    for iteration in range(first, first + 10**6):
        mark(runner, iteration)
        hook._save_checkpoint(runner)


def main() -> None:
    torch.set_num_threads(1)  # OpenMP's other threads would not survive a fork
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    runner, hook = prepare(folder)
    MMLogger.get_current_instance().setLevel('ERROR')
    random.seed(0)
    left = []
    newest = 2
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            save_until_killed(runner, hook, newest + 1)
        time.sleep(random.uniform(0.01, 0.12))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = newest_checkpoint(folder / 'run')
        checkpoint = check_resumable_file(found)
        iteration = checkpoint['meta']['iter']
        whole = set(checkpoint['state_dict']['decode_head.conv_seg.bias'].tolist()) == {float(iteration)}
        left.append(dict(iteration=iteration, lost=iteration < newest, whole=whole,
                         files=len(list((folder / 'run').glob('iter_*')))))
        newest = iteration
        kept = checkpoint['message_hub']['runtime_info']['kept_checkpoints']
        runner.message_hub.update_info('kept_checkpoints', kept)
        hook.before_train(runner)  # as in a resumed run
    print(json.dumps(left))


if __name__ == '__main__':
    main()
