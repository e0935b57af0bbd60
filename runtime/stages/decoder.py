"""Stages 5 and 6, prefill and decode: the LLM reads the prefix at once, then one token a step, its KV cache in place."""

from collections.abc import Sequence

import numpy as np

from ltbm.runtime.bundle import DecoderSpec
from ltbm.runtime.engine import Engine
from ltbm.runtime.kv_cache import KVCache
from ltbm.runtime.stages.splice import Prefix


class Decoder:
    """The LLM with one or several sequences in its cache: `prefill` once, then `step` per token; B rows.

    `positions` [B] are the rotary positions of the next tokens, apart from their places in the cache, `cache.lengths`.
    The logits it returns are valid until the next step.
    """

    def __init__(self, engine: Engine, spec: DecoderSpec, capacity: int, rows: int = 1):
        self.cache = KVCache(engine, spec, capacity, rows)
        self.positions = np.zeros(rows, np.int64)
        self._binding = engine.bind(self.cache.buffers)
        self._key_bias = np.zeros((rows, capacity), np.float32)

    def prefill(self, prefixes: Sequence[Prefix]) -> np.ndarray:
        """Logits [B, V] float32 after the last token of each row's prefix; shorter prefixes are padded at their end."""
        longest = max(len(prefix.token_ids) for prefix in prefixes)
        embeds = np.zeros((len(prefixes), longest, prefixes[0].inputs_embeds.shape[1]), prefixes[0].inputs_embeds.dtype)
        positions = np.zeros((len(prefixes), longest), np.int64)
        for row, prefix in enumerate(prefixes):
            tokens = len(prefix.token_ids)
            embeds[row, :tokens], positions[row, :tokens] = prefix.inputs_embeds, prefix.position_ids
            self._key_bias[row, :tokens] = prefix.key_bias
            self.positions[row] = prefix.next_position
        return self._run(embeds, positions, np.array([len(prefix.token_ids) for prefix in prefixes], np.int32))

    def step(self, token_embeds: np.ndarray) -> np.ndarray:
        """Logits [B, V] float32 after one more token of each row, given their embeddings [B, H]."""
        positions = self.positions[:, None].copy()
        self.positions += 1
        return self._run(token_embeds[:, None], positions, np.ones(len(token_embeds), np.int32))

    def _run(self, inputs_embeds: np.ndarray, position_ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """`counts` [B]: the tokens of each row that are no padding."""
        outputs = self._binding.run({
            "inputs_embeds": inputs_embeds,
            "position_ids": position_ids,
            "key_bias": self._key_bias,
            "past_len": self.cache.lengths,
            "last_index": counts - 1,
        })
        self.cache.lengths = self.cache.lengths + counts
        return outputs["logits"]
