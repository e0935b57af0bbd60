"""The LLM's context: its KV cache with the knowledge of what is in it, so that a common prompt prefix is read once."""

from collections.abc import Hashable, Sequence

import numpy as np

from .bundle import DecoderSpec
from .engine import Engine
from .stages.decoder import Decoder
from .stages.kv_cache import bucket
from .stages.splice import Prefix

OVERSIZE = (
    2  # a cache more than so many times too large is replaced when less than half of the prompt is in it
)


class Context:
    """One sequence in the decoder's cache and what each of its tokens is: an id, or a place in an audio."""

    def __init__(self, engine: Engine, spec: DecoderSpec):
        self._engine, self._spec = engine, spec
        self._decoder: Decoder | None = None
        self._tokens: list[Hashable] = []

    @property
    def nbytes(self) -> int:
        return self._decoder.cache.nbytes if self._decoder else 0

    def common(self, tokens: Sequence[Hashable], max_new_tokens: int) -> int:
        """How many first tokens of `tokens` prefill can leave out; at least the last is not, since it gives the logits."""
        if self._decoder is None or self._decoder.cache.grows:
            return 0
        limit = min(len(self._tokens), len(tokens) - 1)
        common = next((place for place in range(limit) if self._tokens[place] != tokens[place]), limit)
        oversized = self._decoder.cache.capacity > OVERSIZE * bucket(len(tokens) + max_new_tokens)
        return 0 if oversized and 2 * common < len(tokens) else common

    def prefill(
        self, prefix: Prefix, tokens: Sequence[Hashable], reused: int, max_new_tokens: int
    ) -> np.ndarray:
        """Logits [V] after `tokens`, of which the first `reused` are cached and `prefix` holds the others."""
        decoder = self._room(len(tokens) + max_new_tokens, reused)
        decoder.rewind(reused)
        self._tokens = self._tokens[:reused]  # an interrupted prefill leaves only these
        logits = decoder.prefill([prefix])
        self._tokens = list(tokens)
        return logits[0]

    def step(self, token_id: int, token_embeds: np.ndarray) -> np.ndarray:
        """Logits [V] after one more token, given its embedding [1, H]."""
        logits = self._decoder.step(token_embeds)
        self._tokens.append(token_id)
        return logits[0]

    def _room(self, tokens: int, reused: int) -> Decoder:
        capacity = bucket(tokens)
        if self._decoder is None or (
            not reused and not capacity <= self._decoder.cache.capacity <= OVERSIZE * capacity
        ):
            self._decoder = None  # goes before the next is allocated
            self._decoder = Decoder(self._engine, self._spec, capacity)
        self._decoder.reserve(capacity)
        return self._decoder
