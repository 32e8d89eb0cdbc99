"""The figures of reconstructions: the pictures themselves (Figures 2, 10, 11) and their scores by block (Figure 9)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .figures import frame_picture, in_style, line_style, new_figure, write_figure, write_numbers
from .reconstructions import Reconstruction, summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 1.35  # of a picture with its margin, in inches
TEXT = 0.5  # height of what stands above and below it, in inches
TITLE = 4.6  # width of the figure's title, in inches
GAP = 0.15  # between two images, in pictures
LETTERS = 13  # of the name of an image that fit in an inch


@in_style
def draw_pictures(originals: dict[str, np.ndarray], vits: Sequence[str], blocks: Sequence[int], iterations: int,
                  found: Sequence[Reconstruction]) -> 'Figure':
    """Draws each image above its reconstructions: a row for each ViT, a column for each block, with PSNR and SSIM.

    Args:
        originals: The images (H, W, 3) to show, by name; two stand side by side.
        vits: In the order of the rows.
        blocks: In the order of the columns.
        iterations: Of a finished reconstruction; others say how far they are.
        found: What there is, of these images or others; what is missing stays grey.
    """
    drawn = {(each.image, each.vit, each.block): each for each in found}
    across, down = min(2, len(originals)), -(-len(originals) // 2)
    widths = ([*[1.] * len(blocks), GAP] * across)[:-1]
    side = max(SIDE, TITLE / len(widths))
    figure, axes = new_figure(down * (1 + len(vits)), len(widths), side, side + TEXT,
                              gridspec_kw=dict(width_ratios=widths))
    for axis in axes.flat:
        axis.set_axis_off()
    for i, (name, original) in enumerate(originals.items()):
        top, left = i // 2 * (1 + len(vits)), i % 2 * (len(blocks) + 1)
        show(axes[top, left], original)
        axes[top, left].set_ylabel('Original')
        axes[top, left].set_title(shortened(name, int(LETTERS * side * len(blocks))), loc='left')
        for row, vit in enumerate(vits, top + 1):
            axes[row, left].set_ylabel(vit)
            for column, block in enumerate(blocks, left):
                show_reconstruction(axes[row, column], drawn.get((name, vit, block)), iterations)
                if row == top + 1:
                    axes[row, column].set_title(f'Block {block}')
    height, width = next(iter(originals.values())).shape[:2]
    figure.suptitle(f'Deep Image Prior: images from the representation of a block\n({width}x{height} pixels, '
                    f'{iterations:,} iterations)', fontsize='medium')
    return figure


def show(axis: 'Axes', pixels: np.ndarray) -> None:
    """Puts a picture (H, W, 3) on an axis, without numbers at its sides."""
    axis.set_axis_on()
    frame_picture(axis)
    axis.imshow(pixels)


def show_reconstruction(axis: 'Axes', found: Reconstruction | None, iterations: int) -> None:
    """Draws one reconstruction, its scores, and how far it is if it is not finished."""
    if found is None:
        show(axis, np.full((1, 1, 3), 224, np.uint8))
        axis.set_xlabel('not yet')
        return
    show(axis, found.pixels)
    unfinished = '' if found.step == iterations else f'\niteration {found.step:,}'
    axis.set_xlabel(f'PSNR {found.psnr:.1f} dB\nSSIM {found.ssim:.3f}{unfinished}', fontsize='small')


def shortened(name: str, letters: int) -> str:
    """Returns a name, without its middle if it is too long."""
    return name if len(name) <= letters else f'{name[:letters // 2 - 1]}...{name[2 - letters // 2:]}'


@in_style
def draw_scores(found: Sequence[Reconstruction]) -> 'Figure':
    """Draws PSNR and SSIM by block, a line for each ViT: mean over images, bars of one standard deviation."""
    rows = summary(found)
    vits, blocks = (list(dict.fromkeys(row[key] for row in rows)) for key in ('vit', 'block'))
    figure, axes = new_figure(1, 2)
    for axis, score, label in zip(axes[0], ('psnr', 'ssim'), ('PSNR (dB)', 'SSIM')):
        for i, vit in enumerate(vits):
            of_vit = sorted((row for row in rows if row['vit'] == vit), key=lambda row: row['block'])
            beside = 0.1 * (i - (len(vits) - 1) / 2)  # so that no bar hides another
            axis.errorbar([row['block'] + beside for row in of_vit], [row[score] for row in of_vit],
                          [row[f'{score}_std'] or 0. for row in of_vit], label=vit, **line_style(i))
        axis.set(xlabel='Block', ylabel=label, xticks=blocks)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc='outside lower center', ncols=4)
    figure.suptitle(f'Deep Image Prior: scores by block\n({counted([row["images"] for row in rows])})')
    return figure


def counted(images: Sequence[int]) -> str:
    """Says in words how many images the scores are of."""
    fewest, most = min(images), max(images)
    if most == 1:
        return '1 image'
    return f'{fewest if fewest == most else f"{fewest} to {most}"} images, mean and standard deviation'


def write_all(found: Sequence[Reconstruction], originals: dict[str, np.ndarray], vits: Sequence[str],
              blocks: Sequence[int], iterations: int, out: Path, **facts: object) -> list[Path]:
    """Writes the pictures as ``out`` and their scores by block beside it, each with the numbers of what is finished.

    Args:
        found: What there is, finished or not.
        originals: As the next three for :func:`draw_pictures`.
        vits: In the order of the rows.
        blocks: In the order of the columns.
        iterations: Of a finished reconstruction.
        out: A file; the other is called ``out_scores``.
        **facts: For the JSON files.

    Returns:
        The files.
    """
    written = write_figure(draw_pictures(originals, vits, blocks, iterations, found), out)
    finished = [each for each in found if each.step == iterations]
    if finished:
        scores, facts = out.with_stem(f'{out.stem}_scores'), dict(facts, iterations=iterations)
        rows = [{key: value for key, value in each._asdict().items() if key not in ('pixels', 'step')}
                for each in finished]
        written += [*write_numbers(rows, out, **facts), *write_figure(draw_scores(finished), scores),
                    *write_numbers(summary(finished), scores, **facts)]
    return written
