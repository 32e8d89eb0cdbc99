"""Gates, selection ratios and temperatures of a trained model: the numbers first, the figure last.

Source: equations 6 and 8 to 11 of arXiv 2306.05067.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor


class GateReport(NamedTuple):
    """What one checkpoint learnt, by block.

    Attributes:
        name: What the legend calls it.
        gates: Gates g of blocks 1 .. L-1 (L-1,), or None where the model has none.
        temperatures: Attention temperatures of blocks 1 .. L (L,), or None.
    """
    name: str
    gates: np.ndarray | None
    temperatures: np.ndarray | None


def selection_weights(gates: np.ndarray) -> np.ndarray:
    """Equation 10: the weight of each block's prompt output in the prompts of the last block.

    Args:
        gates: Gates of blocks 1 .. L-1, shape (L-1,), each in [0, 1].

    Returns:
        np.ndarray: (L-1,), ``g_l * prod_{m>l} (1 - g_m)``. With ``prod_m (1 - g_m)``, the weight of the
        learnt prompt tokens themselves, they sum to 1 (equation 8).
    """
    passed_on = np.cumprod((1 - gates)[::-1])[::-1]  # prod_{m>=l} (1 - g_m)
    return gates * np.append(passed_on[1:], 1.)


def selection_ratio(gates: np.ndarray) -> np.ndarray:
    """Equation 11: the selection weights, normalised to sum 1; shape (L-1,) as ``gates``."""
    weights = selection_weights(gates)
    return weights / weights.sum()


def read_gates(state: dict[str, Tensor], name: str) -> GateReport:
    """Reads gates and temperatures out of the state dict of a model or of its backbone.

    Of hard gates these are the probabilities to be open, sigmoid(gamma); they are 0 or 1 when used.

    Raises:
        ValueError: the state dict has neither.
    """
    found = {key.rpartition('.')[2]: value.double().numpy() for key, value in state.items()
             if key.endswith(('prompt.gate_prior', 'temperature'))}
    if not found:
        raise ValueError(f'{name} has neither gates nor temperatures')
    prior = found.get('gate_prior')
    return GateReport(name, None if prior is None else 1 / (1 + np.exp(-prior)), found.get('temperature'))


def plot_gates(reports: list[GateReport], path: str | Path) -> None:
    """Draws gates, selection ratios and temperatures by block, for one or several checkpoints.

    Args:
        reports: What to draw side by side.
        path: Where to write; the suffix says the format (.png, .svg, .pdf).
    """
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    panels = {
        'Gate $g_l$': [r.gates for r in reports],
        'Selection ratio $r_l$': [None if r.gates is None else selection_ratio(r.gates) for r in reports],
        'Attention temperature $\\tau_l$': [r.temperatures for r in reports],
    }
    panels = {title: values for title, values in panels.items() if any(v is not None for v in values)}
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.2), layout='constrained', squeeze=False)
    for axis, (title, values) in zip(axes[0], panels.items()):
        for i, (report, value) in enumerate(zip(reports, values)):
            if value is not None:
                # Colours of Okabe and Ito, and a marker for each, so that grey prints work too.
                axis.plot(np.arange(1, len(value) + 1), value, label=report.name, marker='osD^v'[i % 5],
                          color=('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#000000')[i % 5])
        axis.set(title=title, xlabel='Block')
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.ticklabel_format(useOffset=False)
        axis.grid(alpha=0.3)
        if 'ratio' in title:
            axis.set_ylim(0, 1.1 * max(v.max() for v in values if v is not None))
    axes[0][0].legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
