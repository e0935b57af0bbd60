"""The KV cache: one array per layer and part on the decoder's device, updated in place."""

import numpy as np

from ..bundle import DecoderSpec
from ..engine import Array, Engine

BUCKET = 64  # tokens: capacities are multiples, so that requests of similar length share arrays and bindings


def bucket(tokens: int) -> int:
    """The capacity that holds `tokens`: rounded up to the bucket."""
    return -(-tokens // BUCKET) * BUCKET


def fixed_capacity(engine: Engine) -> int | None:
    """The capacity that a decoder was built for; None where it takes any."""
    return None if "past_len" not in engine.inputs else engine.inputs["past.0.key"].shape[2]


class KVCache:
    """Every layer's keys and values [rows, KV, capacity, head_dim]; `lengths` [rows] counts tokens written.

    A decoder that has no `past_len` input (flavour concat20) does not update in place: it reads a cache of
    just the tokens written and writes a longer one, so there are two arrays for each, in turn.
    An engine built for a fixed capacity gets all of it, whatever is asked for.
    """

    def __init__(self, engine: Engine, spec: DecoderSpec, capacity: int, rows: int = 1):
        self.fixed = fixed_capacity(engine)
        self._check(capacity)
        self.capacity = self.fixed or capacity
        self.rows = rows
        self.lengths = np.zeros(rows, np.int32)
        self.grows = "past_len" not in engine.inputs
        self._engine = engine
        self._spec = spec
        self._dtype = engine.inputs["past.0.key"].dtype
        self.token_bytes = rows * spec.kv_bytes(1, self._dtype.itemsize)
        self._present = self._allocate(self.capacity)
        self._past = self._allocate(self.capacity) if self.grows else self._present

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return self.token_bytes * self.capacity * (2 if self.grows else 1)

    def arrays(self, new: int) -> dict[str, Array]:
        """What the decoder binds to add `new` tokens to every row."""
        past = self._past
        present = self._present
        if self.grows:
            cached = int(self.lengths[0])
            past = self._cut(past, cached)
            present = self._cut(present, cached + new)
        arrays = {f"past.{name}": array for name, array in past.items()}
        return arrays | {f"present.{name}": array for name, array in present.items()}

    def advance(self, counts: np.ndarray) -> None:
        """The decoder has written `counts` [rows] tokens."""
        self.lengths += counts
        self._past, self._present = self._present, self._past

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` tokens a row, keeping those written."""
        if self.grows:
            raise ValueError("a growing cache (decoder flavour concat20) is allocated once; make a new one")
        self._check(capacity)
        wider = self._allocate(capacity)
        used = int(self.lengths.max())
        by_head = (self.rows * self._spec.kv_heads, -1, self._spec.head_dim)
        for name, array in self._past.items():
            wider[name].reshape(*by_head)[:, :used] = array.reshape(*by_head)[:, :used]
        self._past = self._present = wider
        self.capacity = capacity

    def _check(self, capacity: int) -> None:
        if self.fixed and capacity > self.fixed:
            raise ValueError(
                f"prompt and answer take {capacity} tokens of KV cache, the engine holds {self.fixed}: "
                "take a lower level or a shorter answer, or build with a larger --max-context"
            )

    def _cut(self, arrays: dict[str, Array], tokens: int) -> dict[str, Array]:
        """The first bytes of each array as a cache of exactly `tokens` tokens."""
        values = self.rows * self._spec.kv_heads * tokens * self._spec.head_dim
        shape = (self.rows, self._spec.kv_heads, tokens, self._spec.head_dim)
        return {name: array.reshape(-1)[:values].reshape(*shape) for name, array in arrays.items()}

    def _allocate(self, capacity: int) -> dict[str, Array]:
        shape = (self.rows, self._spec.kv_heads, capacity, self._spec.head_dim)
        arrays: dict[str, Array] = {}
        try:
            for layer in range(self._spec.layers):
                arrays[f"{layer}.key"] = self._engine.zeros(shape, self._dtype)
                arrays[f"{layer}.value"] = self._engine.zeros(shape, self._dtype)
        except (MemoryError, RuntimeError) as error:
            mebibytes = self.token_bytes * capacity / 2**20
            raise MemoryError(
                f"no room for a KV cache of {self.rows} x {capacity} tokens, {mebibytes:,.0f} MiB "
                f"({error}); lower max_new_tokens or keep fewer audio tokens (--level keep25)"
            ) from None
        return arrays
