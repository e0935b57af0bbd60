"""Graphs of one product of quantised weights, what they are to give, and the library in each build."""

import ctypes
import platform
import shutil

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ltbm.plugins import library
from tests.support.native_op import LIBRARY

BUILDS = ("dotprod",) if platform.machine() in ("aarch64", "arm64") else ("avx2", "avxvnni", "avx512")


def copy_for(build, folder):
    """A copy of the library that runs one build of the inner loops: each copy chooses for itself, once."""
    copy = shutil.copy(LIBRARY, folder / library.NATIVE_NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTBM_CPU", build)
        chosen = ctypes.CDLL(str(copy)).ltbm_product_instructions
        chosen.restype = ctypes.c_char_p
        if chosen() != build.encode():
            pytest.skip(f"this processor and build have no {build} products")
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
