"""How a decoder graph attends and keeps its cache: one flavour per kind of runtime, all over one weight file."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ltbm.export.graph import Graph
from ltbm.runtime.bundle import DecoderSpec

MASKED = {"float32": float(np.finfo(np.float32).min), "float16": float(np.finfo(np.float16).min)}
CONTRIB = "com.microsoft"


@dataclass(frozen=True)
class Flavour:
    """begin(g, d, hidden, past_len, key_bias) -> attend(layer, q, k, v) -> [B, S, heads * head_dim]."""

    name: str
    opset: int
    domains: dict[str, int]
    begin: Callable
    rotate: Callable  # (g, x, heads, cos, sin, position_ids) -> x rotated


def _begin_gqa(g: Graph, d: DecoderSpec, hidden: str, past_len: str, key_bias: str) -> Callable:
    """ONNX Runtime's GroupQueryAttention: writes the cache in place, takes the key bias for the used columns only."""
    new = g.cast(g.op("Squeeze", g.op("Shape", hidden, start=1, end=2)), "int32")
    last_key = g.op("Sub", g.op("Add", past_len, new), g.const(1, "int32"))
    total = g.op("Add", g.op("ReduceMax", past_len, keepdims=0), new)
    used = g.op("Slice", g.to_precision(key_bias), g.const([0]), g.op("Unsqueeze", g.cast(total, "int64"), g.const([0])), g.const([1]))
    rows = g.op("Concat", g.const([1, 1]), g.op("Shape", hidden, start=1, end=2), g.const([1]), axis=0)
    bias = g.op("Expand", g.op("Unsqueeze", used, g.const([1, 2])), rows)

    def attend(layer: int, q: str, k: str, v: str) -> str:
        past, present = _cache(g, d, layer)
        out = f"attended.{layer}"
        g.node("GroupQueryAttention", [q, k, v, *past, last_key, total, "", "", "", bias], [out, *present], CONTRIB,
               num_heads=d.heads, kv_num_heads=d.kv_heads, do_rotary=0, scale=d.head_dim**-0.5)
        return out

    return attend


def _rotate_contrib(g: Graph, x: str, heads: int, cos: str, sin: str, position_ids: str) -> str:
    return g.op("RotaryEmbedding", x, position_ids, cos, sin, domain=CONTRIB, num_heads=heads)


def _begin_std24(g: Graph, d: DecoderSpec, hidden: str, past_len: str, key_bias: str) -> Callable:
    """Standard opset 24: TensorScatter into the cache, Attention over all CAP columns under one float mask."""
    mask = _causal_bias(g, hidden, past_len, key_bias)
    places = g.cast(past_len, "int64")

    def attend(layer: int, q: str, k: str, v: str) -> str:
        past, present = _cache(g, d, layer)
        for before, new, after in zip(past, (k, v), present):
            g.node("TensorScatter", [before, _by_heads(g, new, d.kv_heads, d.head_dim), places], [after], axis=-2)
        out = g.op("Attention", _by_heads(g, q, d.heads, d.head_dim), *present, mask, scale=d.head_dim**-0.5)
        return g.op("Reshape", g.op("Transpose", out, perm=[0, 2, 1, 3]), g.const([0, 0, d.heads * d.head_dim]))

    return attend


def _causal_bias(g: Graph, hidden: str, past_len: str, key_bias: str) -> str:
    """[B, 1, S, CAP]: the key bias where a query may look, the lowest value elsewhere."""
    new = g.op("Squeeze", g.op("Shape", hidden, start=1, end=2))
    zero, one = g.const(0), g.const(1)
    rows = g.op("Add", g.op("Unsqueeze", g.cast(past_len, "int64"), g.const([1])),
                g.op("Unsqueeze", g.op("Range", zero, new, one), g.const([0])))  # [B, S] place of each query
    columns = g.op("Range", zero, g.op("Squeeze", g.op("Shape", key_bias, start=1, end=2)), one)
    seen = g.op("LessOrEqual", g.op("Unsqueeze", columns, g.const([0, 1, 2])), g.op("Unsqueeze", rows, g.const([1, 3])))
    bias = g.op("Unsqueeze", g.to_precision(key_bias), g.const([1, 2]))
    return g.op("Where", seen, bias, g.const(MASKED[g.precision], g.precision))


def _rotate_standard(g: Graph, x: str, heads: int, cos: str, sin: str, position_ids: str) -> str:
    return g.op("RotaryEmbedding", x, cos, sin, position_ids, num_heads=heads)


def _by_heads(g: Graph, x: str, heads: int, head_dim: int) -> str:
    """[B, S, heads * head_dim] -> [B, heads, S, head_dim]."""
    return g.op("Transpose", g.op("Reshape", x, g.const([0, 0, heads, head_dim])), perm=[0, 2, 1, 3])


def _cache(g: Graph, d: DecoderSpec, layer: int) -> tuple[list[str], list[str]]:
    shape = ["B", d.kv_heads, "CAP", d.head_dim]
    past = [g.input(f"past.{layer}.{part}", g.precision, shape) for part in ("key", "value")]
    return past, [g.graph_output(f"present.{layer}.{part}", g.precision, shape) for part in ("key", "value")]


FLAVOURS = {
    "gqa": Flavour("gqa", 23, {CONTRIB: 1}, _begin_gqa, _rotate_contrib),
    "std24": Flavour("std24", 24, {}, _begin_std24, _rotate_standard),
}
