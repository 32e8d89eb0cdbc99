"""Opens a page to look at predictions: masks over a photograph, and what the model attends to where it is clicked.

Each task is a config and a checkpoint, as for predict; all must have been trained on the same pretrained ViT. Nothing
leaves this computer, and nothing is written outside of one folder.
"""

import argparse
import getpass
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arguments import add_shared_vit_arguments, add_task_argument, check_address, check_device, check_port, positive

# What gradio, and what it is made of, must not do; they read it as they are imported.
QUIET = {'GRADIO_ANALYTICS_ENABLED': 'False', 'HF_HUB_DISABLE_TELEMETRY': '1', 'HF_HUB_OFFLINE': '1',
         'GRADIO_RUN_HISTORY': 'False', 'GRADIO_SHARE': 'False', 'DO_NOT_TRACK': '1'}
VARIABLE = 'MMSEG_GPT_APP_PASSWORD'
EXAMPLE = """\
example:
  %(prog)s --task street work_dirs/street        # then open the address that it prints

Exit code: 0; 1 if a checkpoint cannot be used or the address is taken; 2 for a wrong command line."""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_task_argument(parser)
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on; others than the default let other '
                        'computers in (default: %(default)s)')
    parser.add_argument('--port', type=int, default=7860, help='default: %(default)s')
    parser.add_argument('--password', metavar='FILE', nargs='?', const='-', help='ask for a password: the first line '
                        f'of FILE, or ${VARIABLE}, or what you type then')
    parser.add_argument('--folder', type=Path, metavar='DIR', help='where uploads and answers are written (default: a '
                        'temporary folder, removed at the end)')
    parser.add_argument('--max-megabytes', type=positive(float), default=32, metavar='N', help='largest file, in MiB '
                        '(default: %(default)s)')
    parser.add_argument('--max-megapixels', type=positive(float), default=64, metavar='N', help='largest image '
                        '(default: %(default)s)')
    parser.add_argument('--tile', type=int, metavar='PIXELS', help='cut images of segmentations into tiles of this '
                        'side, as predict does')
    add_shared_vit_arguments(parser)
    return parser


def read_password(said: str | None) -> str | None:
    """Returns the password, which is never on the command line; None if none is asked for.

    Raises:
        SystemExit: it is empty, the file cannot be read, or nobody is there to type.
    """
    if said is None:
        return None
    if said != '-':
        try:
            password = Path(said).read_text(encoding='utf-8').partition('\n')[0].strip()
        except OSError as error:
            raise SystemExit(f'--password {said}: {error.strerror}') from error
    else:
        try:
            password = os.environ.get(VARIABLE) or getpass.getpass('password of the page: ')
        except EOFError as error:
            raise SystemExit(f'--password: nothing can be typed here; give a FILE or set ${VARIABLE}') from error
    if not password:
        raise SystemExit('--password: it is empty')
    return password


@contextmanager
def own_folder(folder: Path | None) -> Iterator[Path]:
    """Yields the folder in which all is written, uploads and caches too, by this process and the packages it imports.

    Only what was fetched before, models and ViTs, is read elsewhere; a ViT that a config names by its address, and that
    was not fetched yet, is fetched to there.

    Args:
        folder: The folder; by default a temporary one, which is removed at the end.

    Raises:
        SystemExit: the folder cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix='mmseg-gpt-app-') as temporary:
        place = Path(folder or temporary).resolve()
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SystemExit(f'--folder {folder}: {error.strerror}') from error
        there = fetched()  # before HF_HOME is another
        caches = {'GRADIO_TEMP_DIR': 'gradio', 'HF_HOME': 'huggingface', 'XDG_CACHE_HOME': 'cache',
                  'MPLCONFIGDIR': 'matplotlib'}
        os.environ.update(QUIET, **there, **{name: str(place / part) for name, part in caches.items()})
        tempfile.tempdir = str(place)
        try:
            yield place
        finally:
            tempfile.tempdir = None


def fetched() -> dict[str, str]:
    """Returns where models of the hub and pretrained ViTs that were fetched before lie, as variables for own_folder."""
    caches = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    home = os.environ.get('HF_HOME') or os.path.join(caches, 'huggingface')
    models = os.environ.get('HF_HUB_CACHE') or os.environ.get('HUGGINGFACE_HUB_CACHE') or os.path.join(home, 'hub')
    vits = os.environ.get('TORCH_HOME') or os.path.join(caches, 'torch')
    return dict(HF_HUB_CACHE=os.path.expanduser(models), TORCH_HOME=os.path.expanduser(vits))


def parse_args() -> argparse.Namespace:
    from predict import check_tasks, check_tiles
    parser = make_parser()
    args = parser.parse_args()
    args.batch, args.tta, args.overlap = 1, False, None
    check_tasks(args, parser)
    check_tiles(args, parser)
    check_port(args.port, parser, least=1)
    return args


def main() -> None:
    args = parse_args()
    check_address(args.host, args.port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as Ctrl-C, so that the temporary folder is removed
    password = read_password(args.password)
    with own_folder(args.folder) as folder:
        open_page(args, folder, password)


def open_page(args: argparse.Namespace, folder: Path, password: str | None) -> None:
    """Loads the tasks and serves the page until it is interrupted.

    Raises:
        SystemExit: a task cannot be used, or gradio is not installed.
    """
    from mmengine.logging import MMLogger  # after the arguments, as importing takes seconds
    from predict import build_pool, check_meaning

    from mmseg_gpt.app.server import LOOPBACK, address_of, build_server, check_gradio, serve
    from mmseg_gpt.engine import errors_in_words
    MMLogger.get_instance('app', log_level='WARNING')
    check_device(args.device)
    with errors_in_words():
        try:
            check_gradio()
            from mmseg_gpt.apis.tiles import Tiling
            from mmseg_gpt.app import Desk, Limits
            pool = build_pool(args)
            check_meaning(pool, args.tile)
            desk = Desk(pool, folder, Limits(args.max_megabytes, args.max_megapixels),
                        Tiling(args.tile) if args.tile else None)
            server = build_server(desk, args.host, password)
        except ValueError as error:
            raise SystemExit(str(error)) from error
        if args.host not in LOOPBACK and not password:
            print('Everybody who reaches this computer can use the page: --password asks for one.')
        print(f'open {address_of(args.host, args.port)} (Ctrl-C ends it); all is written to {folder}', flush=True)
        try:
            serve(server, args.host, args.port)
        finally:
            desk.close()


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
