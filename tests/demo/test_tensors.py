"""The project's reader and writer of safetensors, held against the format's own library."""

import numpy as np
import pytest

from ltbm.demo.packing import MODEL, PACKED
from ltbm.demo.tensors import read_tensors, write_tensors

safetensors = pytest.importorskip("safetensors.numpy", reason="comes with transformers (extra parity)")


def test_the_library_reads_what_is_written(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "b": rng.normal(size=(3, 5)).astype(np.float32),
        "a": rng.normal(size=7).astype(np.float16),
        "steps": rng.integers(-127, 128, size=(2, 3, 1)).astype(np.int8),
    }
    write_tensors(tmp_path / "model.safetensors", tensors)
    read = safetensors.load_file(tmp_path / "model.safetensors")
    assert read.keys() == tensors.keys()
    for name, values in tensors.items():
        assert read[name].dtype == values.dtype and np.array_equal(read[name], values)


def test_the_shipped_weights_are_read_as_the_library_reads_them():
    ours, theirs = read_tensors(MODEL / PACKED), safetensors.load_file(MODEL / PACKED)
    assert ours.keys() == theirs.keys() and len(ours) > 100
    for name, values in theirs.items():
        assert ours[name].dtype == values.dtype and np.array_equal(ours[name], values)
