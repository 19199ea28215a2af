"""The board as an ASGI application, and its server.

What it may do is settled here. It answers GET and HEAD, from this machine, to a Host that is this machine (a page of
another site whose name was pointed here, DNS rebinding, has another), and its pages load and run nothing but their own
files. It has no password: on a machine with several users, each of them can read it.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lm.board import pages
from lm.board.errors import NotThere
from lm.board.reading import Reader
from lm.errors import UserError

HOSTS = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def board(results: str | Path) -> ASGIApp:
    """The pages over the results folder `results`. Raises UserError if there is no such folder."""
    folder = Path(results)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; say where the results are with --results FOLDER")
    application = Starlette(
        routes=[
            Route("/", pages.experiments),
            Route("/e/{name}", pages.experiment),
            Route("/e/{name}/files/{file}", pages.experiment_file),
            Route("/other", pages.experiment),
            Route("/run/{id}", pages.run),
            Route("/diff", pages.diff),
            Route("/api/e/{name}", pages.experiment_data),
            Route("/api/other", pages.experiment_data),
            Route("/api/curves", pages.curves),
            Mount("/static", StaticFiles(packages=[("lm.board", "static")])),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)],
        exception_handlers={HTTPException: _http, NotThere: _not_there, UserError: _fault, OSError: _fault},
    )
    application.state.reader = Reader(folder)
    return Guard(application)


class Guard:
    """Around the application: refuses what would write, and puts the headers on every answer, errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            refused = PlainTextResponse("the board is read only\n", 405, headers={"Allow": "GET, HEAD"})
            await refused(scope, receive, with_headers)
        else:
            await self.app(scope, receive, with_headers)


def serve(results: str | Path, host: str = "127.0.0.1", port: int = 8008) -> None:
    """Serves the board until it is interrupted, and says where. port 0: any free one.

    Raises UserError for a host that others can reach, and for a port that can't be had.
    """
    server = prepared(results)
    with listen(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{listening.getsockname()[1]}/ shows {results}; Ctrl-C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


def prepared(results: str | Path) -> uvicorn.Server:
    """The server of the board, to be run on a socket of `listen`."""
    options = {"lifespan": "off", "log_level": "warning", "access_log": False, "server_header": False}
    return uvicorn.Server(uvicorn.Config(board(results), timeout_graceful_shutdown=2, **options))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket that only this machine reaches. Raises UserError where there can be none."""
    if f"[{host}]" not in HOSTS and host not in HOSTS:
        raise UserError(
            f"the board has no password, so it listens on this machine alone, not on {host}; "
            f"from elsewhere: ssh -L {port}:127.0.0.1:{port} THIS-MACHINE, then http://127.0.0.1:{port}"
        )
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is in use; take another, e.g. --port {port + 1}, or 0 for any") from None
        raise UserError(f"can't listen on {host} port {port}: {error.strerror}; take another with --port") from None
    except OverflowError:
        raise UserError(f"port {port} isn't between 0 and 65535") from None


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return pages.error(request, error.status_code, error.detail)


def _not_there(request: Request, error: Exception) -> Response:
    return pages.error(request, 404, str(error))


def _fault(request: Request, error: Exception) -> Response:
    return pages.error(request, 500, str(error))
