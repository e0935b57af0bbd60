"""Towers whose frames attend within blocks: in the tower every block is a row of its own, and at its end the
tokens of a segment are joined."""

import numpy as np

from .graph import Graph

LONGEST_TIMESCALE = 10_000.0  # of sinusoid positions, in positions; the shortest is 1


def split_frames(g: Graph, features: str, n_mels: int, block: int) -> str:
    """[B, n_mels, N * block] -> [B * N, n_mels, block]."""
    cut = g.op("Reshape", features, g.const([0, 0, -1, block]))
    return g.op("Reshape", g.op("Transpose", cut, perm=[0, 2, 1, 3]), g.const([-1, n_mels, block]))


def block_lengths(g: Graph, features: str, lengths: str, block: int) -> str:
    """Valid frames [B * N] int32 of each block; of features [B, n_mels, F] `lengths` [B] are valid."""
    frames = g.cast(g.op("Squeeze", g.op("Shape", features, start=2, end=3)), "int32")
    starts = g.op("Range", g.const(0, "int32"), frames, g.const(block, "int32"))
    left = g.op("Sub", g.op("Unsqueeze", lengths, g.const([1])), g.op("Unsqueeze", starts, g.const([0])))
    inside = g.op("Min", g.op("Max", left, g.const([0], "int32")), g.const([block], "int32"))
    return g.op("Reshape", inside, g.const([-1]))


def join_tokens(g: Graph, tokens: str, features: str, width: int) -> str:
    """[B * N, T, D] -> [B, N * T, D], where features have B rows."""
    rows = g.op("Shape", features, start=0, end=1)
    return g.op("Reshape", tokens, g.op("Concat", rows, g.const([-1, width]), axis=0))


def valid_frames(g: Graph, x: str, lengths: str) -> str:
    """x [B, channels, F] with zeros after the `lengths` [B] valid frames of each row."""
    count = g.cast(g.op("Squeeze", g.op("Shape", x, start=2, end=3)), "int32")
    places = g.op("Range", g.const(0, "int32"), count, g.const(1, "int32"))
    inside = g.op(
        "Less", g.op("Unsqueeze", places, g.const([0, 1])), g.op("Unsqueeze", lengths, g.const([1, 2]))
    )
    return g.op("Where", inside, x, g.const(0.0, g.precision))


def sinusoids(positions: int, width: int) -> np.ndarray:
    """Whisper's computed positions [positions, width]: sines, then cosines, in float32 as transformers."""
    half = width // 2
    increment = np.log(LONGEST_TIMESCALE) / (half - 1)
    scales = np.exp(np.float32(-increment) * np.arange(half, dtype=np.float32))
    angles = np.arange(positions, dtype=np.float32)[:, None] * scales
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
