"""One HTTP exchange: the body within its limits, a client that goes, JSON and server-sent events out."""

import asyncio
import hmac
import json
import os
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from .errors import ApiError
from .settings import Limits

JSON = "application/json"
EVENTS = "text/event-stream"
DRAIN_SECONDS = 2.0  # for the rest of a body that is refused
SEND_SECONDS = 60.0  # that a client may leave an answer unread before it counts as gone


class ClientGone(Exception):
    """The client closed its connection."""


class Exchange:
    """A request and the answer to it.

    id: of the request, in the log and in the header x-request-id
    status: of the answer once it has begun
    note: what the log says of the request beside its status
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str):
        self.id = request_id
        self.path: str = scope["path"]
        self.path_parameters: dict[str, str] = scope.get("path_params", {})
        self.headers = Headers(scope=scope)
        self.content_type = self.headers.get("content-type", "")
        self.status: int | None = None
        self.complete = False
        self.note = ""
        self._receive = receive
        self._send = send
        self._body_read = asyncio.Event()
        self._watcher: asyncio.Future[None] | None = None

    async def until_gone(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work; cancelled, and ClientGone raised, as soon as the client has gone."""
        task = asyncio.ensure_future(work)
        watcher = self._watcher = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and not self.complete:
                raise ClientGone
            await task
        finally:
            for one in (task, watcher):
                one.cancel()
            await asyncio.gather(task, watcher, return_exceptions=True)

    async def _gone(self) -> None:
        """Return when the client has closed, once its body is read."""
        await self._body_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def check_origin(self) -> None:
        """403 for a browser's page of another origin: CORS is off, and such a page cannot ask first."""
        origin = self.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != self.headers.get("host"):
            raise ApiError(403, "requests of other origins are not taken", code="origin_not_allowed")

    def check_key(self, api_key: str | None) -> None:
        """401 unless the request brings the key; takes as long whatever it brings."""
        given = self.headers.get("authorization", "").removeprefix("Bearer ").strip()
        # a header's text is its bytes as latin-1
        if api_key is not None and not hmac.compare_digest(given.encode("latin-1"), os.fsencode(api_key)):
            headers = {"www-authenticate": "Bearer"}
            raise ApiError(401, "the API key is missing or wrong", code="invalid_api_key", headers=headers)

    async def body(self, limits: Limits) -> bytes:
        """The whole body; 413 where it is larger, 408 where it is slower than is allowed."""
        if self._promised > limits.body_bytes:
            raise _too_large(limits)
        try:
            return await asyncio.wait_for(self._collect(limits), limits.body_seconds)
        except asyncio.TimeoutError:
            raise ApiError(408, f"the request took more than {limits.body_seconds:g} s to come") from None

    async def _collect(self, limits: Limits) -> bytes:
        body = bytearray()
        async for piece in self._pieces():
            body += piece
            if len(body) > limits.body_bytes:
                raise _too_large(limits)
        return bytes(body)

    async def drain(self, limits: Limits) -> None:
        """Drop what is left of the body, so that a client which sends on comes to where it reads the answer.

        A body far over the limit is cut off.
        """
        if self._body_read.is_set() or self._promised > 2 * limits.body_bytes:
            return
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._drop(2 * limits.body_bytes), DRAIN_SECONDS)

    async def _drop(self, most_bytes: int) -> None:
        dropped = 0
        async for piece in self._pieces():
            dropped += len(piece)
            if dropped > most_bytes:
                return

    @property
    def _promised(self) -> int:
        """Bytes of the body by its header; 0 where that does not say."""
        length = self.headers.get("content-length", "")[:20]
        return int(length) if length.isdecimal() else 0

    async def _pieces(self):
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            yield message.get("body", b"")
            if not message.get("more_body", False):
                self._body_read.set()
                return

    async def send(
        self, status: int, kind: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """The whole answer."""
        length = {"content-length": str(len(body))}
        await self._begin(status, kind, {**length, **(headers or {})})
        self.complete = True
        await self._deliver({"type": "http.response.body", "body": body})

    async def send_json(
        self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        await self.send(status, JSON, to_json(value), headers)

    async def send_event(self, value: Any) -> None:
        """One server-sent event; the first begins the answer."""
        if self.status is None:
            await self._begin(200, EVENTS, {"cache-control": "no-store", "x-accel-buffering": "no"})
        text = value if isinstance(value, bytes) else to_json(value)
        event = b"data: " + text + b"\n\n"
        await self._deliver({"type": "http.response.body", "body": event, "more_body": True})

    async def end_events(self, last: bytes | None = None) -> None:
        if last is not None:
            await self.send_event(last)
        self.complete = True
        await self._deliver({"type": "http.response.body", "body": b""})

    async def send_error(self, error: ApiError) -> None:
        """As the answer, or, where that has begun, as the last event of its stream."""
        if self.status is None:
            await self.send_json(error.body(), error.status, error.headers)
        elif not self.complete:
            await self.send_event(error.body())
            await self.end_events()

    async def _begin(self, status: int, kind: str, headers: Mapping[str, str]) -> None:
        self.status = status
        everything = {"content-type": kind, "x-request-id": self.id, **headers}
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in everything.items()]
        await self._deliver({"type": "http.response.start", "status": status, "headers": raw})

    async def _deliver(self, message: Message) -> None:
        timer = asyncio.get_running_loop().call_later(SEND_SECONDS, self._give_up)
        try:
            await self._send(message)
        except OSError:
            raise ClientGone from None
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        """Count a client that does not read as gone."""
        if self._watcher is not None:
            self._watcher.cancel()


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _too_large(limits: Limits) -> ApiError:
    return ApiError(413, f"the request is larger than {limits.body_bytes} bytes", code="too_large")
