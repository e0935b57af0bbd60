"""The native op ai.ltbm::DynamicQuantizeMatMul against exact products of the rounded rows, in every build."""

import numpy as np
import pytest
from onnx import helper

from ltbm.plugins import library
from tests.support.native_op import open_session
from tests.support.products import BUILDS, copy_for, one_node, rounded

NATIVE = "DynamicQuantizeMatMul, native CPU op: "
ROWS = (1, 5, 6, 13, 70)  # tiles that are full and not


@pytest.fixture(scope="module", params=BUILDS)
def build(request, tmp_path_factory):
    return copy_for(request.param, tmp_path_factory.mktemp(request.param))


def model(codes, scales):
    node = helper.make_node("DynamicQuantizeMatMul", ["x", "B", "b_scale"], ["y"], domain=library.OP_DOMAIN)
    return one_node(node, {"B": codes, "b_scale": scales})


def weights(width, columns, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, (width, columns)).astype(np.int8)
    return codes, rng.uniform(0.5, 2, columns).astype(np.float32)


def expected(x, codes, scales):
    """In float64, of rows rounded as the op does, and the magnitudes that add up."""
    values, row_scales = rounded(x)
    factors = row_scales[:, None] * scales.astype(float)
    magnitudes = np.abs(values) @ np.abs(codes.astype(float)) * factors
    return values @ codes.astype(float) * factors, magnitudes


@pytest.mark.parametrize("width, columns", [(32, 32), (1280, 96), (4096 + 1024, 64), (384, 1536)])
def test_products(build, width, columns):
    codes, scales = weights(width, columns)
    session = open_session(model(codes, scales), threads=2, path=build)
    for count in ROWS:
        x = np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)
        (y,) = session.run(None, {"x": x})
        want, magnitudes = expected(x, codes, scales)
        assert (np.abs(y - want) <= 1e-6 * magnitudes).all(), count


def test_the_largest_codes_and_activations_do_not_overflow(build):
    width = 5120
    codes = np.full((width, 32), -127, np.int8)
    session = open_session(model(codes, np.ones(32, np.float32)), path=build)
    (y,) = session.run(None, {"x": np.full((7, width), -3, np.float32)})
    np.testing.assert_allclose(y, 3 * 127 * width, rtol=1e-6)


def test_no_row_depends_on_another(build):
    codes, scales = weights(256, 64)
    session = open_session(model(codes, scales), path=build)
    x = np.random.default_rng(0).normal(size=(20, 256)).astype(np.float32)
    (together,) = session.run(None, {"x": x})
    x[3] *= 1e6
    (changed,) = session.run(None, {"x": x})
    np.testing.assert_array_equal(np.delete(changed, 3, 0), np.delete(together, 3, 0))
    np.testing.assert_array_equal(session.run(None, {"x": x[None, 5:9]})[0], together[None, 5:9])


def test_rows_of_zero_and_values_that_are_not_finite(build):
    codes, scales = weights(64, 32)
    session = open_session(model(codes, scales), path=build)
    x = np.zeros((3, 64), np.float32)
    x[1, 7] = np.nan
    (y,) = session.run(None, {"x": x})
    assert not y[[0, 2]].any() and np.isnan(y[1]).all()


@pytest.mark.parametrize(
    "width, columns, words", [(48, 32, "K is a multiple of 32"), (64, 36, "N is a multiple of 32")]
)
def test_sizes_that_are_not_taken(build, width, columns, words):
    session = open_session(model(*weights(width, columns)), path=build)
    with pytest.raises(Exception, match=f"{NATIVE}{words}"):
        session.run(None, {"x": np.ones((2, width), np.float32)})


def test_inputs_that_do_not_fit(build):
    codes, scales = weights(64, 32)
    session = open_session(model(codes, scales[1:]), path=build)
    with pytest.raises(Exception, match=rf"{NATIVE}b_scale has shape \[31\], expected 32 values"):
        session.run(None, {"x": np.ones((2, 64), np.float32)})
    session = open_session(model(codes, scales), path=build)
    with pytest.raises(Exception, match=rf"{NATIVE}A has shape \[2, 32\], expected \[\.\., 64\]"):
        session.run(None, {"x": np.ones((2, 32), np.float32)})
