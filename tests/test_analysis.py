"""Gates, selection ratios and the figure: against hand-computed values and equation 8 unrolled."""

import cv2
import numpy as np
import pytest
import torch

from mmseg_gpt.analysis import GateReport, plot_gates, read_gates, selection_ratio, selection_weights


def test_selection_weights_by_hand():
    # g = (1/2, 1/4, 1/5): the last output counts 1/5, the middle 1/4 * 4/5, the first 1/2 * 3/4 * 4/5.
    assert selection_weights(np.array([.5, .25, .2])) == pytest.approx([.3, .2, .2])
    assert selection_ratio(np.array([.5, .25, .2])) == pytest.approx([3 / 7, 2 / 7, 2 / 7])


def test_selection_weights_reproduce_the_prompts_of_the_last_block():
    """Equation 8: token weight * tokens + sum of weight * output is what equation 7 gives step by step."""
    random = np.random.default_rng(0)
    gates, outputs = random.uniform(size=11), random.normal(size=(11, 3, 4))
    prompts = tokens = random.normal(size=(3, 4))
    for gate, output in zip(gates, outputs):
        prompts = gate * output + (1 - gate) * prompts
    weights = selection_weights(gates)
    assert np.prod(1 - gates) * tokens + np.tensordot(weights, outputs, 1) == pytest.approx(prompts)
    assert np.prod(1 - gates) + weights.sum() == pytest.approx(1)


def test_closed_gates_give_the_uniform_ratio():
    """A uniform selection ratio is also what gates give that never moved from a very negative prior."""
    assert selection_ratio(np.full(11, 4.5e-5)) == pytest.approx([1 / 11] * 11, rel=1e-3)


@pytest.mark.parametrize('last', [0., 1.])
def test_open_gates(last):
    gates = np.array([.5, 1., last])
    assert selection_weights(gates) == pytest.approx([0., 1 - last, last])


def test_read_gates_applies_the_sigmoid():
    state = {'backbone.prompt.gate_prior': torch.tensor([0., -10.]), 'backbone.temperature': torch.ones(3)}
    report = read_gates(state, 'run')
    assert report.gates == pytest.approx([.5, 4.5398e-5], rel=1e-4) and report.temperatures.tolist() == [1, 1, 1]
    assert read_gates({'temperature': torch.ones(3)}, 'run').gates is None
    with pytest.raises(ValueError, match='run has neither'):
        read_gates({'decode_head.weight': torch.ones(1)}, 'run')


@pytest.mark.parametrize('temperatures, panels', [(np.ones(12), 3), (None, 2)])
def test_plot_has_a_panel_for_each_quantity(tmp_path, temperatures, panels):
    reports = [GateReport(name, np.linspace(.1, .9, 11), temperatures) for name in 'ab']
    plot_gates(reports, tmp_path / 'gates.png')
    picture = cv2.imread(str(tmp_path / 'gates.png'))
    assert picture.shape[1] / panels == pytest.approx(4.2 * 150, abs=2)
    for panel in np.array_split(picture, panels, axis=1):
        assert (panel < 250).any(axis=2).mean() > 0.01, 'a panel is empty'
