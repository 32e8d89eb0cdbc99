"""What the names of folders and files say: whether images or masks are in them, and of which split."""

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple


def words(text: str) -> frozenset[str]:
    """Returns the words of a text, each once."""
    return frozenset(text.split())


# Words of names. A word with an 's' at its end means the same without it.
MASK = words('mask annotation annot ann anno label labeled labelled lab lbl gt groundtruth truth seg segmentation '
             'segmap segment target manual trimap matte ho semantic map stuffthingmap maske masken '
             'masque mascara y')
IMAGE = words('image img im photo photograph picture pic input jpegimage rgb sat satellite ortho irrg rgbir cir '
              'original orig still bild bilder imagen imagenes x')
# Pictures that are neither what is labelled nor, if there is another, its label.
OTHER = words('instance object visualization visualisation visualized vis viz overlay overlaid depth disparity thumb '
              'thumbnail preview prediction predicted pred superpixel polygon bbox human')
FILLER = words('dir folder set data dataset class png jpg jpeg tif tiff bmp gif npy mat id left bit fine coarse all '
               'raw full list file path color colour gray grey binary bin crop cropped patch tile aug st nd rd ground '
               'machine split name new hq approved index idx indice indices no boundary noboundary colormap')
SPLITS = dict(train='train', training='train', trainval='train', trn='train', tr='train', val='val', valid='val',
              validation='val', dev='val', eval='val', test='test', testing='test', tst='test', ts='test')
# The lower the sum of these, the sooner a mask is taken, where several fit one image.
RANKS = dict(trainid=-2, manual=-1, nd=1, second=1, color=1, colour=1, colormap=1, rgb=1, coarse=1, boundary=1,
             noboundary=1)
NEGATIONS = frozenset(('no', 'non', 'with', 'without'))
SEPARATORS, NUMBERED = '_. -', r'([^\W\d_]+)(\d+)'


class Meaning(NamedTuple):
    """What a name says.

    Attributes:
        role: 'image', 'mask', 'other' or None.
        split: 'train', 'val', 'test' or None.
        whole: Whether all its words are known.
        left: Its unknown words.
    """
    role: str | None
    split: str | None
    whole: bool
    left: tuple[str, ...]


def words_of(name: str) -> list[str]:
    """Returns the words and numbers in a name, in lower case and singular: 'gtFine_labels' has gt, fine and label."""
    found = re.findall(r'[^\W\d_]+|\d+', re.sub(r'(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])', '_', name))
    return [part for word in found for part in parts_of(singular(word.lower()))]


def singular(word: str) -> str:
    """Returns a word without the 's' at its end, if it is then known."""
    return word[:-1] if word.endswith('s') and is_known(word[:-1]) and not is_known(word) else word


def parts_of(word: str) -> list[str]:
    """Returns the two known words of which a word is made, the first or last of them a split: 'trainannot'."""
    if is_known(word):
        return [word]
    for split in SPLITS:
        for first, second in ((split, word.removeprefix(split)), (word.removesuffix(split), split)):
            if len(split) > 2 and first + second == word and is_known(singular(first)) and is_known(singular(second)):
                return [singular(first), singular(second)]
    return [word]


def is_known(word: str) -> bool:
    """Says whether a word has a meaning here; numbers have none, but do no harm."""
    return word in MASK or word in IMAGE or word in OTHER or word in FILLER or word in SPLITS or word.isdecimal()


def role_of(parts: Iterable[str]) -> str | None:
    """Returns 'mask', 'other' or 'image', the first for which there is a word; None without one."""
    known = (('mask', MASK), ('other', OTHER), ('image', IMAGE))
    return next((role for role, of_role in known if of_role.intersection(parts)), None)


@lru_cache(maxsize=10_000)
def meaning_of(name: str) -> Meaning:
    """Says what the name of a folder means."""
    parts = words_of(name)
    negated = any(first in NEGATIONS and second in MASK for first, second in pairwise(parts))
    splits = [SPLITS[word] for word in parts if word in SPLITS]
    left = tuple(word for word in parts if not is_known(word))
    if left:  # 'site_x' is a place
        parts = [word for word in parts if word not in ('x', 'y')]
    return Meaning(None if negated else role_of(parts), splits[0] if splits else None, not left, left)


def meanings_of(names: Iterable[str]) -> dict[str, Meaning]:
    """Says what each of the names of folders in one dataset means.

    A name with unknown words names a split only if it has a role too, or if another name has these words and another
    split: 'flood_train' beside 'flood_test'. Where a folder is called 'without_mask', 'mask' is a class.
    """
    meanings = {name: meaning_of(name) for name in names}
    variants = defaultdict(set)
    for meaning in meanings.values():
        variants[meaning.left].add(meaning.split)
    classes = any(negates_mask(name) for name in meanings)
    for name, meaning in meanings.items():
        if classes and meaning.role == 'mask' and 'mask' in words_of(name):
            meaning = meaning._replace(role=None)
        if not (meaning.whole or meaning.role or len(variants[meaning.left] - {None}) > 1):
            meaning = meaning._replace(split=None)
        meanings[name] = meaning
    return meanings


def negates_mask(name: str) -> bool:
    """Says whether a name is like 'no_mask' or 'with_mask': a class of faces, not a folder of masks."""
    return any(first in NEGATIONS and second == 'mask' for first, second in pairwise(words_of(name))) or bool(
        re.fullmatch(r'(no|non|with|without)masks?', name.lower()))


@lru_cache(maxsize=100_000)
def core_of(stem: str, splits: bool = False) -> tuple[str, str | None]:
    """Returns what is left of a file's name, in lower case, without what its ends say of its role; and the role.

    Args:
        stem: The name without its suffix: 'a_0294_gtFine_labelIds' is the mask of 'a_0294', 'mask001' that of '001'.
        splits: Whether the names of splits are taken away too: '21_training' and '21_manual1' are of '21'.
    """
    chunks, roles = re.split(f'([{SEPARATORS}]+)', stem), set()
    for end in (-1, 0):
        # The number of 'img1' alone tells it from 'img2', and that of 'manual1' behind a name does not.
        while not re.fullmatch(NUMBERED, ''.join(chunks).strip(SEPARATORS)) and (
                chunk := outermost(chunks, end, splits)) is not None:
            roles.add(chunk_role(chunk))
    if chunks and (numbered := re.fullmatch(NUMBERED, chunks[0])) and (role := chunk_role(numbered[1])):
        chunks[0] = numbered[2]
        roles.add(role)
    role = next((role for role in ('mask', 'other', 'image') if role in roles), None)
    return ''.join(chunks).strip(SEPARATORS).lower(), role


def outermost(chunks: list[str], end: int, splits: bool) -> str | None:
    """Takes the chunk with a role that is outermost at an end (-1 or 0) of a name, with what it is described by.

    Returns:
        str: The chunk, or None if there is none, and nothing is taken.
    """
    for place in range(len(chunks)) if end == 0 else range(len(chunks) - 1, -1, -1):
        chunk = chunks[place]
        if chunk_role(chunk) or (splits and chunk.lower() in SPLITS):
            rest = chunks[place + 1:] if end == 0 else chunks[:place]
            chunks[:] = rest[2:] if end == 0 and rest[1:2] and rest[1].lower() in ('dir', 'folder') else rest
            return chunk
        if chunk.strip(SEPARATORS) and (end == 0 or chunk.lower() not in FILLER):
            return None
    return None


@lru_cache(maxsize=10_000)
def chunk_role(chunk: str) -> str | None:
    """Returns the role that a part of a file's name gives it, if its words are all known and it does not count.

    'manual1', '1stHO' and 'leftImg8bit' have a role; 'IMG0001' has a number too, and 'tile_x_12' a place.
    """
    if sum(map(str.isdigit, chunk)) > 1:
        return None
    parts = words_of(chunk)
    return role_of(parts) if all(map(is_known, parts)) and not {'x', 'y'}.intersection(parts) else None


def split_of_file(stem: str) -> str | None:
    """Returns the split that a file's name begins with: 'train_1' and 'testA_1'; None if it names none."""
    first, *others = words_of(stem) or ['']
    return SPLITS.get(first) if others and len(first) > 2 else None


@lru_cache(maxsize=10_000)
def rank_of(text: str) -> int:
    """Ranks the names of masks by their words: the lowest is that of the mask to take."""
    parts = words_of(text)
    pairs = [first + second for first, second in pairwise(parts)]
    return sum(RANKS.get(word, 0) + 5 * (word in OTHER) for word in parts + pairs)
