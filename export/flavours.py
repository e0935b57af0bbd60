"""How a decoder graph attends and keeps its cache: one flavour per kind of runtime,
all over one weight file."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ..runtime.backends.flavours import GQA, takes_gqa
from ..runtime.bundle import DecoderSpec
from ..runtime.precision import Precision
from .graph import CONTRIB, Graph

BLOCKED_OPSET = 21  # the first with DequantizeLinear in blocks


@dataclass(frozen=True)
class Flavour:
    """The parts of a decoder graph that runtimes do differently.

    begin: (g, d, hidden, past_len, key_bias) -> attend(layer, q, k, v) -> [B, S, heads * head_dim]
    rope: (g, d, cos, sin, position_ids) -> rotate(x [B, S, heads * head_dim], heads) -> x rotated
    norm: (g, x float32, scale, epsilon) -> RMSNorm over the last axis
    add_norm: (g, x float32, added float32, scale, epsilon) -> x + added, and its RMSNorm
    fused_bias: MatMulNBits adds the bias, which its CUDA kernel refuses
    grows: the cache is returned longer (past in, present out) in place of being written in its place
    quantised_only: only of use where MatMulNBits is
    seen_only: key_bias has USED columns, and attention reads so many of the cache's CAP
    """

    name: str
    opset: int
    begin: Callable
    rope: Callable
    norm: Callable
    add_norm: Callable
    domains: dict[str, int] = field(default_factory=dict)
    fused_bias: bool = False
    grows: bool = False
    quantised_only: bool = False
    seen_only: bool = False


def flavours_for(precision: Precision, head_dim: int) -> list[Flavour]:
    """The flavours that a bundle of `precision` holds: over codes packed for TensorRT,
    only those without ONNX Runtime's own ops; its attention only for head sizes that it takes."""
    return [flavour for flavour in FLAVOURS.values() if _is_for(flavour, precision, head_dim)]


def _is_for(flavour: Flavour, precision: Precision, head_dim: int) -> bool:
    if precision.signed:
        return not flavour.domains
    if flavour.name == GQA and not takes_gqa(head_dim):
        return False
    return precision.block_size > 0 or not flavour.quantised_only


def opset_for(flavour: Flavour, precision: Precision) -> int:
    """The flavour's opset, or the first that holds quantised weights."""
    return max(flavour.opset, BLOCKED_OPSET) if precision.block_size else flavour.opset


def _begin_gqa(g: Graph, d: DecoderSpec, hidden: str, past_len: str, key_bias: str) -> Callable:
    """ONNX Runtime's GroupQueryAttention: writes the cache in place,
    takes the key bias for the used columns only."""
    new = g.cast(g.op("Squeeze", g.op("Shape", hidden, start=1, end=2)), "int32")
    last_key = g.op("Sub", g.op("Add", past_len, new), g.const(1, "int32"))
    total = g.op("Add", g.op("ReduceMax", past_len, keepdims=0), new)
    used = g.op(
        "Slice",
        g.to_precision(key_bias),
        g.const([0]),
        g.op("Unsqueeze", g.cast(total, "int64"), g.const([0])),
        g.const([1]),
    )
    rows = g.op("Concat", g.const([1, 1]), g.op("Shape", hidden, start=1, end=2), g.const([1]), axis=0)
    bias = g.op("Expand", g.op("Unsqueeze", used, g.const([1, 2])), rows)

    def attend(layer: int, q: str, k: str, v: str) -> str:
        past, present = _cache(g, d, layer)
        out = f"attended.{layer}"
        g.node(
            "GroupQueryAttention",
            [q, k, v, *past, last_key, total, "", "", "", bias],
            [out, *present],
            CONTRIB,
            num_heads=d.heads,
            kv_num_heads=d.kv_heads,
            do_rotary=0,
            scale=d.head_dim**-0.5,
        )
        return out

    return attend


def _begin_std24(g: Graph, d: DecoderSpec, hidden: str, past_len: str, key_bias: str) -> Callable:
    """Standard opset 24: TensorScatter into the cache,
    Attention over all CAP columns under one float mask."""
    return _in_place(g, d, hidden, past_len, key_bias, seen_only=False)


def _begin_trt24(g: Graph, d: DecoderSpec, hidden: str, past_len: str, key_bias: str) -> Callable:
    """The same over the first USED columns, those that key_bias has: TensorRT wants CAP as a number, and a
    step is to cost what the tokens cost that are there, not the capacity."""
    return _in_place(g, d, hidden, past_len, key_bias, seen_only=True)


def _in_place(
    g: Graph, d: DecoderSpec, hidden: str, past_len: str, key_bias: str, seen_only: bool
) -> Callable:
    """seen_only: attention reads as many columns of the cache as `key_bias` has."""
    places = g.cast(past_len, "int64")
    mask = _causal_bias(g, hidden, g.op("Unsqueeze", places, g.const([1])), key_bias)
    used = g.op("Shape", key_bias, start=1, end=2) if seen_only else ""

    def attend(layer: int, q: str, k: str, v: str) -> str:
        past, present = _cache(g, d, layer)
        for before, new, after in zip(past, (k, v), present):
            g.node(
                "TensorScatter", [before, _by_heads(g, new, d.kv_heads, d.head_dim), places], [after], axis=-2
            )
        seen = present
        if seen_only:
            seen = [g.op("Slice", part, g.const([0]), used, g.const([2])) for part in present]
        out = g.op("Attention", _by_heads(g, q, d.heads, d.head_dim), *seen, mask, scale=d.head_dim**-0.5)
        return _side_by_side(g, d, out)

    return attend


def _begin_concat(g: Graph, d: DecoderSpec, hidden: str, past_len: None, key_bias: str) -> Callable:
    """Primitives only: the new keys behind the cached ones, products and Softmax;
    query heads of one KV head as its rows."""
    cached = g.op("Sub", g.op("Shape", key_bias, start=1, end=2), g.op("Shape", hidden, start=1, end=2))
    mask = _causal_bias(g, hidden, g.op("Unsqueeze", cached, g.const([0])), key_bias)
    scale = g.const(d.head_dim**-0.5, g.precision)
    grouped = g.const([0, d.kv_heads, -1, d.head_dim])
    apart = g.const([0, d.heads, -1, d.head_dim])

    def attend(layer: int, q: str, k: str, v: str) -> str:
        past, present = _cache(g, d, layer, grows=True)
        for before, new, after in zip(past, (k, v), present):
            g.node("Concat", [before, _by_heads(g, new, d.kv_heads, d.head_dim)], [after], axis=2)
        q = g.op("Reshape", g.op("Mul", _by_heads(g, q, d.heads, d.head_dim), scale), grouped)
        scores = g.op("MatMul", q, g.op("Transpose", present[0], perm=[0, 1, 3, 2]))
        by_head = g.op("Concat", g.const([0, d.heads]), g.op("Shape", mask, start=2, end=4), axis=0)
        weights = g.op("Softmax", g.op("Add", g.op("Reshape", scores, by_head), mask), axis=-1)
        weights = g.op("Reshape", weights, g.op("Shape", scores))
        return _side_by_side(g, d, g.op("Reshape", g.op("MatMul", weights, present[1]), apart))

    return attend


def _causal_bias(g: Graph, hidden: str, first: str, key_bias: str) -> str:
    """[B, 1, S, columns]: the key bias where a query may look, the lowest value elsewhere; `first` [B or 1,
    1] is the first query's place."""
    new = g.op("Squeeze", g.op("Shape", hidden, start=1, end=2))
    zero = g.const(0)
    one = g.const(1)
    rows = g.op("Add", first, g.op("Unsqueeze", g.op("Range", zero, new, one), g.const([0])))
    columns = g.op("Range", zero, g.op("Squeeze", g.op("Shape", key_bias, start=1, end=2)), one)
    seen = g.op(
        "LessOrEqual",
        g.op("Unsqueeze", columns, g.const([0, 1, 2])),
        g.op("Unsqueeze", rows, g.const([1, 3])),
    )
    bias = g.op("Unsqueeze", g.to_precision(key_bias), g.const([1, 2]))
    return g.op("Where", seen, bias, g.lowest())


def _by_heads(g: Graph, x: str, heads: int, head_dim: int) -> str:
    """[B, S, heads * head_dim] -> [B, heads, S, head_dim]."""
    return g.op("Transpose", g.op("Reshape", x, g.const([0, 0, heads, head_dim])), perm=[0, 2, 1, 3])


def _side_by_side(g: Graph, d: DecoderSpec, x: str) -> str:
    """[B, heads, S, head_dim] -> [B, S, heads * head_dim]."""
    return g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 1, 3]), g.const([0, 0, d.heads * d.head_dim]))


def _cache(g: Graph, d: DecoderSpec, layer: int, grows: bool = False) -> tuple[list[str], list[str]]:
    parts, before, after = ("key", "value"), *(("P", "P + S") if grows else ("CAP", "CAP"))
    past = [
        g.input(f"past.{layer}.{part}", g.precision, ["B", d.kv_heads, before, d.head_dim]) for part in parts
    ]
    return past, [
        g.graph_output(f"present.{layer}.{part}", g.precision, ["B", d.kv_heads, after, d.head_dim])
        for part in parts
    ]


def _rope_contrib(g: Graph, d: DecoderSpec, cos: str, sin: str, position_ids: str) -> Callable:
    return lambda x, heads: g.op(
        "RotaryEmbedding", x, position_ids, cos, sin, domain=CONTRIB, num_heads=heads
    )


def _rope_standard(g: Graph, d: DecoderSpec, cos: str, sin: str, position_ids: str) -> Callable:
    return lambda x, heads: g.op("RotaryEmbedding", x, cos, sin, position_ids, num_heads=heads)


def _rope_primitive(g: Graph, d: DecoderSpec, cos: str, sin: str, position_ids: str) -> Callable:
    """The first half of a head and its second, turned against each other."""
    half = d.head_dim // 2
    cos, sin = (
        g.op("Unsqueeze", g.op("Gather", table, position_ids), g.const([2])) for table in (cos, sin)
    )  # [B, S, 1, head_dim / 2]

    def rotate(x: str, heads: int) -> str:
        first, second = g.split(g.op("Reshape", x, g.const([0, 0, heads, d.head_dim])), [half, half])
        turned = (
            g.op("Sub", g.op("Mul", first, cos), g.op("Mul", second, sin)),
            g.op("Add", g.op("Mul", second, cos), g.op("Mul", first, sin)),
        )
        return g.op("Reshape", g.op("Concat", *turned, axis=-1), g.const([0, 0, heads * d.head_dim]))

    return rotate


def _norm_standard(g: Graph, x: str, scale: str, epsilon: float) -> str:
    return g.op("RMSNormalization", x, scale, axis=-1, epsilon=epsilon)


def _norm_primitive(g: Graph, x: str, scale: str, epsilon: float) -> str:
    mean = g.op("ReduceMean", g.op("Mul", x, x), g.const([-1]), keepdims=1)
    return g.op("Mul", g.op("Div", x, g.op("Sqrt", g.op("Add", mean, g.const(epsilon, "float32")))), scale)


def _add_norm_standard(g: Graph, x: str, added: str, scale: str, epsilon: float) -> tuple[str, str]:
    total = g.op("Add", x, added)
    return total, _norm_standard(g, total, scale, epsilon)


def _add_norm_primitive(g: Graph, x: str, added: str, scale: str, epsilon: float) -> tuple[str, str]:
    total = g.op("Add", x, added)
    return total, _norm_primitive(g, total, scale, epsilon)


def _add_norm_contrib(g: Graph, x: str, added: str, scale: str, epsilon: float) -> tuple[str, str]:
    """Both in one pass over the stream."""
    normed = f"{scale}/normed"
    total = f"{scale}/sum"
    g.node(
        "SkipSimplifiedLayerNormalization",
        [x, added, scale],
        [normed, "", "", total],
        CONTRIB,
        epsilon=epsilon,
    )
    return total, normed


FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour(
            "gqa",
            23,
            _begin_gqa,
            _rope_contrib,
            _norm_standard,
            _add_norm_contrib,
            {CONTRIB: 1},
            fused_bias=True,
        ),
        Flavour("std24", 24, _begin_std24, _rope_standard, _norm_standard, _add_norm_standard),
        Flavour(
            "trt24",
            24,
            _begin_trt24,
            _rope_standard,
            _norm_standard,
            _add_norm_standard,
            seen_only=True,
        ),
        Flavour(
            "ort24",
            24,
            _begin_std24,
            _rope_standard,
            _norm_standard,
            _add_norm_contrib,
            {CONTRIB: 1},
            quantised_only=True,
        ),
        Flavour(
            "concat20", 20, _begin_concat, _rope_primitive, _norm_primitive, _add_norm_primitive, grows=True
        ),
    )
}
"""gqa: ONNX Runtime on the CPU. std24: standard ops, for ONNX Runtime on CUDA, whose GroupQueryAttention
refuses the key bias. ort24: the same with ONNX Runtime's MatMulNBits. trt24: TensorRT from 10.15 on, and
TensorRT-RTX. concat20: TensorRT before 10.15."""
