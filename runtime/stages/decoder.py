"""Stages 5 and 6, prefill and decode: the LLM reads the prefix at once, then one token a step."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..bundle import DecoderSpec
from ..engine import Array, Binding, Engine
from .kv_cache import KVCache, bucket
from .splice import Prefix


class Decoder:
    """The LLM with one or several sequences in its cache: `prefill`, then `step` per token; B rows.

    `positions` [B] are the rotary positions of the next tokens, apart from their places in the cache,
    `cache.lengths`. The logits it returns are valid until the next step. A step allocates nothing.
    """

    def __init__(self, engine: Engine, spec: DecoderSpec, capacity: int, rows: int = 1):
        self._engine = engine
        self._spec = spec
        self.rows = rows
        self.cache = KVCache(engine, spec, capacity, rows)
        self.positions = np.zeros(rows, np.int64)
        self._logits = engine.zeros((rows, spec.vocab_size), np.float32)
        self._counts = {"last_index": engine.zeros((rows,), np.int32)}
        if not self.cache.grows:
            self._counts["past_len"] = engine.zeros((rows,), np.int32)
        self._token = {
            "inputs_embeds": engine.zeros((rows, 1, spec.hidden_size), engine.inputs["inputs_embeds"].dtype),
            "position_ids": engine.zeros((rows, 1), np.int64),
        }
        self._reset_bindings()

    def reserve(self, capacity: int) -> None:
        """Room for `capacity` tokens a row; what is cached stays, weights of keys too."""
        if capacity <= self.cache.capacity:
            return
        former = np.asarray(self._key_bias)
        self.cache.grow(capacity)
        self._reset_bindings()
        self._key_bias[:, : former.shape[1]] = former

    def rewind(self, length: int) -> None:
        """Forget every row's tokens after the first `length`."""
        if self.cache.grows and length:
            raise ValueError("a growing cache (decoder flavour concat20) can only be rewound to its start")
        self.cache.lengths[:] = length

    def prefill(self, prefixes: Sequence[Prefix]) -> np.ndarray:
        """Logits [B, V] float32 after the last token of each row's prefix, which continues what is cached.

        Shorter prefixes are padded at their end.
        """
        counts = np.array([len(prefix) for prefix in prefixes], np.int32)
        embeds, positions = self._batch(prefixes, int(counts.max()))
        for row, prefix in enumerate(prefixes):
            self._write_key_bias(row, prefix)
            self.positions[row] = prefix.next_position
        return self._run({"inputs_embeds": embeds, "position_ids": positions}, counts)

    def _write_key_bias(self, row: int, prefix: Prefix) -> None:
        """Behind what is cached; zero from there on."""
        start = int(self.cache.lengths[row])
        end = start + len(prefix)
        if end > self.cache.capacity:
            raise ValueError(f"{end} tokens do not fit a KV cache of {self.cache.capacity}; reserve more")
        bias = self._key_bias[row]
        bias[start:end] = prefix.key_bias
        bias[end:] = np.zeros(self.cache.capacity - end, np.float32)

    def step(self, token_embeds: np.ndarray) -> np.ndarray:
        """Logits [B, V] float32 after one more token of each row, given their embeddings [B, H]."""
        self._token["inputs_embeds"].reshape(self.rows, -1)[:] = token_embeds
        self._token["position_ids"].reshape(self.rows)[:] = self.positions
        self.positions += 1
        return self._run(self._token, self._ones)

    def _batch(self, prefixes: Sequence[Prefix], longest: int) -> tuple[Array, Array]:
        """inputs_embeds [B, S, H] and position_ids [B, S]; one prefix alone is bound where it lies."""
        if len(prefixes) == 1:
            only = prefixes[0]
            return only.inputs_embeds.reshape(1, longest, -1), only.position_ids.reshape(1, longest)
        first = prefixes[0].inputs_embeds
        embeds = self._engine.zeros((self.rows, longest, first.shape[1]), first.dtype)
        positions = self._engine.zeros((self.rows, longest), np.int64)
        for row, prefix in enumerate(prefixes):
            embeds[row][: len(prefix)] = prefix.inputs_embeds
            positions[row][: len(prefix)] = prefix.position_ids
        return embeds, positions

    def _run(self, tokens: dict[str, Array], counts: np.ndarray) -> np.ndarray:
        """`counts` [B]: the tokens of each row that are no padding."""
        if "past_len" in self._counts:
            self._counts["past_len"][:] = self.cache.lengths
        np.subtract(counts, 1, out=self._last_index)
        self._counts["last_index"][:] = self._last_index
        self._binding(tokens).run()
        self.cache.advance(counts)
        return np.asarray(self._logits)

    def _binding(self, tokens: dict[str, Array]) -> Binding:
        """A binding for these tokens; that of the single step is kept while the cache stays where it is."""
        step = tokens is self._token and not self.cache.grows
        new = tokens["position_ids"].shape[1]
        columns = self._key_columns(new)
        if step and self._step is not None and columns == self._step_columns:
            return self._step
        bias = self._key_bias
        if columns < self.cache.capacity:
            bias = bias.reshape(-1)[:columns].reshape(1, columns)
        outputs = {"key_bias": bias, "logits": self._logits}
        arrays = tokens | self._counts | self.cache.arrays(new) | outputs
        binding = self._engine.bind(arrays, once=new > 1)
        if step:
            self._step = binding
            self._step_columns = columns
        return binding

    def _key_columns(self, new: int) -> int:
        """Keys that attention looks at: the tokens that are there, where the engine takes that.

        In buckets where the capacity is fixed, so that a step's binding serves many steps.
        """
        cache = self.cache
        if cache.grows:
            return int(cache.lengths[0]) + new
        if cache.fixed and cache.rows == 1:
            return min(bucket(int(cache.lengths[0]) + new), cache.capacity)
        return cache.capacity

    def _reset_bindings(self) -> None:
        self._key_bias = self._engine.zeros((self.rows, self.cache.capacity), np.float32)
        self._ones = np.ones(self.rows, np.int32)
        self._last_index = np.zeros(self.rows, np.int32)
        self._step: Binding | None = None
        self._step_columns = 0


def decode_tokens(
    logits: np.ndarray,
    choose: Callable[[np.ndarray], list[int]],
    step: Callable[[list[int]], np.ndarray],
    end_token_ids: Sequence[int],
    max_new_tokens: int,
) -> Iterator[list[int]]:
    """The answer's tokens [B], one step after another, until every row has ended or has `max_new_tokens`.

    logits: [B, V] after the prefixes
    choose: logits [B, V] -> tokens [B]
    step: tokens [B] -> the logits [B, V] after them
    A row that has ended goes along until all have; what it gives then means nothing.
    """
    ended = [False] * len(logits)
    tokens = choose(logits)
    yield tokens
    for _ in range(max_new_tokens - 1):
        for row, token in enumerate(tokens):
            ended[row] = ended[row] or token in end_token_ids
        if all(ended):
            return
        tokens = choose(step(tokens))
        yield tokens
