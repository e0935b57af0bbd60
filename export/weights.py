"""Weights out: one file of external data per stage, written piece by piece,
shared by graphs that name its tensors."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import ml_dtypes  # noqa: F401  numpy learns bfloat16 from it
import numpy as np
import onnx
from onnx import TensorProto, helper

from ..runtime.bundle import FileRecord

ALIGNMENT = 4096  # bytes: ONNX Runtime maps page-aligned external tensors instead of copying them
HALF_BYTE_TYPES = (TensorProto.UINT4, TensorProto.INT4)
FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
CHUNK_VALUES = 1 << 20  # values converted at a time: few megabytes in float32, whatever the tensor's size


class HashedFile:
    """A file written from its start to its end, with its sha256 so far;
    `progress` gets how many bytes were written and of what."""

    def __init__(self, path: Path, progress: Callable[[int, str], None]):
        self.path = path
        self.size = 0
        self._progress = progress
        self._stream = open(path, "wb")
        self._digest = hashlib.sha256()

    def __enter__(self) -> "HashedFile":
        return self

    def __exit__(self, *_) -> None:
        self._stream.close()

    def write(self, data, what: str) -> None:
        """Append an array's bytes, or bytes."""
        data = data if isinstance(data, bytes) else np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
        self._stream.write(data)
        self._digest.update(data)
        self.size += len(data)
        self._progress(len(data), what)

    @property
    def record(self) -> FileRecord:
        return FileRecord(self._digest.hexdigest(), self.size)


class WeightFile:
    """An append-only file of tensors; a name added twice is the same bytes, so flavours share them.

    file: None to write nothing and only count, which reads no tensor either
    """

    def __init__(self, name: str, file: HashedFile | None):
        self.name, self.size, self.largest = name, 0, 0  # bytes: of the file, of the largest float tensor
        self._file = file
        self._ranges: dict[str, tuple[int, int]] = {}  # name -> offset, length

    def tensor(
        self, name: str, data_type: int, dims: Iterable[int], pieces: Callable[[], Iterable[np.ndarray]]
    ) -> TensorProto:
        """The external initializer `name`; `pieces` is called only for a name not yet written.

        One name may be read as different types and shapes of the same bytes.
        """
        if name not in self._ranges:
            self._ranges[name] = self._append(name, _bytes(data_type, dims), pieces)
            if data_type in FLOAT_TYPES:
                self.largest = max(self.largest, self._ranges[name][1])
        proto = TensorProto(name=name, data_type=data_type, dims=dims, data_location=TensorProto.EXTERNAL)
        offset, length = self._ranges[name]
        for key, value in (("location", self.name), ("offset", offset), ("length", length)):
            proto.external_data.append(onnx.StringStringEntryProto(key=key, value=str(value)))
        return proto

    def _append(self, name: str, length: int, pieces: Callable[[], Iterable[np.ndarray]]) -> tuple[int, int]:
        padding = -self.size % ALIGNMENT
        offset = self.size + padding
        self.size = offset + length
        if self._file:
            self._file.write(b"\0" * padding, name)
            for piece in pieces():
                self._file.write(piece, name)
            assert self._file.size == self.size, (
                f"{name} took {self._file.size - offset} bytes, its type and shape {length}"
            )
        return offset, length


def _bytes(data_type: int, dims: Iterable[int]) -> int:
    values = math.prod(dims)
    return (
        -(-values // 2)
        if data_type in HALF_BYTE_TYPES
        else values * helper.tensor_dtype_to_np_dtype(data_type).itemsize
    )


class Stacked:
    """Matrices of one width as one, the rows of each after those of the one before;
    slices of rows are read when asked for."""

    def __init__(self, parts: list):
        self.parts = parts
        self.shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        pieces = []
        for part in self.parts:
            count = part.shape[0]
            if start < count and stop > 0:
                pieces.append(part[max(start, 0) : min(stop, count)])
            start = start - count
            stop = stop - count
        return np.concatenate(pieces)


class Rows:
    """The rows from `start` to `stop` of a matrix, read when asked for."""

    def __init__(self, matrix, start: int, stop: int):
        self._matrix = matrix
        self._start = start
        self.shape = (stop - start, *matrix.shape[1:])

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        return self._matrix[self._start + start : self._start + stop]


def row_chunks(matrix) -> Iterator[np.ndarray]:
    """The rows of anything with a shape and slices of rows, in float32, a few at a time."""
    rows = max(1, CHUNK_VALUES // math.prod(matrix.shape[1:]))
    for start in range(0, matrix.shape[0], rows):
        yield matrix[start : start + rows].astype(np.float32)


def transposed(matrix, dtype: np.dtype, name: str) -> np.ndarray:
    """[N, K] -> [K, N] in `dtype`, converted a few rows at a time."""
    out = np.empty(matrix.shape[::-1], dtype)
    start = 0
    for rows in row_chunks(matrix):
        out[:, start : start + len(rows)] = cast_finite(rows, dtype, name).T
        start += len(rows)
    return out


def cast_finite(array: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """`array` in `dtype`; ValueError for what is not finite,
    or overflows there and would silently become infinite."""
    with np.errstate(over="ignore"):
        out = array.astype(dtype)
    if not np.isfinite(out).all():
        worst = float(np.abs(array).max())
        if not np.isfinite(worst):
            raise ValueError(
                f"tensor {name} holds NaN or infinity in the checkpoint itself; download or convert it again"
            )
        raise ValueError(
            f"tensor {name} reaches {worst:.3g}, which is not finite in {np.dtype(dtype).name}; "
            "export it in float32 (--precision, or --encoder-precision)"
        )
    return out
