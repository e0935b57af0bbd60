"""A session: a pipeline that answers one request at a time and keeps what requests share."""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress

import numpy as np

from .answer import Answer, AnswerStream, Clock
from .conversation import Conversation
from .former import takes_former_level_options
from .levels import Budget, Level, as_level
from .listen.events import Event
from .listen.listener import MAX_BACKLOG_SECONDS, MAX_SECONDS, Listener
from .pipeline import Pipeline
from .presets import LevelChoice, choose
from .prompt import TextStream, Turn
from .prompt_reader import PreparedPrompt, PromptReader
from .request import DEFAULT_MAX_NEW_TOKENS, Request
from .sampling import GREEDY, Sampler, Sampling
from .stages.decoder import decode_tokens
from .stages.merge import MergedAudio
from .stages.segments import Audio
from .stop_strings import StopStrings
from .transcript import AnswerText


class Session:
    """A pipeline, the audio it has encoded, and the KV cache of its last request.

    Open with `Session.open`; close it, or use it as a context manager.
    Answers one request at a time: one that begins, in this thread or another, ends the one before it, whose
    answer raises RuntimeError at its next token. Threads that ask at the same time take a session each.
    """

    def __init__(self, pipeline: Pipeline, reuse: bool = True):
        self.pipeline = pipeline
        self.reuse = reuse
        self.bundle = pipeline.bundle
        self.manifest = pipeline.manifest
        self._reader = PromptReader(pipeline, keeps=reuse)
        self._listener: Listener | None = None
        self.owner_thread: int | None = None  # of a listener, which no other thread may disturb
        self._engines_lock = threading.RLock()  # while they run, for a first token or the next
        self._request: Request | None = None

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
        packed: bool = True,
        native_products: bool = True,
    ) -> "Session":
        """Load a bundle's engines.

        backend: onnxruntime (device cpu, cuda or tensorrt) or tensorrt (device cuda)
        device: the first of the backend's when left out
        threads: of one stage on the CPU, all cores when left out
        reuse: keep encoded audio and the KV cache of the last request for the next
        low_memory: hold the encoder and the LLM in memory in turn, never both; every new clip loads them anew
        kv_cache: float16 takes half of the float32 cache's memory on the CPU, int8 a quarter, once
            `ltbm calibrate` was run
        packed: map the weights that `ltbm pack` packed for this machine, where it did
        native_products: multiply quantised weights on the CPU by ltbm's own op, where this processor has it
        Raises FileNotFoundError or ValueError for a bundle that is missing, half, changed or too new.
        """
        pipeline = Pipeline.open(
            path,
            backend=backend,
            device=device,
            threads=threads,
            in_turn=low_memory,
            kv_cache=kv_cache,
            packed=packed,
            native_products=native_products,
        )
        return cls(pipeline, reuse)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        with self._engines_lock:
            self._reader.forget_context()
            self.pipeline.close()

    def generate(self, audio, prompt: str, level: LevelChoice | None = None, **options) -> Answer:
        """Answer `prompt` about `audio`; see `stream` for the options."""
        return self.stream(audio, prompt, level, **options).finish()

    @takes_former_level_options
    def stream(
        self,
        audio,
        prompt: str,
        level: LevelChoice | None = None,
        *,
        task: str | None = None,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        sampling: Sampling = GREEDY,
        long_audio: str = "error",
        sampling_rate: int | None = None,
        language: str = "",
    ) -> AnswerStream:
        """The answer to `prompt` about `audio` as it comes.

        audio: a path, bytes, a binary file, an array [samples] (at `sampling_rate` Hz), a pair (array, Hz),
            or a sequence of them, in order
        level: full, keep75, keep50, keep33, keep25, keep12, keep6; a share such as 0.3; a Level; a Budget;
            the bundle's own where none is given (keep50; full where the model only transcribes)
        task: caption, qa or transcribe chooses the level where none is given (`ltbm.runtime.presets`)
        max_new_tokens: tokens of the longest answer
        long_audio: an audio longer than the model takes is refused (`error`) or cut into several (`segments`)
        language: of the speech, its code or name, for models that only transcribe, whose prompt is context
        """
        settled = self._chosen(level, task)

        def pieces() -> Generator[str, None, Answer]:
            clock = Clock()
            audios = self.load(audio, long_audio, sampling_rate, clock)
            turns = [Turn("user", prompt, len(audios)), *self.beginning(language)]
            return (yield from self.respond(Request(turns, audios, settled, max_new_tokens, sampling), clock))

        return AnswerStream(pieces())

    @takes_former_level_options
    def converse(self, level: LevelChoice | None = None, *, task: str | None = None) -> Conversation:
        """A conversation at one level, chosen as in `stream`; what was read once is not paid for again."""
        return Conversation(self, self._chosen(level, task))

    def listen(
        self,
        level: LevelChoice | None = None,
        *,
        task: str | None = None,
        max_seconds: float = MAX_SECONDS,
        sampling_rate: int | None = None,
        conversation: bool = False,
        max_backlog_seconds: float = MAX_BACKLOG_SECONDS,
        on_behind: Callable[[Event], None] | None = None,
        skip_silence: bool = False,
    ) -> Listener:
        """Listen to sound that comes in pieces, and answer about it while it goes on.

        Whole segments are encoded, merged and prefilled when they have come: a question waits for the open
        one alone. The answer is that of `generate` about all that has come. Until the listener is closed the
        session takes no other request.

        level, task: as in `stream`, without a Budget
        max_seconds: of sound kept; beyond it, or beyond the model's positions, the oldest segments go
        sampling_rate: of the samples to be pushed, in Hz; the model's own when left out
        conversation: questions and answers stay in the prompt, behind the sound
        max_backlog_seconds: of sound that may wait to be read before `push` refuses more
        on_behind: called with an `Event` when it does
        skip_silence: of a digital silence only the first second is read
        """
        self._check_can_listen()
        if conversation and self.manifest.prompt.transcript:
            raise ValueError("this model transcribes and holds no conversation: listen without one")
        self._listener = Listener(
            self,
            self._chosen(level, task),
            max_seconds=max_seconds,
            sampling_rate=sampling_rate,
            conversation=conversation,
            max_backlog_seconds=max_backlog_seconds,
            on_behind=on_behind,
            skip_silence=skip_silence,
        )
        return self._listener

    def beginning(self, language: str) -> list[Turn]:
        """The turn with which an answer in `language` begins, none for an empty one."""
        return self.pipeline.prompter.beginning(language)

    def _chosen(self, level: LevelChoice | None, task: str | None) -> Level | Budget:
        """The level that was given, else the task's, else the bundle's."""
        return as_level(choose(level, task, self.manifest.default_level))

    def _check_can_listen(self) -> None:
        self._check_owner()
        if not self.reuse:
            raise ValueError("listening keeps the KV cache between questions: open the session with reuse")
        if self.pipeline.engines.in_turn:
            raise ValueError("listening needs the encoder and the LLM side by side: open without low_memory")
        if "past_len" not in self.pipeline.engines.get("decoder").inputs:
            raise ValueError(
                "listening needs a decoder that updates its KV cache in place; this backend runs concat20, "
                "which cannot take back a question: build with TensorRT 10.15 or newer, or use onnxruntime"
            )

    def _check_owner(self) -> None:
        if self.owner_thread not in (None, threading.get_ident()):
            raise RuntimeError("this session is listening: ask its listener, or close it first")

    def load(self, audio, long_audio: str, sampling_rate: int | None, clock: Clock) -> list[Audio]:
        """`Pipeline.segments`, timed."""
        with clock.stage("load"):
            return self.pipeline.segments(audio, long_audio, sampling_rate)

    def respond(self, request: Request, clock: Clock) -> Generator[str, None, Answer]:
        """The answer's text, piece by piece; the generator returns the whole `Answer`.

        The engines run for one thread at a time: a request of another waits for the run that goes on.
        """
        self._check_owner()
        self._request = request
        pieces = self._respond(request, clock)
        while True:
            with self._engines_lock:
                try:
                    piece = next(pieces)
                except StopIteration as end:
                    return end.value
            yield piece

    def _respond(self, request: Request, clock: Clock) -> Generator[str, None, Answer]:
        """The pieces of `respond`, for whoever holds the engines."""
        for stage in ("features", "encoder", "merge"):  # in order, though a cached clip passes none of them
            clock.timings.setdefault(stage, 0.0)
        with clock.stage("prompt"):
            layout = self.pipeline.lay_out(
                request.turns, request.audios, request.level, request.max_new_tokens
            )
        prompt = self._reader.prepare(layout, request.audios, request.max_new_tokens, clock)
        text = AnswerText(self.pipeline.prompter.transcript(request.turns), StopStrings(request.stop))
        token_ids, step_ms = yield from self._decode(request, prompt, text, clock)
        return self._answer(request, prompt, token_ids, text, clock, step_ms)

    def read(self, turns: Sequence[Turn], audios: Sequence[Audio], level: Level) -> MergedAudio:
        """Bring a prompt up to the end of its last audio into the KV cache, ahead of the question about it.

        Returns the last segment of that audio, merged.
        """
        self._request = None  # an answer that goes on ends here
        with self._engines_lock:
            return self._read(turns, audios, level)

    def _read(self, turns: Sequence[Turn], audios: Sequence[Audio], level: Level) -> MergedAudio:
        layout = self.pipeline.lay_out(turns, audios, level, DEFAULT_MAX_NEW_TOKENS).without_question()
        prompt = self._reader.prepare(layout, audios, DEFAULT_MAX_NEW_TOKENS, Clock())
        self._reader.prefill(prompt, DEFAULT_MAX_NEW_TOKENS)
        assert prompt.last_segment is not None, "prefill reads the last token anew, which is audio"
        return prompt.last_segment

    def _decode(
        self, request: Request, prompt: PreparedPrompt, text: AnswerText, clock: Clock
    ) -> Generator[str, None, tuple[list[int], list[float]]]:
        """Prefill and decode: yields text through `text`, returns (token ids, milliseconds of each step)."""
        sampler = Sampler(request.sampling, np.array(prompt.layout.token_ids))
        text_stream = TextStream(self.pipeline.prompter)
        with clock.stage("prefill"):
            steps = decode_tokens(
                self._reader.prefill(prompt, request.max_new_tokens)[None],
                choose=lambda logits: [sampler.next_token(logits[0])],
                step=lambda tokens: self._step(request, tokens[0]),
                end_token_ids=self.manifest.prompt.eos_token_ids,
                max_new_tokens=request.max_new_tokens,
            )
            token_ids = next(steps)
        clock.mark("ttft")
        yield text.push(text_stream.push(token_ids[0]))
        step_ms = []
        with suppress(StopIteration):
            while not text.stopped:
                begin = time.perf_counter()
                (token,) = next(steps)
                step_ms.append((time.perf_counter() - begin) * 1e3)
                token_ids.append(token)
                yield text.push(text_stream.push(token))
        whole = self.pipeline.prompter.decode(token_ids)
        clock.timings["decode"] = sum(step_ms)
        clock.mark("total")
        yield text.push(text_stream.finish(whole)) + text.finish()
        return token_ids, step_ms

    def _step(self, request: Request, token: int) -> np.ndarray:
        if self._request is not request:
            raise RuntimeError(
                "another request began on this session before this answer ended; open a session for each"
            )
        return self._reader.step(token)[None]

    def _answer(
        self,
        request: Request,
        prompt: PreparedPrompt,
        token_ids: list[int],
        text: AnswerText,
        clock: Clock,
        step_ms: list[float],
    ) -> Answer:
        layout = prompt.layout
        level = layout.level
        context = self._reader.context
        assert context is not None, "prefill made it"
        ended = text.stopped or token_ids[-1] in self.manifest.prompt.eos_token_ids
        return Answer(
            text=text.text,
            token_ids=token_ids,
            prompt_token_ids=layout.token_ids,
            tokens_in=layout.tokens_in,
            tokens_out=layout.tokens_out,
            level=level.name,
            keep_ratio=float(level.ratio),
            window=level.merge_window,
            positions=level.positions,
            attention=level.attention,
            applied=not layout.reason,
            reason=layout.reason,
            finish_reason="stop" if ended else "length",
            reused_tokens=prompt.reused,
            kv_bytes=context.token_bytes * (layout.length + request.max_new_tokens),
            kv_allocated_bytes=context.nbytes,
            timings=clock.timings,
            step_ms=step_ms,
            language=text.language,
        )
