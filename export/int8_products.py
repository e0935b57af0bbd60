"""Matrix products in int8: weights with a scale a column, activations with a scale a row."""

from dataclasses import dataclass

import numpy as np

from .weights import row_chunks

WEIGHT_TOP = 63
"""The largest code of a weight, so 7 bits: a CPU with AVX2 and no dot products of int8 adds two products of a
weight and an activation (up to 255) in int16, which holds 2 * 255 * 64 and no more."""
ACTIVATION_TOP = 127  # the code of a row's largest value, less that of zero
ACTIVATION_ZERO = 128  # the code of zero: activations are uint8, as every CPU's kernels take them
SMALLEST_ROW = 1e-30  # stands for the largest value of a row of zeros, which is divided by


@dataclass(frozen=True)
class QuantizedColumns:
    """A matrix [N, K] as it is multiplied: value = code * scale of its column.

    codes: [K, N] int8; scales: [N] float32
    """

    codes: np.ndarray
    scales: np.ndarray


def quantize_columns(weight) -> QuantizedColumns:
    """PyTorch's [N, K], anything whose rows can be sliced: each row, a column of the product, is rounded."""
    codes = np.empty(weight.shape[::-1], np.int8)
    scales = []
    start = 0
    for rows in row_chunks(weight):
        largest = np.maximum(np.abs(rows).max(-1), np.float32(SMALLEST_ROW))
        scale = largest / np.float32(WEIGHT_TOP)
        codes[:, start : start + len(rows)] = np.rint(rows / scale[:, None]).T
        scales.append(scale)
        start += len(rows)
    return QuantizedColumns(codes, np.concatenate(scales))


def dequantize_columns(columns: QuantizedColumns) -> np.ndarray:
    """The values [N, K] float32 that the codes stand for."""
    return columns.codes.T * columns.scales[:, None]
