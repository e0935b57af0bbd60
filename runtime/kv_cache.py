"""The KV cache: one buffer per layer and part, allocated for the request and updated in place."""

import numpy as np

from ltbm.runtime.bundle import DecoderSpec
from ltbm.runtime.engine import Engine


class KVCache:
    """Buffers [rows, KV, capacity, head_dim] for every layer's keys and values, on the decoder's device.

    `lengths` [rows] counts the tokens written; `buffers` names each buffer as the decoder's input and as its output,
    so a binding updates it in place.
    """

    def __init__(self, engine: Engine, spec: DecoderSpec, capacity: int, rows: int = 1):
        self.capacity, self.lengths = capacity, np.zeros(rows, np.int32)
        dtype = engine.inputs["past.0.key"].dtype
        self.nbytes = rows * spec.kv_bytes(capacity, dtype.itemsize)
        shape = (rows, spec.kv_heads, capacity, spec.head_dim)
        self.buffers = {}
        try:
            for layer in range(spec.layers):
                for part in ("key", "value"):
                    buffer = engine.zeros(shape, dtype)
                    self.buffers[f"past.{layer}.{part}"] = self.buffers[f"present.{layer}.{part}"] = buffer
        except (MemoryError, RuntimeError) as error:
            raise MemoryError(f"no room for a KV cache of {rows} x {capacity} tokens, {self.nbytes / 2**20:,.0f} MiB ({error}); "
                              "lower max_new_tokens or keep fewer audio tokens (--level keep25)") from None
