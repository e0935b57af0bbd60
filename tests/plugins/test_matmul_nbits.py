"""The native op ai.ltbm::MatMulNBits against exact products of the rounded activations, in every build."""

import shutil

import numpy as np
import pytest
from onnx import numpy_helper

from ltbm.plugins import library
from tests.support.native_op import LIBRARY, open_session
from tests.support.products import BUILDS, Product, copy_for

NATIVE = "MatMulNBits, native CPU op: "
ROWS = (1, 2, 4, 5, 7, 8, 9, 11, 40)  # few rows, and tiles that are full and not


@pytest.fixture(scope="module", params=BUILDS)
def build(request, tmp_path_factory):
    return copy_for(request.param, tmp_path_factory.mktemp(request.param))


def check_product(product, build, rows=ROWS, threads=1):
    session = open_session(product.model(), threads, build)
    width = product.codes.shape[1]
    for count in rows:
        x = np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)
        (y,) = session.run(None, {"x": x})
        expected, magnitude = product.expected(x)
        assert y.shape == expected.shape and y.dtype == np.float32
        assert (np.abs(y - expected) <= 1e-6 * magnitude + 1e-6).all(), count


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("block", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("bits", [4, 8])
def test_every_block_size(build, bits, block, zero_points):
    check_product(Product(45, 768, bits, block, zero_points), build)


@pytest.mark.parametrize("columns", [1, 3, 16, 33, 300])
@pytest.mark.parametrize("width", [32, 96, 160, 4096 + 288])
@pytest.mark.parametrize("bits", [4, 8])
def test_sizes_that_fill_no_vector_tile_or_task(build, bits, columns, width):
    check_product(Product(columns, width, bits, 32, bias=True), build, threads=2)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_largest_codes_and_activations_do_not_overflow(build, bits):
    product = Product(40, 512, bits, 256)
    product.codes[:] = 2**bits - 1
    session = open_session(product.model(), path=build)
    for count in (1, 12):
        x = np.full((count, 512), -3, np.float32)
        (y,) = session.run(None, {"x": x})
        np.testing.assert_allclose(y, product.expected(x)[0], rtol=1e-5)


def test_a_row_is_the_same_whatever_stands_beside_it(build):
    product = Product(70, 256, 4, 32)
    session = open_session(product.model(), path=build)
    x = np.random.default_rng(0).normal(size=(50, 256)).astype(np.float32)
    for total, parts in ((8, (1, 3, 5)), (50, (9, 13, 30))):  # a few rows, and many
        (together,) = session.run(None, {"x": x[:total]})
        for count in parts:
            np.testing.assert_array_equal(session.run(None, {"x": x[:count]})[0], together[:count])


def test_rows_of_zero_and_leading_dimensions(build):
    product = Product(20, 64, 4, 32, bias=True)
    session = open_session(product.model(), path=build)
    (y,) = session.run(None, {"x": np.zeros((2, 3, 64), np.float32)})
    np.testing.assert_array_equal(y, np.broadcast_to(product.bias, (2, 3, 20)))
    assert session.run(None, {"x": np.zeros((1, 0, 64), np.float32)})[0].shape == (1, 0, 20)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_not_hidden(build, bad):
    session = open_session(Product(20, 64, 4, 32).model(), path=build)
    for count in (1, 9):
        x = np.ones((count, 64), np.float32)
        x[0, 40] = bad
        (y,) = session.run(None, {"x": x})
        assert not np.isfinite(y[0]).any() and np.isfinite(y[1:]).all()


def test_as_onnxruntime_rounds(build):
    """Within what ONNX Runtime's own kernels, of which some round scales, differ from the exact product."""
    product = Product(64, 1024, 4, 32, bias=True)
    ours = open_session(product.model(), path=build)
    theirs = open_session(product.model("com.microsoft"), path=None)
    for count in (1, 50):
        x = np.random.default_rng(count).normal(size=(count, 1024)).astype(np.float32)
        (y,), (other,) = ours.run(None, {"x": x}), theirs.run(None, {"x": x})
        assert np.abs(y - other).max() < 2e-3 * np.abs(other).max()


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(bits=2), "4 or 8 bits"),
        (dict(block_size=48), "16, 32, 64, 128 or 256"),
        (dict(K=48), "multiple of 32"),
        (dict(N=0), "N is 0"),
    ],
)
def test_weights_that_are_not_taken_are_refused_at_opening(build, settings, words):
    with pytest.raises(Exception, match=f"(?s){NATIVE}.*{words}"):
        open_session(Product(20, 64, 4, 32).model(**settings), path=build)


def test_inputs_of_other_sizes_are_refused(build):
    session = open_session(Product(20, 64, 4, 32).model(), path=build)
    with pytest.raises(Exception, match=rf"{NATIVE}A has shape \[2, 32\], expected \[\.\., 64\]"):
        session.run(None, {"x": np.ones((2, 32), np.float32)})
    session = open_session(Product(20, 64, 4, 32).model(N=21), path=build)
    with pytest.raises(Exception, match=rf"{NATIVE}B has shape \[20, 2, 16\], expected 672 values"):
        session.run(None, {"x": np.ones((2, 64), np.float32)})


def test_group_indices_are_refused(build):
    product = Product(20, 64, 4, 32)
    model = product.model()
    (node,) = model.graph.node
    node.input.extend(["", "g_idx"])
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(64, np.int32), "g_idx"))
    session = open_session(model, path=build)
    with pytest.raises(Exception, match=f"{NATIVE}g_idx is not taken"):
        session.run(None, {"x": np.ones((2, 64), np.float32)})


def test_no_instructions_no_products(tmp_path, monkeypatch):
    copy = shutil.copy(LIBRARY, tmp_path / library.NATIVE_NAME)
    monkeypatch.setenv("LTBM_CPU", "plain")
    with pytest.raises(Exception, match=f"{NATIVE}this processor has none of the instructions"):
        open_session(Product(20, 64, 4, 32).model(), path=copy)
