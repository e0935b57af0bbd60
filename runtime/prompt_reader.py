"""Reads prompts into the KV cache: what an earlier prompt brought there already is not read again."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from .answer import Clock
from .audio_cache import CACHE_BYTES, AudioCache
from .audio_stages import AudioStages
from .context import Context
from .pipeline import Pipeline
from .reading import Reading, reading_of
from .stages.layout import Layout
from .stages.merge import MergedAudio
from .stages.segments import Audio
from .stages.splice import Prefix


@dataclass(frozen=True)
class PreparedPrompt:
    """A prompt that waits for prefill.

    keys: one for each of its tokens
    prefix: its tokens that the KV cache lacks, as the LLM reads them
    last_segment: of its audio, where the KV cache lacks it
    """

    layout: Layout
    keys: list[Hashable]
    prefix: Prefix
    last_segment: MergedAudio | None

    @property
    def reused(self) -> int:
        """First tokens that are in the KV cache."""
        return len(self.keys) - len(self.prefix)


class PromptReader:
    """The audio that a session has encoded and merged, and the KV cache of its last prompt.

    keeps: whether anything is kept for the next prompt
    """

    def __init__(self, pipeline: Pipeline, keeps: bool):
        self.context: Context | None = None
        self._pipeline = pipeline
        self._keeps = keeps
        self._audio = AudioStages(pipeline, AudioCache(CACHE_BYTES if keeps else 0))

    def prepare(
        self, layout: Layout, audios: Sequence[Audio], max_new_tokens: int, clock: Clock
    ) -> PreparedPrompt:
        """Encode and merge what prefill has to read."""
        with clock.stage("prompt"):
            reading = reading_of(layout, audios, by_content=self._keeps)
            keys = reading.token_keys()
        reused = self._reusable(reading, keys, max_new_tokens)
        merged = self._audio.merge(reading.unread(reused), layout.level, clock)
        with clock.stage("splice"):
            prefix = self._pipeline.prefix(layout, merged, reused)
        return PreparedPrompt(layout, keys, prefix, merged[-1] if merged else None)

    def prefill(self, prompt: PreparedPrompt, max_new_tokens: int) -> np.ndarray:
        """Logits [V] after the prompt; the KV cache has room for `max_new_tokens` more."""
        if self.context is None:
            pipeline = self._pipeline
            decoder = pipeline.engines.get("decoder")
            self.context = Context(decoder, pipeline.manifest.decoder, pipeline.embeddings)
        return self.context.prefill(prompt.prefix, prompt.keys, prompt.reused, max_new_tokens)

    def step(self, token_id: int) -> np.ndarray:
        """Logits [V] after one more token."""
        assert self.context is not None, "a step follows a prefill"
        return self.context.step(token_id)

    def forget_context(self) -> None:
        """Let go of the KV cache."""
        self.context = None

    def _reusable(self, reading: Reading, keys: list[Hashable], max_new_tokens: int) -> int:
        """First tokens that the KV cache holds and will hold when prefill comes; whole segments of audio."""
        if not self._keeps or self.context is None:
            return 0
        reused = reading.segment_boundary(self.context.common(keys, max_new_tokens))
        unread = reading.unread(reused)
        if self._pipeline.engines.in_turn and not self._audio.hold(unread, reading.layout.level):
            self.forget_context()  # the engines for audio take the LLM's memory, and its cache goes with it
            return 0
        return reused
