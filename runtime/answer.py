"""What a request gives back: the text as it comes, the tokens, and where the time went."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

STAGES = ("load", "features", "prompt", "encoder", "merge", "splice", "prefill")
"""Stages before the first token, in order; each is a key of `Answer.timings`."""


@dataclass
class Answer:
    """One answer and how it came about.

    tokens_in, tokens_out: audio tokens before and after merging, of all the audios in the prompt
    applied: whether the level changed anything; `reason` says why not
    reused_tokens: prompt tokens found in the KV cache from an earlier request, which prefill did not pay
    kv_bytes: of the KV cache of the prompt's tokens and `max_new_tokens`
    kv_allocated_bytes: of the whole KV cache
    timings: milliseconds of each stage; ttft is from the call to the first token, total to the last. On a GPU
        encoder and merge only ask for their work, and prefill, which waits for the logits, holds what it took
    step_ms: milliseconds of each decode step, sampling included
    language: of the speech, where the model says it or was told
    """

    text: str
    token_ids: list[int]
    prompt_token_ids: list[int]
    tokens_in: int
    tokens_out: int
    level: str
    keep_ratio: float
    window: int
    positions: str
    attention: str
    applied: bool
    reason: str
    finish_reason: str  # "stop": an end token or a stop string came; "length": max_new_tokens did
    reused_tokens: int
    kv_bytes: int
    kv_allocated_bytes: int
    timings: dict[str, float]
    step_ms: list[float]
    language: str = ""


class AnswerStream:
    """The pieces of an answer's text, made as they are asked for; afterwards the whole `Answer`.

        stream = session.stream("clip.wav", "What do you hear?")
        for piece in stream:
            print(piece, end="")
        print(stream.answer.tokens_out)

    Left early, by `close` or at the end of a `with` block, it makes no further token.
    """

    def __init__(self, pieces: Generator[str, None, Answer]):
        self._pieces = pieces
        self._answer: Answer | None = None

    def __iter__(self) -> "AnswerStream":
        return self

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as stop:
            self._answer = stop.value if stop.value is not None else self._answer
            raise StopIteration from None

    def __enter__(self) -> "AnswerStream":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def answer(self) -> Answer:
        """The whole answer; RuntimeError before the stream has come to its end, or if it was closed early."""
        if self._answer is None:
            raise RuntimeError(
                "the answer has not ended: iterate over the stream to its end, or call finish()"
            )
        return self._answer

    def finish(self) -> Answer:
        """Run to the end; the whole answer."""
        for _ in self:
            pass
        return self.answer

    def close(self) -> None:
        """End the answer here: its session is free for the next request at once."""
        self._pieces.close()


@dataclass
class Clock:
    """Milliseconds per stage since the request began; a stage entered again adds up."""

    started: float = field(default_factory=time.perf_counter)
    timings: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str):
        begun = time.perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + (time.perf_counter() - begun) * 1e3

    def mark(self, name: str) -> None:
        self.timings[name] = (time.perf_counter() - self.started) * 1e3
