"""The thread that owns a listening session: takes samples, reads whole segments, answers questions."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from time import perf_counter
from typing import Protocol

import numpy as np

from ..answer import Answer, Clock
from ..levels import Level
from ..pipeline import Pipeline, PromptTooLong
from ..prompt import Turn
from ..request import DEFAULT_MAX_NEW_TOKENS, Request
from ..sampling import GREEDY, Sampling
from ..stages.merge import MergedAudio
from ..stages.segments import Audio
from .events import DROPPED, PREPARED, READ, SKIPPED, AudioSpan, Event
from .gate import SilenceGate
from .kept_audio import KeptAudio, KeptSegment
from .resampling import StreamResampler


class ListeningSession(Protocol):
    """What the worker needs of a session."""

    pipeline: Pipeline
    owner_thread: int | None

    def beginning(self, language: str) -> list[Turn]: ...

    def respond(self, request: Request, clock: Clock) -> Generator[str, None, Answer]: ...

    def read(self, turns: Sequence[Turn], audios: Sequence[Audio], level: Level) -> MergedAudio: ...


@dataclass
class Push:
    """Samples [n] float32 at the source's rate."""

    samples: np.ndarray


@dataclass
class Moment:
    """A moment of the sound, to which everything is to be read.

    end: samples at the model's rate that had come then; None until the worker has seen it
    """

    end: int | None = None


@dataclass
class Question:
    """A question on its way.

    until: the moment up to which the sound is read; None: all that has come
    beginning: the turn with which the answer begins in a language, if one was given
    outcomes: takes pieces of text, at last the Answer or an exception
    """

    text: str
    max_new_tokens: int
    sampling: Sampling
    until: Moment | None = None
    beginning: Sequence[Turn] = ()
    clock: Clock = field(default_factory=Clock)
    outcomes: "SimpleQueue[str | Answer | BaseException]" = field(default_factory=SimpleQueue)
    cancelled: bool = False
    span: AudioSpan | None = None


Task = Push | Moment | Question


class Worker:
    """Runs until it is closed; all work of the session happens on its thread.

    Tasks come in order. Whole segments are read when no task waits, so that a question is answered before
    sound that came after it is read.
    """

    def __init__(
        self,
        session: ListeningSession,
        level: Level,
        audio: KeptAudio,
        resampler: StreamResampler,
        gate: SilenceGate,
        report: Callable[[Event], None],
        conversation: bool,
    ):
        self.failure: BaseException | None = None
        self.changed = threading.Condition()
        self._session = session
        self._rate = session.pipeline.manifest.audio.sampling_rate
        self._level = level
        self._audio = audio
        self._resampler = resampler
        self._gate = gate
        self._report = report
        self._conversation = conversation
        self._turns: list[Turn] = []  # questions and answers so far
        self._tasks: deque[Task] = deque()
        self._queued_samples = 0  # of pushes that wait, at the source's rate
        self._unread_samples = 0  # of whole segments, at the model's rate
        self._closing = False
        self._idle = False
        self._lost: list[Event] = []
        self._thread = threading.Thread(target=self._run, name="ltbm-listen", daemon=True)
        self._thread.start()
        session.owner_thread = self._thread.ident

    def backlog_seconds(self) -> float:
        """Sound that waits to be read, the open segment left out."""
        return self._queued_samples / self._resampler.source_rate + self._unread_samples / self._rate

    def submit(self, task: Task) -> None:
        """Hand over a task; RuntimeError after close, or with what made the worker stop."""
        with self.changed:
            self.check()
            self._tasks.append(task)
            self._idle = False
            if isinstance(task, Push):
                self._queued_samples += len(task.samples)
            self.changed.notify_all()

    def check(self) -> None:
        if self.failure is not None:
            raise RuntimeError(f"listening ended: {self.failure}") from self.failure
        if self._closing:
            raise RuntimeError("this listener is closed: call session.listen again")

    def is_idle(self) -> bool:
        """Whether there is nothing to do; raises as `check` does."""
        self.check()
        return self._idle

    def add_lost(self, event: Event) -> None:
        """Sound that was refused."""
        with self.changed:
            self._lost.append(event)
        self._report(event)

    def close(self) -> None:
        """End after the engine run that goes on now, if any; questions that wait end with RuntimeError."""
        with self.changed:
            self._closing = True
            self.changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            while (task := self._next_task()) is not None:
                self._carry_out(task)
        except Exception as error:  # what it is reaches the next call
            self.failure = error
        finally:
            self._session.owner_thread = None
            self._refuse_waiting()

    def _next_task(self) -> Task | KeptSegment | None:
        """The next task, a segment to read, or None at the end; waits for either as long as it takes."""
        with self.changed:
            while not self._closing:
                if self._tasks:
                    return self._tasks.popleft()
                if self._audio.unread:
                    return self._audio.unread[0]
                self._idle = True
                self.changed.notify_all()
                self.changed.wait()
            return None

    def _carry_out(self, task: Task | KeptSegment) -> None:
        if isinstance(task, Push):
            self._append(task.samples)
        elif isinstance(task, Question):
            self._answer(task)
        elif isinstance(task, Moment):
            self._prepare(task)
        else:
            self._read_segment(task)

    def _prepare(self, moment: Moment) -> None:
        moment.end = self._audio.end
        self._read_whole_segments()
        if self._audio.has_open_tokens:
            self._read_up_to(moment.end, PREPARED)

    def _append(self, samples: np.ndarray) -> None:
        passed, skipped = self._gate.push(self._resampler.push(samples))
        for stretch in skipped:
            seconds = stretch.length / self._rate
            self._report(Event(SKIPPED, self._second(stretch.start) - seconds, seconds))
        self._audio.append(passed)
        while self._audio.too_many() and self._drop_oldest():
            pass
        self._update_backlog(appended=len(samples))

    def _read_whole_segments(self) -> None:
        while self._audio.unread:
            self._read_segment(self._audio.unread[0])

    def _read_segment(self, segment: KeptSegment) -> None:
        """Read the first whole segment that is unread, and what stands before it where that has changed."""
        segment.merged = self._read_up_to(segment.end, READ)
        self._update_backlog()

    def _read_up_to(self, end: int, kind: str) -> MergedAudio:
        """Bring the sound up to sample `end` into the KV cache; its last segment, merged."""
        begun = perf_counter()
        audios = self._fitting(Question("", DEFAULT_MAX_NEW_TOKENS, GREEDY, Moment(end))).audios
        merged = self._session.read(self._turns_with("", len(audios)), audios, self._level)
        samples = len(audios[-1][-1].samples)
        milliseconds = (perf_counter() - begun) * 1e3
        start = self._second(end - samples)
        seconds = samples / self._rate
        self._report(Event(kind, start, seconds, merged.tokens_in, merged.tokens_out, milliseconds))
        return merged

    def _answer(self, question: Question) -> None:
        """Send an answer's pieces and then the answer, or what went wrong with it."""
        try:
            self._read_whole_segments()
            request = self._fitting(question)
            question.span = self._span(question)
            pieces = self._session.respond(request, question.clock)
            answer = self._send_pieces(pieces, question)
        except Exception as error:
            question.outcomes.put(error)
            return
        if answer is None:
            return
        if self._conversation:
            self._turns += [Turn("user", question.text), Turn("assistant", answer.text)]
        question.outcomes.put(answer)

    def _send_pieces(self, pieces: Generator[str, None, Answer], question: Question) -> Answer | None:
        """The whole answer; None where nobody waits for it any more."""
        while True:
            try:
                piece = next(pieces)
            except StopIteration as stop:
                return stop.value
            question.outcomes.put(piece)
            if question.cancelled or self._closing:
                pieces.close()
                question.outcomes.put(RuntimeError("the answer was left early"))
                return None

    def _fitting(self, question: Question) -> Request:
        """The request; the oldest segments go where the model has no positions for all of them."""
        while True:
            audios = self._audio.audios(self._end_of(question))
            turns = [*self._turns_with(question.text, len(audios)), *question.beginning]
            request = Request(turns, audios, self._level, question.max_new_tokens, question.sampling)
            try:
                self._session.pipeline.lay_out(turns, audios, self._level, question.max_new_tokens)
            except PromptTooLong:
                if not self._drop_oldest():
                    raise
            else:
                return request

    def _turns_with(self, text: str, audios: int) -> list[Turn]:
        """The conversation with one more question; the sound stands before the first."""
        first, *others = [*self._turns, Turn("user", text)]
        return [replace(first, audios=audios), *others]

    def _drop_oldest(self) -> bool:
        """Whether there were segments to drop."""
        dropped = self._audio.drop_oldest()
        for segment in dropped:
            seconds = len(segment.segment.samples) / self._rate
            self._report(Event(DROPPED, self._second(segment.start), seconds))
        self._forget_before(self._audio.start)
        return bool(dropped)

    def _forget_before(self, sample: int) -> None:
        """What was lost or skipped before `sample` concerns no answer any more."""
        start = self._second(sample)
        self._gate.forget(sample)
        with self.changed:
            self._lost = [event for event in self._lost if event.start >= start]

    def _second(self, sample: int) -> float:
        """Where a sample that was read stands in the sound that was taken."""
        return self._gate.before(sample) / self._rate

    def _end_of(self, question: Question) -> int:
        """Samples that the question is about; its moment was a task before it."""
        if question.until is None or question.until.end is None:
            return self._audio.end
        return question.until.end

    def _span(self, question: Question) -> AudioSpan:
        start = self._second(self._audio.start)
        end = self._second(self._end_of(question))
        read = (self._end_of(question) - self._audio.start) / self._rate
        with self.changed:
            lost = sum(event.seconds for event in self._lost if start <= event.start <= end)
        return AudioSpan(start, end, lost, skipped=end - start - read)

    def _update_backlog(self, appended: int = 0) -> None:
        """Both counts at once, or a push would find room that is not there.

        appended: samples, at the source's rate, that wait in no push any more
        """
        unread = sum(len(one.segment.samples) for one in self._audio.unread)
        with self.changed:
            self._queued_samples -= appended
            self._unread_samples = unread
            self.changed.notify_all()  # a push may wait for room

    def _refuse_waiting(self) -> None:
        """What waits for an answer gets the reason why there is none."""
        with self.changed:
            tasks = list(self._tasks)
            self._tasks.clear()
            self.changed.notify_all()
        reason = self.failure or RuntimeError("this listener was closed before the answer ended")
        for task in tasks:
            if isinstance(task, Question):
                task.outcomes.put(reason)
