"""Answers images over HTTP: several tasks on one frozen ViT, behind a queue that refuses what is too much.

It listens on this machine alone unless --host says otherwise. It has no password and no encryption: let others reach it
through a proxy that has.
"""

import argparse
import sys

from arguments import add_shared_vit_arguments, add_task_argument, check_address, check_port, positive
from predict import build_pool, check_tasks

EXAMPLE = """\
example:
  %(prog)s --task ade setr_pup_gpt_mae_ade20k ade.pth --task cub cls_gpt_mae_cub cub.pth
  curl --data-binary @bird.jpg http://127.0.0.1:8000/tasks/cub
  curl --data-binary @street.jpg "http://127.0.0.1:8000/tasks/ade?answer=png" > labels.png

  GET /tasks lists the tasks and their classes, GET /health says how many requests wait. Ctrl-C takes no more requests,
  answers those that wait, and ends."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_task_argument(parser)
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on (default: %(default)s)')
    parser.add_argument('--port', type=int, default=8000, help='0 takes a free one (default: %(default)s)')
    parser.add_argument('--capacity', type=positive(int), default=64, metavar='N', help='requests that may wait; more '
                        'get status 503 (default: %(default)s)')
    parser.add_argument('--batch', type=positive(int), default=8, metavar='N', help='answers computed together '
                        '(default: %(default)s)')
    parser.add_argument('--wait', type=float, default=10, metavar='MS', help='milliseconds that an image waits for '
                        'others to be computed with (default: %(default)s)')
    parser.add_argument('--max-megabytes', type=positive(float), default=32, metavar='N', help='largest file that '
                        'may be sent, in MiB (default: %(default)s)')
    parser.add_argument('--max-megapixels', type=positive(float), default=64, metavar='N', help='most million pixels '
                        'of an image (default: %(default)s)')
    parser.add_argument('--tta', action='store_true', help="answer by the mean of several views of an image, by the "
                        "config's tta_pipeline")
    add_shared_vit_arguments(parser)
    args = parser.parse_args()
    check_tasks(args, parser)
    if args.wait < 0:
        parser.error(f'--wait must be at least 0, got {args.wait}')
    check_port(args.port, parser)
    return args


def main() -> None:
    args = parse_args()
    check_address(args.host, args.port)  # before minutes of loading
    try:
        import uvicorn

        from mmseg_gpt.apis.http import make_app
    except ModuleNotFoundError as error:
        if error.name not in ('fastapi', 'uvicorn'):
            raise
        raise SystemExit(f'{error.name} is missing: pip install "mmseg_gpt[serve]"') from error
    from mmengine.logging import MMLogger

    from mmseg_gpt.apis import RequestQueue
    from mmseg_gpt.engine import errors_in_words
    MMLogger.get_instance('serve', log_level='WARNING')
    with errors_in_words():
        pool = build_pool(args)
    with RequestQueue(pool, args.capacity, args.batch, args.wait / 1000) as queue:
        app = make_app(queue, int(args.max_megabytes * 2**20), int(args.max_megapixels * 1e6))
        uvicorn.run(app, host=args.host, port=args.port, log_level='info', access_log=False,
                    limit_concurrency=args.capacity + 64, server_header=False)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nstopped')
