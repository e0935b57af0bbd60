"""A session: one bundle's engines that answer questions about audio, one request at a time."""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from .answer import Answer, Clock
from .backends.engines import Engines
from .backends.opening import check_device
from .bundle import Bundle
from .context import Context
from .conversation import Conversation
from .engine import Engine
from .hearing import CACHE_BYTES, Hearing, audio_level, content_of
from .levels import Level, parse_level
from .presets import choose
from .prompt import Prompter, TextStream, Turn
from .sampling import GREEDY, Sampler, Sampling
from .stages.audio import load_audio
from .stages.embeddings import Embeddings
from .stages.features import FeatureWindow, cut_windows
from .stages.merge import MergedAudio
from .stages.splice import Piece, lay_out, splice

DEFAULT_MAX_NEW_TOKENS = 128
LONG_AUDIO = ("error", "windows")
Audio = list[FeatureWindow]  # one audio of a prompt: its windows in order


@dataclass(frozen=True)
class Asked:
    """A request as it reached the session: the conversation so far with its audios, and how to answer."""

    turns: Sequence[Turn]
    audios: Sequence[Audio]
    level: Level
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    sampling: Sampling = GREEDY

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens {self.max_new_tokens} is below 1")


@dataclass(frozen=True)
class _Cached:
    """An audio whose tokens are all in the KV cache: only their numbers are needed."""

    tokens_in: int
    tokens_out: int


class Session:
    """The three engines of a bundle. Open with `Session.open`; close it, or use it as a context manager.

    Not for several threads at once: a request that begins ends the one before it.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: str,
        device: str,
        threads: int | None,
        reuse: bool,
        low_memory: bool,
        kv_cache: str | None,
    ):
        self.bundle, self.manifest = bundle, bundle.manifest
        self.backend, self.device, self.reuse = backend, device, reuse
        self.prompter = Prompter(bundle)
        self._context: Context | None = None
        self._request: object = None
        self._engines = Engines(bundle, backend, device, threads, low_memory, kv_cache, self._engine_closes)
        self._hearing = Hearing(self._engines, CACHE_BYTES if reuse else 0)
        self._embeddings: Embeddings | None = None

    @classmethod
    def open(
        cls,
        path,
        backend: str = "onnxruntime",
        device: str | None = None,
        threads: int | None = None,
        *,
        reuse: bool = True,
        low_memory: bool = False,
        kv_cache: str | None = None,
    ) -> "Session":
        """Load a bundle's engines.

        backend: onnxruntime (device cpu, cuda or tensorrt) or tensorrt (device cuda); the device left out is the first of them
        threads: of one stage on the CPU, all cores when left out
        reuse: keep encoded audio and the KV cache of the last request for the next
        low_memory: hold the encoder and the LLM in memory in turn, never both; every new clip loads them anew
        kv_cache: int8 for a quarter of the float32 cache's memory, where `ltbm calibrate` prepared the bundle for it
        Raises FileNotFoundError or ValueError for a bundle that is missing, half, changed or newer than this ltbm.
        """
        return cls(
            Bundle.open(path), backend, check_device(backend, device), threads, reuse, low_memory, kv_cache
        )

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._engines.close()
        if self._embeddings is not None:
            self._embeddings.close()
            self._embeddings = None

    @property
    def flavour(self) -> str:
        return self._engines.flavour

    @property
    def encoder(self) -> Engine:
        return self._engines.get("encoder")

    @property
    def merge_engine(self) -> Engine:
        return self._engines.get("merge")

    @property
    def decoder(self) -> Engine:
        return self._engines.get("decoder")

    @property
    def embeddings(self) -> Embeddings:
        """Rows of the embedding table in the type that the decoder takes."""
        if self._embeddings is None:
            self._embeddings = Embeddings(
                self.bundle.file("embeddings.npy"), self.decoder.inputs["inputs_embeds"].dtype
            )
        return self._embeddings

    def generate(
        self,
        audio,
        prompt: str,
        level: str | Level | None = None,
        *,
        on_text: Callable[[str], None] | None = None,
        **options,
    ) -> Answer:
        """Answer `prompt` about `audio`; see `stream` for the options. `on_text` gets each piece of text as it comes."""
        return drain(self.stream(audio, prompt, level, **options), on_text)

    def stream(
        self,
        audio,
        prompt: str,
        level: str | Level | None = None,
        *,
        task: str | None = None,
        keep_ratio=None,
        audio_tokens: int | None = None,
        window="auto",
        positions: str = "original",
        attention: str = "proportional",
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        sampling: Sampling = GREEDY,
        long_audio: str = "error",
        sampling_rate: int | None = None,
    ) -> Iterator[str]:
        """The answer's text, piece by piece; the generator returns the whole `Answer`.

        audio: a path or an array [samples] (at `sampling_rate` Hz), or a sequence of them, heard in order
        level: full, keep75, keep50 (default), keep25, keep12, keep6 or a Level; `keep_ratio` or `audio_tokens` take its place
        task: caption, qa or transcribe chooses the level where none is given (`ltbm.runtime.presets`)
        window: auto, global, or the largest distance between the anchors of a merge, in encoder tokens
        positions, attention: how the LLM sees merged tokens (`Level`)
        long_audio: `windows` cuts an audio longer than the model takes into several audios; `error` refuses it
        """
        level, clock = (
            parse_level(choose(level, task), keep_ratio, audio_tokens, window, positions, attention),
            Clock(),
        )
        audios = self.features(audio, long_audio, sampling_rate, clock)
        asked = Asked([Turn("user", prompt, len(audios))], audios, level, max_new_tokens, sampling)
        return (yield from self.respond(asked, clock))

    def converse(
        self, level: str | Level | None = None, *, task: str | None = None, **level_options
    ) -> Conversation:
        """A conversation at one level, chosen as in `stream`: each `ask` pays only what the ones before it have not."""
        return Conversation(self, parse_level(choose(level, task), **level_options))

    def features(
        self, audio, long_audio: str = "error", sampling_rate: int | None = None, clock: Clock | None = None
    ) -> list[Audio]:
        """Load every audio and cut it into windows; one list of windows per audio placeholder of the prompt."""
        if long_audio not in LONG_AUDIO:
            raise ValueError(f"long_audio {long_audio!r} is none of {', '.join(LONG_AUDIO)}")
        sources = audio if isinstance(audio, Sequence) and not isinstance(audio, (str, bytes)) else [audio]
        if not sources:
            raise ValueError("no audio was given")
        spec = self.manifest.audio
        with (clock or Clock()).stage("load"):
            waveforms = [load_audio(source, spec.sampling_rate, sampling_rate) for source in sources]
        return [
            part
            for source, waveform in zip(sources, waveforms)
            for part in split_long(
                cut_windows(waveform, spec), spec.max_windows, long_audio, source, spec.window_seconds
            )
        ]

    def hear(self, audios: list[Audio], level: Level) -> list[MergedAudio]:
        """Encode and merge every audio at a settled level, each as if it began the prompt."""
        return [self._hearing.hear(windows, level) for windows in audios]

    def respond(self, asked: Asked, clock: Clock) -> Iterator[str]:
        """The answer to a request, piece by piece; the generator returns the whole `Answer`."""
        self._request = asked
        level, reason = settle_level(asked.level, asked.audios)
        for stage in ("features", "encoder", "merge"):  # in order, though a cached clip passes none of them
            clock.timings.setdefault(stage, 0.0)
        with clock.stage("prompt"):
            prompt_ids = self.prompter.conversation_ids(asked.turns)
            heard = [
                _Cached(sum(w.tokens for w in audio), sum(level.target(w.tokens) for w in audio))
                for audio in asked.audios
            ]
            tokens = self._token_keys(prompt_ids, asked.audios, heard, level)
        pieces, positions = lay_out(prompt_ids, heard, self.manifest.prompt.audio_token_id, level)
        self._check_positions(positions, asked.max_new_tokens)
        reused = self._hear_new(
            asked.audios, heard, pieces, level, self._reusable(tokens, pieces, asked.max_new_tokens), clock
        )
        with clock.stage("splice"):
            prefix = splice(
                prompt_ids,
                heard,
                self.manifest.prompt.audio_token_id,
                self.embeddings,
                level,
                self.decoder.zeros,
                reused,
            )
        token_ids, text, step_ms = yield from self._answer(asked, prefix, tokens, reused, clock)
        token_bytes = self.manifest.decoder.kv_bytes(1, self.decoder.inputs["past.0.key"].dtype.itemsize)
        return Answer(
            text=text,
            token_ids=token_ids,
            prompt_token_ids=self._prompt_token_ids(tokens),
            tokens_in=sum(part.tokens_in for part in heard),
            tokens_out=sum(part.tokens_out for part in heard),
            level=level.name,
            keep_ratio=float(level.ratio),
            window=level.merge_window,
            positions=level.positions,
            attention=level.attention,
            applied=not reason,
            reason=reason,
            finish_reason="stop" if token_ids[-1] in self.manifest.prompt.eos_token_ids else "length",
            reused_tokens=reused,
            kv_bytes=token_bytes * (len(tokens) + asked.max_new_tokens),
            kv_allocated_bytes=self._context.nbytes,
            timings=clock.timings,
            step_ms=step_ms,
        )

    def _token_keys(self, prompt_ids, audios: Sequence[Audio], heard, level: Level) -> list[Hashable]:
        """What each token of the prompt is: an id, or an audio's content, level and the token's place in it."""
        contents = (content_of(audio) if self.reuse else place for place, audio in enumerate(audios))
        counts, keys = iter(heard), []
        for token in prompt_ids:
            if token != self.manifest.prompt.audio_token_id:
                keys.append(token)
                continue
            audio = (next(contents), audio_level(level))
            keys += [(audio, place) for place in range(next(counts).tokens_out)]
        return keys

    def _prompt_token_ids(self, tokens: list[Hashable]) -> list[int]:
        return [
            self.manifest.prompt.audio_token_id if isinstance(token, tuple) else token for token in tokens
        ]

    def _reusable(self, tokens: list[Hashable], pieces: list[Piece], max_new_tokens: int) -> int:
        """First tokens that the KV cache holds; never a part of an audio."""
        common = self._context.common(tokens, max_new_tokens) if self.reuse and self._context else 0
        for piece in pieces:
            if piece.audio is not None and piece.start < common < piece.start + piece.length:
                return piece.start
        return common

    def _hear_new(
        self,
        audios: Sequence[Audio],
        heard: list,
        pieces: list[Piece],
        level: Level,
        reused: int,
        clock: Clock,
    ) -> int:
        """Put every audio after the first `reused` tokens into `heard`; how many tokens can still be reused after that."""
        for piece in pieces:
            if piece.audio is not None and piece.start >= reused:
                heard[piece.audio] = self._hearing.hear(audios[piece.audio], level, piece.position, clock)
        if (
            reused and self._context is None
        ):  # with low memory, hearing takes the LLM's place and its cache goes
            return self._hear_new(audios, heard, pieces, level, 0, clock)
        return reused

    def _check_positions(self, prompt: int, max_new_tokens: int) -> None:
        """ValueError, before anything is encoded, if the model has no positions for the prompt and the answer."""
        limit = self.manifest.decoder.max_positions
        if prompt + max_new_tokens > limit:
            raise ValueError(
                f"the prompt takes {prompt} positions and max_new_tokens {max_new_tokens} more, the model has {limit}; "
                "shorten the audio or the answer, or use compact positions with a lower level"
            )

    def _answer(self, asked: Asked, prefix, tokens: list[Hashable], reused: int, clock: Clock):
        """Prefill, then decode until an end token or the limit; yields text, returns (token ids, text, step times)."""
        sampler = Sampler(asked.sampling, np.array(self._prompt_token_ids(tokens)))
        pieces, row = (
            TextStream(self.prompter),
            np.empty((1, self.embeddings.shape[1]), self.embeddings.dtype),
        )
        with clock.stage("prefill"):
            if self._context is None:
                self._context = Context(self.decoder, self.manifest.decoder)
            token_ids = [
                sampler.next_token(self._context.prefill(prefix, tokens, reused, asked.max_new_tokens))
            ]
        clock.mark("ttft")
        yield pieces.push(token_ids[0])
        step_ms = []
        while (
            len(token_ids) < asked.max_new_tokens and token_ids[-1] not in self.manifest.prompt.eos_token_ids
        ):
            if self._request is not asked:
                raise RuntimeError(
                    "another request began on this session before this answer ended; open a session for each"
                )
            begun = time.perf_counter()
            logits = self._context.step(token_ids[-1], self.embeddings.gather(token_ids[-1:], row))
            token_ids.append(sampler.next_token(logits))
            step_ms.append((time.perf_counter() - begun) * 1e3)
            yield pieces.push(token_ids[-1])
        text = self.prompter.decode(token_ids)
        clock.timings["decode"] = sum(step_ms)
        clock.mark("total")
        yield pieces.finish(text)
        return token_ids, text, step_ms

    def _engine_closes(self, stage: str) -> None:
        if stage == "decoder":
            self._context = None


def drain(stream: Iterator[str], on_text: Callable[[str], None] | None = None) -> Answer:
    """Run a stream to its end; its Answer."""
    while True:
        try:
            piece = next(stream)
        except StopIteration as stop:
            return stop.value
        if on_text:
            on_text(piece)


def settle_level(level: Level, audios: Sequence[Audio]) -> tuple[Level, str]:
    """The level for these clips, and the reason why it changes nothing (empty if it does)."""
    rows = [window.tokens for windows in audios for window in windows]
    tokens_in = sum(rows)
    if not tokens_in:
        return replace(level, ratio=Fraction(1), audio_tokens=None), "the prompt has no audio"
    settled = level.for_clip(tokens_in)
    if level.audio_tokens is not None and level.audio_tokens >= tokens_in:
        return settled, f"the budget of {level.audio_tokens} audio tokens is not below the clip's {tokens_in}"
    if settled.ratio == 1:
        return settled, f"level {level.name} keeps every token"
    if all(settled.target(row) == row for row in rows):
        return settled, f"keeping {settled.ratio} of {tokens_in} tokens, rounded up, is all of them"
    return settled, ""


def split_long(windows: Audio, limit: int, long_audio: str, source, seconds: float) -> list[Audio]:
    """One audio's windows as audios of at most `limit` windows each; ValueError for what is too long or too short."""
    what = source if isinstance(source, str) or hasattr(source, "name") else "the audio array"
    if not any(window.tokens for window in windows):
        raise ValueError(f"{what} is too short to give one audio token: at least 0.03 s are needed")
    if len(windows) <= limit:
        return [windows]
    if long_audio == "error":
        raise ValueError(
            f"{what} is longer than the {limit * seconds:g} s the model takes; give --long-audio windows "
            f"(long_audio='windows') to hear it as several audios, or cut it"
        )
    parts = [windows[start : start + limit] for start in range(0, len(windows), limit)]
    return [part for part in parts if any(window.tokens for window in part)]
