"""Rotary time embedding (Music Flamingo): the tower's output turned by the time of each token."""

import numpy as np

from .graph import Graph
from .specification import ModelSpec, RotaryTime


def rotate_by_time(g: Graph, spec: ModelSpec, time: RotaryTime, hidden: str, index: str) -> str:
    """hidden [B, T, D] float32, index [B] of each row's segment -> the same shape, its first features turned.

    Neighbouring features are a pair; how far a pair turns stands in tables, in the float32 steps of
    transformers: in the graph a cosine of 40,000 rad would be left to each runtime.
    """
    cos, sin = time_tables(spec.audio.max_segments, spec.audio.segment_tokens, spec.encoder.width, time)
    pairs = cos.shape[-1]
    count = g.op("Shape", hidden, start=1, end=2)
    rows = []
    for name, table in (("cos", cos), ("sin", sin)):
        of_rows = g.op("Gather", g.weight(f"rotary_time.{name}", table, "float32"), index, axis=0)
        rows.append(g.op("Slice", of_rows, g.const([0]), count, g.const([1])))
    turned, kept = g.split(hidden, [2 * pairs, spec.encoder.width - 2 * pairs])
    even, odd = _pairs(g, turned, pairs)
    first = g.op("Sub", g.op("Mul", even, rows[0]), g.op("Mul", odd, rows[1]))
    second = g.op("Add", g.op("Mul", odd, rows[0]), g.op("Mul", even, rows[1]))
    both = g.op("Concat", *(g.op("Unsqueeze", part, g.const([3])) for part in (first, second)), axis=3)
    return g.op("Concat", g.op("Reshape", both, g.const([0, 0, 2 * pairs])), kept, axis=-1)


def _pairs(g: Graph, turned: str, pairs: int) -> list[str]:
    """The first and the second feature of each pair, [B, T, pairs] each."""
    split = g.op("Reshape", turned, g.const([0, 0, pairs, 2]))
    return [g.op("Gather", split, g.const(place), axis=3) for place in (0, 1)]


def time_tables(segments: int, tokens: int, width: int, time: RotaryTime) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin [segments, tokens, pairs] float32: half of the pairs turn with the segment, half with the
    token.

    angle = -2 pi seconds * axis * inverse frequency; the axes are segment / theta and 2 pi token / theta.
    """
    turned = int(width * time.share)
    inverse = np.float32(1.0) / np.power(
        np.float32(time.theta), np.arange(0, turned, 2, dtype=np.float32) / np.float32(turned)
    )
    theta = np.float32(time.theta)
    step = np.float32(time.token_seconds)
    starts = np.arange(segments, dtype=np.float32) * np.float32(tokens) * step
    seconds = starts[:, None] + np.arange(tokens, dtype=np.float32) * step
    by_segment = (np.arange(segments, dtype=np.float32) / theta)[:, None] * inverse
    by_token = (np.arange(tokens, dtype=np.float32) / theta * np.float32(2 * np.pi))[:, None] * inverse
    shape = (segments, tokens, len(inverse))
    axes = [np.broadcast_to(by_segment[:, None], shape), np.broadcast_to(by_token[None], shape)]
    angle = (-seconds * np.float32(2) * np.float32(np.pi))[..., None]
    angles = np.concatenate(axes, axis=-1) * angle
    return np.cos(angles), np.sin(angles)
