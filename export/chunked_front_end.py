"""Qwen3-ASR's front end: convolutions over time and mel of each second alone, and positions within it."""

from collections.abc import Callable

from ..runtime.token_rules import CHUNK_TOKENS
from .blocks import join_tokens, sinusoids
from .graph import Graph
from .specification import ModelSpec

CONVOLUTIONS = ("conv2d1", "conv2d2", "conv2d3")  # 3 x 3, stride 2, padding 1


def chunked_front_end(g: Graph, spec: ModelSpec, take: Callable, features: str) -> str:
    """[B, n_mels, F] -> [B, 13 F / 100, D] float32; F is a multiple of a chunk's 100 frames."""
    e = spec.encoder
    chunk = spec.audio.rule.chunk
    x = g.op("Reshape", g.to_precision(features), g.const([0, 0, -1, chunk]))
    x = g.op("Transpose", x, perm=[0, 2, 1, 3])
    x = g.op("Reshape", x, g.const([-1, 1, e.n_mels, chunk]))
    for name in CONVOLUTIONS:
        w, b = (g.weight(f"{name}.{part}", take(f"{name}.{part}")) for part in ("weight", "bias"))
        x = g.op("Gelu", g.op("Conv", x, w, b, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]))
    x = g.op("Transpose", x, perm=[0, 3, 1, 2])  # [chunks, 13, channels, bands]
    x = g.op("Reshape", x, g.const([0, 0, -1]))
    hidden = g.to_float32(g.linear(x, "conv_out", take("conv_out.weight"), kind=g.precision))
    table = g.weight("embed_positions", sinusoids(CHUNK_TOKENS, e.width), "float32")
    return join_tokens(g, g.op("Add", hidden, table), features, e.width)


def valid_positions(g: Graph, chunk: int, lengths: str) -> str:
    """[B] int32: positions of the valid frames [B] int32, 13 of a whole chunk and an eighth of its last."""
    frames = g.const(chunk, "int32")
    last = g.op("Sub", lengths, g.op("Mul", g.op("Div", lengths, frames), frames))
    one = g.const(1, "int32")
    two = g.const(2, "int32")
    for _ in CONVOLUTIONS:
        last = g.op("Div", g.op("Add", last, one), two)
    whole = g.op("Mul", g.op("Div", lengths, frames), g.const(CHUNK_TOKENS, "int32"))
    return g.op("Add", whole, last)
