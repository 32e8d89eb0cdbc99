"""A series of reconstructions, each kept as a file when it is finished, with scores (arXiv 2306.05067, Figure 9)."""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from ..datasets.headers import read_header
from ..datasets.judging import pixel_problems
from ..datasets.pairs import unreadable
from ..files import replacing
from .deep_image_prior import CHANNELS, NOISE, SKIP, reconstruct
from .encoder import Encoder

MADE_WITH = 'mmseg_gpt'  # name of the text in a PNG that holds the settings it was made with
SECONDS = 5  # time between two reports on a reconstruction that is not finished


class Reconstruction(NamedTuple):
    """The image drawn so far for one original, one ViT and one of its blocks.

    Attributes:
        image: Name of the original.
        vit: Name of the ViT.
        block: The block, counted from 1.
        step: Number of iterations so far.
        pixels: The drawn image (H, W, 3), uint8, red first.
        distance: Squared distance of the block's tokens, divided by the variance of those of the original.
        psnr: Peak signal-to-noise ratio in dB.
        ssim: Structural similarity.
    """
    image: str
    vit: str
    block: int
    step: int
    pixels: np.ndarray
    distance: float
    psnr: float
    ssim: float


class Settings(NamedTuple):
    """Settings of a reconstruction; the fields are the arguments of :func:`.deep_image_prior.reconstruct`."""
    iterations: int
    lr: float
    seed: int


def read_picture(path: Path, size: int) -> np.ndarray:
    """Reads the centre square of a picture, scaled to ``size`` pixels: (size, size, 3), uint8, red first.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        wrong = pixel_problems(path, read_header(path))
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture).convert('RGB')
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(unreadable(path, error)) from error
    if wrong:
        raise ValueError(wrong[0])
    return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC))


def scores(original: np.ndarray, drawn: np.ndarray) -> tuple[float, float]:
    """Computes PSNR in dB and SSIM (windows of 7x7, mean over the colours) of two pictures (H, W, 3), uint8."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity
    with np.errstate(divide='ignore'):  # equal pictures have an infinite PSNR
        psnr = peak_signal_noise_ratio(original, drawn, data_range=255)
    return float(psnr), float(structural_similarity(original, drawn, data_range=255, channel_axis=2))


class ReconstructionJob(NamedTuple):
    """A reconstruction to make: the file that keeps it, and the settings that decide its result."""
    image: str
    vit: str
    block: int
    file: Path
    made_with: dict


def list_jobs(encoders: dict[str, Encoder], originals: dict[str, np.ndarray], blocks: Sequence[int],
              settings: Settings, folder: Path) -> list[ReconstructionJob]:
    """Lists a job for each image, ViT and block, image by image; the arguments are those of :func:`reconstruct_all`."""
    same = dict(settings._asdict(), generator=[*CHANNELS, SKIP, NOISE])
    of_vit = {vit: same | encoder.identity() for vit, encoder in encoders.items()}
    of_image = {image: dict(image=hashlib.sha256(pixels.tobytes()).hexdigest(), size=list(pixels.shape[:2]))
                for image, pixels in originals.items()}
    return [ReconstructionJob(image, vit, block, folder / vit / f'{image}_block{block:02d}.png',
                              of_vit[vit] | of_image[image])
            for image in originals for vit in encoders for block in blocks]


def reconstruct_all(encoders: dict[str, Encoder], originals: dict[str, np.ndarray], blocks: Sequence[int],
                    settings: Settings, folder: Path) -> Iterator[Reconstruction]:
    """Reconstructs every image from every block of every ViT, and keeps each finished reconstruction.

    Args:
        encoders: The ViTs by name; the computation runs on their devices.
        originals: The images (H, W, 3), uint8, red first, by name.
        blocks: The blocks, counted from 1.
        settings: The settings of all reconstructions.
        folder: Folder that keeps them, as ``VIT/IMAGE_block01.png``. Those that are there are not made again.

    Yields:
        Reconstruction: First the kept ones, then the others one by one: each before its first iteration, every few
        seconds, and when it is finished, which is when ``step`` is ``settings.iterations``.

    Raises:
        ValueError: a kept reconstruction was made with other settings, from another image or with another ViT, or is
            damaged; or :func:`.deep_image_prior.reconstruct` raises.
    """
    for encoder in encoders.values():
        encoder.check(max(blocks))
    jobs = list_jobs(encoders, originals, blocks, settings, folder)
    kept = {job.file for job in jobs if job.file.exists()}
    for job in jobs:
        if job.file in kept:
            pixels, distance = read_kept(job)
            yield with_scores(job, settings.iterations, pixels, distance, originals)
    for job in jobs:
        if job.file not in kept:
            yield from reconstruct_one(job, encoders[job.vit], originals, settings)


def reconstruct_one(job: ReconstructionJob, encoder: Encoder, originals: dict[str, np.ndarray],
                    settings: Settings) -> Iterator[Reconstruction]:
    """Makes one reconstruction and keeps it; arguments and yields are those of :func:`reconstruct_all`."""
    image = torch.tensor(originals[job.image], device=encoder.mean.device).permute(2, 0, 1) / 255
    seen = -math.inf
    for step, drawn, distance in reconstruct(encoder, image, job.block, **settings._asdict()):
        is_finished = step == settings.iterations
        if is_finished or time.monotonic() > seen + SECONDS:
            pixels = (drawn.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
            if is_finished:
                write_kept(job, pixels, distance.item())
            yield with_scores(job, step, pixels, distance.item(), originals)
            seen = time.monotonic()


def with_scores(job: ReconstructionJob, step: int, pixels: np.ndarray, distance: float,
                originals: dict[str, np.ndarray]) -> Reconstruction:
    """Returns a drawn image with its scores."""
    return Reconstruction(job.image, job.vit, job.block, step, pixels, distance, *scores(originals[job.image], pixels))


def write_kept(job: ReconstructionJob, pixels: np.ndarray, distance: float) -> None:
    """Writes a finished reconstruction as PNG, with the settings it was made with as a text in it."""
    text = PngInfo()
    text.add_text(MADE_WITH, json.dumps(dict(made_with=job.made_with, distance=distance)))
    job.file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(job.file) as unfinished:
        Image.fromarray(pixels).save(unfinished, format='PNG', pnginfo=text)


def read_kept(job: ReconstructionJob) -> tuple[np.ndarray, float]:
    """Reads the pixels of a finished reconstruction and its distance.

    Raises:
        ValueError: it was made with other settings, or is damaged; the message says what to do.
    """
    try:
        with Image.open(job.file) as picture:
            pixels = np.asarray(picture)
            content = json.loads(picture.info[MADE_WITH])
        there, distance = dict(content['made_with']), content['distance']
    except (OSError, SyntaxError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{job.file} is damaged, or no reconstruction of this tool ({error!r}): remove it') from error
    changed = [f'{key} ({there.get(key)} there, {here} here)' for key, here in job.made_with.items()
               if there.get(key) != here]
    if changed:
        raise ValueError(f'{job.file} was made with other settings: {", ".join(changed)}. Write to another --out, or '
                         'remove it')
    return pixels, distance


def summary(found: Sequence[Reconstruction]) -> list[dict]:
    """Computes mean and sample standard deviation of the scores over images, by ViT and block as ordered in ``found``.

    Returns:
        list: Dicts of vit, block, images, psnr, psnr_std, ssim, ssim_std. The deviations are None for a single image.
        An image that came back exactly has an infinite PSNR: then the mean is infinite and its deviation None.
    """
    groups: dict[tuple[str, int], list[Reconstruction]] = {}
    for each in found:
        groups.setdefault((each.vit, each.block), []).append(each)
    return [dict(vit=vit, block=block, images=len(group), **{
        key: number for score in ('psnr', 'ssim') for key, number in mean_and_deviation(score, group).items()})
            for (vit, block), group in groups.items()]


def mean_and_deviation(score: str, group: Sequence[Reconstruction]) -> dict[str, float | None]:
    """Computes mean and standard deviation of one score, by their names in tables."""
    values = [getattr(each, score) for each in group]
    return {score: mean(values),
            f'{score}_std': stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else None}
