"""A listener: samples go in as they come, questions are answered about all that has come."""

from collections import deque
from collections.abc import Callable, Generator

import numpy as np

from ..answer import Answer, AnswerStream
from ..levels import Budget, Level
from ..request import DEFAULT_MAX_NEW_TOKENS
from ..sampling import GREEDY, Sampling
from ..stages.audio import load_audio
from ..stages.segments import SHORTEST_AUDIO_SECONDS
from .events import LOST, AudioSpan, Event
from .gate import HELD_SECONDS, SilenceGate
from .kept_audio import KeptAudio
from .resampling import StreamResampler
from .worker import ListeningSession, Moment, Push, Question, Worker

MAX_SECONDS = 600.0  # of sound kept, unless asked otherwise
MAX_BACKLOG_SECONDS = 60.0  # of sound that may wait to be read
EVENTS_KEPT = 1000


class ListenerStream(AnswerStream):
    """An answer as it comes; `span` says which part of the sound it is about."""

    def __init__(self, question: Question):
        self._question = question
        super().__init__(_pieces(question))

    @property
    def span(self) -> AudioSpan:
        """RuntimeError before the first piece has come."""
        if self._question.span is None:
            raise RuntimeError("the answer has not begun: take a piece of it first, or call finish()")
        return self._question.span

    def close(self) -> None:
        """End the answer here; the listening goes on."""
        self._question.cancelled = True
        super().close()


class Listener:
    """What `Session.listen` opens: one thread of its own does all the session's work.

    Its methods may be called from several threads. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        session: ListeningSession,
        level: Level | Budget,
        *,
        max_seconds: float = MAX_SECONDS,
        sampling_rate: int | None = None,
        conversation: bool = False,
        max_backlog_seconds: float = MAX_BACKLOG_SECONDS,
        on_behind: Callable[[Event], None] | None = None,
        skip_silence: bool = False,
    ):
        if isinstance(level, Budget):
            raise ValueError(
                "a budget of audio tokens needs the sound's length, which is not known while listening: "
                "give a level or a share, such as keep25 or 0.3"
            )
        spec = session.pipeline.manifest.audio
        if not spec.segment_seconds <= max_seconds < float("inf"):
            raise ValueError(
                f"max_seconds {max_seconds} is not a number of at least {spec.segment_seconds:g}, one segment"
            )
        if not max_backlog_seconds > 0:
            raise ValueError(f"max_backlog_seconds {max_backlog_seconds} is not above 0")
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._rate = spec.sampling_rate if sampling_rate is None else sampling_rate
        self._beginning = session.beginning
        self._max_backlog = max_backlog_seconds
        self._on_behind = on_behind
        self._pushed = 0  # samples taken
        self._refused = 0
        kept = KeptAudio(spec, int(max_seconds // spec.segment_seconds))
        resampler = StreamResampler(self._rate, spec.sampling_rate)
        gate = SilenceGate(round(HELD_SECONDS * spec.sampling_rate) if skip_silence else None)
        self._worker = Worker(session, level, kept, resampler, gate, self.events.append, conversation)

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def pushed_seconds(self) -> float:
        """Sound taken so far."""
        return self._pushed / self._rate

    @property
    def lost_seconds(self) -> float:
        """Sound refused because reading had fallen behind."""
        return self._refused / self._rate

    def push(self, samples: np.ndarray, *, block: bool = False) -> bool:
        """Take samples [n] or [n, channels], floating point or integer PCM, of any number.

        block: wait where reading has fallen behind; else the samples are refused, counted in `lost_seconds`,
            recorded in `events` and told to `on_behind`, and the answer is False
        Raises ValueError for NaN or infinite samples, RuntimeError after close or when listening has failed.
        """
        worker = self._worker
        worker.check()
        samples = np.asarray(samples)
        if samples.shape[:1] == (0,):
            return True
        waveform = load_audio(samples, self._rate, self._rate)
        with worker.changed:
            has_room = self._wait_for_room(len(waveform), block)
            if has_room:
                worker.submit(Push(waveform))
                self._pushed += len(waveform)
        if not has_room:
            self._refuse(len(waveform))
        return has_room

    def ask(
        self,
        prompt: str,
        *,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        sampling: Sampling = GREEDY,
        until: Moment | None = None,
        language: str = "",
    ) -> ListenerStream:
        """The answer to `prompt` about the sound so far, as it comes.

        until: a moment that `prepare` gave: what came after it is left out
        language: of the speech, its code or name, for models that only transcribe, whose prompt is context
        Raises ValueError where no sound has come yet, or the model does not take this language.
        """
        self._worker.check()
        if self.pushed_seconds < SHORTEST_AUDIO_SECONDS:
            raise ValueError(f"no sound has come yet: push at least {SHORTEST_AUDIO_SECONDS} s before asking")
        question = Question(prompt, max_new_tokens, sampling, until, self._beginning(language))
        self._worker.submit(question)
        return ListenerStream(question)

    def prepare(self) -> Moment:
        """Read the open segment now, while it is silent say, so that a question need not wait for it.

        The moment it returns is for `ask(until=...)`, which then waits for nothing. If the sound goes on
        instead, nothing is lost but the work: the segment is read anew when it is whole.
        """
        moment = Moment()
        self._worker.submit(moment)
        return moment

    def wait_until_read(self, timeout: float | None = None) -> bool:
        """Wait until all that has come is read but the open segment, and what was prepared or asked is done.

        timeout: seconds to wait at most; the answer is False where they were not enough
        Raises RuntimeError after close or when listening has failed.
        """
        with self._worker.changed:
            return self._worker.changed.wait_for(self._worker.is_idle, timeout)

    def close(self) -> None:
        """End listening; the session is free for other requests."""
        self._worker.close()

    def _wait_for_room(self, samples: int, block: bool) -> bool:
        """Whether so many samples may wait to be read; the caller holds the worker's lock."""
        worker = self._worker
        while (waiting := worker.backlog_seconds()) and waiting + samples / self._rate > self._max_backlog:
            if not block:
                return False
            worker.check()  # under the lock: what ended the worker since then would never wake this thread
            worker.changed.wait()
        return True

    def _refuse(self, samples: int) -> None:
        event = Event(LOST, self.pushed_seconds, samples / self._rate)
        self._refused += samples
        self._worker.add_lost(event)
        if self._on_behind is not None:
            self._on_behind(event)


def _pieces(question: Question) -> Generator[str, None, Answer]:
    """What the worker sends, raised where it is an exception."""
    while True:
        outcome = question.outcomes.get()
        if isinstance(outcome, Answer):
            return outcome
        if isinstance(outcome, BaseException):
            raise outcome
        yield outcome
