"""LTBM as an ONNX function body: `ai.ltbm::LTBM` version 1 in standard operators of opset 20.

The body ships in every bundle, so any execution provider runs the op with nothing installed;
where a native kernel is registered, ONNX Runtime takes that instead. It gives the bits of `merge.merge_rows`,
whose docstrings say what each step means; comments here say only why it is written so in ONNX.

Shapes: B rows, T tokens in, K slots out, D encoder width; L valid tokens of a row,
    n current tokens of a pass.
"""

from typing import NamedTuple

import numpy as np
import onnx
import onnx.checker
from onnx import TensorProto, helper

from .library import OP_DOMAIN
from .merge import (
    AMAX_MIN,
    BLOCK,
    DEFAULT_STEP,
    EXACT_FLOAT64,
    GRID_MAX,
    SAFE_INT64,
    SPILL_PENALTY,
    check_step,
)
from .onnx_body import Body, Value

DOMAIN = OP_DOMAIN
OP = "LTBM"
VERSION = 1
OPSET = 20
IR_VERSION = 10  # of ONNX 1.16: functions and opset 20, without asking for a newer runtime
INPUTS = ("x", "lengths", "targets", "keep", "window")
OUTPUTS = ("y", "sizes", "anchors", "source_map")
NO_CANDIDATE = np.float64(-9)  # below every spill, which is at least -1 - SPILL_PENALTY
REFUSE_INPUTS = "LTBM_refuses_lengths_targets_keep_or_window_out_of_range"  # names of nodes, quoted in errors
REFUSE_OVERFLOW = "LTBM_refuses_a_row_too_long_for_exact_similarity"


def ltbm_function() -> onnx.FunctionProto:
    """The body of the op for float16 and float32 x; attributes step_num and step_den default to 2 and 5."""
    g = Body()
    x, lengths, targets, keep, window = map(g.value, INPUTS)
    lengths, targets, window = (g.cast(v, np.int64) for v in (lengths, targets, window))
    search = Search(window, *halo(g, window), g.attribute("step_num"), g.attribute("step_den"))

    def one_row(row):
        row = g.Reshape(row, [1])
        length = g.Gather(lengths, row)
        target = g.Gather(targets, row)
        v = row_tokens(g, x, row, length)
        source_map, anchors = g.branch(
            g.Greater(length, target),
            lambda: plan_row(g, v, length, target, search),
            lambda: [g.range(length), g.range(length)],
        )
        return [None, *row_outputs(g, v, source_map, anchors, keep, x)]

    # A Loop over the rows slices each one's valid tokens: padding is never read.
    rows = g.Shape(x, start=0, end=1) + inputs_refused(g, x, lengths, targets, keep, window)
    for name, result in zip(OUTPUTS, g.loop(one_row, count=g.scalar(rows))):
        g.Identity(result, results=[name])
    defaults = [helper.make_attribute(*pair) for pair in zip(("step_num", "step_den"), DEFAULT_STEP)]
    return helper.make_function(
        DOMAIN, OP, INPUTS, OUTPUTS, g.nodes(), [helper.make_opsetid("", OPSET)], attribute_protos=defaults
    )


def op_model(dim, dtype="float32", step=DEFAULT_STEP) -> onnx.ModelProto:
    """A model of the bare op at width `dim`, with B, T and K left open: x, lengths, targets, keep,
    window in."""
    step_num, step_den = check_step(step)
    if dim < 1 or dtype not in ("float16", "float32"):
        raise ValueError(
            f"the op takes tokens of width 1 or more in float16 or float32, got {dim} in {dtype}"
        )
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    node = helper.make_node(OP, INPUTS, OUTPUTS, domain=DOMAIN, step_num=step_num, step_den=step_den)
    graph = helper.make_graph(
        [node],
        OP,
        [
            info("x", element, "B", "T", dim),
            info("lengths", TensorProto.INT32, "B"),
            info("targets", TensorProto.INT32, "B"),
            info("keep", TensorProto.INT64, 1),
            info("window", TensorProto.INT32, 1),
        ],
        [
            info("y", element, "B", "K", dim),
            info("sizes", TensorProto.INT32, "B", "K"),
            info("anchors", TensorProto.INT32, "B", "K"),
            info("source_map", TensorProto.INT32, "B", "T"),
        ],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(graph, functions=[ltbm_function()], opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model


def info(name, element, *shape) -> onnx.ValueInfoProto:
    """An input or output of a graph; names of dimensions leave them open."""
    return helper.make_tensor_value_info(name, element, shape)


class Search(NamedTuple):
    """What the search for pairs needs to know, the same in every row; tensors of int64."""

    window: Value  # [1]
    before: Value  # [1] B tokens before its own index that an A token can meet inside the window
    after: Value  # [1] and after it
    step_num: Value  # scalar
    step_den: Value  # scalar


# --- a row ---


def row_tokens(g, x, row, length):
    """The valid tokens of one row [L, D] in float32."""
    sliced = g.Slice(x, g.Concat(row, 0, axis=0), g.Concat(row + 1, length, axis=0), [0, 1])
    return g.cast(g.Squeeze(sliced, 0), np.float32)


def plan_row(g, v, length, target, search):
    """Source map [L] and anchors [K] of the tokens v [L, D], L > target."""
    grid = g.branch(
        all_finite(g, v), lambda: similarity_grid(g, v), lambda: similarity_grid(g, finite_part(g, v))
    )

    def one_pass(_, grid, anchors, place):
        a, b = best_pairs(g, grid, anchors, target, search)
        moved, alive = merge_pairs(g, anchors, a, b)
        anchors = g.Compress(anchors, alive, axis=0)
        go_on = g.Greater(g.Shape(anchors), target)
        grid = g.branch(
            go_on, lambda: group_sums(g, grid, moved, g.Shape(anchors))[0], lambda: g.Slice(grid, 0, 0)
        )  # the last pass needs no grid
        return [g.scalar(go_on), grid, anchors, g.Gather(moved, place)]

    everyone = g.range(length)
    _, anchors, source_map = g.loop(one_pass, state=[grid, everyone, everyone])
    return [source_map, anchors]


def row_outputs(g, v, source_map, anchors, keep, x):
    """y [K, D], sizes [K], anchors [K] and source map [T] of a row, padded."""
    sums, sizes = group_sums(g, v, source_map, g.Shape(anchors))
    y = g.Div(sums, g.cast(g.Unsqueeze(sizes, 1), np.float32))
    free = keep - g.Shape(anchors)
    free_tokens = g.Shape(x, start=1, end=2) - g.Shape(source_map)
    padded = (
        g.Pad(sizes, g.Concat(0, free, axis=0)),
        g.Pad(anchors, g.Concat(0, free, axis=0), np.int64(-1)),
        g.Pad(source_map, g.Concat(0, free_tokens, axis=0), np.int64(-1)),
    )
    return [
        g.CastLike(g.Pad(y, g.Concat([0, 0], free, 0, axis=0)), x),
        *(g.cast(p, np.int32) for p in padded),
    ]


# --- a pass ---


def all_finite(g, v):
    """Whether v is free of NaN and infinity. Finite values whose sum overflows say no as well: a detour,
    no harm."""
    magnitude = g.ReduceL1(v, keepdims=0)
    return g.Not(g.IsNaN(magnitude - magnitude))


def finite_part(g, v):
    return g.Where(g.Or(g.IsNaN(v), g.IsInf(v)), np.float32(0), v)


def similarity_grid(g, v):
    """The finite v [L, D] as whole numbers [L, D] int32, which holds the sum of 262 000 tokens."""
    amax = g.Max(g.ReduceMax(v, keepdims=0), g.Neg(g.ReduceMin(v, keepdims=0)))
    scale = g.Where(g.Greater(amax, AMAX_MIN), g.Div(GRID_MAX, amax), np.float32(0))
    return g.cast(g.Round(v * scale), np.int32)


def best_pairs(g, grid, anchors, target, search):
    """Places of the r tokens to merge away [r] and of the tokens they merge into [r]."""
    n = g.Shape(anchors)
    n_a = (n + 1) // 2
    n_b = n // 2
    r = g.Max(g.Min(n - target, n * search.step_num // search.step_den, n_b), 1)
    a, b = blocks(g, n_a, n_b, search)
    place_a = g.Min(
        a * 2, n - 1
    )  # [blocks, rows, 1]; what lies outside the row is no candidate, or is cut off
    place_b = g.Max(g.Min(b * 2 + 1, n - 1), 0)  # [blocks, 1, columns]
    score = signed_squared_cosines(g, grid, place_a, place_b)
    value = pair_values(g, score, a, b, place_a, place_b, n_b, anchors, search.window)
    partner = g.Reshape(g.ArgMax(value, axis=2) + g.ReduceMin(b, 2), [-1])
    value = g.Slice(g.Reshape(g.ReduceMax(value, 2, keepdims=0), [-1]), 0, n_a)
    _, best = g.TopK(value, r, axis=0, outputs=2)  # TopK and ArgMax take the lowest index on ties
    return best * 2, g.Gather(partner, best) * 2 + 1


def halo(g, window):
    """How many B tokens before and after its own index an A token can meet inside the window,
    neighbours included."""
    return g.Max((window + 1) // 2, 1), g.Max((window - 1) // 2, 0)


def blocks(g, n_a, n_b, search):
    """Indices of A tokens [blocks, rows, 1] and B tokens [blocks, 1, columns] to be scored with each other.

    Each block of A meets a slab of B that holds all its windows, some of it outside the row; or all of B,
    if cheaper.
    """
    both = search.before + search.after
    rows = g.Max(both, BLOCK)
    whole = g.Or(g.Less(search.window, 0), g.GreaterOrEqual(rows + both, n_b))
    columns = g.Where(whole, n_b, rows + both)
    rows = g.Where(whole, n_a, rows)
    before = g.Where(whole, 0, search.before)
    first = g.Unsqueeze(g.range((n_a + rows - 1) // rows) * rows, [1, 2])
    return first + g.Unsqueeze(g.range(rows), 1), first - before + g.range(columns)


def signed_squared_cosines(g, grid, place_a, place_b):
    """Scores [blocks, rows, columns]: exact products in float64 while the largest <G, G> allows it,
    else in int64.

    The slabs are transposed outside the branch that multiplies them: side by side,
        older ONNX Runtimes (1.24 for one)
    fuse the two into an operator that they do not have for float64 (microsoft/onnxruntime issue 28136).
    """
    a = g.cast(g.Gather(grid, g.Squeeze(place_a, 2)), np.float64)  # [blocks, rows, D]
    b = g.cast(
        g.Transpose(g.Gather(grid, g.Squeeze(place_b, 1)), perm=[0, 2, 1]), np.float64
    )  # [blocks, D, columns]
    norms_a = g.ReduceSumSquare(a, 2)
    norms_b = g.ReduceSumSquare(b, 1)
    top = g.Max(g.ReduceMax(norms_a, keepdims=0), g.ReduceMax(norms_b, keepdims=0))

    def in_float64():
        return [g.MatMul(a, b), norms_a, norms_b]

    def in_int64():
        overflow = refuse_if(g, g.GreaterOrEqual(top, np.float64(SAFE_INT64)), REFUSE_OVERFLOW)
        whole_a = g.cast(a, np.int64) + overflow
        whole_b = g.cast(b, np.int64)
        exact = (
            g.MatMul(whole_a, whole_b),
            g.ReduceSum(whole_a * whole_a, 2),
            g.ReduceSum(whole_b * whole_b, 1),
        )
        return [g.cast(result, np.float64) for result in exact]

    dot, norms_a, norms_b = g.branch(g.Less(top, np.float64(EXACT_FLOAT64)), in_float64, in_int64)
    return g.Div(dot, g.Max(norms_a, np.float64(1))) * g.Div(g.Abs(dot), g.Max(norms_b, np.float64(1)))


def pair_values(g, score, a, b, place_a, place_b, n_b, anchors, window):
    """Scores inside the window; outside, neighbours spill and other pairs are no candidates."""
    exists = g.And(g.GreaterOrEqual(b, 0), g.Less(b, n_b))
    distance = g.Abs(g.Gather(anchors, place_a) - g.Gather(anchors, place_b))
    inside = g.And(g.Or(g.LessOrEqual(distance, window), g.Less(window, 0)), exists)
    neighbours = g.And(g.Equal(g.Abs(a * 2 - b * 2 - 1), 1), exists)
    return g.Where(inside, score, g.Where(neighbours, score - np.float64(SPILL_PENALTY), NO_CANDIDATE))


def merge_pairs(g, anchors, a, b):
    """New place of every token [n], and which tokens stay [n],
    when those at places a [r] merge into those at b [r]."""
    n = g.Shape(anchors)
    alive = g.ScatterElements(g.filled(1, n), a, g.filled(0, g.Shape(a)), axis=0)
    rank = g.CumSum(alive, np.int64(0)) - 1
    return g.ScatterElements(rank, a, g.Gather(rank, b), axis=0), g.cast(alive, np.bool_)


def group_sums(g, data, group, n_groups):
    """Sum the rows of data [n, D] that share a group [n], each group in increasing order;
    also the groups' sizes.

    ONNX Runtime's ScatterElements adds in order but element by element,
    and its ScatterND is fast but runs in parallel, so that rows of one group race. Hence rounds, the i-th
    members of all groups in round i: no round has a group twice.
    Every group has a member, so the sums start as the first ones: -0.0 stays -0.0.
    """
    n = g.Shape(group)
    sizes = g.ScatterElements(g.filled(0, n_groups), group, g.filled(1, n), axis=0, reduction="add")
    _, order = g.TopK(group * n + g.range(n), n, axis=0, largest=0, outputs=2)  # by group, then in order
    starts = g.CumSum(sizes, np.int64(0), exclusive=1)
    sorted_group = g.Gather(group, order)
    rank = g.range(n) - g.Gather(starts, sorted_group)  # [n] place of each within its group
    firsts = g.Gather(data, g.Gather(order, starts))
    # Only groups of several members take part in the rounds, each of which copies the sums.
    several = g.Greater(sizes, 1)
    slot = g.Gather(g.CumSum(g.cast(several, np.int64), np.int64(0)) - 1, sorted_group)

    def one_round(number, sums):
        members = g.Compress(g.range(n), g.Equal(rank, number + 1), axis=0)
        return [
            None,
            g.ScatterND(
                sums,
                g.Unsqueeze(g.Gather(slot, members), 1),
                g.Gather(data, g.Gather(order, members)),
                reduction="add",
            ),
        ]

    rounds = g.scalar(g.ReduceMax(g.Concat(sizes, 1, axis=0)) - 1)
    heavy = g.Compress(g.range(n_groups), several, axis=0)
    sums = g.loop(one_round, count=rounds, state=[g.Gather(firsts, heavy)])
    return g.ScatterND(firsts, g.Unsqueeze(heavy, 1), sums), sizes


# --- refusals ---


def inputs_refused(g, x, lengths, targets, keep, window):
    """0 [1] if the inputs are in range; else the run fails."""
    bad = [
        g.Less(lengths, 0),
        g.Greater(lengths, g.Shape(x, start=1, end=2)),
        g.Less(targets, g.Min(lengths, 1)),
        g.Greater(targets, lengths),
        g.Greater(targets, keep),
        g.Less(window, -1),
    ]
    any_bad = bad[0]
    for other in bad[1:]:
        any_bad = g.Or(any_bad, other)
    return refuse_if(g, g.ReduceMax(g.cast(any_bad, np.int64)), REFUSE_INPUTS)


def refuse_if(g, condition, name):
    """0 [1], or an error that quotes `name`: ONNX has no assert, but no Gather reads beyond its table."""
    return g.Gather([0], g.Reshape(g.cast(condition, np.int64), [1]), name=name)
