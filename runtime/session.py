"""A session: one bundle's engines, loaded once, that answer questions about audio."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from ltbm.runtime.audio import load_audio
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.engine import decoder_flavour, open_engine
from ltbm.runtime.levels import DEFAULT_LEVEL, Level, parse_level
from ltbm.runtime.prompt import Prompter, TextStream
from ltbm.runtime.sampling import GREEDY, Sampler, Sampling
from ltbm.runtime.stages.decoder import Decoder
from ltbm.runtime.stages.encoder import EncodedRows, encode
from ltbm.runtime.stages.features import FeatureWindow, extract_features
from ltbm.runtime.stages.merge import MergedAudio, merge
from ltbm.runtime.stages.splice import Prefix, splice

DEFAULT_MAX_NEW_TOKENS = 128
LONG_AUDIO = ("error", "windows")


@dataclass
class Answer:
    """One answer and how it came about.

    tokens_in, tokens_out: audio tokens before and after merging
    applied: whether the level changed anything; `reason` says why not
    kv_bytes: bytes of KV cache allocated for this request
    timings: milliseconds of each stage; ttft is from the call to the first token, total to the last
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
    kv_bytes: int
    timings: dict[str, float]


@dataclass
class _Clock:
    """Milliseconds per stage since the request began."""

    started: float = field(default_factory=time.perf_counter)
    timings: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str):
        begun = time.perf_counter()
        yield
        self.timings[name] = (time.perf_counter() - begun) * 1e3

    def mark(self, name: str) -> None:
        self.timings[name] = (time.perf_counter() - self.started) * 1e3


class Session:
    """The three engines of a bundle. Open with `Session.open`; close it, or use it as a context manager."""

    def __init__(self, bundle: Bundle, backend: str, device: str, threads: int | None):
        self.flavour = decoder_flavour(backend, device)
        self.bundle, self.manifest = bundle, bundle.manifest
        self.backend, self.device = backend, device
        self.prompter = Prompter(bundle)
        self.embeddings = np.load(bundle.file("embeddings.npy"), mmap_mode="r", allow_pickle=False)
        self.encoder, self.merge_engine, self.decoder = (
            open_engine(bundle.file(name), backend, device, threads)
            for name in ("encoder.onnx", "merge.onnx", f"decoder.{self.flavour}.onnx"))

    @classmethod
    def open(cls, path, backend: str = "onnxruntime", device: str = "cpu", threads: int | None = None) -> "Session":
        """Load a bundle's engines.

        device: cpu or cuda; threads: of one stage on the CPU, all cores when left out
        Raises FileNotFoundError or ValueError for a bundle that is missing, half, changed or newer than this ltbm.
        """
        return cls(Bundle.open(path), backend, device, threads)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        for engine in (self.encoder, self.merge_engine, self.decoder):
            engine.close()

    def generate(self, audio, prompt: str, level: str | Level = DEFAULT_LEVEL, *, on_text: Callable[[str], None] | None = None,
                 **options) -> Answer:
        """Answer `prompt` about `audio`; see `stream` for the options. `on_text` gets each piece of text as it comes."""
        stream = self.stream(audio, prompt, level, **options)
        while True:
            try:
                piece = next(stream)
            except StopIteration as stop:
                return stop.value
            if on_text:
                on_text(piece)

    def stream(self, audio, prompt: str, level: str | Level = DEFAULT_LEVEL, *, keep_ratio=None, audio_tokens: int | None = None,
               window="auto", positions: str = "original", attention: str = "proportional",
               max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS, sampling: Sampling = GREEDY, long_audio: str = "error",
               sampling_rate: int | None = None) -> Iterator[str]:
        """The answer's text, piece by piece; the generator returns the whole `Answer`.

        audio: a path or an array [samples] (at `sampling_rate` Hz), or a sequence of them, heard in order
        level: full, keep75, keep50, keep25, keep12, keep6 or a Level; `keep_ratio` or `audio_tokens` take its place
        window: auto, global, or the largest distance between the anchors of a merge, in encoder tokens
        positions, attention: how the LLM sees merged tokens (`Level`)
        long_audio: `windows` cuts an audio longer than the model takes into several audios; `error` refuses it
        """
        level = parse_level(level, keep_ratio, audio_tokens, window, positions, attention)
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens {max_new_tokens} is below 1")
        clock = _Clock()
        audios = self.features(audio, long_audio, sampling_rate, clock)
        level, reason = settle_level(level, audios)
        with clock.stage("prompt"):
            prompt_ids = self.prompter.prompt_ids(prompt, len(audios))
        self._check_positions(len(prompt_ids) - len(audios), audios, level, max_new_tokens)
        merged = self.hear(audios, level, clock)
        with clock.stage("splice"):
            prefix = splice(prompt_ids, merged, self.manifest.prompt.audio_token_id, self.embeddings, level)
        decoder = Decoder(self.decoder, self.manifest.decoder, len(prefix.token_ids) + max_new_tokens)
        token_ids, text = yield from self._answer(decoder, prefix, max_new_tokens, sampling, clock)
        return Answer(
            text=text, token_ids=token_ids, prompt_token_ids=prefix.token_ids.tolist(),
            tokens_in=sum(part.tokens_in for part in merged), tokens_out=sum(part.tokens_out for part in merged),
            level=level.name, keep_ratio=float(level.ratio), window=level.merge_window, positions=level.positions,
            attention=level.attention, applied=not reason, reason=reason,
            finish_reason="stop" if token_ids and token_ids[-1] in self.manifest.prompt.eos_token_ids else "length",
            kv_bytes=decoder.cache.nbytes, timings=clock.timings)

    def features(self, audio, long_audio: str = "error", sampling_rate: int | None = None, clock: _Clock | None = None) -> list[list[FeatureWindow]]:
        """Load every audio and compute its windows; one list of windows per audio placeholder of the prompt."""
        if long_audio not in LONG_AUDIO:
            raise ValueError(f"long_audio {long_audio!r} is none of {', '.join(LONG_AUDIO)}")
        sources = audio if isinstance(audio, Sequence) and not isinstance(audio, (str, bytes)) else [audio]
        if not sources:
            raise ValueError("no audio was given")
        clock, spec = clock or _Clock(), self.manifest.audio
        with clock.stage("load"):
            waveforms = [load_audio(source, spec.sampling_rate, sampling_rate) for source in sources]
        with clock.stage("features"):
            audios = [part for source, waveform in zip(sources, waveforms)
                      for part in split_long(extract_features(waveform, spec), spec.max_windows, long_audio, source, spec.window_seconds)]
        return audios

    def hear(self, audios: list[list[FeatureWindow]], level: Level, clock: _Clock | None = None) -> list[MergedAudio]:
        """Encode and merge every audio at a settled level."""
        clock = clock or _Clock()
        with clock.stage("encoder"):
            encoded: list[list[EncodedRows]] = [encode(self.encoder, windows) for windows in audios]
        with clock.stage("merge"):
            return [merge(self.merge_engine, groups, level) for groups in encoded]

    def _check_positions(self, text_tokens: int, audios: list[list[FeatureWindow]], level: Level, max_new_tokens: int) -> None:
        """ValueError, before anything is encoded, if the model has no positions for the prompt and the answer."""
        rows = [window.tokens for windows in audios for window in windows]
        prompt = text_tokens + (sum(rows) if level.positions == "original" else sum(map(level.target, rows)))
        limit = self.manifest.decoder.max_positions
        if prompt + max_new_tokens > limit:
            raise ValueError(f"the prompt takes {prompt} positions and max_new_tokens {max_new_tokens} more, the model has {limit}; "
                             "shorten the audio or the answer, or use compact positions with a lower level")

    def _answer(self, decoder: Decoder, prefix: Prefix, max_new_tokens: int, sampling: Sampling, clock: _Clock):
        """Prefill, then decode until an end token or the limit; yields text, returns (token ids, text)."""
        sampler, pieces = Sampler(sampling, prefix.token_ids), TextStream(self.prompter)
        with clock.stage("prefill"):
            token_ids = [sampler.next_token(decoder.prefill([prefix])[0])]
        clock.mark("ttft")
        yield pieces.push(token_ids[0])
        decode_ms = 0.0
        while len(token_ids) < max_new_tokens and token_ids[-1] not in self.manifest.prompt.eos_token_ids:
            begun = time.perf_counter()
            token_ids.append(sampler.next_token(decoder.step(self.embeddings[token_ids[-1:]])[0]))
            decode_ms += (time.perf_counter() - begun) * 1e3
            yield pieces.push(token_ids[-1])
        text = self.prompter.decode(token_ids)
        clock.timings["decode"] = decode_ms
        clock.mark("total")
        yield pieces.finish(text)
        return token_ids, text


def settle_level(level: Level, audios: list[list[FeatureWindow]]) -> tuple[Level, str]:
    """The level for these clips, and the reason why it changes nothing (empty if it does)."""
    rows = [window.tokens for windows in audios for window in windows]
    tokens_in = sum(rows)
    settled = level.for_clip(tokens_in)
    if level.audio_tokens is not None and level.audio_tokens >= tokens_in:
        return settled, f"the budget of {level.audio_tokens} audio tokens is not below the clip's {tokens_in}"
    if settled.ratio == 1:
        return settled, f"level {level.name} keeps every token"
    if all(settled.target(row) == row for row in rows):
        return settled, f"keeping {settled.ratio} of {tokens_in} tokens, rounded up, is all of them"
    return settled, ""


def split_long(windows: list[FeatureWindow], limit: int, long_audio: str, source, seconds: float) -> list[list[FeatureWindow]]:
    """One audio's windows as audios of at most `limit` windows each; ValueError for what is too long or too short."""
    what = source if isinstance(source, str) or hasattr(source, "name") else "the audio array"
    if not any(window.tokens for window in windows):
        raise ValueError(f"{what} is too short to give one audio token: at least 0.03 s are needed")
    if len(windows) <= limit:
        return [windows]
    if long_audio == "error":
        raise ValueError(f"{what} is longer than the {limit * seconds:g} s the model takes; give --long-audio windows "
                         f"(long_audio='windows') to hear it as several audios, or cut it")
    parts = [windows[start:start + limit] for start in range(0, len(windows), limit)]
    return [part for part in parts if any(window.tokens for window in part)]
