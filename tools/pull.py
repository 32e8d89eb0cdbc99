"""Fetches a model of the Hugging Face Hub and the ViT it needs, checks both, and says how to use it.

What was pulled is then used as hf://OWNER/NAME, wherever a config or a checkpoint is taken, without a network. Nothing
of a pulled model is run: its file holds numbers, and a config as data.
"""

import argparse
import sys
from pathlib import Path

EXAMPLE = """\
example:
  %(prog)s me/camvid
  mmseg-gpt predict --task camvid hf://me/camvid --images photos --out predictions

Exit code: 0; 1 if the model cannot be fetched, is refused, or its ViT is not there; 2 for a wrong command line."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', help='OWNER/NAME on the hub; OWNER/NAME@REVISION for another branch, a tag or a commit')
    parser.add_argument('--revision', metavar='REVISION', help='the same as @REVISION')
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--vit', metavar='FILE', help='the pretrained ViT (default: that in pretrained/, or the '
                        'released one, which is fetched)')
    source.add_argument('--fetch-vit', action='store_true', help='fetch the ViT from the address that the model\'s '
                        'author gives, even if it is not that of a released one')
    args = parser.parse_args()
    if args.vit and not Path(args.vit).is_file():
        parser.error(f'there is no pretrained ViT {args.vit}')
    return args


def report(args: argparse.Namespace) -> None:
    """Fetches the model, and says what it is and how it is used.

    Raises:
        SystemExit: its ViT is not there.
    """
    from mmseg_gpt.hub import pull, read_name
    from mmseg_gpt.hub.card import OUTPUT
    from mmseg_gpt.resources import command_of
    from mmseg_gpt.wording import bytes_in_words
    pulled = pull(read_name(args.name, args.revision), args.vit, args.fetch_vit)
    record = pulled.record
    if record['vit'] is None and (args.vit or args.fetch_vit):
        option = '--vit' if args.vit else '--fetch-vit'
        raise ValueError(f'{option}: the ViT of {pulled.name} is inside, as it was trained: leave {option} out')
    classes = f' of {len(record["classes"])} classes' if record['classes'] else ''
    scores = ', '.join(f'{name} {score:.2f}' for name, score in record['results'].get('scores', {}).items())
    print(f'{pulled.name} is {record["task"]}{classes}, {bytes_in_words(pulled.file.stat().st_size)}, commit '
          f'{pulled.commit[:12]}' + (f'; its author measured {scores}' if scores else ''))
    if pulled.missing:
        raise SystemExit(f'It needs the ViT {pulled.missing}')
    if record['vit'] is None:
        print(f"next, in Python: from mmseg_gpt.own_data import load; load('{pulled.name}').predict('photo.jpg')")
        return
    task = ('--task', pulled.name.repo.rpartition('/')[2], pulled.name)
    vit = ('--vit', args.vit) if args.vit else ()
    print('next:', command_of('predict', *task, *vit, '--images', 'photo.jpg', *OUTPUT[record['task']]))


def main() -> None:
    args = parse_args()
    from mmengine.logging import MMLogger  # after the arguments, as importing takes seconds

    from mmseg_gpt.engine import errors_in_words
    from mmseg_gpt.hub import HubError
    MMLogger.get_instance('pull', log_level='WARNING')
    with errors_in_words():
        try:
            report(args)
        except (HubError, ImportError, ValueError) as error:
            raise SystemExit(str(error)) from error


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nstopped')
