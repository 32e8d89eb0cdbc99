"""Features of a frozen ViT that are computed once for each image and kept in a file, where only a head is trained.

Images are identified by their pixels as the ViT gets them, so for every augmentation, the features in the file are
those that would be computed. Each image goes through the ViT by itself, whatever batch it is in: so its features
do not depend on which of its neighbours were known. On the CPUs where it was tried, an image in a batch has the same
features to the last bit; nothing guarantees that, least of all on a GPU.
"""

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor

from ..checkpoints.digest import bits_of, digest_of
from .gated_prompt_vit import GatedPromptViT

NAME = 'kept_features'  # of the file, and with .jsonl of its index
SPARE = 2**30  # bytes of the disk that stay free


class FeatureFile:
    """Features of images in a file that only grows, with an index beside it: a line of JSON for each image.

    The system caches as much as fits into memory; the process itself holds only the index. Entries that an earlier
    process has written are checked against their digest when they are first read.

    Args:
        folder: The folder of the two files. Files of other weights, or of another kind of machine, are started over.
        identity: Everything but the pixels that determines the features.
        limit: Largest size of the file in bytes, lowered to what the disk has room for.
        before: Entries that were written in this iteration or later are removed.
    """

    def __init__(self, folder: Path, identity: dict[str, object], limit: int, before: int) -> None:
        self.path, self.index = folder / NAME, folder / f'{NAME}.jsonl'
        self.entries: dict[str, dict] = {}
        header, *lines = read_lines(self.index) or [{}]
        if header == identity and self.path.is_file():
            self.entries = {line['key']: dict(line, checked=False) for line in lines if line['iteration'] < before}
        self.end = max((entry['at'] + entry['size'] for entry in self.entries.values()), default=0)
        kept = [{name: value for name, value in entry.items() if name != 'checked'} for entry in self.entries.values()]
        self.index.write_text(''.join(json.dumps(line) + '\n' for line in [identity, *kept]))
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        os.ftruncate(self.file, self.end)
        self.limit = min(limit, self.end + max(shutil.disk_usage(folder).free - SPARE, 0))
        self.is_full = False

    def read(self, key: str) -> list[Tensor] | None:
        """Returns the features of an image, on the CPU; None if they are not there, or damaged."""
        entry = self.entries.get(key)
        if entry is None:
            return None
        content = bytearray(entry['size'])
        if os.preadv(self.file, [content], entry['at']) != entry['size'] or not (
                entry['checked'] or entry_digest(content) == entry['digest']):
            del self.entries[key]
            return None
        entry['checked'] = True
        tensors, place = [], 0
        for kind, shape in entry['outputs']:
            dtype = getattr(torch, kind)
            count = torch.Size(shape).numel()
            tensors.append(torch.frombuffer(content, dtype=dtype, count=count, offset=place).view(shape))
            place += count * dtype.itemsize
        return tensors

    def write(self, key: str, outputs: list[Tensor], iteration: int) -> None:
        """Adds the features of an image, unless the file is full or the disk refuses, which is logged once."""
        content = b''.join(bits_of(output) for output in outputs)
        if self.is_full or self.end + len(content) > self.limit:
            self.close_for_more(f'{self.end / 1e9:.1f} GB are kept')
            return
        entry = dict(key=key, at=self.end, size=len(content), iteration=iteration, digest=entry_digest(content),
                     outputs=[[str(output.dtype).removeprefix('torch.'), list(output.shape)] for output in outputs])
        try:
            if os.pwrite(self.file, content, self.end) != len(content):
                raise OSError('not all could be written')
            with open(self.index, 'a', encoding='utf-8') as file:
                file.write(json.dumps(entry) + '\n')
        except OSError as error:
            self.close_for_more(str(error))
            return
        self.entries[key] = dict(entry, checked=True)
        self.end += len(content)

    def close_for_more(self, reason: str) -> None:
        """Keeps no more images, and says why."""
        if not self.is_full:
            print_log(f'features of further images are not kept in {self.path} but computed each time: {reason}',
                      logger='current')
        self.is_full = True

    def close(self) -> None:
        """Closes the file, which stays."""
        with suppress(OSError):
            os.close(self.file)

    def remove(self) -> None:
        """Closes the file and removes it with its index."""
        self.close()
        self.path.unlink(missing_ok=True)
        self.index.unlink(missing_ok=True)


class KeptFeatures:
    """Wraps the forward of a frozen ViT, and reads features from a file where they are known.

    Args:
        vit: The ViT, no part of which is trained. It is changed until :meth:`release`.
        file: Where features are kept.

    Attributes:
        iteration: The training iteration, which is written beside each image.
        counts: Images so far: ``seen`` in training, of which ``read`` from the file; and both in validation as
            ``val_seen`` and ``val_read``.
        in_training: Whether features are kept in training too, and not only in validation.
    """

    def __init__(self, vit: GatedPromptViT, file: FeatureFile | None) -> None:
        self.vit, self.file = vit, file
        self.iteration = 0
        self.counts = dict(seen=0, read=0, val_seen=0, val_read=0)
        self.in_training = True
        vit.forward = self.forward

    def __deepcopy__(self, memo: dict) -> 'KeptFeatures':
        """Returns one for a copy of the ViT, which keeps nothing: what copies are for is theirs alone."""
        twin = object.__new__(KeptFeatures)
        twin.vit, twin.file = memo.get(id(self.vit), self.vit), None
        return twin

    def release(self) -> None:
        """Restores the ViT's own forward."""
        vars(self.vit).pop('forward', None)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns the features of images (B, C, H, W), as :meth:`GatedPromptViT.forward`."""
        if self.file is None or (self.vit.training and not self.in_training):
            return GatedPromptViT.forward(self.vit, images)
        precision = precision_of(images.device.type)
        answers = [self.answer(image, precision) for image in images]
        return tuple(torch.stack(outputs).to(images.device) for outputs in zip(*answers))

    @torch.no_grad()
    def answer(self, image: Tensor, precision: str) -> list[Tensor]:
        """Returns the features of one image (C, H, W): read, or computed and kept."""
        phase = '' if self.vit.training else 'val_'
        self.counts[f'{phase}seen'] += 1
        key = key_of(image, precision)
        if known := self.file.read(key):
            self.counts[f'{phase}read'] += 1
            return known
        outputs = [output[0] for output in GatedPromptViT.forward(self.vit, image[None])]
        self.file.write(key, outputs, self.iteration)
        return [output.cpu() for output in outputs]


def precision_of(device: str) -> str:
    """Returns the type to which autocast rounds on a device, or ''."""
    return str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else ''


def key_of(image: Tensor, precision: str) -> str:
    """Returns a digest of the pixels of an image, of its shape and type, and of the precision of the forward."""
    digest = hashlib.blake2b(f'{image.dtype} {tuple(image.shape)} {precision}'.encode(), digest_size=16)
    digest.update(bits_of(image))
    return digest.hexdigest()


def entry_digest(content: bytes | bytearray) -> str:
    """Returns a digest of an entry, by which damage is found."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def read_lines(index: Path) -> list[dict]:
    """Returns the lines of an index up to the first that is not whole; none where there is no index."""
    lines = []
    with suppress(FileNotFoundError, ValueError):
        for line in index.read_text(encoding='utf-8').split('\n')[:-1]:
            lines.append(json.loads(line))
    return lines


def identity_of(vit: GatedPromptViT) -> dict[str, object]:
    """Returns what decides the features of a ViT beside the pixels: the ViT, its outputs, torch, and the device."""
    layers = [str(module) for module in vit.modules() if not list(module.children())]  # say their epsilons, too
    settings = [vit.arch, vit.rotary, vit.start_block, vit.temperature_range, layers]
    device = next(vit.parameters()).device
    return dict(weights=digest_of(vit.state_dict(), str(settings)), outputs=[*vit.out_indices, vit.out_type],
                torch=torch.__version__, products=torch.get_float32_matmul_precision(),
                convolutions='TF32' if torch.backends.cudnn.allow_tf32 else 'float32',
                device=torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type)
