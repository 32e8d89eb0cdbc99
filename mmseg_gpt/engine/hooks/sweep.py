"""What a sweep of heads leaves behind: a table of all heads, and the best one as an ordinary checkpoint."""

import json
import math
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from prettytable import PrettyTable

from ...adapters import unwrap
from ...checkpoints.write import write_checkpoint
from ...events import without_nan
from ...files import replacing
from ...settings import settings_of
from ..errors import RunStopped
from ..state import state_of, without_frozen
from ..sweep import best_of, config_of, score, score_name

BEST = 'best_head'


@HOOKS.register_module()
class SweepHook(Hook):
    """Compares the heads of a SweepModel after each validation.

    It logs a table and writes ``sweep.json``, with settings and all validations of each head, and ``best_head.pth``
    with ``best_head.py``: weights and config of the head with the best of all validations so far, as if it had been
    trained alone. It is no checkpoint to resume from.

    Args:
        settings: What each head was given, by its name: values by dotted paths.

    Raises:
        RunStopped: all heads have diverged.
    """

    priority = 'VERY_LOW'

    def __init__(self, settings: dict[str, dict[str, object]]) -> None:
        self.settings = settings

    def before_train(self, runner) -> None:
        model = unwrap(runner.model)
        # It lies in the message hub, and so in every checkpoint.
        model.diverged = runner.message_hub.runtime_info.get('diverged') or {}
        runner.message_hub.update_info('diverged', model.diverged)
        self.diverged = model.diverged
        self.validations = self.earlier(runner)
        for name, wrapper in runner.optim_wrapper.items():  # which MMEngine leaves to whoever has several optimizers
            wrapper.initialize_count_status(model.member(name), runner.iter, runner.max_iters)
        self.said = set(model.diverged)

    def earlier(self, runner) -> dict[str, dict]:
        """Returns the validations of each head in ``sweep.json`` that a resumed run has behind it."""
        path = Path(runner.work_dir, 'sweep.json')
        heads = json.loads(path.read_text())['heads'] if runner.iter and path.is_file() else {}
        return {name: {iteration: metrics for iteration, metrics in heads.get(name, {}).get('validations', {}).items()
                       if int(iteration) <= runner.iter} for name in self.settings}

    def after_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        for name in self.diverged.keys() - self.said:
            self.said.add(name)
            runner.logger.warning(f'loss or gradient of {name} is not finite in iteration {self.diverged[name]}; it is '
                                  'trained no further')
        if len(self.diverged) == len(self.settings):
            raise RunStopped('not-finite', f'stopped at iteration {runner.iter + 1}: loss or gradient of every head of '
                             'the sweep is not finite. The usual causes are learning rates that are too large')

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        results = runner.val_loop.evaluator.results
        for name, each in results.items():
            numbers = {key: round(float(value), 4) for key, value in each.items()}
            self.validations[name][str(runner.iter)] = without_nan(numbers)
        best = best_of(results)
        if best is None:
            return
        runner.logger.info(f'heads after {runner.iter} iterations, best first\n{self.table(results)}')
        metric = score_name(results[best])
        scores = {(name, iteration): metrics.get(metric, -math.inf) for name, all_metrics in self.validations.items()
                  for iteration, metrics in all_metrics.items()}
        name, iteration = max(scores, key=scores.get)
        written = dict(metric=metric, best=name, iteration=int(iteration), heads={
            name: dict(settings=settings, diverged=self.diverged.get(name), validations=self.validations[name])
            for name, settings in self.settings.items()})
        with replacing(Path(runner.work_dir, 'sweep.json')) as file:
            file.write_text(json.dumps(written, indent=2) + '\n')
        if int(iteration) == runner.iter:
            self.save(runner, name)

    def table(self, results: dict[str, dict[str, float]]) -> PrettyTable:
        """Makes a table of settings and metrics, the best head first and those without metrics last."""
        names = sorted(results, key=lambda name: -score(results[name]))
        columns = list(results[names[0]])
        paths = list(next(iter(self.settings.values())))
        table = PrettyTable([*(path.rpartition('.')[2] for path in paths), *columns], align='r')
        for name in names:
            table.add_row([*self.settings[name].values(), *(f'{results[name][key]:.2f}' for key in columns)])
        for name, iteration in self.diverged.items():
            if name not in results:
                table.add_row([*self.settings[name].values(), f'not finite from iteration {iteration}',
                               *[''] * (len(columns) - 1)])
        return table

    def save(self, runner, name: str) -> None:
        """Writes weights and config of a head, as a run of its own would have saved them."""
        cfg, place = config_of(runner.cfg, name), f'members.{unwrap(runner.model).names.index(name)}.'
        checkpoint = state_of(runner, dict(epoch=runner.epoch, iter=runner.iter), {}, False, False)
        checkpoint['meta'].update(settings=settings_of(cfg), cfg=cfg.pretty_text)
        del checkpoint['message_hub']
        if runner.frozen_source:
            without_frozen(checkpoint, runner)
        checkpoint['state_dict'] = {key.removeprefix(place): value for key, value in checkpoint['state_dict'].items()
                                    if key.startswith((place, 'backbone.'))}
        write_checkpoint(checkpoint, Path(runner.work_dir, f'{BEST}.pth'))
        cfg.dump(Path(runner.work_dir, f'{BEST}.py'))
