"""The figures of attention: maps over the image, as Figure 5 of arXiv 2306.05067 has them, and summaries by block."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .attention import Study, Summary
from .figures import HEAT, frame_picture, in_style, line_style, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# How much of the map covers the image, and how dark the image under it is made: pale enough to see the map in grey too.
OPAQUE = 0.7
SIDE = 1.9  # of a picture, in inches


class Column(NamedTuple):
    """What one model, or a variant of it, sees.

    Attributes:
        name: Its title.
        study: What was found in it.
        patch_size: Side of its patches in pixels.
    """
    name: str
    study: Study
    patch_size: int


class MapRow(NamedTuple):
    """A row of maps: one question, asked in every model.

    Attributes:
        query: As in :func:`.attention.query_map`.
        block: From 0.
        head: From 0; None is the mean of all heads.
    """
    query: str
    block: int
    head: int | None

    def map_in(self, study: Study) -> np.ndarray | None:
        """Returns the map (h, w) in a model; None where its block has no prompts to ask for.

        Raises:
            ValueError: there is no such head.
        """
        maps = study.maps.get((self.query, self.block))
        if maps is None:
            return None
        if self.head is not None and self.head >= len(maps):
            raise ValueError(f'there is no head {self.head + 1}: heads are counted from 1 to {len(maps)}')
        return (maps.mean(0) if self.head is None else maps[self.head]).numpy()

    @property
    def label(self) -> str:
        """The text beside the row."""
        words = dict(cls='CLS', prompts='mean prompt').get(self.query)
        words = words or ('patches to prompts' if self.query == 'to-prompts' else self.query.replace(':', ' '))
        words = f'patch at {words}' if self.point else words
        head = 'mean of heads' if self.head is None else f'head {self.head + 1}'
        return f'{words}\nblock {self.block + 1}\n{head}'

    @property
    def unit(self) -> str:
        """The unit of its maps."""
        return 'share' if self.query == 'to-prompts' else 'times uniform'

    @property
    def point(self) -> tuple[int, int] | None:
        """The pixel (x, y) whose patch asks."""
        return tuple(map(int, self.query.split(','))) if ',' in self.query else None


@in_style
def draw_maps(picture: np.ndarray, columns: Sequence[Column], rows: Sequence[MapRow], title: str) -> 'Figure':
    """Draws the maps over the picture, with one scale of colours for each row.

    The scale ends at the 99th percentile of the row, because single patches can draw many times the attention of all
    others; the arrow of the colour bar says so.

    Args:
        picture: As the model sees it, (H, W, 3) of uint8, red first.
        columns: Beside the picture.
        rows: At least one model has a map for each.
        title: Of the whole.

    Raises:
        ValueError: a row asks for what no model has.
    """
    height = SIDE * min(2, max(0.5, picture.shape[0] / picture.shape[1]))
    # Room for what stands beside a row, for its colour bar, and above the first one.
    figure, axes = new_figure(len(rows), 1 + len(columns), SIDE + 2 / (1 + len(columns)), height + 0.9 / len(rows))
    for row, across in zip(rows, axes):
        maps = [row.map_in(column.study) for column in columns]
        if all(each is None for each in maps):
            raise ValueError(f'"{row.query}": block {row.block + 1} has no prompts')
        show_picture(across[0], picture, row, columns[0].patch_size)
        draw_row(across[1:], picture.mean(-1) / 255, columns, maps, row)
    axes[0][0].set_title('image as the\nmodel sees it')
    for axis, column in zip(axes[0][1:], columns):
        axis.set_title(textwrap.fill(column.name, 18))
    figure.suptitle(title)
    figure.get_layout_engine().set(rect=(0.01, 0, 0.98, 1))  # the labels beside the rows would touch the border
    return figure


def show_picture(axis: 'Axes', picture: np.ndarray, row: MapRow, patch_size: int) -> None:
    """Shows the picture itself, with what stands beside the row, and with the patch that asks."""
    axis.imshow(picture)
    axis.set_ylabel(row.label, rotation=0, ha='right', va='center')
    frame_picture(axis)
    mark(axis, row, patch_size)


def draw_row(axes: Sequence['Axes'], grey: np.ndarray, columns: Sequence[Column], maps: list[np.ndarray | None],
             row: MapRow) -> None:
    """Draws the maps of a row over the picture in grey (H, W), and their colour bar."""
    known = np.concatenate([each.ravel() for each in maps if each is not None])
    top, drawn = np.percentile(known, 99), None
    for axis, column, values in zip(axes, columns, maps):
        frame_picture(axis)
        if values is None:
            axis.axis('off')
            axis.text(0.5, 0.5, 'no prompts', ha='center', va='center', transform=axis.transAxes)
            continue
        axis.imshow(grey, cmap='gray', vmin=0, vmax=1)
        limits, (h, w) = (axis.get_xlim(), axis.get_ylim()), np.multiply(values.shape, column.patch_size) - 0.5
        drawn = axis.imshow(values, HEAT, vmin=0, vmax=top, alpha=OPAQUE, extent=(-0.5, w, h, -0.5),
                            interpolation='nearest')
        axis.set(xlim=limits[0], ylim=limits[1])  # patches can reach beyond the picture
        mark(axis, row, column.patch_size)
    extend = 'max' if known.max() > top else 'neither'
    bar = axes[0].figure.colorbar(drawn, ax=list(axes), label=row.unit, extend=extend)
    bar.ax.set_facecolor('0.5')  # the colours as they are over a grey picture


def mark(axis: 'Axes', row: MapRow, patch_size: int) -> None:
    """Frames the patch that asks, if one does."""
    if row.point is not None:
        from matplotlib.patches import Rectangle
        corner = [pixel // patch_size * patch_size - 0.5 for pixel in row.point]
        for colour, width in (('black', 3), ('white', 1.2)):
            axis.add_patch(Rectangle(corner, patch_size, patch_size, fill=False, edgecolor=colour, linewidth=width))


@in_style
def draw_summaries(columns: Sequence[Column]) -> 'Figure':
    """Draws distance, entropy and share of prompts by block: a point for each head, and a line through their means."""
    names = dict(distance='Mean attention distance\n(pixels)', entropy='Entropy of attention\n(nats)',
                 prompt_share='Attention to prompts\n(share)')
    if not any(map(has_prompts, columns)):
        del names['prompt_share']
    figure, axes = new_figure(1, len(names), height=3.8)
    for axis, (name, words) in zip(axes[0], names.items()):
        for i, column in enumerate(columns):
            if name != 'prompt_share' or has_prompts(column):
                draw_summary(axis, name, i, column, spread=0.5 * (i / max(1, len(columns) - 1) - 0.5))
        axis.set(title=words, xlabel='Block', ylim=(0, None))
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0][0].plot([], [], color='0.4', linestyle=':', label='if attention were uniform')
    axes[0][0].scatter([], [], s=12, color='0.4', label='one head')
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc='outside lower center', ncols=3)
    figure.suptitle('What patches attend to, by block')
    return figure


def has_prompts(column: Column) -> bool:
    """Returns whether any block of a model has prompts."""
    return any(block.prompt_share.any() for block in column.study.uniform)


def draw_summary(axis: 'Axes', name: str, i: int, column: Column, spread: float) -> None:
    """Draws one measure of one model: column ``i``, whose heads stand ``spread`` beside the block."""
    heads = [getattr(block, name).numpy() for block in column.study.summaries]
    uniform = [getattr(block, name).item() for block in column.study.uniform]
    blocks, style = np.arange(1, len(heads) + 1), line_style(i)
    axis.scatter(np.concatenate([np.full(len(h), block + spread) for block, h in zip(blocks, heads)]),
                 np.concatenate(heads), s=12, color=style['color'], marker=style['marker'], alpha=0.4, linewidths=0)
    axis.plot(blocks, [h.mean() for h in heads], label=column.name, markersize=4, **style)
    axis.plot(blocks, uniform, color=style['color'], linestyle=':', linewidth=1)


def map_numbers(columns: Sequence[Column], rows: Sequence[MapRow]) -> tuple[list[dict], list[list]]:
    """Returns a line for each map with where it is largest, and the maps themselves, (h, w), in the same order."""
    lines, maps = [], []
    for row in rows:
        for column in columns:
            values = row.map_in(column.study)
            if values is None:
                continue
            y, x = np.unravel_index(values.argmax(), values.shape)
            lines.append(dict(query=row.query, block=row.block + 1, head='mean' if row.head is None else row.head + 1,
                              model=column.name, unit=row.unit, smallest=rounded(values.min()),
                              mean=rounded(values.mean()), largest=rounded(values.max()),
                              largest_row=int(y), largest_column=int(x)))
            maps.append([[rounded(value) for value in line] for line in values])
    return lines, maps


def summary_numbers(columns: Sequence[Column]) -> list[dict]:
    """Returns a line for each model, block and head, for the mean of all heads, and for uniform attention."""
    return [dict(model=column.name, block=block, head=head, distance_pixels=rounded(numbers[0]),
                 entropy_nats=rounded(numbers[1]), prompt_share=rounded(numbers[2]))
            for column in columns
            for block, (found, uniform) in enumerate(zip(column.study.summaries, column.study.uniform), 1)
            for head, numbers in by_head(found, uniform)]


def by_head(found: Summary, uniform: Summary) -> list[tuple[int | str, list]]:
    """Returns the three measures of each head of a block, of their mean, and of uniform attention."""
    heads = [(head, list(numbers)) for head, numbers in enumerate(zip(*(each.tolist() for each in found)), 1)]
    return [*heads, ('mean', [each.mean().item() for each in found]), ('uniform', [each.item() for each in uniform])]


def rounded(value: float) -> float:
    """Returns a number with six digits."""
    return float(f'{value:.6g}')


def ask_for_point(picture: np.ndarray) -> tuple[int, int]:
    """Shows a picture (H, W, 3) in a window and waits for a click; returns its pixel (x, y).

    Raises:
        ValueError: no window can be opened, or it was closed without a click.
    """
    from matplotlib import pyplot
    where = 'say which pixel instead: --query X,Y'
    try:
        figure = pyplot.figure()
    except ImportError as error:
        raise ValueError(f'no window can be opened to click in ({error}): {where}') from error
    try:
        if figure.canvas.required_interactive_framework is None:
            raise ValueError(f'no window can be opened to click in: there is no display, or matplotlib has no toolkit '
                             f'for windows; {where}')
        axis = figure.add_subplot(title='click on a patch')
        axis.imshow(picture)
        clicked = figure.ginput(1, timeout=0)
    finally:
        pyplot.close(figure)
    if not clicked:
        raise ValueError(f'the window was closed without a click: {where}')
    return tuple(round(value) for value in clicked[0])
