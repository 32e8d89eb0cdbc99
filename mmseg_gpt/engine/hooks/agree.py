"""One exchange an iteration, in which all processes learn what the hooks of each have found."""

import torch
from mmengine.dist import all_reduce, get_backend, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class AgreeHook(Hook):
    """Lets the hooks of all processes decide together, with one exchange before each iteration.

    It serves every hook that has two methods: ``vote(runner, data_batch)``, which returns an integer, and
    ``decide(runner, data_batch, highest)``, which is given the highest vote of all processes.
    """

    def __init__(self) -> None:
        self.group = None

    def before_train(self, runner) -> None:
        # By NCCL a GPU would exchange the votes, for which the host would wait twice.
        if get_world_size() > 1 and get_backend() == 'nccl':
            self.group = torch.distributed.new_group(backend='gloo')

    def highest(self, votes: list[int]) -> list[int]:
        """Returns the highest of all processes for each of the votes."""
        numbers = torch.tensor(votes)
        all_reduce(numbers, 'max', self.group)
        return numbers.tolist()

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        voters = [hook for hook in runner.hooks if hasattr(hook, 'vote')]
        votes = [hook.vote(runner, data_batch) for hook in voters]
        if get_world_size() > 1:
            votes = self.highest(votes)
        for hook, highest in zip(voters, votes):
            hook.decide(runner, data_batch, highest)
