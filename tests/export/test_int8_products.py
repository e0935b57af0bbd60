"""int8 products: the rounding against PyTorch's, and the graph's arithmetic against exact sums."""

import numpy as np
import pytest
import torch

from ltbm.export.graph import CONTRIB, INT8_COLUMNS, Graph
from ltbm.export.int8_products import WEIGHT_TOP, dequantize_columns, quantize_columns
from ltbm.export.reference_int8 import Int8Linear, round_linear_layers
from ltbm.export.weights import HashedFile, WeightFile
from ltbm.runtime.backends.opening import open_engine

OPSET = 20


def hard_weights(n: int = 24, k: int = 64) -> np.ndarray:
    """Random rows of many sizes; zeros, one outlier, values on the border between two codes."""
    w = np.random.default_rng(0).standard_normal((n, k)).astype(np.float32)
    w *= np.float32(10.0) ** np.arange(-12, 12, dtype=np.float32)[:, None]
    w[0] = 0
    w[1] = 0.01
    w[1, 5] = -100
    w[2] = np.round(w[2] / np.abs(w[2]).max() * WEIGHT_TOP * 2) / 2
    return w


@pytest.fixture
def product(tmp_path):
    """(weight [N, K], x [.., K]) -> x @ W.T by the exported graph."""

    def multiply(weight: np.ndarray, x: np.ndarray) -> np.ndarray:
        with HashedFile(tmp_path / "product.weights", lambda size, what: None) as file:
            weights = WeightFile(file.path.name, file)
            g = Graph("product", OPSET, "float32", weights, {CONTRIB: 1}, INT8_COLUMNS)
            y = g.linear(g.input("x", "float32", ["B", "S", weight.shape[1]]), "layer", weight)
            g.output(y, "y", "float32", ["B", "S", weight.shape[0]])
        path = tmp_path / "product.onnx"
        path.write_bytes(g.model().SerializeToString())
        return open_engine(path, device="cpu").run({"x": x})["y"]

    return multiply


def test_columns_are_rounded_as_pytorch_rounds_channels():
    w = hard_weights()
    columns = quantize_columns(w)
    scales = torch.from_numpy(np.maximum(np.abs(w).max(1), np.float32(1e-30)) / np.float32(63))
    zeros = torch.zeros(len(w), dtype=torch.int32)
    want = torch.fake_quantize_per_channel_affine(torch.from_numpy(w), scales, zeros, 0, -63, 63).numpy()
    assert np.abs(dequantize_columns(columns) - want).max() <= 1e-6 * np.abs(w).max()
    assert np.abs(columns.codes.astype(int)).max() == 63


def test_a_row_is_rounded_by_its_own_largest_value_alone(product):
    """One row a million times as large beside it changes nothing, nor does a row of zeros."""
    rng = np.random.default_rng(1)
    w = rng.standard_normal((16, 64)).astype(np.float32)
    x = rng.standard_normal((1, 3, 64)).astype(np.float32)
    beside = np.concatenate([x, 1e6 * x, np.zeros_like(x)], axis=1)
    got = product(w, beside)
    np.testing.assert_array_equal(got[:, :3], product(w, x))
    assert not got[:, 6:].any()
    exact = x @ w.T
    assert 0 < np.abs(got[:, :3] - exact).max() < 0.03 * np.abs(exact).max()


def test_the_graph_computes_as_pytorch_with_the_same_rounding(product):
    rng = np.random.default_rng(2)
    w = rng.standard_normal((48, 256)).astype(np.float32)
    x = (rng.standard_normal((2, 5, 256)) * rng.lognormal(size=(2, 5, 1))).astype(np.float32)
    linear = torch.nn.Linear(256, 48, bias=False)
    linear.weight.data = torch.from_numpy(w)
    want = Int8Linear(linear)(torch.from_numpy(x)).detach().numpy()
    assert np.abs(product(w, x) - want).max() < 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_codes_do_not_saturate(product, sign):
    """Whole numbers, so exact: CPUs without dot products of int8 add pairs of products in int16."""
    k = 1024
    w = np.full((8, k), sign * 63, np.float32)
    x = np.full((1, 4, k), 127, np.float32)
    np.testing.assert_allclose(product(w, x), sign * 63.0 * 127 * k, rtol=1e-6)


def test_every_linear_layer_is_replaced():
    tower = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU()) for _ in "ab"])
    round_linear_layers(tower)
    kinds = [type(module) for module in tower.modules()]
    assert kinds.count(Int8Linear) == 2 and torch.nn.Linear not in kinds
