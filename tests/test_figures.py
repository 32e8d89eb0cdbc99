"""The look of figures, and their files."""

import csv
import json
from pathlib import Path

import cv2
import matplotlib
import pytest

from mmseg_gpt.analysis.figures import bar_style, line_style, new_figure, tidy, write_figure, write_numbers


def drawn():
    """A figure of two lines."""
    figure, axes = new_figure(1, 2)
    for i in range(2):
        axes[0, 0].plot([0, 1], [i, 1 - i], label=f'series {i}', **line_style(i))
    axes[0, 0].legend()
    tidy(axes[0, 0])
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
