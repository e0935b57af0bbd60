"""The native op ai.ltbm::MatMulNBits against exact products of the rounded activations, in every build."""

import ctypes
import platform
import shutil

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ltbm.plugins import library
from tests.support.native_op import LIBRARY, open_session

BUILDS = ("dotprod",) if platform.machine() in ("aarch64", "arm64") else ("avx2", "avxvnni", "avx512")
NATIVE = "MatMulNBits, native CPU op: "
ROWS = (1, 2, 3, 4, 5, 6, 11, 40)  # few rows, and tiles that are full and not


@pytest.fixture(scope="session", params=BUILDS)
def build(request, tmp_path_factory):
    """A copy of the library that runs one build of the inner loops: each copy chooses for itself, once."""
    copy = shutil.copy(LIBRARY, tmp_path_factory.mktemp(request.param) / library.NATIVE_NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTBM_CPU", request.param)
        chosen = ctypes.CDLL(str(copy)).ltbm_matmul_nbits
        chosen.restype = ctypes.c_char_p
        if chosen() != request.param.encode():
            pytest.skip(f"this processor and build have no {request.param} products")
    return copy


class Product:
    """One MatMulNBits over random weights, and what it is to give."""

    def __init__(self, columns, width, bits, block, zero_points=False, bias=False, seed=0):
        rng = np.random.default_rng(seed)
        blocks = width // block
        self.bits, self.block = bits, block
        self.codes = rng.integers(0, 2**bits, (columns, width)).astype(np.uint8)
        self.scales = rng.normal(size=(columns, blocks)).astype(np.float32)
        middle = 2 ** (bits - 1)
        points = rng.integers(0, 2**bits, (columns, blocks)) if zero_points else np.full_like(blocks, middle)
        self.zero_points = np.broadcast_to(points, (columns, blocks)).astype(np.uint8)
        self.bias = rng.normal(size=columns).astype(np.float32) if bias else None
        self.has_zero_points = zero_points

    def model(self, domain=library.OP_DOMAIN, **attributes):
        (columns, width) = self.codes.shape
        stored = {
            "B": packed(self.codes, self.bits).reshape(columns, -1, self.block * self.bits // 8),
            "scales": self.scales,
        }
        if self.has_zero_points:
            stored["zero_points"] = packed(self.zero_points, self.bits)
        names = ["x", *stored]
        if self.bias is not None:
            names += [""] * (5 - len(names)) + ["bias"]
            stored["bias"] = self.bias
        settings = {
            "K": width,
            "N": columns,
            "bits": self.bits,
            "block_size": self.block,
            "accuracy_level": 4,
        }
        node = helper.make_node("MatMulNBits", names, ["y"], domain=domain, **settings | attributes)
        return one_node(node, stored)

    def expected(self, x):
        """In float64 of activations rounded as the op does, [.., N], and the magnitudes that add up."""
        values, scales = rounded(x.reshape(len(x), -1, self.block))
        weights = self.codes.reshape(*self.zero_points.shape, -1) - self.zero_points[..., None].astype(float)
        factors = scales[:, None] * self.scales
        terms = np.einsum("mbk,nbk->mnb", values, weights) * factors
        magnitudes = np.einsum("mbk,nbk->mnb", np.abs(values), np.abs(weights)) * np.abs(factors)
        bias = 0 if self.bias is None else self.bias
        return terms.sum(-1) + bias, magnitudes.sum(-1)


def rounded(blocks):
    """int8 codes [.., block] of float32 blocks, as float64, and the scale of each block."""
    scales = np.abs(blocks).max(-1) / np.float32(127)
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)
    return np.rint(blocks * inverse[..., None]).astype(float), scales.astype(float)


def packed(codes, bits):
    if bits == 8:
        return codes
    codes = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    return codes[:, ::2] | codes[:, 1::2] << 4


def one_node(node, stored):
    initializers = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(node.domain, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


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
    (together,) = session.run(None, {"x": x})
    for count in (7, 13, 30):
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
        assert np.isnan(y[0]).all() and np.isfinite(y[1:]).all()


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
