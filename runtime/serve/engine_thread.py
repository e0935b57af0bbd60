"""One thread does all the work of the session; requests wait for it in a bounded queue."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable

from ..answer import Answer, AnswerStream
from ..pipeline import PromptTooLong
from ..request import Request
from ..session import Session
from .errors import ApiError, invalid, too_busy
from .job import Job
from .metrics import Metrics
from .settings import Limits

RECENT = 0.2  # weight of the last request in the mean of seconds a request
YIELD_SECONDS = 0.0003
"""Decoding keeps every core awake: without a pause the first piece waits 1 to 3 ms for one, on two cores."""
LONGEST_TOKEN = 32  # characters: a text longer than this for each position cannot fit


class EngineThread:
    """Owns the session from its opening to its end.

    A job is admitted, then submitted with its request, then answered; it leaves by itself, or because its
    client has gone. Only the job that runs is interrupted by its own leaving.
    """

    def __init__(self, open_session: Callable[[], Session], limits: Limits, metrics: Metrics):
        self._open_session = open_session
        self._limits = limits
        self._metrics = metrics
        self._change = threading.Condition()  # guards all below
        self._admitted: set[Job] = set()
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._closing = False
        self._mean_seconds = 1.0
        self._thread = threading.Thread(target=self._work, name="ltbm-engine", daemon=True)
        self._session: Session | None = None
        self._opening_error: BaseException | None = None
        self._opened = threading.Event()

    def start(self) -> Session:
        """Open the session in the thread and wait for it; raises what the opening raised."""
        self._thread.start()
        self._opened.wait()
        if self._opening_error is not None:
            raise self._opening_error
        assert self._session is not None, "opened without an error"
        return self._session

    @property
    def ready(self) -> bool:
        return self._session is not None and not self._closing and self._thread.is_alive()

    @property
    def running(self) -> int:
        return int(self._running is not None)

    @property
    def queued(self) -> int:
        """Requests that are in, and do not run."""
        return len(self._admitted - {self._running})

    def admit(self, request_id: str) -> Job:
        """A place for a request; 429 where all are taken, 503 while the server ends."""
        job = Job(request_id, self, asyncio.get_running_loop())
        with self._change:
            if not self.ready:
                raise ApiError(503, "the server is ending", code="not_ready", headers={"retry-after": "5"})
            if len(self._admitted) > self._limits.queued:
                raise too_busy(f"the queue of {self._limits.queued} is full", self._retry_seconds())
            self._admitted.add(job)
        return job

    def submit(self, job: Job, request: Request) -> None:
        """Put the job's request at the end of the queue."""
        with self._change:
            job.request = request
            self._waiting.append(job)
            self._change.notify()

    def leave_queue(self, job: Job) -> bool:
        """Take a job that has waited too long out of the queue; False where its turn has come."""
        with self._change:
            if job not in self._waiting:
                return False
            self._waiting.remove(job)
            return True

    def waited_too_long(self) -> ApiError:
        seconds = self._limits.queue_seconds
        with self._change:
            return too_busy(f"waited {seconds:g} s for its turn", self._retry_seconds())

    def leave(self, job: Job) -> None:
        """Free the job's place, wherever it is: in the queue, or in the middle of the encoder."""
        with self._change:
            job.left = True
            self._admitted.discard(job)
            if job in self._waiting:
                self._waiting.remove(job)
            if job is self._running and self._session is not None:
                self._session.pipeline.engines.interrupt(True)

    def close(self) -> None:
        """End every request and the thread."""
        with self._change:
            self._closing = True
            jobs = list(self._admitted)
            self._change.notify()
        for job in jobs:
            self.leave(job)
        if self._thread.is_alive():
            self._thread.join()

    def _retry_seconds(self) -> int:
        """When a place is likely to be free."""
        return max(1, math.ceil(self._mean_seconds * (len(self._waiting) + self.running)))

    def _work(self) -> None:
        try:
            self._session = self._open_session()
        except BaseException as error:
            self._opening_error = error
            return
        finally:
            self._opened.set()
        with self._session as session:
            while (job := self._next()) is not None:
                self._run(session, job)

    def _next(self) -> Job | None:
        """The next job, marked as running; None at the end."""
        with self._change:
            while not self._waiting and not self._closing:
                self._change.wait()
            if self._closing:
                return None
            self._running = self._waiting.popleft()
            return self._running

    def _run(self, session: Session, job: Job) -> None:
        job.start()
        outcome: Answer | Exception | None = None
        try:
            outcome = self._answer(session, job)
        except Exception as error:  # the request's own; the thread goes on with the next
            outcome = error
        finally:
            self._finish(session, job)
        if isinstance(outcome, Answer):
            self._metrics.observe_answer(outcome)
        if outcome is not None:
            job.tell(outcome)

    def _answer(self, session: Session, job: Job) -> Answer | None:
        """The answer, its pieces given to the job as they come; None where the client has gone."""
        request = job.request
        assert request is not None, "submitted with its request"
        check_prompt(session, request, self._limits)
        with AnswerStream(session.respond(request, job.clock)) as stream:
            for piece in stream:
                if job.left:
                    return None
                if piece:
                    self._tell(job, piece)
            return stream.answer

    def _tell(self, job: Job, piece: str) -> None:
        """Give a piece to the job; after the first, let the event loop send it before the next token."""
        job.tell(piece)
        if not job.told:
            job.told = True
            time.sleep(YIELD_SECONDS)

    def _finish(self, session: Session, job: Job) -> None:
        with self._change:
            self._running = None
            self._admitted.discard(job)
            if job.left:
                session.pipeline.engines.interrupt(False)
            else:
                self._mean_seconds += RECENT * (job.running_seconds - self._mean_seconds)


def check_prompt(session: Session, request: Request, limits: Limits) -> None:
    """ApiError for a prompt that the model cannot take, before anything is encoded."""
    positions = session.manifest.decoder.max_positions
    if sum(len(turn.text) for turn in request.turns) > LONGEST_TOKEN * positions:
        raise _too_many(f"the text is longer than the model's {positions} positions can hold")
    try:
        layout = session.pipeline.lay_out(
            request.turns, request.audios, request.level, request.max_new_tokens
        )
    except PromptTooLong as error:
        raise _too_many(str(error)) from None
    except ValueError as error:  # of the chat template
        raise invalid("messages", str(error), "invalid_prompt") from None
    if limits.prompt_tokens is not None and layout.length > limits.prompt_tokens:
        raise _too_many(f"the prompt has {layout.length} tokens, at most {limits.prompt_tokens} are taken")


def _too_many(message: str) -> ApiError:
    return invalid("messages", message, "context_length_exceeded")
