"""A small HTTP service for a pool: an image is sent to a task, and numbers or a label map come back."""

import asyncio
import math
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from mmengine.structures import BaseDataElement
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..datasets import SampleError
from ..datasets.headers import read_header
from ..datasets.pairs import unreadable
from ..datasets.predicted import write_label_map
from .answers import as_numbers, label_map
from .queue import QueueClosed, RequestQueue, TooBusy
from .task import ServedTask

SENT = 'the file that was sent'  # what messages call it
OPTIONS = ('answer', 'probabilities')
SILENCE = 60.  # seconds after which a file that stopped coming is given up


class Refused(Exception):
    """A request that is answered with an error status and a sentence."""

    def __init__(self, status: int, why: str, **headers: str) -> None:
        super().__init__(why)
        self.status, self.headers = status, headers


def make_app(queue: RequestQueue, most_bytes: int = 32 * 2**20, most_pixels: int = 64 * 10**6) -> FastAPI:
    """Makes the service.

    * ``GET /health`` says how many requests wait, and with status 503 that the queue is closed or has failed.
    * ``GET /tasks`` lists the tasks: their kind and their classes.
    * ``POST /tasks/NAME``, with an image file as its body, answers as :func:`as_numbers`; ``?answer=png`` gives the
      label map of a segmentation, ``?probabilities=true`` those of all classes of a classification.

    Errors have a status and ``{"error": SENTENCE}``: 400 for a body that is not an image and for an option that is
    wrong or has no meaning for the task, 404 for an unknown task or address, 405 for another method, 408 for an upload
    that stalls, 413 for a file or an image that is too large, 503 with ``Retry-After`` if too many requests wait, 500
    if the model or the service fails.

    Args:
        queue: The queue. Its creator closes it.
        most_bytes: Largest file in bytes.
        most_pixels: Most pixels of an image, according to its header.
    """
    app = FastAPI(title='mmseg_gpt', docs_url=None, redoc_url=None, openapi_url=None)
    for kind in (Refused, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, refuse)

    @app.get('/health')
    async def health() -> Response:
        status = 'failed' if queue.has_failed else 'closed' if queue.is_closed else 'ok'
        state = dict(status=status, waiting=queue.waiting, capacity=queue.capacity)
        return JSONResponse(state, 200 if status == 'ok' else 503)

    @app.get('/tasks')
    async def tasks() -> dict:
        return {name: dict(kind='segmentation' if task.segments else 'classification',
                           classes=task.classes and list(task.classes)) for name, task in queue.pool.tasks.items()}

    @app.post('/tasks/{name}')
    async def predict(request: Request, name: str, answer: str = 'json', probabilities: bool = False) -> Response:
        task = queue.pool.tasks.get(name)
        if task is None:
            raise Refused(404, f'there is no task "{name}"; the tasks are {", ".join(queue.pool.tasks)}')
        if unknown := sorted(set(request.query_params) - set(OPTIONS)):
            raise Refused(400, f'there is no option "{unknown[0]}"; the options are {", ".join(OPTIONS)}')
        if answer not in ('json', 'png'):
            raise Refused(400, f'answer must be json or png, not "{answer}"')
        if answer == 'png' and not task.segments:
            raise Refused(400, f'task "{name}" classifies images, so that there is no label map')
        if probabilities and task.segments:
            raise Refused(400, f'task "{name}" labels pixels, and probabilities are given of classifications only: '
                               'leave probabilities out')
        with refusing():
            queue.check()  # before the file is received
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'file')
            await receive(request, path, most_bytes)
            future = await run_in_threadpool(submit, queue, name, path, most_pixels)
        try:
            sample = await asyncio.wrap_future(future)
        except Exception as error:
            raise Refused(500, f'the model failed: {error}') from error
        if answer == 'png':
            return Response(await run_in_threadpool(as_png, task, sample), media_type='image/png')
        return JSONResponse(await run_in_threadpool(as_numbers, task, sample, probabilities))

    return app


async def refuse(request: Request, error: Exception) -> JSONResponse:
    """Answers what ended a request: a status and a sentence."""
    refused = error if isinstance(error, Refused) else as_refused(request, error)
    return JSONResponse({'error': str(refused)}, refused.status, refused.headers)


def as_refused(request: Request, error: Exception) -> Refused:
    """Says in a sentence what FastAPI refuses itself, or what failed."""
    if isinstance(error, RequestValidationError):
        wrong = error.errors()[0]  # of an option, which is true or false
        return Refused(400, f'{wrong["loc"][-1]} must be true or false, not "{wrong["input"]}"')
    if not isinstance(error, HTTPException):
        return Refused(500, 'the service failed; its log says why')
    path = request.url.path
    said = {404: f'there is nothing at {path}: ask for GET /health, GET /tasks or POST /tasks/NAME',
            405: f'{path} does not take {request.method}: ask for {(error.headers or {}).get("Allow")} {path}'}
    return Refused(error.status_code, said.get(error.status_code, error.detail), **(error.headers or {}))


async def receive(request: Request, path: Path, most_bytes: int) -> None:
    """Writes the body of a request to a file.

    Raises:
        Refused: it is a form, empty or too large, or it stopped coming.
    """
    if request.headers.get('content-type', '').startswith('multipart/'):
        raise Refused(400, 'the body is a form: send the image file alone as the body, as by curl --data-binary @FILE')
    too_large = Refused(413, f'the file has more than {most_bytes:,} bytes')
    length, received = request.headers.get('content-length', ''), 0
    if length.isdigit() and int(length) > most_bytes:
        raise too_large
    parts = aiter(request.stream())
    with path.open('wb') as file:
        try:
            while (part := await asyncio.wait_for(anext(parts, None), SILENCE)) is not None:
                received += len(part)
                if received > most_bytes:
                    raise too_large
                file.write(part)
        except ClientDisconnect as error:
            raise Refused(400, 'the connection ended before the whole file was there') from error
        except asyncio.TimeoutError as error:
            raise Refused(408, f'nothing of the file has come for {SILENCE:g} seconds') from error
    if not received:
        raise Refused(400, 'there is no image: send the file as the body of the request')


def submit(queue: RequestQueue, name: str, path: Path, most_pixels: int) -> Future:
    """Puts an image into the queue.

    Raises:
        Refused: it is no image that can be used, or too many wait.
    """
    try:
        width, height = read_header(path).size
    except Exception as error:  # of many types where a header is broken
        raise Refused(400, unreadable(path, error).replace(str(path), SENT)) from error
    if width * height > most_pixels:
        raise Refused(413, f'the image has {width * height:,} pixels, and may have {most_pixels:,}')
    try:
        with refusing():
            return queue.submit(name, path, small=True)
    except (SampleError, ValueError) as error:
        raise Refused(400, str(error).replace(str(path), SENT)) from error


@contextmanager
def refusing() -> Iterator[None]:
    """Turns what a queue raises when it takes no request into :class:`Refused`."""
    try:
        yield
    except TooBusy as error:
        raise Refused(503, str(error), **{'Retry-After': str(math.ceil(error.retry_after))}) from error
    except QueueClosed as error:
        raise Refused(503, str(error)) from error


def as_png(task: ServedTask, sample: BaseDataElement) -> bytes:
    """Returns the label map of an answer as the bytes of a PNG, whose pixels are the numbers of the classes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'labels.png')
        write_label_map(label_map(sample), path, len(task.classes) if task.classes else None)
        return path.read_bytes()
