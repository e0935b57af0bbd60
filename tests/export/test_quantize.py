"""The quantiser against ONNX Runtime's own, bit for bit, and what its codes mean."""

import numpy as np
import pytest

from ltbm.export.quantize import Quantization, dequantize_rows, quantize_rows


def hard_rows(rows: int = 32, width: int = 512) -> np.ndarray:
    """Random rows, and rows that quantisers stumble over."""
    w = np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32)
    w[0] = 0
    w[1], w[2] = np.abs(w[1]), -np.abs(w[2])
    w[3] = 0.5
    w[4] = np.round(w[4] * 4) / 8  # values on the border between two codes
    w[5, :256] = 0
    w[6] *= 1e-30
    w[7, ::2] = -w[7, 1::2]  # the largest magnitude twice, of both signs
    return w


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block_size", [16, 32, 128, 256])
def test_equal_to_onnxruntime(bits, symmetric, block_size):
    oracle = pytest.importorskip(
        "onnxruntime.quantization.matmul_nbits_quantizer", reason="onnxruntime's quantiser is not installed"
    )
    config = oracle.DefaultWeightOnlyQuantConfig(block_size=block_size, is_symmetric=symmetric, bits=bits)
    w = hard_rows()
    codes, scales, zero_points = oracle.DefaultWeightOnlyQuantizer(config).qbits_block_quant(
        np.ascontiguousarray(w.T)
    )
    ours = quantize_rows(w, Quantization(bits, block_size, symmetric))
    assert (ours.codes == codes.reshape(len(w), -1)).all()
    assert (ours.scales == scales).all()
    if not symmetric:
        assert (ours.zero_points == zero_points).all()


@pytest.mark.parametrize(
    "q,share",
    [
        (Quantization(4), 0.5 / 8 + 1e-6),
        (Quantization(8), 0.5 / 128 + 1e-6),
        (Quantization(4, symmetric=False), 0.5 * 2 / 15 + 1e-6),
        (Quantization(4, signed=True), 0.5 / 7 + 1e-6),
    ],
    ids=["int4", "int8", "asymmetric", "signed"],
)
def test_values_come_back_to_within_half_a_step(q, share):
    """Half a step, but for the one value that the symmetric codes cannot reach:
    a whole step at the far end."""
    w = hard_rows()
    error = np.abs(dequantize_rows(quantize_rows(w, q), q) - w).reshape(len(w), -1, q.block_size)
    largest = np.abs(w).reshape(error.shape).max(-1, keepdims=True)
    reach = 2 if q.symmetric and not q.signed else 1
    assert (error <= reach * share * largest + 1e-7).all()
    assert (np.median(error, -1) <= share * largest[..., 0] + 1e-7).all()


def test_signed_codes_are_what_tensorrt_takes():
    """Positive scales, codes -7..7 as two's complement nibbles, low nibble first."""
    rows = quantize_rows(hard_rows(), Quantization(4, signed=True))
    nibbles = np.stack([rows.codes & 15, rows.codes >> 4], -1).reshape(len(rows.codes), -1).astype(np.int8)
    values = np.where(nibbles > 7, nibbles - 16, nibbles)
    assert values.min() == -7 and values.max() == 7
    assert (rows.scales > 0).all() and (rows.scales.astype(np.float16) > 0).all()
    assert not rows.zero_points.any()
    want = values.reshape(len(values), -1, 32) * rows.scales[..., None]
    assert (dequantize_rows(rows, Quantization(4, signed=True)) == want.reshape(values.shape)).all()


def test_rows_do_not_depend_on_their_neighbours():
    """So a matrix may be quantised a few rows at a time."""
    w, q = hard_rows(), Quantization(4)
    assert (quantize_rows(w[8:11], q).codes == quantize_rows(w, q).codes[8:11]).all()


def test_blocks_that_do_not_come_out_even():
    with pytest.raises(ValueError, match="up_proj has rows of 100 values, no multiple of the block size 32"):
        Quantization(4).blocks("up_proj", 100)
    with pytest.raises(ValueError, match="3 blocks in a row; asymmetric int4"):
        Quantization(4, symmetric=False).blocks("up_proj", 96)
