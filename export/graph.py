"""A small builder of ONNX graphs: ops by call, weights external, constants inline."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ltbm.export.weights import WeightFile, cast_finite

IR_VERSION = 10
TENSOR_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int32": TensorProto.INT32,
                "int64": TensorProto.INT64, "bool": TensorProto.BOOL}


class Graph:
    """An ONNX graph under construction.

    Values are their names. `precision` is the type of weights, matrix products and embeddings; the residual stream
    and the norms stay in float32, so float16 neither overflows there nor loses small updates.
    """

    def __init__(self, name: str, opset: int, precision: str, weights: WeightFile, domains: dict[str, int] | None = None):
        self.name, self.precision, self.weights = name, precision, weights
        self.opsets = {"": opset, **(domains or {})}
        self.functions: list[onnx.FunctionProto] = []
        self._nodes, self._initializers = [], {}
        self._inputs, self._outputs = [], []

    def input(self, name: str, dtype: str, shape: list) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, TENSOR_TYPES[dtype], shape))
        return name

    def output(self, value: str, name: str, dtype: str, shape: list) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output/{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, TENSOR_TYPES[dtype], shape))

    def node(self, op_type: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes) -> None:
        """A node whose output names are given, for ops with several outputs and for the graph's own outputs."""
        name = f"{op_type}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, inputs, outputs, name=name, domain=domain, **attributes))

    def op(self, op_type: str, *inputs: str, domain: str = "", **attributes) -> str:
        """A node with one output, whose name is returned."""
        out = f"v{len(self._nodes)}"
        self.node(op_type, list(inputs), [out], domain, **attributes)
        return out

    def split(self, value: str, sizes: list[int]) -> list[str]:
        """`value` cut along its last axis."""
        outs = [f"v{len(self._nodes)}.{i}" for i in range(len(sizes))]
        self.node("Split", [value, self.const(sizes)], outs, axis=-1)
        return outs

    def graph_output(self, name: str, dtype: str, shape: list) -> str:
        """Declare an output that a node writes under this very name."""
        self._outputs.append(helper.make_tensor_value_info(name, TENSOR_TYPES[dtype], shape))
        return name

    def const(self, value, dtype="int64") -> str:
        array = np.asarray(value, dtype=dtype)
        name = f"c/{array.dtype}/{'x'.join(map(str, array.shape)) or 'scalar'}/{'_'.join(map(str, array.ravel().tolist()))}"
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str, make: Callable[[], np.ndarray], dtype: str | None = None) -> str:
        """An external tensor in the graph's precision, or in `dtype`."""
        kind = np.dtype(dtype or self.precision)
        if name not in self._initializers:
            self._initializers[name] = self.weights.tensor(name, lambda: cast_finite(make(), kind, name))
        return name

    def cast(self, value: str, dtype: str) -> str:
        return self.op("Cast", value, to=TENSOR_TYPES[dtype])

    def to_precision(self, value: str) -> str:
        """float32 -> the graph's precision."""
        return value if self.precision == "float32" else self.cast(value, self.precision)

    def to_float32(self, value: str) -> str:
        return value if self.precision == "float32" else self.cast(value, "float32")

    def linear(self, x: str, name: str, weight: Callable, bias: Callable | None = None) -> str:
        """x @ W + b, with W [in, out] stored as ONNX multiplies it; `weight` gives PyTorch's [out, in]."""
        y = self.op("MatMul", x, self.weight(f"{name}.weight", lambda: weight().T))
        return y if bias is None else self.op("Add", y, self.weight(f"{name}.bias", bias))

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, list(self._initializers.values()))
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, functions=self.functions,
                                 producer_name="ltbm")
