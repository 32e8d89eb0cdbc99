"""Learning rates of adaptations: of the head and of what is trained in the backbone, and which are chosen."""

from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

from .runs import FINISHED, Run, diverged, format_number, with_settings

SEARCH_SEED = 0  # rates are chosen with it; results have other seeds
MIOU = 'mIoU'  # the number by which segmentations are compared
FACTORS = 'optim_wrapper.paramwise_cfg.custom_keys'  # of the head's learning rate, by what they are for
SGD = ('optim_wrapper.optimizer.type=SGD', 'optim_wrapper.optimizer.momentum=0.9')
Place = TypeVar('Place', bound=Hashable)


class Rates(NamedTuple):
    """Learning rates: of the head, and of what is trained in the backbone."""
    head: float
    backbone: float | None = None


def with_rates(run: Run, rates: Rates, gates: float = 1., sgd: bool = False) -> Run:
    """Returns a run with other learning rates, in a folder named after them.

    Args:
        run: A training.
        rates: Its learning rates.
        gates: The gates' learning rate over that of what else is trained in the backbone.
        sgd: Take SGD with momentum 0.9, as in the paper, in the place of AdamW.
    """
    changed = with_settings(run, lr=rates.head)
    if rates.backbone is None:
        return changed
    factor = rates.backbone / rates.head
    factors = [f'{FACTORS}.backbone.lr_mult={format_number(factor)}']
    if gates != 1:
        factors.append(f'{FACTORS}.gate_prior.lr_mult={format_number(gates * factor)}')
    return changed._replace(name=f'{run.name}_lr_{format_number(rates.backbone)}',
                            settings=(*changed.settings, *factors, *(SGD if sgd else ())))


def iterations(number: int) -> tuple[str, ...]:
    """Returns the settings of a training of so many iterations, a tenth of them to warm up."""
    warm_up = max(1, number // 10)
    return (f'train_cfg.max_iters={number}', f'param_scheduler.0.end={warm_up}', f'param_scheduler.1.begin={warm_up}',
            f'param_scheduler.1.end={number}')


def best_of(tried: Mapping[Place, Run], records: Mapping[str, dict], number: str) -> Place | None:
    """Returns what was tried with the highest number, where all runs have ended; None where some have not.

    A run that diverged is as bad as one can be; one that failed otherwise says nothing. Of equal ones the first in
    ``tried`` is taken.

    Args:
        tried: Runs by what they try, in the order in which they were tried.
        records: The records of runs, by name.
        number: The name of the number that counts.
    """
    found = {place: records.get(run.name, {}) for place, run in tried.items()}
    values = {place: record['numbers'][number] for place, record in found.items() if record.get('status') == FINISHED}
    ended = values and all(place in values or diverged(record) for place, record in found.items())
    return max(values, key=values.get) if ended else None
