"""A request on its way through the engine thread, seen from the event loop that waits for it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING

from ..answer import Answer, Clock
from ..request import Request

if TYPE_CHECKING:
    from .engine_thread import EngineThread


class Job:
    """One request's place with the engine: a context manager that frees it.

    left: its client has gone, or it has ended; written under the engine thread's lock alone
    told: a piece of the answer has come
    clock: from the arrival of the request
    """

    def __init__(self, id: str, engine: "EngineThread", loop: asyncio.AbstractEventLoop):
        self.id = id
        self.request: Request | None = None
        self.left = False
        self.told = False
        self.clock = Clock()
        self._engine = engine
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._events: asyncio.Queue[str | Answer | Exception] = asyncio.Queue()
        self._answer: Answer | None = None
        self._submit_time = 0.0
        self._start_time = 0.0

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._engine.leave(self)

    def submit(self, request: Request, queue_seconds: float) -> None:
        """Let `request` wait for its turn; it fails with 429 where that does not come in `queue_seconds`."""
        self._submit_time = time.perf_counter()
        self._engine.submit(self, request)
        self._timer = self._loop.call_later(queue_seconds, self._expire)

    def _expire(self) -> None:
        if self._engine.leave_queue(self):
            self._events.put_nowait(self._engine.waited_too_long())

    async def pieces(self) -> AsyncIterator[str]:
        """The answer's text as it comes; raises what the request failed with."""
        while True:
            event = await self._events.get()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Answer):
                self._answer = event
                return
            yield event

    async def finish(self) -> Answer:
        """The whole answer."""
        async for _ in self.pieces():
            pass
        return self.answer

    @property
    def answer(self) -> Answer:
        """After the last piece."""
        assert self._answer is not None, "the pieces have come to their end"
        return self._answer

    @property
    def running_seconds(self) -> float:
        return time.perf_counter() - self._start_time

    def start(self) -> None:
        """In the engine thread: the request's turn has come."""
        self._start_time = time.perf_counter()
        self.clock.timings["queue"] = (self._start_time - self._submit_time) * 1e3

    def tell(self, event: str | Answer | Exception) -> None:
        """In the engine thread: a piece of the answer, the whole of it at its end, or what went wrong."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
