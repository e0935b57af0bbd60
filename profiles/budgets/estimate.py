"""The estimate: bytes and operations against what a device sustains, at every level,
and the level to choose."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...runtime.levels import Budget, Level, settle
from ...runtime.stages.kv_cache import bucket
from .counts import Work, decode_work, encoder_work, merge_work, prefill_work, segment_lengths
from .model import Model

LONGEST_SEARCH = 24 * 3600  # seconds
RELOADS = ", with --low-memory: each new clip then loads the engines in turn, which the TTFT does not hold"


@dataclass(frozen=True)
class Rates:
    """What a device sustains, efficiency counted in.

    bandwidth: bytes a second of the LLM's weights and cache as stored, one token at a time
    encoder, llm, attention: operations a second of products with the encoder's and the LLM's weights,
        and between tokens
    usable, runtime: bytes of memory that a process can have, and that it takes without a model
    encoder_resident, llm_resident: bytes of memory that a stored byte of weights takes once loaded
    loading: bytes that loading takes for a moment beyond them
    move_seconds: that llm_engine or writing a byte of activations takes; 0 where ops are fused,
        or it counts as efficiency
    """

    bandwidth: float
    encoder: float
    llm: float
    attention: float
    usable: float
    runtime: float
    encoder_resident: float = 1.0
    llm_resident: float = 1.0
    loading: float = 0.0
    move_seconds: float = 0.0


@dataclass(frozen=True)
class Request:
    """What is asked of the model: text_tokens are the prompt's without the audio."""

    audio_seconds: float = 30.0
    text_tokens: int = 30
    max_new_tokens: int = 64


@dataclass(frozen=True)
class Memory:
    """Bytes; `low_memory` is the peak when the encoder is released before the LLM is loaded."""

    weights: float
    kv_cache: float
    activations: float
    runtime: float
    low_memory: float

    @property
    def total(self) -> float:
        return self.weights + self.kv_cache + self.activations + self.runtime


@dataclass(frozen=True)
class Estimate:
    """One level of one request; times in milliseconds, of which ttft leaves out log-mel, merge and sampling.

    longest_audio: seconds that memory and the model's positions allow; limited_by: which of them ends it
    """

    level: str
    tokens_in: int
    tokens_out: int
    encoder: float
    prefill: float
    ttft: float
    tpot: float
    memory: Memory
    fits: str  # `how_it_fits` the device
    longest_audio: int
    limited_by: str


def estimate(model: Model, rates: Rates, request: Request, level: Level | Budget) -> Estimate:
    rows = _rows(model, request.audio_seconds)
    level, _ = settle(level, rows)
    kept = sum(map(level.target, rows))
    prompt = request.text_tokens + kept
    encoder = _ms(encoder_work(model, segment_lengths(model, request.audio_seconds)), rates.encoder, rates)
    merge = _ms(merge_work(model, kept), rates.encoder, rates)
    prefill = _ms(prefill_work(model, prompt), rates.llm, rates)
    memory = memory_of(model, rates, request, level)
    longest, limit = longest_audio(model, rates, request, level)
    return Estimate(
        level=level.name,
        tokens_in=sum(rows),
        tokens_out=kept,
        encoder=encoder,
        prefill=prefill,
        ttft=encoder + merge + prefill,
        tpot=_ms(decode_work(model, prompt + request.max_new_tokens / 2), rates.llm, rates),
        memory=memory,
        fits=how_it_fits(memory, rates.usable),
        longest_audio=longest,
        limited_by=limit,
    )


def _rows(model: Model, seconds: float) -> list[int]:
    """Encoder tokens of each segment."""
    return [model.audio.tokens(length) for length in segment_lengths(model, seconds)]


def _ms(work: Work, rate: float, rates: Rates) -> float:
    """Roofline: weights stream in while products are computed;
    attention between tokens and ops on values come after."""
    products = max(work.weight_bytes / rates.bandwidth, work.linear / rate)
    return 1e3 * (products + work.attention / rates.attention + work.moved_bytes * rates.move_seconds)


def memory_of(model: Model, rates: Rates, request: Request, level: Level) -> Memory:
    """Of the engines for audio (encoder, merge) and of the LLM, together or in turn."""
    prompt = request.text_tokens + sum(map(level.target, _rows(model, request.audio_seconds)))
    audio_weights = model.weights.audio * rates.encoder_resident
    llm_weights = model.weights.decoder * rates.llm_resident
    encoding = encoder_work(model, segment_lengths(model, request.audio_seconds)).live_bytes
    prefill = prefill_work(model, prompt).live_bytes
    kv_cache = model.kv_bytes(bucket(prompt + request.max_new_tokens))
    return Memory(
        weights=audio_weights + llm_weights,
        kv_cache=kv_cache,
        activations=max(encoding + prefill, rates.loading - kv_cache),
        runtime=rates.runtime,
        low_memory=rates.runtime
        + max(audio_weights + encoding, llm_weights + max(kv_cache + prefill, rates.loading)),
    )


def longest_audio(model: Model, rates: Rates, request: Request, level: Level) -> tuple[int, str]:
    """Whole seconds of audio that fit, and what ends it: memory (with the encoder released if need be)
    or positions."""

    def positions(seconds: int) -> int:
        return (
            request.text_tokens
            + request.max_new_tokens
            + sum(_rows(model, seconds))
            - model.decoder.max_positions
        )

    def low_memory(seconds: int) -> float:
        return (
            memory_of(model, rates, replace(request, audio_seconds=seconds), level).low_memory - rates.usable
        )

    by_positions, by_memory = (
        bisect.bisect_right(range(1, LONGEST_SEARCH), 0, key=excess) for excess in (positions, low_memory)
    )
    return min(by_positions, by_memory), "memory" if by_memory < by_positions else "positions"


def choose(
    estimates: Sequence[Estimate], ttft_ms: float | None, memory_bytes: float | None
) -> tuple[Estimate | None, str]:
    """The first of the levels, given from most to fewest tokens, that is within the limits; and why,
    in words."""
    limits = "the device's memory" if memory_bytes is None else f"{memory_bytes / 2**30:g} GiB of memory"
    limits += "" if ttft_ms is None else f" and a TTFT of {ttft_ms:g} ms"
    for one in estimates:
        fits = one.fits if memory_bytes is None else how_it_fits(one.memory, memory_bytes)
        if fits != "no" and (ttft_ms is None or one.ttft <= ttft_ms):
            return one, f"the most audio tokens within {limits}" + (RELOADS if fits == "low-memory" else "")
    last = estimates[-1]
    return None, (
        f"no level is within {limits}; {last.level} comes nearest with {last.memory.low_memory / 2**30:.1f} "
        "GiB (with --low-memory) "
        f"and {last.ttft:.0f} ms, of which the encoder takes {last.encoder:.0f}"
    )


def how_it_fits(memory: Memory, limit: float) -> str:
    """yes, low-memory (only if the encoder is released before the LLM is loaded) or no."""
    return "yes" if memory.total <= limit else "low-memory" if memory.low_memory <= limit else "no"
