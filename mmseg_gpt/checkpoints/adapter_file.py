"""Adapter files: what was trained, and all that is needed to use it, in one safetensors file that runs nothing.

The tensors are the state dict of a model without its frozen ViT. The header's metadata holds a record, as JSON: the
config as plain data (:mod:`.plain_config`), the classes, which ViT is needed, and what was measured. A SHA-256 of all
of it is beside the record, because safetensors has no checksum. ``read_file`` returns the content as of any checkpoint
of this project, so an adapter file goes wherever a checkpoint goes.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..files import replacing
from ..settings import flatten
from .digest import digest_of
from .plain_config import NotPlain, check_plain, restored

RECORD, DIGEST = 'mmseg_gpt', 'sha256'  # keys of the header's metadata
FORMAT = 1
SUFFIX = '.safetensors'
MOST_RECORD, MOST_CLASSES, LONGEST_NAME = 4 << 20, 100_000, 200
SCOPES = dict(segmentation='mmseg', classification='mmpretrain')
HASH = re.compile('[0-9a-f]{64}')
FILE_NAME = re.compile(r'\w[\w.+-]{0,127}')
ADDRESS = re.compile(r'https?://[\w.:-]{1,200}/[\w./+~-]{0,300}[\w+-]|timm://\w[\w.]{0,127}')


def write_adapter(path: Path, state: Mapping[str, Tensor], record: dict) -> None:
    """Writes an adapter file, or leaves the file there as it was.

    Args:
        path: The file; its suffix is .safetensors.
        state: The weights by name.
        record: What :func:`check_record` allows.

    Raises:
        ValueError: the record holds something that a reader would refuse.
        OSError: the file cannot be written.
    """
    from safetensors.torch import save_file
    text = json.dumps(record, allow_nan=False)
    check_record(json.loads(text))
    state = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    with replacing(path) as unfinished:
        save_file(state, unfinished, {'format': 'pt', RECORD: text, DIGEST: digest_of(state, text)})


def content_of(state: dict[str, Tensor], metadata: Mapping[str, str]) -> dict:
    """Returns the content of an adapter file as that of a checkpoint: ``state_dict`` and ``meta``.

    Args:
        state: The tensors of the file.
        metadata: Its header's metadata, with a record.

    Raises:
        ValueError: the file is damaged, or its record is not one of ours; the message says what is wrong.
    """
    text = metadata[RECORD]
    if len(text) > MOST_RECORD:
        raise ValueError(f'its record has {len(text)} characters, and at most {MOST_RECORD} are allowed')
    if metadata.get(DIGEST) != digest_of(state, text):
        raise ValueError('its content is not what was saved: the checksum (SHA-256) is another')
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'its record is no JSON ({error})') from error
    check_record(record)
    settings = {name: record['config'][name] for name in ('model', 'data_preprocessor') if name in record['config']}
    meta = dict(record=record, settings=json.dumps(restored(settings)),
                dataset_meta=dict(classes=record['classes'], palette=record['palette']))
    if vit := record['vit']:
        meta['frozen'] = dict(vit, source=vit['file'])
    return dict(state_dict=state, meta=meta)


def check_record(record: object) -> None:
    """Refuses a record that is not one of an adapter file.

    Args:
        record: What JSON gave: ``format``, ``made_by``, ``task``, ``config``, ``classes``, ``palette``,
            ``reduce_zero_label``, ``vit`` (None for a model whose ViT was trained) and ``results``, which may be empty
            or have ``metric`` (the name of the main score), ``scores`` (by name), ``measured_on``, ``images`` and
            ``per_class`` (dicts with ``class``).

    Raises:
        ValueError: the message says what is wrong.
    """
    number = record.get('format') if isinstance(record, dict) else None
    if not isinstance(number, int) or number < 1:
        raise ValueError('its record has no format')
    if number > FORMAT:
        raise ValueError(f'a newer mmseg_gpt made it, in format {number}, and this one reads {FORMAT}: update it')
    try:
        check_plain(record['config'])
        expect(record['task'] in SCOPES, 'its task is none of ' + ', '.join(SCOPES))
        expect(isinstance(record['made_by'], str) and is_line(record['made_by']), 'made_by is no line of text')
        expect(isinstance(record['reduce_zero_label'], bool), 'reduce_zero_label is neither true nor false')
        check_classes(record['classes'], record['palette'])
        if record['vit'] is not None:
            check_vit(record['vit'])
        check_results(record['results'])
    except KeyError as error:
        raise ValueError(f'its record has no {error}') from error
    except RecursionError as error:
        raise ValueError('its record has too many levels') from error
    except NotPlain as error:
        raise ValueError(f'its config is refused, so nothing of it was built: {error}') from error


def check_classes(classes: object, palette: object) -> None:
    """Refuses names of classes that are no names, and colours that are none.

    Raises:
        ValueError: as said.
    """
    if classes is not None:
        expect(isinstance(classes, list) and 0 < len(classes) <= MOST_CLASSES and all(
            isinstance(name, str) and is_line(name) for name in classes), 'its classes are no list of names')
    if palette is not None:
        expect(isinstance(palette, list) and len(palette) == len(classes or ()) and all(
            isinstance(colour, list) and len(colour) == 3 and all(
                type(part) is int and 0 <= part < 256 for part in colour) for colour in palette),
            'its palette is no list of colours, one for each class')


def check_vit(vit: object) -> None:
    """Refuses a description of the ViT that names no file, or one in another folder.

    Raises:
        ValueError: as said.
    """
    texts = dict(file=FILE_NAME, sha256=HASH, weights_sha256=HASH)
    expect(isinstance(vit, dict) and {*texts, 'address', 'pos_embed', 'key'} <= vit.keys() and all(
        isinstance(vit[name], str) and pattern.fullmatch(vit[name]) for name, pattern in texts.items()),
        'vit does not say the file and its SHA-256')
    address, key, shape = vit['address'], vit['key'], vit['pos_embed']
    expect(address is None or (isinstance(address, str) and ADDRESS.fullmatch(address)), 'vit.address is no address')
    expect(key is None or (isinstance(key, str) and is_line(key)), 'vit.key is no name')
    expect(shape is None or (isinstance(shape, list) and len(shape) == 3 and all(type(n) is int for n in shape)),
           'vit.pos_embed is no shape')


def check_results(results: object) -> None:
    """Refuses results that are more than numbers and short texts.

    Raises:
        ValueError: as said.
    """
    expect(isinstance(results, dict) and isinstance(results.get('scores', {}), dict) and
           isinstance(results.get('per_class', []), list), 'its results are no results')
    for name, value in flatten(results).items():
        expect(is_line(name) and (value in ({}, []) or value is None or isinstance(value, (int, float)) or (
            isinstance(value, str) and is_line(value))), 'its results are more than numbers and short texts')
    expect(all(isinstance(score, (int, float)) for score in results.get('scores', {}).values()) and
           all(isinstance(row, dict) and isinstance(row.get('class'), str) for row in results.get('per_class', [])),
           'its scores are no numbers')


def is_line(text: str) -> bool:
    """Says whether a text is short and can be printed: no escape sequence of a terminal, no line break."""
    return len(text) <= LONGEST_NAME and text.isprintable()


def expect(condition: object, otherwise: str) -> None:
    """Raises a ValueError with a sentence unless a condition holds."""
    if not condition:
        raise ValueError(otherwise)
