"""Gates, selection ratios and temperatures by block, of checkpoints and over a training: the numbers.

Source: equations 6 and 8 to 11 of arXiv 2306.05067.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..checkpoints.read import read_file, settings_in, weights_in

QUANTITIES = ('gates', 'selection_ratio', 'temperatures')
LOGGED = re.compile(rf'({"|".join(QUANTITIES)})/block_(\d+)')  # as TrackingHook names them
# Two gates that are nearly closed have a ratio of exp of their difference in gamma: 0.1 makes one 10 % larger.
MOVED = 0.1


class GateReport(NamedTuple):
    """What one checkpoint learnt, by block; NaN in blocks that do not use it.

    Attributes:
        name: What the legend calls it.
        gates: Gates g of blocks 1 .. L-1 (L-1,), or None where the model has none. Of hard gates these are the
            probabilities to be open; they are 0 or 1 when used.
        temperatures: Attention temperatures of blocks 1 .. L (L,), or None.
        prior: Where the gate priors gamma started, None if that is not known.
        hard: Whether the gates are hard ones.
    """
    name: str
    gates: np.ndarray | None
    temperatures: np.ndarray | None
    prior: float | None = None
    hard: bool = False

    @property
    def start(self) -> np.ndarray:
        """Where the gates were before training; the first of them everywhere, if their prior is not known."""
        if self.prior is None:
            return np.full_like(self.gates, self.gates[~np.isnan(self.gates)][0])
        # The parameter is a float32, which has no 0.1.
        return np.full_like(self.gates, sigmoid(np.float64(np.float32(self.prior))))

    @property
    def moved(self) -> float:
        """How far the gates went from there in gamma, see :func:`movement`."""
        return movement(self.gates, self.start)

    @property
    def note(self) -> str | None:
        """Says so if the gates have not moved, see :func:`gate_note`."""
        if self.gates is None:
            return None
        where = ('one another (the file does not tell their prior)' if self.prior is None
                 else f'their prior, gamma = {self.prior:g}')
        return gate_note(self.name, self.gates, self.start, where)


class GateHistory(NamedTuple):
    """What a run logged while it trained.

    Attributes:
        name: What the figure calls it.
        iterations: At which it was logged (T,).
        series: Of each of ``QUANTITIES`` that was logged, values (T,) by block, counted from 1; NaN where one lacks.
        hard: Whether the gates are hard ones, of which the probabilities to be open are logged.
    """
    name: str
    iterations: np.ndarray
    series: dict[str, dict[int, np.ndarray]]
    hard: bool = False

    @property
    def note(self) -> str | None:
        """Says so if the gates have not moved between the first and the last time that they were logged."""
        if 'gates' not in self.series:
            return None
        gates = np.stack(list(self.series['gates'].values()), axis=1)
        logged = ~np.isnan(gates).all(axis=1)  # what was not finite is not
        gates, first = gates[logged], self.iterations[logged][0]
        where = 'their prior' if first == 0 else f'where they were at iteration {first}'
        return gate_note(self.name, gates[-1], gates[0], where)


def sigmoid(gamma: np.ndarray) -> np.ndarray:
    """Equation 6: gates from gate priors."""
    with np.errstate(over='ignore'):  # exp(1000) is inf, and the gate 0
        return 1 / (1 + np.exp(-gamma))


def selection_weights(gates: np.ndarray) -> np.ndarray:
    """Equation 10: the weight of each block's prompt output in the prompts of the last block.

    Args:
        gates: Gates of the blocks that have prompts and are not the last, shape (G,), each in [0, 1]. Probabilities
            of hard gates, which are drawn independently, give the mean weights.

    Returns:
        np.ndarray: (G,), ``g_l * prod_{m>l} (1 - g_m)``. With ``prod_m (1 - g_m)``, the weight of the
        learnt prompt tokens themselves, they sum to 1 (equation 8).
    """
    passed_on = np.cumprod((1 - gates)[::-1])[::-1]  # prod_{m>=l} (1 - g_m)
    return gates * np.append(passed_on[1:], 1.)


def selection_ratio(gates: np.ndarray) -> np.ndarray:
    """Equation 11: the selection weights, normalised to sum 1.

    Args:
        gates: (G,), NaN in blocks that do not use theirs.

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
    """How far gates are from where they started: the largest change of a gate prior gamma; exactly 0 for none.

    Args:
        gates: (G,), NaN in blocks that do not use theirs.
        start: The same before (G,).
    """
    changed = (gates != start) & ~np.isnan(gates - start)
    now, before = gates[changed], start[changed]
    with np.errstate(divide='ignore'):  # a gate of exactly 0 or 1
        changes = np.abs(np.log(now / before) - np.log((1 - now) / (1 - before)))
    return float(changes.max(initial=0))


def gate_note(name: str, gates: np.ndarray, start: np.ndarray, where: str) -> str | None:
    """Says that gates have not, or hardly, moved: their ratio is then no finding, although it looks like one.

    Args:
        name: Of the run.
        gates: (G,), NaN in blocks that do not use theirs.
        start: The same before (G,).
        where: What ``start`` is, in words.

    Returns:
        A sentence, or None if they have moved.
    """
    moved = movement(gates, start)
    if moved >= MOVED:
        return None
    how = f'moved by only {moved:.2g} in gamma' if moved else 'not moved'
    uniform = ' Nearly closed gates that are all equal give a uniform one.' if np.nanmax(start) < 0.01 else ''
    return f'{name}: the gates have {how} from {where}, so the selection ratio is that of untrained gates.{uniform}'


def read_gates(state: dict[str, Tensor], name: str, backbone: dict | None = None) -> GateReport:
    """Reads gates and temperatures out of the state dict of a model or of its backbone.

    Args:
        state: Adapters alone are enough.
        name: What the figure calls it.
        backbone: The options of GatedPromptViT it was trained with, from which is known where the gates started and
            which blocks use theirs. Without, all blocks are taken to.

    Raises:
        ValueError: the state dict has neither gates nor temperatures, uses none of them, or one is NaN.
    """
    found = {key.rpartition('.')[2]: value.double().numpy() for key, value in state.items()
             if key.endswith(('prompt.gate_prior', 'temperature'))}
    if not found:
        raise ValueError(f'{name} has neither gates nor temperatures')
    if any(np.isnan(values).any() for values in found.values()):
        raise ValueError(f'{name} has gates or temperatures that are NaN, so there is nothing to draw')
    backbone, options = backbone or {}, (backbone or {}).get('prompt') or {}
    gates, temperatures = found.get('gate_prior'), found.get('temperature')
    depth = len(temperatures) if gates is None else len(gates) + 1
    first, last = backbone.get('start_block', 0), max(backbone.get('out_indices') or (depth - 1, ))
    if temperatures is not None:
        temperatures = only(temperatures, 0, last + 1)
    if gates is not None:
        gates = only(sigmoid(gates), first, last)
        gates = None if np.isnan(gates).all() else gates
    if gates is None and temperatures is None:
        raise ValueError(f'{name} uses none of its gates: no block before the last one has prompts')
    prior = 0. - options.get('gate_init', 10.) if options else None
    return GateReport(name, gates, temperatures, prior, options.get('type') == 'HardGatedPrompt')


def only(values: np.ndarray, first: int, end: int) -> np.ndarray:
    """A copy with NaN outside of ``first:end``."""
    kept = np.full(len(values), np.nan)
    kept[first:end] = values[first:end]
    return kept


def read_checkpoint(path: str | Path, name: str) -> GateReport:
    """Reads gates and temperatures of a checkpoint, whole or adapter-only.

    Args:
        path: The checkpoint file.
        name: What the figure calls it.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is damaged, or no checkpoint.
        ValueError: it has neither gates nor temperatures.
    """
    content = read_file(path)
    backbone = settings_in(content).get('model', {}).get('backbone')
    return read_gates(weights_in(content, path), name, backbone)


def read_history(lines: list[dict], name: str, hard: bool = False) -> GateHistory:
    """Takes gates, selection ratios and temperatures out of the log of a run.

    Args:
        lines: Of training, by :func:`mmseg_gpt.lab.scalars.read_scalars`.
        name: What the figure calls it.
        hard: Whether the gates are hard ones.

    Raises:
        ValueError: none was logged.
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


def has_hard_gates(folder: Path) -> bool:
    """Whether the run in a work directory trains hard gates, by the config it wrote there, which is not executed."""
    return any("type='HardGatedPrompt'" in config.read_text() for config in folder.glob('*/vis_data/config.py'))


def report_rows(report: GateReport) -> list[dict]:
    """The numbers of a checkpoint as a table, a row for each block; None where a block has or uses none."""
    ratio = None if report.gates is None else selection_ratio(report.gates)
    columns = dict(gate=report.gates, selection_ratio=ratio, temperature=report.temperatures)
    depth = len(report.temperatures) if report.temperatures is not None else len(report.gates)
    return [dict(run=report.name, block=i + 1, **{
        name: None if values is None else number(values[i:]) for name, values in columns.items()})
            for i in range(depth)]


def history_rows(history: GateHistory) -> list[dict]:
    """The numbers of a run as a table, a row for each block and logged iteration."""
    blocks = sorted({block for values in history.series.values() for block in values})
    names = dict(zip(('gate', 'selection_ratio', 'temperature'), QUANTITIES))
    return [dict(run=history.name, iteration=int(iteration), block=block, **{
        name: number(history.series.get(quantity, {}).get(block, ())[i:]) for name, quantity in names.items()})
            for i, iteration in enumerate(history.iterations) for block in blocks]


def number(values: np.ndarray) -> float | None:
    """The first of ``values``; None where there is none, or it is NaN."""
    return float(values[0]) if len(values) and not np.isnan(values[0]) else None
