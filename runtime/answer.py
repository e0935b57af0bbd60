"""What a request gives back: the text, the tokens, and where the time went."""

import time
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
    kv_bytes: bytes of KV cache of the prompt's tokens and `max_new_tokens`; kv_allocated_bytes: of the whole cache
    timings: milliseconds of each stage; ttft is from the call to the first token, total to the last. On a GPU encoder and
        merge only ask for their work, and prefill, which waits for the logits, holds what it took
    step_ms: milliseconds of each decode step, sampling included
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
    finish_reason: str  # "stop": an end token came; "length": max_new_tokens did
    reused_tokens: int
    kv_bytes: int
    kv_allocated_bytes: int
    timings: dict[str, float]
    step_ms: list[float]


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
