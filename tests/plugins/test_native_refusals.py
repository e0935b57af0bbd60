"""What the native ONNX Runtime CPU op refuses, and what its library asks of its host."""

import shutil

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.support.native_op import (
    LIBRARY,
    NATIVE,
    bare_model,
    feeds,
    open_session,
    run,
)


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


# --- the library ---


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
