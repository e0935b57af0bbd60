"""Weight-only quantisation: blocks of a matrix's rows rounded to 4 or 8 bits,
as ONNX Runtime or TensorRT reads them."""

from dataclasses import dataclass, replace

import ml_dtypes  # noqa: F401  numpy learns bfloat16 from it
import numpy as np

from .precision import BLOCK_SIZES

SMALLEST = np.finfo(np.float32).tiny  # below, the inverse of a scale is infinite: such a block is all zero
SMALLEST_SIGNED = np.float32(2.0**-24)  # float16's least value: TensorRT takes no scale of zero


@dataclass(frozen=True)
class Quantization:
    """How a weight matrix [N, K] is quantised: one scale, and without symmetry one zero point,
    per block of K.

    accuracy_level: MatMulNBits' smallest inner type: 0 and 1 multiply in float32,
        4 rounds the activations to int8
    signed: codes in two's complement around a zero point of 0 and positive scales,
        which is what TensorRT takes
    """

    bits: int
    block_size: int = 32
    symmetric: bool = True
    accuracy_level: int = 4
    signed: bool = False

    @property
    def zero_point(self) -> int:
        """The code of zero under symmetry, unless signed."""
        return 1 << (self.bits - 1)

    def blocks(self, name: str, width: int) -> int:
        """Blocks in one row of `width` values; ValueError where they do not come out even."""
        blocks, rest = divmod(width, self.block_size)
        if rest:
            raise ValueError(
                f"{name} has rows of {width} values, no multiple of the block size {self.block_size}; "
                f"choose another --block-size of {', '.join(map(str, BLOCK_SIZES))}"
            )
        if self.bits == 4 and blocks % 2 and not self.symmetric:
            raise ValueError(
                f"{name} has {blocks} blocks in a row; asymmetric int4 packs zero points in pairs: choose a "
                "smaller --block-size"
            )
        return blocks


@dataclass(frozen=True)
class QuantizedRows:
    """n rows of a matrix; packed bytes hold the code of the lower index in their low bits.

    codes: [n, K * bits / 8] uint8; scales: [n, blocks] float32; zero_points: [n, blocks * bits / 8] uint8
    """

    codes: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray


def quantize_rows(rows: np.ndarray, q: Quantization) -> QuantizedRows:
    """Round each block of rows [n, K] float32 to the nearest code: value = (code - zero point) * scale.

    The same float32 steps as ONNX Runtime's quantiser, so the same bits:
    under symmetry the value of largest magnitude takes the code 0, so scales may be negative; else the codes
    span the block's range with zero in it. Signed codes leave out the lowest, so that scales are positive.
    """
    top = np.float32(2**q.bits - 1)
    middle = np.float32(q.zero_point)
    blocks = rows.reshape(len(rows), -1, q.block_size)
    low = np.minimum(blocks.min(-1), 0)
    high = np.maximum(blocks.max(-1), 0)
    zero_points = np.full(low.shape, q.zero_point, np.uint8)
    if q.signed:
        scales = np.maximum(np.maximum(high, -low) / (middle - 1), SMALLEST_SIGNED)
    elif q.symmetric:
        scales = np.where(high > -low, high, low) / -middle
    else:
        scales = (high - low) / top
        zero_points = _round(np.divide(-low, scales, out=np.zeros_like(low), where=scales != 0), top)
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=np.abs(scales) >= SMALLEST)
    codes = _round(blocks * inverse[..., None] + zero_points[..., None].astype(np.float32), top).reshape(
        rows.shape
    )
    if q.signed:  # two's complement: the sign bit turns over
        codes = (codes ^ q.zero_point) & int(top)
        zero_points = np.zeros_like(zero_points)
    return QuantizedRows(_pack(codes, q.bits), scales, _pack(zero_points, q.bits))


def dequantize_rows(rows: QuantizedRows, q: Quantization) -> np.ndarray:
    """The values [n, K] float32 that the codes stand for."""
    codes = _unpack(rows.codes, q.bits)
    zero_points = _unpack(rows.zero_points, q.bits)[:, : rows.scales.shape[1], None]
    if q.signed:
        codes = codes ^ q.zero_point
        zero_points = zero_points ^ q.zero_point
    blocks = codes.astype(np.float32).reshape(len(codes), -1, q.block_size) - zero_points
    return (blocks * rows.scales[..., None].astype(np.float32)).reshape(codes.shape)


def rounded(rows: np.ndarray, q: Quantization, scale_type: str) -> np.ndarray:
    """rows [n, K] float32 as they are after quantisation, with scales stored as `scale_type`."""
    pieces = quantize_rows(rows, q)
    return dequantize_rows(replace(pieces, scales=pieces.scales.astype(scale_type)), q)


def _round(values: np.ndarray, top: np.float32) -> np.ndarray:
    """Codes 0..top; halves go up, and so away from zero, since codes are not negative."""
    return np.clip(np.floor(values + np.float32(0.5)), 0, top).astype(np.uint8)


def _pack(codes: np.ndarray, bits: int) -> np.ndarray:
    if bits == 8:
        return codes
    if codes.shape[1] % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)))
    return codes[:, ::2] | codes[:, 1::2] << 4


def _unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    return packed if bits == 8 else np.stack([packed & 15, packed >> 4], -1).reshape(len(packed), -1)
