"""Weights out: one file of external data per stage, written tensor by tensor, shared by graphs that name it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

ALIGNMENT = 4096  # bytes: ONNX Runtime maps page-aligned external tensors instead of copying them
REPORT_BYTES = 10**9


class WeightFile:
    """An append-only file of tensors; the same name added twice is the same bytes, so flavours share them.

    `progress` hears of every gigabyte written.
    """

    def __init__(self, path: Path, progress: Callable[[str], None]):
        self.path, self._progress = path, progress
        self._stream = open(path, "wb")
        self._protos: dict[str, TensorProto] = {}

    def tensor(self, name: str, make: Callable[[], np.ndarray]) -> TensorProto:
        """The external initializer `name`; `make` is called only for a name not yet written."""
        if name not in self._protos:
            self._protos[name] = self._append(name, np.ascontiguousarray(make()))
        return self._protos[name]

    def close(self) -> None:
        self._stream.close()

    def _append(self, name: str, array: np.ndarray) -> TensorProto:
        self._stream.write(b"\0" * (-self._stream.tell() % ALIGNMENT))
        offset = self._stream.tell()
        self._stream.write(array.data)
        if self._stream.tell() // REPORT_BYTES > offset // REPORT_BYTES:
            self._progress(f"  {self.path.name} {self._stream.tell() / 1e9:,.1f} GB so far, at {name}")
        proto = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
        proto.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.path.name), ("offset", offset), ("length", array.nbytes)):
            proto.external_data.append(onnx.StringStringEntryProto(key=key, value=str(value)))
        return proto


def cast_finite(array: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """`array` in `dtype`; ValueError if a finite value overflows there, for it would silently become infinite."""
    with np.errstate(over="ignore"):
        out = array.astype(dtype)
    if not np.isfinite(out).all():
        worst = float(np.abs(array).max())
        raise ValueError(f"tensor {name} reaches {worst:.3g}, which is not finite in {np.dtype(dtype).name}; "
                         "export with --precision float32")
    return out
