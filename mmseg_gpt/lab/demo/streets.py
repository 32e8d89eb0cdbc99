"""What the demonstration on photographs needs: CamVid and a ViT, found on the disk or fetched, and looked at."""

import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image

from ...checkpoints import CheckpointError, address_of, load_vit
from ...checkpoints.addresses import KNOWN_FILES, SHA256_OF_DINOV2_S, UNKNOWN_FILE
from ...datasets.photographs import IMAGES, PHOTOGRAPHS, SPLITS, digest_of_labels, digest_of_names, images_of
from ...downloads import DownloadError, download, unpack
from ...files import file_sha256
from ...models import GatedPromptViT
from ...recipes.experiment import PIXELS
from ...recipes.vits import settings_of_vit
from ...wording import listed

CAMVID = PHOTOGRAPHS['camvid']
WEIGHTS = 'dinov2_vits14_pretrain.pth'
WEIGHTS_SIZE, CAMVID_SIZE = 88_283_115, 190 * 10**6  # bytes of the downloads, the second about
FILES = {'train': None, 'val': None, 'test': None}  # all of them
FASTER = 1.3  # by which factor bfloat16 must beat float32 to be used

Say = Callable[[str], object]


def find_weights(given: Path | None, folder: Path, say: Say) -> Path:
    """Returns the file of the ViT-S/14, which is fetched if it is not there; says what it is.

    Args:
        given: The user's file, if they have one.
        folder: Where pretrained files are kept.
        say: Gets each sentence.

    Raises:
        DownloadError: the file cannot be fetched, or is another one.
        CheckpointError: the user's file is not there.
    """
    if given is not None and not given.is_file():
        raise CheckpointError(f'--checkpoint: there is no file {given}')
    path = given or folder / WEIGHTS
    if not path.is_file():
        download(address_of(WEIGHTS), path, SHA256_OF_DINOV2_S, WEIGHTS_SIZE, 'Without internet: give the file of a '
                 f'DINOv2 ViT-S/14 with --checkpoint FILE, or put it at {path}')
    say(f'ViT: {name_of_weights(path)}: {path}')
    return path


def check_weights(path: Path) -> None:
    """Checks that a file fills the ViT of the demonstration, as the training does later.

    Raises:
        CheckpointError: the message says what is wrong with it.
    """
    vit = {name: value for name, value in settings_of_vit('dinov2-s').items() if name not in ('init_cfg', *PIXELS)}
    load_vit(GatedPromptViT(**vit), path)


def name_of_weights(path: Path) -> str:
    """Returns what a file of weights is, as far as its SHA-256 is known."""
    digest = file_sha256(path)
    return KNOWN_FILES.get(digest, f'{UNKNOWN_FILE} (SHA-256 {digest[:16]}...)')


def find_camvid(given: Path | None, home: Path, say: Say) -> Path:
    """Returns the folder of CamVid, which is fetched if it is not there; says what is unusual about it.

    Args:
        given: The user's copy, if they have one.
        home: The folder into which it is fetched.
        say: Gets each sentence.

    Raises:
        DownloadError: it cannot be fetched, or what is there is no copy.
    """
    remedy = f'Without internet: give a copy with --data DIR; {CAMVID.how}'
    folder = given or home / 'camvid'
    if given is None and not folder.is_dir():
        archive = download(CAMVID.address, home / 'camvid.zip', about=CAMVID_SIZE, remedy=remedy)
        unpack(archive, folder, of_camvid)
        archive.unlink()
    for note in look_at_camvid(folder):
        say(f'CamVid: {note}')
    return folder


def of_camvid(path: PurePosixPath) -> PurePosixPath | None:
    """Returns where a file of the archive belongs, such as train/0001TP_006690.png; None if it is none of the set."""
    if len(path.parts) == 4 and path.parts[1] == 'CamVid' and path.parts[2] in CAMVID.folders and (
            path.suffix.lower() in IMAGES):
        return PurePosixPath(*path.parts[2:])
    return None


def look_at_camvid(folder: Path) -> list[str]:
    """Checks a copy of CamVid, and returns what differs from the one that the project has measured.

    Raises:
        DownloadError: images or masks are missing, or masks have other values; the message says which.
    """
    found = pairs_of_camvid(folder)
    if problems := [f'{split} has no images' for split, pairs in found.items() if not pairs]:
        raise DownloadError(f'{folder} is no copy of CamVid: {", ".join(problems)}. It must have the folders '
                            f'{", ".join(CAMVID.folders)}. To get it, {CAMVID.how}: {CAMVID.address}')
    values = np.unique([value for pairs in found.values() for _, mask in pairs for value in np.unique(gray(mask))])
    if values.max() > CAMVID.ignored:
        raise DownloadError(f'{folder}: the masks have the values {listed(values.tolist(), 20)}, and those of the '
                            f'SegNet tutorial have 0 to {CAMVID.ignored}. Take its masks: {CAMVID.address}')
    counts = {split: len(pairs) for split, pairs in found.items()}
    if counts != SPLITS or digest_of_names(folder, CAMVID) != CAMVID.names:
        return [f'{folder} has {counts["train"]}, {counts["val"]} and {counts["test"]} images for training, validation '
                'and test, not those of the usual split (367, 101, 233), so scores cannot be compared with others']
    if digest_of_labels(folder, CAMVID) != CAMVID.labels:
        return [f'the labels in {folder} differ from those that this project has measured with']
    return []


def pairs_of_camvid(folder: Path) -> dict[str, list[tuple[Path, Path]]]:
    """Returns images and their masks by split.

    Raises:
        DownloadError: an image has no mask, or the other way round.
    """
    files = {name: file for name, file in images_of(folder, CAMVID)}
    alone = []
    for name in files:
        split, _, stem = name.partition('/')
        other = f'{split.removesuffix("annot")}/{stem}' if split.endswith('annot') else f'{split}annot/{stem}'
        if other not in files:
            alone.append(name)
    if alone:
        raise DownloadError(f'{folder} is no whole copy of CamVid: image or mask is missing to {listed(alone)}. Get it '
                            f'anew from {CAMVID.address}')
    return {split: [(file, files[f'{split}annot/{name.partition("/")[2]}']) for name, file in files.items()
                    if name.startswith(f'{split}/')] for split in SPLITS}


def gray(mask: Path) -> np.ndarray:
    """Returns the labels (H, W) of a mask.

    Raises:
        DownloadError: it is not a gray image.
    """
    with Image.open(mask) as image:
        labels = np.asarray(image)
    if labels.ndim != 2:
        raise DownloadError(f'{mask} is a picture in colours, and must be gray, with the numbers of classes. Take the '
                            f'masks of {CAMVID.address}')
    return labels


def write_lists(folder: Path, data: Path, images: dict[str, int | None]) -> None:
    """Writes lists of pairs for the config: ``train.csv``, ``val.csv`` and ``test.csv``.

    Args:
        folder: Where to.
        data: The copy of CamVid, below which the paths are.
        images: Number of images of each split, spread over all of them; None for all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, pairs in pairs_of_camvid(data).items():
        count = images[split] or len(pairs)
        chosen = [pairs[i * len(pairs) // count] for i in range(min(count, len(pairs)))]
        rows = [','.join(str(path.relative_to(data)) for path in pair) for pair in chosen]
        (folder / f'{split}.csv').write_text('\n'.join(['image,mask', *rows]) + '\n', encoding='utf-8')


def half_is_faster(size: int = 1024) -> bool:
    """Returns whether this CPU multiplies matrices faster in bfloat16 than in float32, by measuring it."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.randn(size, size).to(dtype)
        seconds[dtype] = min(once(matrix) for _ in range(5))
    return seconds[torch.float32] > FASTER * seconds[torch.bfloat16]


def once(matrix: torch.Tensor) -> float:
    """Returns the seconds of one multiplication of a matrix with itself."""
    start = time.perf_counter()
    matrix @ matrix
    return time.perf_counter() - start
