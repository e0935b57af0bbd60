import hashlib

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto

from ltbm.export import weights
from ltbm.export.weights import HashedFile, Rows, Stacked, WeightFile, cast_finite, row_chunks, transposed


def matrix(rows: int, width: int = 5, dtype=np.float32) -> np.ndarray:
    return np.arange(rows * width).reshape(rows, width).astype(dtype)


@pytest.mark.parametrize("start,stop", [(0, 9), (0, 2), (1, 4), (3, 3), (4, 9), (2, 5)])
def test_stacked_rows(start, stop):
    parts = [matrix(3), matrix(1, dtype=ml_dtypes.bfloat16), matrix(5)]
    stacked = Stacked(parts)
    assert stacked.shape == (9, 5)
    if start < stop:
        assert (
            stacked[start:stop] == np.concatenate([part.astype(np.float32) for part in parts])[start:stop]
        ).all()


def test_rows_of_a_matrix():
    part = Rows(matrix(9), 2, 6)
    assert part.shape == (4, 5) and (part[1:9] == matrix(9)[3:6]).all() and (part[:] == matrix(9)[2:6]).all()


@pytest.mark.parametrize("values", [1, 7, 10, 1000])
def test_chunks_are_the_matrix(monkeypatch, values):
    monkeypatch.setattr(weights, "CHUNK_VALUES", values)
    assert (np.concatenate(list(row_chunks(matrix(9)))) == matrix(9)).all()
    assert (transposed(matrix(9), np.dtype(np.float16), "w") == matrix(9).T).all()


def test_a_value_that_overflows_is_refused():
    with pytest.raises(ValueError, match="tensor w reaches 1e\\+06, which is not finite in float16"):
        cast_finite(np.float32([1, -1e6]), np.dtype(np.float16), "w")
    with pytest.raises(ValueError, match="tensor w holds NaN or infinity in the checkpoint itself"):
        cast_finite(np.float32([1, np.nan]), np.dtype(np.float32), "w")


def test_counting_agrees_with_writing(tmp_path):
    """One description of tensors, counted and written: sizes, offsets and the hash of the file."""

    def add(file: WeightFile) -> list:
        return [
            file.tensor("a", TensorProto.FLOAT, (3, 5), lambda: [matrix(2), matrix(1)]),
            file.tensor("b", TensorProto.UINT4, (3, 3), lambda: [np.zeros(5, np.uint8)]),
            file.tensor("b", TensorProto.UINT8, (1, 5), lambda: pytest.fail("written twice")),
            file.tensor("c", TensorProto.BFLOAT16, (7,), lambda: [np.ones(7, ml_dtypes.bfloat16)]),
        ]

    counted = WeightFile("w", None)
    protos = add(counted)
    with HashedFile(tmp_path / "w", lambda count, what: None) as stream:
        written = WeightFile("w", stream)
        assert [p.SerializeToString() for p in add(written)] == [p.SerializeToString() for p in protos]
    content = (tmp_path / "w").read_bytes()
    assert counted.size == written.size == len(content) == stream.record.size
    assert stream.record.sha256 == hashlib.sha256(content).hexdigest()
    assert counted.largest == 3 * 5 * 4


def test_a_tensor_of_another_size_than_declared(tmp_path):
    with (
        HashedFile(tmp_path / "w", lambda count, what: None) as stream,
        pytest.raises(AssertionError, match="a took 40 bytes"),
    ):
        WeightFile("w", stream).tensor("a", TensorProto.FLOAT, (3, 5), lambda: [matrix(2)])
