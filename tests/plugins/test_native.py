"""The native ONNX Runtime CPU op against the numpy reference and the function body, bit for bit."""

import functools
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto, helper

from ltbm.plugins import library
from ltbm.plugins.merge import merge_rows, plan_merge
from ltbm.plugins.onnx_function import DOMAIN, INPUTS, IR_VERSION, OP, OPSET, OUTPUTS, VERSION, op_model

onnxruntime = pytest.importorskip("onnxruntime", reason="runs the op: pip install 'ltbm[cpu]'")
LIBRARY = library.native_library()
if LIBRARY is None:
    pytest.skip(
        "the native op is not built: install a C++ compiler, then pip install ltbm again",
        allow_module_level=True,
    )

BUILDS = ("plain", "avx2", "avx512")  # of the inner loops; the fastest one that runs here is the default
WINDOWS = (-1, 0, 1, 8, 40, 2**31 - 1)
NATIVE = "LTBM, native CPU op: "  # how errors of the native op begin


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


@functools.cache
def session(dim, dtype, step=(2, 5), threads=1, path=LIBRARY, native=True):
    return open_session(op_model(dim, dtype, step), threads, path if native else None)


def open_session(model, threads=1, path=LIBRARY, **settings):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # refusals are expected here
    for name, value in settings.items():
        setattr(options, name, value)
    if path is not None:
        options.register_custom_ops_library(str(path))
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def feeds(x, lengths, targets, keep, window):
    return {
        "x": x,
        "lengths": np.array(lengths, np.int32),
        "targets": np.array(targets, np.int32),
        "keep": np.array([keep], np.int64),
        "window": np.array([window], np.int32),
    }


def run(x, lengths, targets, keep, window, step=(2, 5), **options):
    return session(x.shape[2], str(x.dtype), step, **options).run(
        OUTPUTS, feeds(x, lengths, targets, keep, window)
    )


def check(x, lengths, targets, keep, window, step=(2, 5), **options):
    outputs = run(x, lengths, targets, keep, window, step, **options)
    check_bits(outputs, merge_rows(x, lengths, targets, keep, window, step))


def check_bits(outputs, expected):
    for name, output in zip(OUTPUTS, outputs):
        assert output.dtype == expected[name].dtype and output.shape == expected[name].shape
        assert output.tobytes() == expected[name].tobytes(), name


# --- equality with the reference
# ------------------------------------------------------------------------------------


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


# --- beside the function body
# ---------------------------------------------------------------------------------------


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


# --- refusals
# -------------------------------------------------------------------------------------------------------


def bare_model(element=TensorProto.FLOAT, **attributes):
    """The op without its function body, and with no word about shapes."""
    types = dict(x=element, keep=TensorProto.INT64, y=element)
    infos = {
        name: helper.make_tensor_value_info(name, types.get(name, TensorProto.INT32), None)
        for name in (*INPUTS, *OUTPUTS)
    }
    node = helper.make_node(OP, INPUTS, OUTPUTS, domain=DOMAIN, **attributes)
    graph = helper.make_graph([node], "bare", [infos[i] for i in INPUTS], [infos[o] for o in OUTPUTS])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(lengths=[4, 5]), r"lengths\[1\] is 5, expected 0..4, the tokens of x"),
        (dict(lengths=[-1, 4]), r"lengths\[0\] is -1, expected 0..4"),
        (dict(targets=[2, 5]), r"targets\[1\] is 5 for a row of 4 tokens, expected 1..4"),
        (dict(targets=[0, 2]), r"targets\[0\] is 0 for a row of 4 tokens, expected 1..4"),
        (dict(lengths=[0, 4], targets=[1, 2]), r"targets\[0\] is 1 for a row of 0 tokens, expected 0"),
        (dict(keep=1), "keep is 1 slots, expected at least 2, the largest target"),
        (dict(lengths=[0, 0], targets=[0, 0], keep=-1), "keep is -1 slots, expected at least 0"),
        (dict(window=-2), "window is -2, expected a distance in encoder tokens, or -1 for Global Merge"),
        (dict(lengths=[4]), r"lengths has shape \[1\], expected \[2\]"),
        (dict(targets=[2, 2, 2]), r"targets has shape \[3\], expected \[2\]"),
        (dict(keep=[2, 2]), r"keep has shape \[2\], expected \[1\]"),
        (dict(window=[]), r"window has shape \[0\], expected \[1\]"),
        (dict(x=np.ones((4, 3))), r"x has shape \[4, 3\], expected \[B, T, D\]"),
        (dict(x=np.ones((2, 4, 0))), r"x has shape \[2, 4, 0\], expected"),
    ],
    ids=str,
)
def test_inputs_out_of_range_are_refused(arguments, words, dtype):
    good = {"x": np.ones((2, 4, 3)), "lengths": [4, 4], "targets": [2, 2], "keep": 2, "window": 8}
    opened = open_session(bare_model(helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))

    def attempt(**arguments):
        values = feeds(**{**good, **arguments})
        opened.run(
            None,
            {
                name: value.reshape(-1)
                if name in ("keep", "window")
                else value.astype(dtype)
                if name == "x"
                else value
                for name, value in values.items()
            },
        )

    attempt()
    with pytest.raises(Exception, match=NATIVE + words):
        attempt(**arguments)
    attempt()  # the refusal left nothing behind


@pytest.mark.parametrize("batch", [1, 9])  # within a row's blocks, and in rows side by side
def test_similarity_beyond_int64_is_refused(batch):
    x = np.zeros((batch, 50_000, 200), np.float32)  # memory of the empty rows is never touched
    x[-1] = 1
    lengths, targets = np.zeros(batch, np.int32), np.zeros(batch, np.int32)
    lengths[-1], targets[-1] = 50_000, 1
    with pytest.raises(Exception, match=NATIVE + ".*leaves int64: cut the recording into rows of 30 s"):
        run(x, lengths, targets, 1, 64, threads=2)
    targets[-1] = 200  # smaller groups fit
    assert run(x, lengths, targets, 200, 64, threads=2)[1][-1].sum() == 50_000


def test_rows_too_long_for_the_grid_are_refused():
    with pytest.raises(Exception, match=NATIVE + r"lengths\[0\] is 65536, more than the 65535 tokens"):
        run(np.ones((1, 65_536, 1), np.float32), [65_536], [65_536], 65_536, 8)


@pytest.mark.parametrize("attributes", [dict(step_num=0), dict(step_den=-1), dict(step_num=2**31)], ids=str)
def test_steps_that_are_no_fraction_are_refused(attributes):
    with pytest.raises(Exception, match=NATIVE + "step_.* expected the parts of a positive fraction"):
        open_session(bare_model(**attributes))


def test_other_types_of_tokens_are_refused():
    with pytest.raises(Exception, match=r"tensor\(double\)"):
        open_session(bare_model(TensorProto.DOUBLE))


def test_an_unknown_build_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LTBM_CPU", "mmx")
    copy = shutil.copy(LIBRARY, tmp_path)
    with pytest.raises(Exception, match="LTBM_CPU asks for mmx, this processor and build have plain"):
        run(np.ones((1, 4, 3), np.float32), [4], [2], 2, 8, path=copy)


# --- the library
# ----------------------------------------------------------------------------------------------------


def test_the_library_needs_no_runtime_to_link_against():
    import ctypes

    assert hasattr(ctypes.CDLL(str(LIBRARY)), "RegisterCustomOps")


def test_runtimes_without_the_needed_interface_are_told_so():
    """A fake OrtApiBase that knows version 1 only."""
    import ctypes

    seen = []
    create_status = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)(
        lambda code, text: seen.append((code, text.decode())) or 1
    )
    table = (ctypes.c_void_p * 1)(ctypes.cast(create_status, ctypes.c_void_p))
    get_api = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)(
        lambda version: ctypes.addressof(table) if version == 1 else None
    )
    number = ctypes.create_string_buffer(b"1.17.3")
    get_version = ctypes.CFUNCTYPE(ctypes.c_void_p)(lambda: ctypes.addressof(number))
    base = (ctypes.c_void_p * 2)(
        ctypes.cast(get_api, ctypes.c_void_p), ctypes.cast(get_version, ctypes.c_void_p)
    )
    entry = ctypes.CDLL(str(LIBRARY)).RegisterCustomOps
    entry.restype = ctypes.c_void_p
    assert entry(None, ctypes.byref(base)) == 1
    assert seen == [(1, NATIVE + "needs ONNX Runtime 1.24 or later, this is 1.17.3")]
