"""Stages 5 and 6, prefill and decode: the LLM reads the prefix at once, then one token a step, its KV cache in place."""

import numpy as np

from ltbm.runtime.bundle import DecoderSpec
from ltbm.runtime.engine import Engine
from ltbm.runtime.kv_cache import KVCache
from ltbm.runtime.stages.splice import Prefix


class Decoder:
    """The LLM with one sequence in its cache: `prefill` once, then `step` per token.

    `position` is the rotary position of the next token, apart from its place in the cache, `cache.length`.
    """

    def __init__(self, engine: Engine, spec: DecoderSpec, capacity: int):
        self.cache = KVCache(engine, spec, capacity)
        self.position = 0
        self._binding = engine.bind(self.cache.buffers)
        self._key_bias = np.zeros((1, capacity), np.float32)

    def prefill(self, prefix: Prefix) -> np.ndarray:
        """Logits [V] float32 after the last token of the prefix, valid until the next step."""
        tokens = len(prefix.token_ids)
        self._key_bias[0, self.cache.length:self.cache.length + tokens] = prefix.key_bias
        self.position = prefix.next_position
        return self._run(prefix.inputs_embeds, prefix.position_ids)

    def step(self, token_embed: np.ndarray) -> np.ndarray:
        """Logits [V] float32 after one more token, given its embedding [H]; valid until the next step."""
        position = np.array([self.position], np.int64)
        self.position += 1
        return self._run(token_embed[None], position)

    def _run(self, inputs_embeds: np.ndarray, position_ids: np.ndarray) -> np.ndarray:
        tokens = len(inputs_embeds)
        outputs = self._binding.run({
            "inputs_embeds": inputs_embeds[None],
            "position_ids": position_ids[None],
            "key_bias": self._key_bias,
            "past_len": np.array([self.cache.length], np.int32),
            "last_index": np.array([tokens - 1], np.int32),
        })
        self.cache.length += tokens
        return outputs["logits"][0]
