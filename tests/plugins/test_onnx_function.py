"""The ONNX function body against the numpy reference, bit for bit,
in ONNX Runtime and in ONNX's own evaluator."""

import functools

import numpy as np
import onnx
import onnx.checker
import pytest

from ltbm.plugins.merge import merge_rows, plan_merge
from ltbm.plugins.onnx_function import IR_VERSION, OPSET, OUTPUTS, ltbm_function, op_model
from tests.support.op_arrays import check_bits, feeds

onnxruntime = pytest.importorskip("onnxruntime", reason="runs the body: pip install 'ltbm[cpu]'")

WINDOWS = (-1, 0, 1, 8, 40, 2**31 - 1)


@functools.cache
def session(dim, dtype, step=(2, 5), threads=1, optimise=True):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # refusals are expected here
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = op_model(dim, dtype, step).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def check(x, lengths, targets, keep, window, step=(2, 5), **options):
    outputs = session(x.shape[2], str(x.dtype), step, **options).run(
        OUTPUTS, feeds(x, lengths, targets, keep, window)
    )
    check_bits(outputs, merge_rows(x, lengths, targets, keep, window, step))


# --- equality ---


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("window", WINDOWS)
def test_hard_rows(hard_row, window, dtype):
    with np.errstate(over="ignore"):
        x = hard_row.astype(dtype)[None]
    length = len(hard_row)
    for target in {min(length, 1), (length + 1) // 2, length}:
        check(x, [length], [target], length + 2, window)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("dim, tokens", [(1, 30), (2, 61), (7, 130), (64, 90), (1280, 33)])
def test_ragged_batches_with_garbage_in_the_padding(ragged_batch, dim, tokens, dtype):
    rng = np.random.default_rng(dim)
    for window, step in zip(WINDOWS, [(2, 5), (1, 2), (1, 4), (2, 5), (9, 10), (1, 1000)]):
        x, lengths, targets = ragged_batch(rng, 4, tokens, dim, dtype)
        check(x, lengths, targets, targets.max() + rng.integers(3), window, step)


@pytest.mark.parametrize("window", [1, 2, 3, 8, 71, 200])
def test_long_rows_of_many_blocks(window):
    x = (
        np.random.default_rng(window).standard_normal((1, 1001, 3)).astype(np.float32)
    )  # partners anywhere in a window
    check(x, [1001], [63], 63, window)


@pytest.mark.parametrize("keep, window", [(563, 8), (188, 8), (47, 32), (188, -1)])
def test_a_window_of_30_seconds(make_clip, keep, window):
    x = make_clip(750, 1280)[None]
    check(x, [750], [keep], keep, window)
    check(x.astype(np.float16), [750], [keep], keep, window)


@pytest.mark.parametrize("keep, window", [(2, 32), (3, -1)])
def test_group_products_beyond_float64(keep, window):
    channel = np.random.default_rng(7).uniform(0.5, 1, (1, 1500, 1)).astype(np.float32)
    if window > 0:
        channel = np.where(np.arange(1500) % 7 == 6, 0.9997, 1).astype(np.float32)[None, :, None]
    x = np.repeat(channel, 1280, axis=2)
    assert int(plan_merge(x[0], keep, window).sizes.max()) ** 2 > 100_000
    check(x, [1500], [keep], keep, window)


def test_threads_do_not_race_on_ties(make_clip):
    x = np.repeat(make_clip(1, 512)[None], 400, axis=1)
    for _ in range(5):
        check(x, [400], [3], 3, -1, threads=4)


def test_optimisation_of_the_graph_changes_nothing(make_clip):
    check(make_clip(80, 24)[None], [80], [21], 21, 8, optimise=False)


def test_rows_and_tokens_may_be_empty():
    for tokens, keep in [(0, 0), (0, 2), (3, 0), (3, 2)]:
        check(np.ones((2, tokens, 4), np.float32), [0, 0], [0, 0], keep, 8)


@pytest.mark.parametrize("window", [-1, 4])
def test_the_body_needs_no_particular_runtime(make_clip, window):
    from onnx.reference import ReferenceEvaluator

    x = make_clip(24, 5)[None]
    outputs = ReferenceEvaluator(op_model(5)).run(None, feeds(x, [23], [6], 7, window))
    outputs[0] = outputs[0][
        None
    ]  # it joins the y of the Loop's rows by vstack, where ONNX wants them stacked
    check_bits(outputs, merge_rows(x, [23], [6], 7, window))


# --- the model ---


def nodes_of(nodes):
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from nodes_of(attribute.g.node)


def test_the_body_is_standard_operators_of_one_opset():
    function = ltbm_function()
    assert (function.domain, function.name) == ("ai.ltbm", "LTBM")
    assert [(o.domain, o.version) for o in function.opset_import] == [("", OPSET)] and OPSET == 20
    assert {node.domain for node in nodes_of(function.node)} == {""}
    assert {a.name: a.i for a in function.attribute_proto} == {"step_num": 2, "step_den": 5}


def test_the_model_leaves_batch_tokens_and_slots_open():
    model = op_model(16, "float16")
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == IR_VERSION == 10
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "x": ["B", "T", 16],
        "lengths": ["B"],
        "targets": ["B"],
        "keep": [1],
        "window": [1],
        "y": ["B", "K", 16],
        "sizes": ["B", "K"],
        "anchors": ["B", "K"],
        "source_map": ["B", "T"],
    }


def test_attributes_default_to_two_fifths(make_clip):
    model = op_model(4)
    del model.graph.node[0].attribute[:]
    x = make_clip(40, 4)[None]
    outputs = onnxruntime.InferenceSession(model.SerializeToString()).run(OUTPUTS, feeds(x, [40], [9], 9, 8))
    check_bits(outputs, merge_rows(x, [40], [9], 9, 8, step=(2, 5)))
    assert outputs[3].tobytes() != merge_rows(x, [40], [9], 9, 8, step=(1, 4))["source_map"].tobytes()


# --- refusals ---


@pytest.mark.parametrize(
    "arguments",
    [
        dict(lengths=[5]),
        dict(lengths=[-1], targets=[-1]),
        dict(targets=[0]),
        dict(targets=[5], keep=9),
        dict(keep=1),
        dict(window=-2),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(arguments):
    good = {"x": np.ones((1, 4, 3), np.float32), "lengths": [4], "targets": [2], "keep": 2, "window": 8}
    session(3, "float32").run(None, feeds(**good))
    with pytest.raises(Exception, match="LTBM_refuses_lengths_targets_keep_or_window_out_of_range"):
        session(3, "float32").run(None, feeds(**{**good, **arguments}))


def test_models_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="got 8 in bfloat16"):
        op_model(8, "bfloat16")
    with pytest.raises(ValueError, match="got 0 in float32"):
        op_model(0)
    with pytest.raises(ValueError, match="positive fraction"):
        op_model(8, step=(2, 0))
