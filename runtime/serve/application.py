"""The application: routes, and what every endpoint has around it: id, key, errors, log, figures."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .endpoints import chat_completions, transcriptions
from .errors import ApiError, internal
from .exchange import JSON, ClientGone, Exchange, to_json
from .openapi import document
from .server import Server

log = logging.getLogger("ltbm.serve")
TOO_SLOW = 408  # of which no more is waited for
CLIENT_GONE = 499  # nginx's status for it, in the log and the figures
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src blob:; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_FILES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
Handler = Callable[[Server, Exchange], Coroutine[Any, Any, None]]


def application(server: Server) -> Starlette:
    """The ASGI application over an open server, which it closes at its end."""

    @asynccontextmanager
    async def lifespan(_) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(server.close)

    def route(path: str, handler: Handler, method: str = "GET", open_to_all: bool = False) -> Route:
        return Route(path, Endpoint(server, path, handler, open_to_all), methods=[method])

    routes = [
        route("/v1/chat/completions", chat_completions, "POST"),
        route("/v1/audio/transcriptions", transcriptions, "POST"),
        route("/v1/models", models),
        route("/v1/models/{model:path}", one_model),
        route("/metrics", metrics),
        route("/health", health, open_to_all=True),
        route("/health/ready", ready, open_to_all=True),
        route("/openapi.json", openapi, open_to_all=True),
        *(route(path, page, open_to_all=True) for path in PAGE_FILES),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _http_error})


class Endpoint:
    """An ASGI application around a handler."""

    def __init__(self, server: Server, path: str, handler: Handler, open_to_all: bool):
        self._server = server
        self._path = path
        self._handler = handler
        self._open_to_all = open_to_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, uuid.uuid4().hex)
        begun = time.perf_counter()
        try:
            await self._answer(exchange)
        except ClientGone:
            exchange.status = CLIENT_GONE
        finally:
            self._record(exchange, scope, begun)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            exchange.check_origin()
            if not self._open_to_all:
                exchange.check_key(self._server.settings.api_key)
            await exchange.until_gone(self._handler(self._server, exchange))
        except ApiError as error:
            exchange.note = f"param={error.param} {error.message}"
            if error.status != TOO_SLOW:
                await exchange.drain(self._server.settings.limits)
            await exchange.send_error(error)
        except MemoryError:
            log.exception("request %s", exchange.id)
            await exchange.send_error(ApiError(503, "no memory for this request", code="out_of_memory"))
        except (ClientGone, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("request %s", exchange.id)
            await exchange.send_error(internal(exchange.id))

    def _record(self, exchange: Exchange, scope: Scope, begun: float) -> None:
        """One line in the log, and one more in the count of requests."""
        status = exchange.status or CLIENT_GONE
        self._server.metrics.requests.labels(self._path, str(status)).inc()
        level = logging.DEBUG if self._open_to_all or self._path == "/metrics" else logging.INFO
        milliseconds = (time.perf_counter() - begun) * 1e3
        log.log(
            level,
            "id=%s %s %s %s ms=%.0f %s",
            exchange.id,
            scope["method"],
            self._path,
            status,
            milliseconds,
            one_line(exchange.note),
        )


def one_line(text: str) -> str:
    """A note as the log has it: what a client wrote can neither break the line nor colour a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


async def models(server: Server, exchange: Exchange) -> None:
    """`GET /v1/models`: the model, and an alias for every level."""
    await exchange.send_json({"object": "list", "data": [_model(name) for name in server.settings.models]})


async def one_model(server: Server, exchange: Exchange) -> None:
    name = exchange.path_parameters["model"]
    if name not in server.settings.models:
        raise ApiError(404, f"no model {name[:80]!r} here", "model", "model_not_found")
    await exchange.send_json(_model(name))


def _model(name: str) -> dict:
    return {"id": name, "object": "model", "created": 0, "owned_by": "ltbm"}


async def health(server: Server, exchange: Exchange) -> None:
    """`GET /health`: the process answers."""
    engine = server.engine
    state = {"status": "ok", "ready": engine.ready, "running": engine.running, "queued": engine.queued}
    await exchange.send_json(state)


async def ready(server: Server, exchange: Exchange) -> None:
    """`GET /health/ready`: requests are taken."""
    if not server.engine.ready:
        raise ApiError(503, "the server is ending", code="not_ready")
    await exchange.send_json({"status": "ready"})


async def metrics(server: Server, exchange: Exchange) -> None:
    await exchange.send(200, PROMETHEUS, server.metrics.text())


async def openapi(server: Server, exchange: Exchange) -> None:
    await exchange.send_json(document(server.settings))


async def page(server: Server, exchange: Exchange) -> None:
    """The page at `/` and its files."""
    name, kind = PAGE_FILES[exchange.path]
    body = (Path(__file__).parent / name).read_bytes()
    headers = {"content-security-policy": PAGE_POLICY, "x-content-type-options": "nosniff"}
    await exchange.send(200, f"{kind}; charset=utf-8", body, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors, such as 404 for a path, in the same form."""
    assert isinstance(error, HTTPException)
    wrong = ApiError(error.status_code, f"{request.method} {request.url.path[:200]}: {error.detail}")
    return Response(to_json(wrong.body()), error.status_code, error.headers, JSON)
