"""Finds the images and masks of a folder, in the layouts that people use."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...wording import listed
from ..left_out import UNREAD
from .candidates import Candidates, look, look_at_given, without
from .copies import find_copies, first_copies, without_copies
from .lists import Lists, read_lists
from .matching import choose_masks
from .names import split_of_file
from .polygons import few_matches, no_masks
from .splits import make_split, share_held_out
from .tree import SHOWN, UNREADABLE, File, Tree, few, read_tree
from .types import Found, FoundError, Pair

MaskOf = Mapping[File, File]
UNLISTED = 'unlisted'
MOST = 0.5  # of the images must have a mask, or of the masks an image


def find_pairs(folder: str | Path | None = None, *, images: str | Path | None = None, masks: str | Path | None = None,
               val: float | None = None, seed: int = 0) -> Found:
    """Finds images and their masks, and finds or makes a validation split.

    Args:
        folder: The folder that holds everything.
        images: The folder of the images, in place of ``folder`` or inside it; or a pattern of their names or paths
            below ``folder``.
        masks: The folder of the masks; or a pattern of their names or paths below ``folder``, such as
            '*_labelTrainIds.png', where several masks fit one image.
        val: The share of the training images to keep for validation, a fifth by default, if there is no such split.
        seed: Another seed keeps other images.

    Raises:
        FoundError: the layout is unknown, or there is more than one way to understand it; or ``val`` is given and
            there are images for validation.
    """
    root = Path(os.path.abspath(folder)) if folder is not None else None
    if root and images is None and masks is None:
        tree = read_tree(root)
        found, matches = look(tree)
    else:
        tree, found, matches = look_at_given(root, images, masks)
    if not matches.masks:
        raise no_masks(tree, found.images, found.masks)
    if len(matches.masks) < MOST * len(found.images) and len(matches.alone) > MOST * len(found.masks):
        raise few_matches(tree.root, found.images, found.masks, matches.alone)
    mask_of, notes = choose_masks(matches.masks)
    lists = read_lists(tree, found.images, found.masks)
    mask_of.update(lists.masks)
    by_split, by_lists = split_up(found.images, mask_of, lists)
    alone = without(matches.alone, lists.masks.values())
    notes += leftovers(tree, found, alone, mask_of, by_split)
    splits, said = with_validation(as_pairs(by_split, mask_of), val, seed)
    splits, copies = without_copies(splits)
    notes += own_masks(splits)
    layout = describe(mask_of) + (f'; {by_lists}' if by_lists else '')
    return Found(tree.root, layout, splits, [*notes, *lists.notes, *said, *copies])


def split_up(images: Sequence[File], mask_of: MaskOf, lists: Lists) -> tuple[dict[str | None, list[File]], str]:
    """Sorts images by split: by the names of folders or, where these name none, by lists, or by the names of files.

    Returns:
        The images of each split, of None where nothing names it, of :data:`UNLISTED` where a list leaves it out; and
        what says so if it is not folders.
    """
    splits = defaultdict(list)
    for image in images:
        mask = mask_of.get(image)
        splits[image.folder.split or (mask.folder.split if mask else None)].append(image)
    files = listed([file.shown for file in lists.files])
    if set(splits) - {None}:
        if lists.files:
            lists.notes[:] = [f'{files}: not used, because the names of the folders say which split an image is of']
        return dict(splits), ''
    if not lists.splits:
        by_name = defaultdict(list)
        for image in images:
            by_name[split_of_file(image.stem)].append(image)
        if 'train' in by_name and len(by_name) > 1 and None not in by_name:
            return dict(by_name), f'the splits are those that names begin with: {by_name["train"][0].name}'
        return dict(splits), ''
    named = {image for of_split in lists.splits.values() for image in of_split}
    unlisted = [image for image in images if image not in named]
    return {**lists.splits, UNLISTED: unlisted}, f'the splits are those of {files}'


def leftovers(tree: Tree, found: Candidates, alone: Sequence[File], mask_of: MaskOf,
              by_split: Mapping[str | None, Sequence[File]]) -> list[str]:
    """Says which files are not used, a sentence for each kind of them.

    Args:
        tree: All files.
        found: Those that may be images or masks.
        alone: Masks that belong to no image.
        mask_of: The mask of each image.
        by_split: The images of each split.
    """
    bare = [image for split, of_split in by_split.items() for image in of_split
            if image not in mask_of and not (split == 'test' and not any(each in mask_of for each in of_split))]
    unlisted = [image for image in by_split.get(UNLISTED, ()) if image in mask_of]
    apart = by_split.get(None, ()) if by_split.get('train') else ()
    neither = without(without(tree.pictures, found.images), found.masks)
    return [
        *few(bare, warned(bare, found.images) + 'images left out, because they have no mask'),
        *few(alone, warned(alone, found.masks) + 'masks left out, because they have no image'),
        *few(unlisted, 'images left out, because no list names them'),
        *few([image for image in apart if image in mask_of], 'images left out, because they are of no split'),
        *few([image for image in mask_of if image.suffix in UNREAD], UNREADABLE),
        *few(neither, 'images not used, because their folders or names are neither of images nor of masks'),
        *([f'{len(tree.broken):,} links lead nowhere: {listed(tree.broken, SHOWN)}'] if tree.broken else [])]


def own_masks(splits: Mapping[str, Sequence[Pair]]) -> list[str]:
    """Says which images are, byte for byte, their own masks."""
    same = [str(pair.image) for pairs in splits.values() for pair in pairs if pair.mask and find_copies(
        {'image': [pair.image], 'mask': [pair.mask]})]
    return [f'WARNING: images that are, byte for byte, their own masks ({len(same):,}): {listed(same, SHOWN)}'] if (
        same) else []


def warned(left_out: Sequence[File], files: Sequence[File]) -> str:
    """Returns 'WARNING: ' if most files are left out, else ''."""
    return 'WARNING: ' if 2 * len(left_out) > len(files) else ''


def as_pairs(by_split: Mapping[str | None, Sequence[File]], mask_of: MaskOf) -> dict[str | None, list[Pair]]:
    """Returns the pairs of each split; images of a test split that has no masks are paired with None."""
    pairs = {}
    for split, images in by_split.items():
        of_split = [Pair(image.path, mask_of[image].path) for image in images if image in mask_of]
        if split == 'test' and not of_split:
            of_split = [Pair(image.path, None) for image in images]
        if of_split and split != UNLISTED:
            pairs[split] = sorted(of_split)
    return pairs


def with_validation(pairs: Mapping[str | None, list[Pair]], val: float | None,
                    seed: int) -> tuple[dict[str, list[Pair]], list[str]]:
    """Returns the splits 'train', 'val' and perhaps 'test', and sentences on what was made up.

    Raises:
        FoundError: there are no images to train on, or too few to split; or ``val`` cannot be met.
    """
    notes = []
    train = pairs.get('train') or pairs.get(None)
    if not train:
        counts = ', '.join(f'{split} ({len(of_split):,})' for split, of_split in pairs.items())
        raise FoundError(f'there are no images with masks to train on, only those of {counts}: put some into a folder '
                         'train')
    splits = {'train': train, 'val': pairs.get('val', [])}
    share = share_held_out(val, bool(splits['val']))
    if not splits['val']:
        splits, how = make_split(train, {'val': share}, seed, first_copies([pair.image for pair in train]))
        notes.append(f'no images with masks for validation; {how}')
    if test := pairs.get('test'):
        splits['test'] = test
        if test[0].mask is None:
            notes.append(f'images of the split test, which have no masks, so that they can be predicted, not tested: '
                         f'{len(test):,}')
    return splits, notes


def describe(mask_of: MaskOf) -> str:
    """Says where images and masks lie, and what tells one from the other."""
    of_images, of_masks = (folders(files) for files in (mask_of, mask_of.values()))
    if of_images == of_masks:
        image, mask = next(iter(mask_of.items()))
        return f'images and masks in {of_images}, such as {image.name} and {mask.name}'
    same = sum(image.stem.lower() == mask.stem.lower() for image, mask in mask_of.items())
    image, mask = next(((image, mask) for image, mask in mask_of.items() if image.stem.lower() != mask.stem.lower()),
                       next(iter(mask_of.items())))
    names = '' if same == len(mask_of) else f', with names such as {image.name} and {mask.name}'
    return f'images in {of_images} and masks in {of_masks}{names}'


def folders(files: Iterable[File]) -> str:
    """Names the folders of files, the one with most of them first."""
    counts = Counter(file.folder.shown for file in files)
    return listed([f'{shown}/' if shown != '.' else 'the folder itself' for shown, _ in counts.most_common()], 4)
