"""Safetensors files as numpy arrays, without the package of that name, which exporting does not need."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ltbm.runtime.files import write_whole

TYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "I8": np.dtype("i1")}  # by the format's names
LENGTH_BYTES = 8  # a file begins with the length of its JSON header
ALIGNMENT = 8  # bytes, of the first tensor


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a file of the project's own; KeyError for a type that is not of TYPES."""
    data = path.read_bytes()
    first = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    header = json.loads(data[LENGTH_BYTES:first])
    tensors = {}
    for name, record in header.items():
        if name == "__metadata__":
            continue
        start, stop = record["data_offsets"]
        values = np.frombuffer(data[first + start : first + stop], TYPES[record["dtype"]])
        tensors[name] = values.reshape(record["shape"])
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """A file that transformers reads as PyTorch weights."""
    names = {dtype: name for name, dtype in TYPES.items()}
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    parts = []
    stop = 0
    for name, values in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        start, stop = stop, stop + values.nbytes
        header[name] = {
            "dtype": names[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [start, stop],
        }
        parts.append(np.ascontiguousarray(values).tobytes())
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    write_whole(path, b"".join([len(text).to_bytes(LENGTH_BYTES, "little"), text, *parts]))
