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

    left: its client has gone, or it has ended; written by the engine thread's lock alone
    clock: from the arrival of the request
    """

    def __init__(self, id: str, engine: "EngineThread", loop: asyncio.AbstractEventLoop):
        self.id = id
        self.request: Request | None = None
        self.left = False
        self.clock = Clock()
        self._engine = engine
        self._loop = loop
        self._started = asyncio.Event()
        self._events: asyncio.Queue[str | Answer | Exception] = asyncio.Queue()
        self._answer: Answer | None = None
        self._submit_time = 0.0
        self._start_time = 0.0

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_) -> None:
        self._engine.leave(self)

    async def run(self, request: Request, queue_seconds: float) -> None:
        """Wait for the turn of `request`; 429 where it does not come within `queue_seconds`."""
        self._submit_time = time.perf_counter()
        self._engine.submit(self, request)
        try:
            await asyncio.wait_for(self._started.wait(), queue_seconds)
        except asyncio.TimeoutError:
            if self._engine.leave_queue(self):
                raise self._engine.waited_too_long() from None

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
        self._tell(self._started.set)

    def push(self, piece: str) -> None:
        """In the engine thread."""
        self._tell(self._events.put_nowait, piece)

    def end(self, outcome: Answer | Exception) -> None:
        """In the engine thread."""
        self._tell(self._events.put_nowait, outcome)

    def _tell(self, callback, *arguments) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(callback, *arguments)
