"""The LLM's token embeddings: rows gathered on the host from a memory-mapped table."""

from pathlib import Path

import numpy as np


class Embeddings:
    """A table [V, H] on disk whose rows come out as `dtype`; a table of uint16 holds bfloat16 bits.

    Only the rows asked for are ever in memory.
    """

    def __init__(self, path: Path, dtype):
        self._table = np.load(path, mmap_mode="r", allow_pickle=False)
        self.shape, self.dtype = self._table.shape, np.dtype(dtype)

    def __getitem__(self, token_ids) -> np.ndarray:
        """Rows [n, H] of the ids [n]."""
        rows = np.empty((len(token_ids), self.shape[1]), self.dtype)
        return self.gather(token_ids, rows)

    def gather(self, token_ids, out: np.ndarray) -> np.ndarray:
        """Write the rows of the ids [n] into `out` [n, H], which is returned."""
        for row, token in zip(out, token_ids):
            row[:] = _widened(self._table[token]) if self._table.dtype == np.uint16 else self._table[token]
        return out


def _widened(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits as float32: the upper half of its bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
