"""Gates, selection ratios and their figures: against hand-computed values and equation 8 unrolled."""

import csv
import json
import math
import re
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS

from mmseg_gpt.analysis import (
    GateReport,
    plot_gates,
    plot_history,
    read_gates,
    read_history,
    selection_ratio,
    selection_weights,
)
from mmseg_gpt.analysis.figures import write_figure
from mmseg_gpt.analysis.gates import MOVED, has_hard_gates, history_rows, movement, report_rows, sigmoid
from mmseg_gpt.models import HardGatedPrompt

ROOT = Path(__file__).parents[1]

# --- numbers ---------------------------------------------------------------------------------------


def test_selection_weights_by_hand():
    # g = (1/2, 1/4, 1/5): the last output counts 1/5, the middle 1/4 * 4/5, the first 1/2 * 3/4 * 4/5.
    assert selection_weights(np.array([.5, .25, .2])) == pytest.approx([.3, .2, .2])
    assert selection_ratio(np.array([.5, .25, .2])) == pytest.approx([3 / 7, 2 / 7, 2 / 7])


def test_closed_gates_give_the_uniform_ratio():
    """A uniform selection ratio is also what gates give that never moved from a very negative prior."""
    assert selection_ratio(np.full(11, 4.5e-5)) == pytest.approx([1 / 11] * 11, rel=1e-3)


@pytest.mark.parametrize('last', [0., 1.])
def test_open_gates(last):
    gates = np.array([.5, 1., last])
    assert selection_weights(gates) == pytest.approx([0., 1 - last, last])


def test_gates_that_are_not_used_have_no_ratio():
    assert selection_ratio(np.array([np.nan, .5, .25, np.nan])) == pytest.approx([np.nan, .6, .4, np.nan], nan_ok=True)


def test_no_ratio_where_nothing_is_selected():
    with pytest.raises(ValueError, match='all gates are 0'):
        selection_ratio(np.zeros(11))


@pytest.mark.parametrize('options', [
    {}, dict(start_block=2), dict(start_block=1, out_indices=(0, 4)), dict(temperature=True, out_type='mean_all')],
    ids=str)
def test_selection_weights_reproduce_the_prompts_given_to_the_last_block_of_a_vit(tiny_vit, options):
    """Equation 8, of the real forward: what each block returned, by its weight, is what the last block gets."""
    arch = dict(embed_dims=32, num_layers=6, num_heads=4, mlp_ratio=4)
    vit = tiny_vit(arch=arch, prompt=dict(type='GatedPrompt', num_tokens=3), **options)
    start, last = vit.start_block, max(vit.out_indices)
    given, returned = {}, {}
    for i, block in enumerate(vit.blocks):
        block.register_forward_pre_hook(lambda _, args, i=i: given.update({i: args[0][:, -3:]}))
        block.register_forward_hook(lambda _, args, out, i=i: returned.update({i: out[:, -3:]}))
    with torch.no_grad():
        vit(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    gates = read_gates(vit.state_dict(), 'vit', options).gates
    used = gates[~np.isnan(gates)]
    assert used == pytest.approx(vit.prompt.gate_prior[start:last].detach().sigmoid().numpy())
    outputs = np.stack([returned[i].numpy() for i in range(start, last)])  # (G, B, N_p, D)
    tokens = vit.prompt.tokens.detach().numpy()
    expected = np.prod(1 - used) * tokens + np.tensordot(selection_weights(used), outputs, 1)
    assert np.abs(expected - tokens).max() > 0.1  # so the outputs count
    np.testing.assert_allclose(given[last].numpy(), expected, rtol=0, atol=1e-12)


# --- have they moved? ------------------------------------------------------------------------------


def test_movement_is_the_largest_change_of_a_prior():
    gamma = np.array([-10., -10., 2., 800.])
    assert movement(sigmoid(gamma), sigmoid(gamma)) == 0
    assert movement(sigmoid(gamma + np.array([.05, -.25, .1, 0])), sigmoid(gamma)) == pytest.approx(.25)
    assert movement(np.array([np.nan, .5]), np.array([.5, .5])) == 0
    assert movement(np.array([.5, .5]), np.array([np.nan, .5])) == 0


def state_of(*priors: float) -> dict[str, torch.Tensor]:
    """A state dict with gates."""
    return {'backbone.prompt.gate_prior': torch.tensor(priors)}


def backbone(kind: str = 'GatedPrompt', gate_init: float = 10., **options) -> dict:
    """Settings of a run."""
    return dict(prompt=dict(type=kind, gate_init=gate_init), **options)


@pytest.mark.parametrize('priors, gate_init, said', [
    ((-10., -10.), 10, r'run: the gates have not moved from their prior, gamma = -10, .* gates\. Nearly closed'),
    ((-.1, -.1), .1, r'not moved from their prior, gamma = -0\.1, .*untrained gates\.$'),  # float32 has no 0.1
    ((0., 0.), 0, r'not moved from their prior, gamma = 0,'),
    ((-9.96, -10.02), 10, r'moved by only 0\.04 in gamma from their prior'),
    ((-9.89, -10.), 10, None),
    ((-2., -2.), 10, None),  # uniform nearly, but learnt
    ((50., 60.), -50, None),  # both round to 1
])
def test_gates_that_have_not_moved_are_said_to(priors, gate_init, said):
    note = read_gates(state_of(*priors), 'run', backbone(gate_init=gate_init)).note
    assert note is None if said is None else re.search(said, note)


def test_gates_that_round_to_0_or_1_have_moved_as_far_as_their_priors():
    assert read_gates(state_of(0., 50., -900.), 'run', backbone(gate_init=0.)).moved == 900
    assert read_gates(state_of(-.1, -.1), 'run', backbone(gate_init=.1)).moved == 0


def test_where_the_prior_is_not_known_equal_gates_are_named():
    assert 'from one another' in read_gates(state_of(-3., -3.05), 'run').note
    assert read_gates(state_of(-3., -2.), 'run').note is None


def test_a_moved_gate_changes_the_ratio_of_closed_gates_by_what_is_promised():
    ratio = selection_ratio(sigmoid(np.array([-10., -10. + MOVED])))
    assert ratio[1] / ratio[0] == pytest.approx(math.exp(MOVED), rel=1e-3)


# --- reading ---------------------------------------------------------------------------------------


def test_read_gates_applies_the_sigmoid():
    state = {'backbone.prompt.gate_prior': torch.tensor([0., -10.]), 'backbone.temperature': torch.ones(3)}
    report = read_gates(state, 'run')
    assert report.gates == pytest.approx([.5, 4.5398e-5], rel=1e-4) and report.temperatures.tolist() == [1, 1, 1]
    assert read_gates({'temperature': torch.ones(3)}, 'run').gates is None
    with pytest.raises(ValueError, match='run has neither'):
        read_gates({'decode_head.weight': torch.ones(1)}, 'run')


def test_blocks_that_use_no_gate_or_temperature_are_left_out():
    state = state_of(0., 1., 2., 3.) | {'backbone.temperature': torch.full((5, ), 2.)}
    report = read_gates(state, 'run', backbone(start_block=1, out_indices=[0, 3]))
    assert np.isnan(report.gates).tolist() == [True, False, False, True]
    assert report.temperatures.tolist()[:4] == [2] * 4 and np.isnan(report.temperatures[4])
    assert read_gates(state, 'run', backbone(start_block=4)).gates is None
    for start in (4, 9):  # 9 is none of this ViT
        with pytest.raises(ValueError, match='run uses none of its gates'):
            read_gates(state_of(0., 1., 2., 3.), 'run', backbone(start_block=start, out_indices=[11]))
    with pytest.raises(ValueError, match='run has gates or temperatures that are NaN'):
        read_gates(state_of(0., math.nan), 'run')
    rows = report_rows(report)
    assert [row['block'] for row in rows] == [1, 2, 3, 4, 5]
    assert [row['gate'] is None for row in rows] == [True, False, False, True, True]
    assert [row['selection_ratio'] for row in rows[1:3]] == pytest.approx(selection_ratio(sigmoid(np.array([1., 2.]))))
    assert rows[4]['temperature'] is None and rows[3]['temperature'] == 2


def lines(*gates: tuple[float, float], first: int = 0) -> list[dict]:
    """The log of a run with a gate in blocks 2 and 3, at every 50th iteration; one line lacks one."""
    read = [{'step': first + 50 * i, 'iter': first + 50 * i, 'gates/block_02': a, 'gates/block_03': b,
             'temperatures/block_01': 1.} for i, (a, b) in enumerate(gates)]
    return [*read, dict(step=999, iter=999, loss=1.)]


def test_history_is_by_block_and_iteration():
    history = read_history(lines((.5, .5), (.6, .4)), 'run')
    assert history.iterations.tolist() == [0, 50] and set(history.series) == {'gates', 'temperatures'}
    assert {block: values.tolist() for block, values in history.series['gates'].items()} == {2: [.5, .6], 3: [.5, .4]}
    assert history_rows(history)[4] == dict(run='run', iteration=50, block=2, gate=.6, selection_ratio=None,
                                            temperature=None)
    assert history.note is None
    assert 'not moved from their prior' in read_history(lines((.5, .5), (.5, .5)), 'run').note
    assert 'not moved from where they were at iteration 100' in read_history(lines((.5, .5), first=100), 'run').note
    diverged = [*lines((.5, .5), (.6, .4)), {'step': 100, 'temperatures/block_01': 1.}]
    assert read_history(diverged, 'run').note is None
    assert 'not moved from where they were at iteration 50' in read_history(diverged[1:], 'run').note
    with pytest.raises(ValueError, match='run has logged neither gates nor temperatures'):
        read_history([dict(step=1, loss=3.)], 'run')


# --- figures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('temperatures, panels', [(np.ones(12), 3), (None, 2)])
def test_plot_has_a_panel_for_each_quantity(tmp_path, temperatures, panels):
    gates = np.linspace(.1, .9, 11)
    figure = plot_gates([GateReport(name, np.log(gates / (1 - gates)), temperatures) for name in 'ab'])
    write_figure(figure, tmp_path / 'gates.png')
    picture = cv2.imread(str(tmp_path / 'gates.png'))
    assert picture.shape[1] / panels == pytest.approx(4.2 * 150, abs=2)
    for panel in np.array_split(picture, panels, axis=1):
        assert (panel < 250).any(axis=2).mean() > 0.01, 'a panel is empty'
    ratio, = (axis for axis in figure.axes if 'ratio' in axis.get_title())
    assert ratio.lines[1].get_xdata().tolist() == list(range(1, 12))
    assert ratio.lines[1].get_ydata() == pytest.approx(selection_ratio(np.linspace(.1, .9, 11)))
    low, high = ratio.get_ylim()
    assert low == 0 and high > selection_ratio(np.linspace(.1, .9, 11)).max(), 'the curve is cut off'


def test_plot_says_what_has_not_moved_and_that_gates_are_hard():
    reports = [read_gates(state_of(-10., -10.), 'still', backbone()),
               read_gates(state_of(-9., -10.), 'moved', backbone('HardGatedPrompt'))]
    figure = plot_gates(reports)
    assert figure.get_suptitle().startswith('still: the gates have not moved') and 'moved:' not in figure.get_suptitle()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ['still', 'moved (hard gates: the probability to be open)']


def test_history_is_drawn_with_a_row_for_each_run_and_a_colour_for_each_block():
    figure = plot_history([read_history(lines((.5, .5), (.6, .4)), 'one'),
                           read_history(lines((.5, .5), (.5, .5)), 'two', hard=True)])
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == ['Gate $g_l$', 'Attention temperature $\\tau_l$'] * 2
    assert [line.get_ydata().tolist() for line in panels[0].lines] == [[.5, .6], [.5, .4]]
    grey = [np.dot(line.get_color()[:3], [.3, .6, .1]) for line in (*panels[1].lines, *panels[0].lines)]
    assert grey == sorted(grey) and grey[2] - grey[0] > .3, 'later blocks are lighter, also in grey'
    assert panels[2].get_ylabel().replace('\n', ' ') == 'two (hard gates: the probability to be open)'
    assert 'two: the gates have not moved' in figure.get_suptitle().replace('\n', ' ')


# --- the tool --------------------------------------------------------------------------------------


def plot(monkeypatch, *arguments: str | Path) -> None:
    """Runs tools/plot_gates.py in this process."""
    monkeypatch.setattr(sys, 'argv', ['plot_gates.py', *map(str, arguments)])
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    runpy.run_path(str(ROOT / 'tools/plot_gates.py'), run_name='__main__')


def test_tool_draws_adapter_only_checkpoints_and_names_what_has_not_moved(tmp_path, monkeypatch, capsys):
    settings = json.dumps(dict(model=dict(backbone=backbone(start_block=1))))
    torch.save(dict(meta=dict(settings=settings), state_dict=state_of(-10., -10., -10.)), tmp_path / 'a.pth')
    torch.save(state_of(-10., -10., -9.), tmp_path / 'b.pth')
    checkpoints = tmp_path / 'a.pth', tmp_path / 'b.pth'
    plot(monkeypatch, *checkpoints, '--names', 'still', 'b', '--out', tmp_path / 'f/gates.png')
    note, written = capsys.readouterr().out.splitlines()
    assert note.startswith('still: the gates have not moved from their prior, gamma = -10')
    assert written == 'written: ' + ', '.join(str(tmp_path / f'f/gates{s}') for s in ('.png', '.svg', '.csv', '.json'))
    facts = json.loads((tmp_path / 'f/gates.json').read_text())
    assert facts['notes'] == [note] and '--names still b' in facts['command']
    with (tmp_path / 'f/gates.csv').open() as file:
        ratios = [row['selection_ratio'] for row in csv.DictReader(file)]
    assert ratios == ['' if row['selection_ratio'] is None else str(row['selection_ratio']) for row in facts['rows']]
    assert ratios[0] == '' and float(ratios[1]) == pytest.approx(.5, rel=1e-4) and float(ratios[5]) > .5


def test_tool_draws_a_training(tmp_path, monkeypatch, capsys):
    data = tmp_path / 'run/20260101_000000/vis_data'
    data.mkdir(parents=True)
    (data / 'scalars.json').write_text('\n'.join(map(json.dumps, lines((.5, .5), (.6, .4)))))
    settings = dict(model=dict(backbone=dict(prompt=dict(type='HardGatedPrompt'))))
    torch.save(dict(state_dict={}, meta=dict(settings=json.dumps(settings))), tmp_path / 'run/iter_1.pth')
    plot(monkeypatch, tmp_path / 'run', '--out', tmp_path / 'gates.png')
    assert capsys.readouterr().out.startswith('written: ')
    rows = json.loads((tmp_path / 'gates.json').read_text())['rows']
    assert [row['gate'] for row in rows if row['block'] == 3] == [.5, .4]
    assert '<!-- run (hard gates: the -->' in (tmp_path / 'gates.svg').read_text()


@pytest.mark.parametrize('kind, hard', [
    ('HardGatedPrompt', True), ('mmseg_gpt.models.HardGatedPrompt', True), ('GatedPrompt', False), ('Harder', True),
    ('ShallowPrompt', False), ('Unknown', False)])
def test_the_class_of_prompts_says_whether_gates_are_hard(monkeypatch, kind, hard):
    monkeypatch.setitem(MODELS.module_dict, 'Harder', type('Harder', (HardGatedPrompt, ), {}))
    assert has_hard_gates(dict(prompt=dict(type=kind))) is hard and not has_hard_gates(dict(prompt=None))


@pytest.mark.parametrize('make, said', [
    (lambda path: None, 'does not exist'),
    (lambda path: path.write_bytes(b'<html>'), 'cannot be loaded as weights'),
    (lambda path: torch.save(dict(weight=torch.ones(1)), path), 'has neither gates nor temperatures'),
    (lambda path: torch.save(dict(state_dict=state_of(-1., -1.), meta=dict(settings=json.dumps(dict(model=dict(
        backbone=backbone(start_block=2)))))), path), 'uses none of its gates'),
    (lambda path: path.mkdir(), 'is not the work directory of a training'),
])
def test_tool_says_in_a_sentence_what_it_cannot_draw(tmp_path, monkeypatch, make, said):
    make(tmp_path / 'x.pth')
    with pytest.raises(SystemExit, match=said):
        plot(monkeypatch, tmp_path / 'x.pth', '--out', tmp_path / 'gates.png')
    assert not list(tmp_path.glob('gates*'))


@pytest.mark.parametrize('runs, said', [
    (('run', 'run/x.pth'), 'do not go into one figure'), (('run', 'again/run'), 'give them --names')])
def test_tool_refuses_what_makes_no_figure(tmp_path, monkeypatch, capsys, runs, said):
    for folder in ('run', 'again/run'):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(SystemExit):
        plot(monkeypatch, *(tmp_path / run for run in runs))
    assert said in capsys.readouterr().err
