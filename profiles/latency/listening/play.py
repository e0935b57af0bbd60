"""One pass through the sound: played to a listener, or asked about as a whole at every end."""

import os
import time
from collections.abc import Sequence

import numpy as np

from ....runtime.answer import Answer
from ....runtime.levels import parse_level
from ....runtime.listen.events import LOST, PREPARED, READ
from ....runtime.listen.listener import Listener
from ....runtime.session import Session
from ....runtime.stages.audio import load_audio
from ..job_records import ListenJob
from .options import APPROACHES, Approach
from .runs import EndAnswer, ListenRun

PIECE_SECONDS = 0.1  # of sound, as a microphone gives it
QUIETER = 0.999  # each repetition of the clips, so that no segment is one that is known


def measure(job: ListenJob) -> ListenRun:
    approach = APPROACHES[job.approach]
    load_average = os.getloadavg()[0]
    with Session.open(
        job.bundle,
        job.backend,
        job.device,
        job.threads,
        reuse=approach.listens,
        kv_cache=job.kv_cache,
        packed=job.packed,
        native_products=job.native_products,
    ) as session:
        rate = session.manifest.audio.sampling_rate
        clips = [load_audio(clip, rate) for clip in job.clips]
        ends = [round(end * rate) for end in job.ends]
        sound = joined(clips, round(job.start * rate), ends[-1])
        _warm_up(session, sound, job)
        asked = _listen if approach.listens else _ask_about_the_whole
        answers, reading_ms, refused = asked(session, sound, ends, approach, job)
    return ListenRun(job.approach, tuple(answers), ends[-1] / rate, reading_ms, refused, load_average)


def joined(clips: Sequence[np.ndarray], start: int, samples: int) -> np.ndarray:
    """The clips one after the other from sample `start` on, again and again; [samples] float32."""
    once = np.roll(np.concatenate(clips), -start)
    gains = np.float32(QUIETER) ** np.arange(-(-samples // len(once)))
    return (gains[:, None] * once).reshape(-1)[:samples].astype(np.float32)


class Player:
    """Pushes sound in pieces, in real time, or sooner where all that came before is read."""

    def __init__(self, listener: Listener, rate: int, real_time: bool):
        self._listener = listener
        self._rate = rate
        self._real_time = real_time

    def play(self, samples: np.ndarray) -> None:
        """Every piece after the time it lasts; a piece that the listener refuses is lost."""
        size = round(PIECE_SECONDS * self._rate)
        begun = time.perf_counter()
        for start in range(0, len(samples), size):
            piece = samples[start : start + size]
            if self._real_time:
                came = begun + (start + len(piece)) / self._rate
                time.sleep(max(0.0, came - time.perf_counter()))
            else:
                self._listener.wait_until_read(len(piece) / self._rate)
            self._listener.push(piece)


def _warm_up(session: Session, sound: np.ndarray, job: ListenJob) -> None:
    """A request that is not measured, about a segment of other sound."""
    other = sound[::-1][: session.manifest.audio.segment_samples].copy()
    session.generate(other, job.prompt, _level(job), max_new_tokens=job.max_new_tokens)


def _level(job: ListenJob):
    return parse_level(job.level, job.window, job.positions, job.attention)


Asked = tuple[list[EndAnswer], float, int]


def _listen(
    session: Session, sound: np.ndarray, ends: Sequence[int], approach: Approach, job: ListenJob
) -> Asked:
    spec = session.manifest.audio
    max_seconds = len(sound) / spec.sampling_rate + spec.segment_seconds
    answers = []
    with session.listen(_level(job), max_seconds=max_seconds) as listener:
        player = Player(listener, spec.sampling_rate, job.real_time)
        for start, end in zip([0, *ends], ends):
            player.play(sound[start:end])
            answer, ahead_ms = _ask(listener, approach, job)
            answers.append(_end_answer(answer, end, session, ahead_ms))
        reading_ms = sum(event.milliseconds for event in listener.events if event.kind == READ)
        refused = sum(event.kind == LOST for event in listener.events)
    return answers, reading_ms, refused


def _ask(listener: Listener, approach: Approach, job: ListenJob) -> tuple[Answer, float]:
    """The answer, and what reading ahead took, in milliseconds."""
    if not approach.reads_ahead:
        return listener.ask(job.prompt, max_new_tokens=job.max_new_tokens).finish(), 0.0
    before = len(listener.events)
    moment = listener.prepare()
    listener.wait_until_read()
    stream = listener.ask(job.prompt, max_new_tokens=job.max_new_tokens, until=moment)
    new = list(listener.events)[before:]
    return stream.finish(), sum(event.milliseconds for event in new if event.kind == PREPARED)


def _ask_about_the_whole(
    session: Session, sound: np.ndarray, ends: Sequence[int], approach: Approach, job: ListenJob
) -> Asked:
    answers = []
    for end in ends:
        answer = session.generate(
            sound[:end], job.prompt, _level(job), max_new_tokens=job.max_new_tokens, long_audio="segments"
        )
        answers.append(_end_answer(answer, end, session, 0.0))
    return answers, 0.0, 0


def _end_answer(answer: Answer, end: int, session: Session, ahead_ms: float) -> EndAnswer:
    spec = session.manifest.audio
    return EndAnswer(
        end=end / spec.sampling_rate,
        open_seconds=end % spec.segment_samples / spec.sampling_rate,
        ttft_ms=answer.timings["ttft"],
        ahead_ms=ahead_ms,
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        reused_tokens=answer.reused_tokens,
        token_ids=tuple(answer.token_ids),
        timings=answer.timings,
    )
