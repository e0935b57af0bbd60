"""Rows of tokens that every implementation of LTBM is tested on."""

import numpy as np


def clip(length, dim, seed=0):
    """Tokens [length, dim] that change slowly, as an encoder's do."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((length, dim)).astype(np.float32)
    for i in range(1, length):
        x[i] = 0.9 * x[i - 1] + 0.4 * x[i]
    return x


def with_values(x, *places):
    x = x.copy()
    for place, value in places:
        x[place] = value
    return x


def hard_rows():
    """Name -> tokens [L, D] float32 on which implementations of LTBM go wrong first."""
    nan, inf = np.nan, np.inf
    return {
        "empty": clip(0, 3),
        "one": clip(1, 3),
        "two": clip(2, 3),
        "odd": clip(25, 5),
        "even": clip(24, 5),
        "one channel": clip(23, 1),
        "zero": np.zeros((21, 4), np.float32),
        "negative zero": np.full((9, 4), -0.0, np.float32),
        "constant": np.ones((22, 4), np.float32),
        "ties": np.random.default_rng(1).integers(-1, 2, (30, 3)).astype(np.float32),
        "opposites": np.where(np.arange(20)[:, None] % 2, 1, -1).astype(np.float32) * clip(1, 4),
        "outlier channel": with_values(clip(24, 6), ((slice(None), 2), 6e4)),
        "outlier value": with_values(clip(24, 6), ((7, 2), 6e4)),
        "NaN": with_values(clip(24, 6), ((3, 1), nan), (4, nan)),
        "infinities": with_values(clip(24, 6), ((3, 1), inf), (9, -inf), ((10, 0), nan)),
        "tiny": clip(16, 4) * np.float32(1e-6),
        "silent": clip(16, 4) * np.float32(1e-33),
        "huge": clip(16, 4) * np.float32(1e37),
        # A largest value of 8191 makes the grid the tokens themselves: norms of 0 and 1, halves to be rounded
        # to even.
        "grid of ones": with_values(
            np.random.default_rng(2).integers(-1, 2, (30, 2)).astype(np.float32), (17, 8191)
        ),
        "grid of halves": with_values(
            (np.arange(60).reshape(20, 3) * 7 % 10 - 4.5).astype(np.float32), ((5, 0), 8191)
        ),
    }
