"""The LLM's context: a KV cache that knows what is in it, so that a common prompt prefix is read once."""

from collections.abc import Hashable, Sequence

import numpy as np

from .bundle import DecoderSpec
from .engine import Engine
from .stages.decoder import Decoder
from .stages.embeddings import Embeddings
from .stages.kv_cache import bucket
from .stages.splice import Prefix

OVERSIZE = 2
"""A cache more than so many times too large is replaced when less than half of the prompt is in it."""


class Context:
    """One sequence in the decoder's cache, and a key for each token: an id or an index in an audio."""

    def __init__(self, engine: Engine, spec: DecoderSpec, embeddings: Embeddings):
        self._engine = engine
        self._spec = spec
        self._embeddings = embeddings
        self._row = np.empty((1, embeddings.shape[1]), embeddings.dtype)
        self._decoder: Decoder | None = None
        self._tokens: list[Hashable] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the cache as it is allocated."""
        return self._decoder.cache.nbytes if self._decoder else 0

    @property
    def token_bytes(self) -> int:
        """Bytes of one cached token."""
        return self._spec.kv_bytes(1, self._engine.inputs["past.0.key"].dtype.itemsize)

    def common(self, tokens: Sequence[Hashable], max_new_tokens: int) -> int:
        """How many first tokens prefill can leave out; never the last one, which gives the logits."""
        if self._decoder is None or self._decoder.cache.grows:
            return 0
        common = self._common_prefix(tokens)
        cache = self._decoder.cache
        oversized = not cache.fixed and cache.capacity > OVERSIZE * bucket(len(tokens) + max_new_tokens)
        return 0 if oversized and 2 * common < len(tokens) else common

    def _common_prefix(self, tokens: Sequence[Hashable]) -> int:
        limit = min(len(self._tokens), len(tokens) - 1)
        for index in range(limit):
            if self._tokens[index] != tokens[index]:
                return index
        return limit

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

    def step(self, token_id: int) -> np.ndarray:
        """Logits [V] after one more token."""
        assert self._decoder is not None, "a step follows a prefill"
        logits = self._decoder.step(self._embeddings.gather([token_id], self._row))
        self._tokens.append(token_id)
        return logits[0]

    def _room(self, tokens: int, reused: int) -> Decoder:
        """The decoder with room for `tokens`; a new one if nothing is reused and its cache does not suit."""
        capacity = bucket(tokens)
        if self._decoder is not None and not reused and not self._suits(self._decoder, capacity):
            self._decoder = None  # goes before the next is allocated
        if self._decoder is None:
            self._decoder = Decoder(self._engine, self._spec, capacity)
        self._decoder.reserve(capacity)
        return self._decoder

    def _suits(self, decoder: Decoder, capacity: int) -> bool:
        cache = decoder.cache
        return bool(cache.fixed) or capacity <= cache.capacity <= OVERSIZE * capacity
