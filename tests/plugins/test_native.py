"""The native ONNX Runtime CPU op against the numpy reference and the function body, bit for bit."""

import functools
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ltbm.plugins import library
from ltbm.plugins.merge import merge_rows, plan_merge
from ltbm.plugins.onnx_function import OP, OUTPUTS, op_model
from tests.support.native_op import (
    LIBRARY,
    NATIVE,
    bare_model,
    check,
    onnxruntime,
    open_session,
    run,
    session,
)
from tests.support.op_arrays import check_bits, feeds

BUILDS = ("plain", "avx2", "avx512")  # of the inner loops; the fastest one that runs here is the default
WINDOWS = (-1, 0, 1, 8, 40, 2**31 - 1)


@pytest.fixture(scope="session", params=BUILDS)
def build(request, tmp_path_factory):
    """A copy of the library that runs one build of the inner loops: each copy chooses for itself, once."""
    copy = shutil.copy(LIBRARY, tmp_path_factory.mktemp(request.param) / library.NATIVE_NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTBM_CPU", request.param)
        try:
            session(3, "float32", path=copy).run(None, feeds(np.ones((1, 4, 3), np.float32), [4], [2], 2, 8))
        except Exception as error:
            if "this processor and build have" not in str(error):
                raise
            pytest.skip(str(error))
    return copy


# --- equality with the reference ---


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_hard_rows(hard_row, build, dtype):
    with np.errstate(over="ignore"):
        x = hard_row.astype(dtype)[None]
    length = len(hard_row)
    for window in WINDOWS:
        for target in {min(length, 1), (length + 1) // 2, length}:
            check(x, [length], [target], length + 2, window, path=build)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("dim, tokens", [(1, 30), (2, 61), (7, 130), (33, 90), (513, 40), (1280, 33)])
def test_ragged_batches_with_garbage_in_the_padding(ragged_batch, build, dim, tokens, dtype):
    rng = np.random.default_rng(dim)
    for window, step in zip(WINDOWS, [(2, 5), (1, 2), (1, 4), (2, 5), (9, 10), (1, 1000)]):
        x, lengths, targets = ragged_batch(rng, 4, tokens, dim, dtype)
        check(x, lengths, targets, targets.max() + rng.integers(3), window, step, path=build)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_every_float16_is_read_and_written_right(build, dtype):
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(1, 1024, 64)
    every = every[:, ~np.isnan(every).any(axis=(0, 2))].astype(dtype)
    length = every.shape[1]
    check(every, [length], [length], length, 8, path=build)
    check(every, [length], [length // 2], length, 8, path=build)
    finite = np.where(np.isfinite(every), every, 0)
    check(finite, [length], [length // 3], length, 8, path=build)


def test_nan_of_any_bits_counts_as_nothing(make_clip, build):
    x = make_clip(60, 5)
    x[7, :3] = np.array([0x7FC01234, 0xFFC00001, 0x7FFFFFFF], np.uint32).view(np.float32)
    check(x[None], [60], [21], 21, 8, path=build)


@pytest.mark.parametrize("keep, window", [(563, 8), (188, 8), (47, 32), (188, -1)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_window_of_30_seconds(make_clip, build, keep, window, dtype):
    check(make_clip(750, 1280)[None].astype(dtype), [750], [keep], keep, window, path=build)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "batch", [1, 3, 17]
)  # threads share a row's blocks in small batches, rows in large ones
def test_threads_change_nothing(ragged_batch, threads, batch):
    rng = np.random.default_rng(batch)
    for window in (8, -1):
        x, lengths, targets = ragged_batch(rng, batch, 201, 40, np.float32)
        check(x, lengths, targets, 201, window, threads=threads)
        constant = np.ones_like(x)
        check(constant, lengths, targets, 201, window, threads=threads)


def test_runs_of_one_session_may_overlap(make_clip):
    rows = [make_clip(300, 64, seed)[None] for seed in range(8)]
    expected = [merge_rows(x, [300], [80], 80, 8) for x in rows]
    shared = session(64, "float32", threads=2)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for outputs, wanted in zip(
                pool.map(lambda x: shared.run(OUTPUTS, feeds(x, [300], [80], 80, 8)), rows), expected
            ):
                check_bits(outputs, wanted)


def test_a_row_of_ten_minutes(make_clip, build):
    check(make_clip(15_000, 24)[None], [15_000], [3750], 3750, 8, path=build)


@pytest.mark.parametrize("keep, window", [(2, 32), (3, -1)])
def test_large_groups_stay_exact(build, keep, window):
    """Groups whose sums leave int16 and whose products leave float64."""
    channel = np.random.default_rng(7).uniform(0.5, 1, (1, 1500, 1)).astype(np.float32)
    if window > 0:
        channel = np.where(np.arange(1500) % 7 == 6, 0.9997, 1).astype(np.float32)[None, :, None]
    x = np.repeat(channel, 1280, axis=2)
    assert int(plan_merge(x[0], keep, window).sizes.max()) ** 2 > 100_000
    check(x, [1500], [keep], keep, window, path=build)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_products_fit(build, sign):
    """Every product of the first pass at its largest, and the low halves of sums at theirs."""
    for length in (2, 64):
        x = np.where(np.arange(length)[:, None] % 2, sign, 1).astype(np.float32) * np.ones(
            (length, 5000), np.float32
        )
        for target in (1, length // 2):
            check(x[None], [length], [target], target, -1, path=build)


@pytest.mark.parametrize("period", [64, 128, 256, 512])
def test_products_of_rows_with_loud_stretches(build, period):
    """A 32-bit lane holds the products of a part of such a row, but not those of the whole."""
    rng = np.random.default_rng(period)
    for share in (2, 3, 4):
        loud = np.arange(2560) % period < period // share
        x = np.where(loud, rng.uniform(0.9, 1, (20, 2560)), 0.01).astype(np.float32)
        for target in (3, 10):
            check(x[None], [20], [target], target, 8, path=build)


def test_groups_of_more_than_16384_tokens(build):
    """Squares of the high halves of such a group: a few vectors of them fill an int32 lane."""
    x, plan = long_group()
    outputs = run(x[None], [40_000], [2], 2, 64, path=build)
    assert plan.sizes.tolist() == [39_000, 1000] and np.array_equal(outputs[3][0], plan.source_map)


@functools.cache
def long_group():
    """39 000 equal tokens, then 500 and 500 more like each other than like them: tokens [L,
    D] and their plan."""
    channel = np.arange(40)
    kinds = [np.ones(40), np.where(channel < 10, -1, 1), np.where(channel < 12, -1, 1)]
    x = np.repeat(np.array(kinds, np.float32), [39_000, 500, 500], axis=0)
    return x, plan_merge(x, 2, 64)


def test_batch_tokens_and_slots_may_be_empty():
    for batch, tokens, keep in [(0, 4, 2), (2, 0, 0), (2, 0, 2), (2, 3, 0), (2, 3, 2)]:
        check(np.ones((batch, tokens, 4), np.float32), [0] * batch, [0] * batch, keep, 8)


# --- beside the function body ---


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("window", [8, -1])
def test_one_model_gives_the_same_bits_with_and_without_the_native_op(ragged_batch, dtype, window):
    rng = np.random.default_rng(3)
    x, lengths, targets = ragged_batch(rng, 5, 140, 48, dtype)
    native, body = (run(x, lengths, targets, 140, window, native=native) for native in (True, False))
    assert [a.tobytes() for a in native] == [b.tobytes() for b in body]


def test_the_native_op_comes_before_the_function_body(make_clip, tmp_path):
    for path, operators in [(LIBRARY, {OP}), (None, {"Loop", "If", "MatMul"})]:
        opened = open_session(
            op_model(8), path=path, enable_profiling=True, profile_file_prefix=str(tmp_path / "profile")
        )
        opened.run(None, feeds(make_clip(40, 8)[None], [40], [10], 10, 8))
        with open(opened.end_profiling()) as file:
            ran = {event["args"].get("op_name") for event in json.load(file) if event.get("cat") == "Node"}
        assert operators <= ran and (path is not None) == (OP in ran)


def test_register_adds_the_native_op():
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    assert library.register(options) is True
    opened = onnxruntime.InferenceSession(op_model(3).SerializeToString(), options)
    with pytest.raises(Exception, match=NATIVE):
        opened.run(None, feeds(np.ones((1, 4, 3), np.float32), [5], [2], 2, 8))


@pytest.mark.parametrize(
    "attributes, step", [({}, (2, 5)), ({"step_num": 1}, (1, 5)), ({"step_den": 3}, (2, 3))]
)
def test_attributes_default_to_two_fifths(make_clip, attributes, step):
    x = make_clip(90, 4)[None]
    outputs = open_session(bare_model(**attributes)).run(OUTPUTS, feeds(x, [90], [9], 9, 8))
    check_bits(outputs, merge_rows(x, [90], [9], 9, 8, step))
