"""The LLM's token embeddings: rows read on the host from a table on disk."""

import os
from pathlib import Path

import numpy as np


class Embeddings:
    """A table [V, H] on disk whose rows come out as `dtype`; a table of uint16 holds bfloat16 bits.

    Only the rows asked for are read: a mapped table would pay a page fault for each new token.
    """

    def __init__(self, path: Path, dtype):
        table = np.load(path, mmap_mode="r", allow_pickle=False)
        self.shape: tuple[int, ...] = table.shape
        self.dtype = np.dtype(dtype)
        self._first_row = table.offset  # bytes from the start of the file
        self._row = np.empty(table.shape[1], table.dtype)
        self._file = open(path, "rb", buffering=0)

    def __getitem__(self, token_ids) -> np.ndarray:
        """Rows [n, H] of the ids [n]."""
        rows = np.empty((len(token_ids), self.shape[1]), self.dtype)
        return self.gather(token_ids, rows)

    def gather(self, token_ids, out: np.ndarray) -> np.ndarray:
        """Write the rows of the ids [n] into `out` [n, H], which is returned.

        ValueError for an id that is not in the table.
        """
        for row, token in zip(out, token_ids):
            self._read(int(token))
            row[:] = _widened(self._row) if self._row.dtype == np.uint16 else self._row
        return out

    def _read(self, token: int) -> None:
        if not 0 <= token < self.shape[0]:
            raise ValueError(
                f"token {token} is not among the {self.shape[0]} of the embeddings: the bundle's tokenizer "
                "does not belong to its table; run `ltbm export` again"
            )
        offset = self._first_row + token * self._row.nbytes
        if os.preadv(self._file.fileno(), [self._row.data], offset) != self._row.nbytes:
            raise OSError(f"{self._file.name} ends within token {token}: it was cut since it was opened")

    def close(self) -> None:
        self._file.close()


def _widened(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits as float32: the upper half of its bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
