"""The look of figures, and their files."""

import csv
import json
import math
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes

from mmseg_gpt.analysis.figures import bar_style, in_style, line_style, new_figure, write_figure, write_numbers
from mmseg_gpt.analysis.series import Point, draw_bars, draw_lines


@in_style
def drawn():
    """A figure of two lines."""
    figure, axes = new_figure(1, 2)
    for i in range(2):
        axes[0, 0].plot([0, 1], [i, 1 - i], label=f'series {i}', **line_style(i))
    axes[0, 0].legend()
    return figure


def test_png_and_svg_are_written_whatever_is_asked_for(tmp_path):
    assert write_figure(drawn(), tmp_path / 'new/a.png') == [tmp_path / 'new/a.png', tmp_path / 'new/a.svg']
    assert write_figure(drawn(), tmp_path / 'b.pdf')[-1].read_bytes().startswith(b'%PDF')
    picture = cv2.imread(str(tmp_path / 'new/a.png'))
    assert picture.shape[:2] == (3.2 * 150, 2 * 4.2 * 150) and (picture < 200).any(axis=2).mean() > 0.005
    assert '<svg' in (tmp_path / 'b.svg').read_text()


@pytest.mark.parametrize('suffix', ['.png', '.svg', '.pdf'])
def test_the_same_figure_gives_the_same_file(tmp_path, suffix):
    one, other = (write_figure(drawn(), tmp_path / name / f'figure{suffix}') for name in 'ab')
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_what_cannot_be_written_is_said_in_words(tmp_path):
    (tmp_path / 'file').touch()
    (tmp_path / 'folder.png').mkdir()
    for path in (tmp_path / 'file/a.png', tmp_path / 'folder.png'):
        with pytest.raises(ValueError, match=rf'{path.name} cannot be written: '):
            write_figure(drawn(), path)
    with pytest.raises(ValueError, match=r'a\.csv cannot be written: '):
        write_numbers([dict(a=1)], tmp_path / 'file/a.png')


def test_no_global_state_is_left(tmp_path):
    before, backend = dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False)
    write_figure(drawn(), tmp_path / 'a.png')
    assert dict(matplotlib.rcParams) == before and matplotlib.get_backend(auto_select=False) == backend


def test_each_series_has_a_look_of_its_own_without_colour():
    """So that they can be told apart in grey and by colour-blind readers."""
    lines = [line_style(i) for i in range(7)]
    assert len({style['marker'] for style in lines}) == len({bar_style(i)['hatch'] for i in range(7)}) == 7
    assert len({(style['marker'], style['linestyle']) for style in map(line_style, range(28))}) == 28


def test_numbers_are_written_as_csv_and_json(tmp_path):
    rows = [dict(block=1, gate=.1 + .2), dict(block=2, gate=None)]
    table, everything = write_numbers(rows, tmp_path / 'gates.png', command='plot')
    assert list(csv.reader(table.open())) == [['block', 'gate'], ['1', '0.30000000000000004'], ['2', '']]
    assert json.loads(everything.read_text()) == dict(command='plot', rows=rows)
    assert {path.name for path in Path(tmp_path).iterdir()} == {'gates.csv', 'gates.json'}


def test_numbers_that_are_not_finite_are_left_empty(tmp_path):
    rows = [dict(a=1., b=-math.inf), dict(a=np.float64('nan'), b=2)]
    facts = dict(maps=[[1., math.nan], (math.inf, )], more=dict(x=math.inf))
    table, everything = write_numbers(rows, tmp_path / 'a.png', **facts)
    assert list(csv.reader(table.open())) == [['a', 'b'], ['1.0', ''], ['', '2']]
    assert json.loads(everything.read_text(), parse_constant=pytest.fail) == dict(
        maps=[[1., None], [None]], more=dict(x=None), rows=[dict(a=1., b=None), dict(a=None, b=2)])


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path):
    table, _ = write_numbers([dict(block=1)], tmp_path / 'a.png')
    before = table.read_text()
    with pytest.raises(ValueError, match='not in fieldnames'):
        write_numbers([dict(block=2), dict(block=3, gate=1.)], tmp_path / 'a.png')
    assert table.read_text() == before and {path.name for path in tmp_path.iterdir()} == {'a.csv', 'a.json'}


def spreads(axis: Axes) -> list[list[float]]:
    """The error bars of an axis, each as x and both ends."""
    return [[line[0, 0], *line[:, 1]] for each in axis.containers if hasattr(each, 'has_yerr')
            for line in each.lines[2][0].get_segments()]


def test_standard_deviations_are_drawn():
    points = [Point('', 'A', 1., 10., 2., 2), Point('', 'A', 4., 30., None, 1), Point('', 'B', 1., 50., 5., 3)]
    lines, bars = draw_lines(points, '', 'x', 'y'), draw_bars([p._replace(x=f'{p.x:g}') for p in points], '', 'y')
    assert spreads(lines.axes[0]) == [[1, 8, 12], [4, 30, 30], [1, 45, 55]]
    assert spreads(bars.axes[0]) == [[pytest.approx(-1 / 6), 8, 12], [pytest.approx(1 / 6), 45, 55]]
