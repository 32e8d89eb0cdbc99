"""Numbers of gates, selection ratios and temperatures by block, in checkpoints and over a training.

Source: equations 6 and 8 to 11 of arXiv 2306.05067.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.registry import MODELS
from torch import Tensor

from ..checkpoints.read import read_file, settings_in, weights_in
from ..models.prompts import GatedPrompt
from ..settings import type_name

QUANTITIES = ('gates', 'selection_ratio', 'temperatures')
LOGGED = re.compile(rf'({"|".join(QUANTITIES)})/block_(\d+)')  # as TrackingHook names them
# Least change in gamma that counts as a movement. The ratio of two nearly closed gates is exp(their difference in
# gamma), so 0.1 makes one 10 % larger.
MOVED = 0.1


class GateReport(NamedTuple):
    """Gates and temperatures in one checkpoint, by block; NaN in blocks that do not use theirs.

    Attributes:
        name: Name in the legend.
        gammas: Gate priors gamma of blocks 1 .. L-1 (L-1,), or None if the model has none.
        temperatures: Attention temperatures of blocks 1 .. L (L,), or None.
        prior: Initial value of the gate priors gamma, or None if it is not known.
        hard: Whether the gates are hard ones.
    """
    name: str
    gammas: np.ndarray | None
    temperatures: np.ndarray | None
    prior: float | None = None
    hard: bool = False

    @property
    def gates(self) -> np.ndarray | None:
        """Gates g of blocks 1 .. L-1 (L-1,), or None if the model has none; of hard ones the probabilities of 1."""
        return None if self.gammas is None else sigmoid(self.gammas)

    @property
    def start(self) -> np.floating:
        """The gate prior gamma before training; if it is not known, that of the first gate."""
        # The parameter is a float32, which has no 0.1.
        return self.gammas[~np.isnan(self.gammas)][0] if self.prior is None else np.float32(self.prior)

    @property
    def moved(self) -> float:
        """Largest change of a gate since then, in gamma; also of gates that round to 0 or 1."""
        return float(np.nanmax(np.abs(self.gammas - self.start)))

    @property
    def note(self) -> str | None:
        """Sentence that the gates have not moved, or None if they have, see :func:`gate_note`."""
        if self.gammas is None:
            return None
        where = ('one another (the file does not hold their prior)' if self.prior is None
                 else f'their prior, gamma = {self.prior:g}')
        return gate_note(self.name, self.moved, sigmoid(self.start), where)


class GateHistory(NamedTuple):
    """Gates, selection ratios and temperatures that a run logged while it trained.

    Attributes:
        name: Name in the figure.
        iterations: Iterations (T,) at which they were logged.
        series: Values (T,) of each logged one of ``QUANTITIES``, by block, counted from 1; NaN where one is missing.
        hard: Whether the gates are hard ones, of which the probabilities of 1 are logged.
    """
    name: str
    iterations: np.ndarray
    series: dict[str, dict[int, np.ndarray]]
    hard: bool = False

    @property
    def note(self) -> str | None:
        """Sentence that the gates have not moved from the first to the last time they were logged, or None."""
        if 'gates' not in self.series:
            return None
        gates = np.stack(list(self.series['gates'].values()), axis=1)
        logged = ~np.isnan(gates).all(axis=1)  # gates that were not finite are not in the log
        gates, first = gates[logged], self.iterations[logged][0]
        where = 'their prior' if first == 0 else f'where they were at iteration {first}'
        return gate_note(self.name, movement(gates[-1], gates[0]), np.nanmax(gates[0]), where)


def sigmoid(gamma: np.ndarray) -> np.ndarray:
    """Computes gates from gate priors (equation 6)."""
    with np.errstate(over='ignore'):  # exp(1000) is inf, and the gate 0
        return 1 / (1 + np.exp(-gamma))


def selection_weights(gates: np.ndarray) -> np.ndarray:
    """Computes the weight of each block's prompt output in the prompts of the last block (equation 10).

    Args:
        gates: Gates (G,) in [0, 1] of the blocks that have prompts, without the last. Probabilities of hard gates,
            which are drawn independently, give the mean weights.

    Returns:
        np.ndarray: (G,), ``g_l * prod_{m>l} (1 - g_m)``. Together with ``prod_m (1 - g_m)``, the weight of the
        learnt prompt tokens themselves, they sum to 1 (equation 8).
    """
    passed_on = np.cumprod((1 - gates)[::-1])[::-1]  # prod_{m>=l} (1 - g_m)
    return gates * np.append(passed_on[1:], 1.)


def selection_ratio(gates: np.ndarray) -> np.ndarray:
    """Normalises the selection weights to a sum of 1 (equation 11).

    Args:
        gates: Gates (G,), NaN in blocks that do not use theirs.

    Returns:
        np.ndarray: (G,), NaN where ``gates`` is.

    Raises:
        ValueError: no gate is open at all, so nothing is selected from any block.
    """
    used = ~np.isnan(gates)
    weights = selection_weights(gates[used])
    if not weights.any():
        raise ValueError('the selection ratio is not defined where all gates are 0')
    ratio = np.full(len(gates), np.nan)
    ratio[used] = weights / weights.sum()
    return ratio


def movement(gates: np.ndarray, start: np.ndarray) -> float:
    """Returns the largest change of a gate prior gamma since the start; exactly 0 if there is none.

    Args:
        gates: Gates (G,), NaN in blocks that do not use theirs.
        start: Gates (G,) at the start.
    """
    changed = (gates != start) & ~np.isnan(gates - start)
    now, before = gates[changed], start[changed]
    with np.errstate(divide='ignore'):  # a gate of exactly 0 or 1
        changes = np.abs(np.log(now / before) - np.log((1 - now) / (1 - before)))
    return float(changes.max(initial=0))


def gate_note(name: str, moved: float, start: float, where: str) -> str | None:
    """Warns of gates that have hardly moved, whose selection ratio looks like a finding and is none.

    Args:
        name: Name of the run.
        moved: Largest change of a gate prior gamma since the start.
        start: Largest gate at the start.
        where: Description of ``start``, such as 'their prior'.

    Returns:
        A sentence, or None if they have moved.
    """
    if moved >= MOVED:
        return None
    how = f'moved by only {moved:.2g} in gamma' if moved else 'not moved'
    uniform = ' Nearly closed gates that are all equal give a uniform one.' if start < 0.01 else ''
    return f'{name}: the gates have {how} from {where}, so the selection ratio is that of untrained gates.{uniform}'


def read_gates(state: dict[str, Tensor], name: str, backbone: dict | None = None) -> GateReport:
    """Reads gates and temperatures out of the state dict of a model or of its backbone.

    Args:
        state: The state dict; one with adapters only is enough.
        name: Name in the figure.
        backbone: The options of GatedPromptViT in its config. They say where the gates started and which blocks use
            theirs; without them, all blocks are assumed to.

    Raises:
        ValueError: the state dict has neither gates nor temperatures, or one of them is NaN, or the model uses none.
    """
    found = {key.rpartition('.')[2]: value.double().numpy() for key, value in state.items()
             if key.endswith(('prompt.gate_prior', 'temperature'))}
    if not found:
        raise ValueError(f'{name} has neither gates nor temperatures')
    if any(np.isnan(values).any() for values in found.values()):
        raise ValueError(f'{name} has gates or temperatures that are NaN, so there is nothing to draw')
    backbone, options = backbone or {}, (backbone or {}).get('prompt') or {}
    gammas, temperatures = found.get('gate_prior'), found.get('temperature')
    depth = len(temperatures) if gammas is None else len(gammas) + 1
    first, last = backbone.get('start_block', 0), max(backbone.get('out_indices') or (depth - 1, ))
    if temperatures is not None:
        temperatures = nan_outside(temperatures, 0, last + 1)
    if gammas is not None:
        gammas = nan_outside(gammas, first, last)
        gammas = None if np.isnan(gammas).all() else gammas
    if gammas is None and temperatures is None:
        raise ValueError(f'{name} uses none of its gates: no block before the last one has prompts')
    prior = 0. - options.get('gate_init', 10.) if options else None
    return GateReport(name, gammas, temperatures, prior, has_hard_gates(backbone))


def nan_outside(values: np.ndarray, first: int, end: int) -> np.ndarray:
    """Returns a copy of ``values`` with NaN outside of ``first:end``."""
    kept = np.full(len(values), np.nan)
    kept[first:end] = values[first:end]
    return kept


def read_checkpoint(path: str | Path, name: str) -> GateReport:
    """Reads the gates and temperatures of a checkpoint, which may hold adapters only.

    Args:
        path: A local file.
        name: Name in the figure.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, or not a checkpoint.
        ValueError: it has neither gates nor temperatures.
    """
    content = read_file(path)
    backbone = settings_in(content).get('model', {}).get('backbone')
    return read_gates(weights_in(content, path), name, backbone)


def read_history(lines: list[dict], name: str, hard: bool = False) -> GateHistory:
    """Takes gates, selection ratios and temperatures out of the log of a run.

    Args:
        lines: Lines of the training log, each a dict of numbers with 'step'.
        name: Name in the figure.
        hard: Whether the gates are hard ones.

    Raises:
        ValueError: the log has neither gates nor temperatures.
    """
    lines = [line for line in lines if any(LOGGED.fullmatch(key) for key in line)]
    if not lines:
        raise ValueError(f'{name} has logged neither gates nor temperatures: either its method has none, or '
                         'TrackingHook was not among its custom_hooks; then its checkpoints can be drawn')
    series: dict[str, dict[int, np.ndarray]] = {}
    for key in sorted({key for line in lines for key in line if LOGGED.fullmatch(key)}):
        quantity, block = LOGGED.fullmatch(key).groups()
        series.setdefault(quantity, {})[int(block)] = np.array([line.get(key, np.nan) for line in lines])
    return GateHistory(name, np.array([line['step'] for line in lines]), series, hard)


def has_hard_gates(backbone: dict) -> bool:
    """Returns whether a backbone's options are for prompts with hard gates, whose class says so by ``hard``."""
    return getattr(MODELS.module_dict.get(type_name(backbone.get('prompt'))), 'hard', GatedPrompt.hard)


def report_rows(report: GateReport) -> list[dict]:
    """Returns the numbers of a checkpoint as rows, one for each block; None where a block has or uses none."""
    ratio = None if report.gates is None else selection_ratio(report.gates)
    columns = dict(gate=report.gates, selection_ratio=ratio, temperature=report.temperatures)
    depth = len(report.temperatures) if report.temperatures is not None else len(report.gates)
    return [dict(run=report.name, block=i + 1, **{
        name: None if values is None else first_or_none(values[i:]) for name, values in columns.items()})
            for i in range(depth)]


def history_rows(history: GateHistory) -> list[dict]:
    """Returns the numbers of a run as rows, one for each block and logged iteration."""
    blocks = sorted({block for values in history.series.values() for block in values})
    names = dict(zip(('gate', 'selection_ratio', 'temperature'), QUANTITIES))
    return [dict(run=history.name, iteration=int(iteration), block=block, **{
        name: first_or_none(history.series.get(quantity, {}).get(block, ())[i:]) for name, quantity in names.items()})
            for i, iteration in enumerate(history.iterations) for block in blocks]


def first_or_none(values: np.ndarray) -> float | None:
    """Returns the first of ``values``, or None if there is none or it is NaN."""
    return float(values[0]) if len(values) and not np.isnan(values[0]) else None
