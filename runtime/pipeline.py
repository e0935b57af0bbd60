"""The way of a clip: features -> encoder -> merge -> splice -> prefill -> decode."""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from .backends.engines import Engines, open_engines
from .bundle import Bundle
from .levels import Budget, Level, settle
from .prompt import Prompter, Turn
from .sound.limits import TooLongError
from .sound.source import as_list, name_of
from .stages.audio import load_audio
from .stages.decoder import Decoder, decode_tokens
from .stages.embeddings import Embeddings
from .stages.encoder import EncodedRows, encode
from .stages.layout import Layout, TokenCounts, lay_out
from .stages.merge import MergedAudio, merge
from .stages.segments import Audio, cut_segments, read_long_audio, split_long
from .stages.splice import Prefix, splice


class PromptTooLong(ValueError):
    """The model has no positions for the prompt and its answer."""


class Pipeline:
    """A bundle's stages over its engines, each a function of what the one before it gave.

    Nothing is kept from one call to the next: that is what `Session` adds.
    """

    def __init__(self, bundle: Bundle, engines: Engines):
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.engines = engines
        self.prompter = Prompter(bundle)
        self.embeddings = Embeddings(bundle.file("embeddings.npy"), self.manifest.precision.inputs_embeds)

    @classmethod
    def open(cls, path, **options) -> "Pipeline":
        """The bundle at `path`, its engines as `open_engines` takes the options."""
        bundle = Bundle.open(path)
        return cls(bundle, open_engines(bundle, **options))

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self.engines.close()
        self.embeddings.close()

    def segments(self, source, long_audio: str = "error", sampling_rate: int | None = None) -> list[Audio]:
        """Every audio of `source`, one that `load_audio` takes or a sequence of them, in segments of 30 s.

        long_audio: an audio longer than the model takes is refused (`error`) or cut into several (`segments`)
        """
        long_audio = read_long_audio(long_audio)
        sources = as_list(source)
        if not sources:
            raise ValueError("no audio was given")
        spec = self.manifest.audio
        audios: list[Audio] = []
        for one in sources:
            segments = cut_segments(self._load(one, long_audio, sampling_rate), spec)
            audios += split_long(segments, spec.max_segments, name_of(one))
        return audios

    def _load(self, source, long_audio: str, sampling_rate: float | None) -> np.ndarray:
        spec = self.manifest.audio
        longest = None if long_audio == "segments" else spec.max_segments * spec.segment_seconds
        try:
            return load_audio(source, spec.sampling_rate, sampling_rate, max_seconds=longest)
        except TooLongError as error:
            raise TooLongError(
                f"{error}; give --long-audio segments (long_audio='segments') to take it as several audios, "
                "or cut it"
            ) from None

    def features(self, audio: Audio) -> list[np.ndarray]:
        """The log-mels [n_mels, frames] of each segment, which keeps them for the encoder."""
        return [segment.input_features for segment in audio]

    def encode(self, audio: Audio) -> list[EncodedRows]:
        """Audio embeddings of every segment, those of equal length together."""
        return encode(self.engines.get("encoder"), audio)

    def merge(self, encoded: list[EncodedRows], level: Level, first_position: int = 0) -> MergedAudio:
        """One audio merged and projected; its first token stands at `first_position`."""
        return merge(self.engines.get("merge"), encoded, level, first_position)

    def lay_out(
        self, turns: Sequence[Turn], audios: Sequence[Audio], level: Level | Budget, max_new_tokens: int
    ) -> Layout:
        """Where everything of a prompt stands; PromptTooLong if the model lacks positions."""
        rows = [segment.tokens for segment in chain.from_iterable(audios)]
        settled, reason = settle(level, rows)
        counts = [_token_counts(audio, settled) for audio in audios]
        prompt_ids = self.prompter.conversation_ids(turns)
        layout = lay_out(prompt_ids, counts, self.manifest.prompt.audio_token_id, settled, reason)
        self._check_positions(layout.next_position, max_new_tokens)
        return layout

    def prefix(self, layout: Layout, audios: Sequence[MergedAudio], skip: int = 0) -> Prefix:
        """The prompt from token `skip` on as the LLM reads it; `audios` hold the segments not skipped."""
        zeros = self.engines.get("decoder").zeros
        return splice(layout, audios, self.embeddings, zeros, skip)

    def decoder(self, capacity: int, rows: int = 1) -> Decoder:
        """The LLM with an empty KV cache of `capacity` tokens for each of `rows` sequences."""
        return Decoder(self.engines.get("decoder"), self.manifest.decoder, capacity, rows)

    def greedy(self, prefixes: Sequence[Prefix], max_new_tokens: int) -> list[list[int]]:
        """Token ids of each prefix's most likely answer up to its end token, all of them in one batch."""
        longest = max(len(prefix) for prefix in prefixes)
        decoder = self.decoder(longest + max_new_tokens, len(prefixes))
        ends = self.manifest.prompt.eos_token_ids
        rows = self.decode(decoder, prefixes, max_new_tokens, ends)
        return [_until_end(row, ends) for row in rows]

    def decode(
        self,
        decoder: Decoder,
        prefixes: Sequence[Prefix],
        max_new_tokens: int,
        end_token_ids: Sequence[int],
    ) -> list[tuple[int, ...]]:
        """Prefill, then the likeliest tokens of each row until all have ended, in the decoder's cache."""
        steps = decode_tokens(
            decoder.prefill(prefixes),
            choose=lambda logits: logits.argmax(-1).tolist(),
            step=lambda tokens: decoder.step(self.embeddings[tokens]),
            end_token_ids=end_token_ids,
            max_new_tokens=max_new_tokens,
        )
        return list(zip(*steps))

    def _check_positions(self, prompt: int, max_new_tokens: int) -> None:
        limit = self.manifest.decoder.max_positions
        if prompt + max_new_tokens > limit:
            raise PromptTooLong(
                f"the prompt takes {prompt} positions and max_new_tokens {max_new_tokens} more, "
                f"the model has {limit}; shorten the audio or the answer, "
                "or use compact positions with a lower level"
            )


def _until_end(token_ids: Sequence[int], end_token_ids: Sequence[int]) -> list[int]:
    """The tokens before the first end token."""
    for index, token in enumerate(token_ids):
        if token in end_token_ids:
            return list(token_ids[:index])
    return list(token_ids)


def _token_counts(audio: Audio, level: Level) -> list[TokenCounts]:
    """Of each segment."""
    return [TokenCounts(segment.tokens, level.target(segment.tokens)) for segment in audio]
