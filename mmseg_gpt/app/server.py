"""The server of the page: browsers ask nobody else, and nothing large comes in."""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from .desk import Desk

LOOPBACK = ('127.0.0.1', 'localhost', '::1')
# Lets a browser ask this server only, whatever the page says.
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
          "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
          "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'")
HEADERS = {'content-security-policy': POLICY, 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer'}
MOST_JSON = 2**20  # bytes of a request that is no upload
MULTIPART = 2**16  # bytes of an upload besides the file
FROM_HERE = 'files are taken from this computer only'
WRONG = 1.  # seconds that a wrong password takes
GUESSES = 10  # passwords that are looked at together; further ones wait


def check_gradio() -> None:
    """Checks that gradio is there.

    Raises:
        ValueError: it is not.
    """
    if not find_spec('gradio'):
        raise ValueError('the page needs gradio: pip install "mmseg_gpt[app]"')


class Guard:
    """ASGI middleware that refuses large requests, files by address and other sites, and sets headers for the browser.

    Args:
        app: The application.
        most: Bytes of an uploaded file.
    """

    def __init__(self, app: Callable, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Hands a request on, or answers it with a refusal."""
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return

        async def guarded(message: dict) -> None:
            if message['type'] == 'http.response.start':
                kept = [pair for pair in message['headers'] if pair[0].decode().lower() not in HEADERS]
                message['headers'] = kept + [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        if fetches(scope['path']):
            await refuse(guarded, 400, FROM_HERE)
            return
        headers = {name.decode().lower(): value.decode('latin-1') for name, value in scope['headers']}
        if 'origin' in headers and headers['origin'].partition('://')[2] != headers.get('host'):
            await refuse(guarded, 403, 'this page answers itself only')
            return
        if scope['method'] in ('GET', 'HEAD', 'OPTIONS'):
            await self.app(scope, receive, guarded)
            return
        is_upload = headers.get('content-type', '').startswith('multipart/')
        most = self.most + MULTIPART if is_upload else MOST_JSON
        length = headers.get('content-length', '')
        if not length.isdigit():
            await refuse(guarded, 411, 'the length of the request is missing')
        elif int(length) > most:
            await refuse(guarded, 413, f'more than {most:,} bytes')
        elif is_upload:
            await self.app(scope, receive, guarded)
        else:
            body = await whole_body(receive, most)
            if body is None or names_address(body):
                await refuse(guarded, 400, FROM_HERE)
            else:
                await self.app(scope, again(body, receive), guarded)


async def refuse(send: Callable, status: int, why: str) -> None:
    """Answers a request with a refusal."""
    await send({'type': 'http.response.start', 'status': status, 'headers': [(b'content-type', b'text/plain')]})
    await send({'type': 'http.response.body', 'body': why.encode()})


async def whole_body(receive: Callable, most: int) -> bytes | None:
    """Reads the body of a request; None if it is larger than ``most`` or breaks off."""
    body, more = b'', True
    while more:
        message = await receive()
        if message['type'] != 'http.request' or len(body) > most:
            return None
        body, more = body + message.get('body', b''), message.get('more_body', False)
    return body


def again(body: bytes, receive: Callable) -> Callable:
    """Returns a ``receive`` that gives a body that has been read, then what comes after it."""
    given = []

    async def replay() -> dict:
        if given:
            return await receive()
        given.append(True)
        return {'type': 'http.request', 'body': body, 'more_body': False}
    return replay


def fetches(path: str) -> bool:
    """Says whether a decoded path makes gradio ask another server: ``file=http://...`` or ``proxy=...``."""
    return '://' in path or '/proxy=' in path


def names_address(body: bytes) -> bool:
    """Says whether JSON has a file whose path is an address, which gradio would fetch."""
    try:
        found = [json.loads(body)]
    except (ValueError, RecursionError):
        return False
    while found:
        value = found.pop()
        if isinstance(value, dict):
            path = value.get('path')
            if isinstance(path, str) and '://' in path:
                return True
            found += value.values()
        elif isinstance(value, list):
            found += value
    return False


def password_check(password: str) -> Callable[[str, str], Awaitable[bool]]:
    """Returns the function that gradio asks whether a name and a password are right.

    A wrong password takes a second, in which others are served; ``GUESSES`` are looked at together, so that nobody can
    try more in a second.

    Args:
        password: The right password, under any name.
    """
    places = asyncio.Semaphore(GUESSES)

    async def is_right(name: str, given: str) -> bool:
        async with places:
            right = hmac.compare_digest(given.encode(), password.encode())
            await asyncio.sleep(0 if right else WRONG)
        return right
    return is_right


def address_of(host: str, port: int) -> str:
    """Returns the address that a browser opens; IPv6 has brackets there."""
    return f'http://[{host}]:{port}' if ':' in host else f'http://{host}:{port}'


def build_server(desk: 'Desk', host: str = LOOPBACK[0], password: str | None = None) -> 'FastAPI':
    """Returns the application that serves the page of a desk.

    Args:
        desk: The desk.
        host: The address on which it will listen. On this computer alone, other names for it than the usual are
            refused, so that no page of another site can ask it.
        password: What is asked for, under any name; or None.

    Raises:
        ValueError: gradio is not installed.
    """
    check_gradio()
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from .page import CSS, build_page

    server = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if host in LOOPBACK:
        server.add_middleware(TrustedHostMiddleware, allowed_hosts=['127.0.0.1', 'localhost', '[::1]'])
    most = int(desk.limits.megabytes * 2**20)
    server.add_middleware(Guard, most=most)
    # Fonts of the system, not of the web.
    fonts = dict(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace'])
    return gradio.mount_gradio_app(
        server, build_page(desk), path='/', auth=password_check(password) if password else None,
        auth_message='Any name will do.' if password else None, max_file_size=most, show_error=True, footer_links=[],
        run_history=False, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False,
        theme=gradio.themes.Default(**fonts), css=CSS)


def serve(server: 'FastAPI', host: str, port: int) -> None:
    """Serves an application until it is interrupted."""
    import uvicorn
    uvicorn.run(server, host=host, port=port, log_level='warning', server_header=False, access_log=False)
