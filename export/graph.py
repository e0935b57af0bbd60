"""A small builder of ONNX graphs: ops by call, weights external, constants inline."""

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .int8_products import ACTIVATION_TOP, ACTIVATION_ZERO, SMALLEST_ROW, quantize_columns
from .quantize import Quantization, quantize_rows
from .weights import WeightFile, cast_finite, row_chunks, transposed

IR_VERSION = 10
CONTRIB = "com.microsoft"
TENSOR_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}
BIAS_INPUT = 5
"""Of MatMulNBits, after x, codes, scales, zero points and group indices."""
INT8_COLUMNS = "int8 columns"
"""A kind of linear layer: products in int8, weights with a scale a column, activations with a scale a row."""
Kind = str | Quantization
"""How a linear layer is stored and multiplied: a float type, quantised in blocks, or INT8_COLUMNS."""
CODE_TYPES = {(4, False): TensorProto.UINT4, (8, False): TensorProto.UINT8, (4, True): TensorProto.INT4}
"""Of quantised weights, by their bits and whether they are signed."""


class Graph:
    """An ONNX graph under construction.

    Values are their names. `precision` is the type of matrix products' inputs and of weights that are not
    quantised; the residual stream and the norms stay in float32,
    so float16 neither overflows there nor loses small updates.

    kind: how linear layers' weights are stored and multiplied where a layer does not say (`linear`)
    """

    def __init__(
        self,
        name: str,
        opset: int,
        precision: str,
        weights: WeightFile,
        domains: dict[str, int] | None = None,
        kind: "Kind | None" = None,
    ):
        self.name = name
        self.precision = precision
        self.kind = kind or precision
        self.weights = weights
        self.opsets = {"": opset, **(domains or {})}
        self.functions: list[onnx.FunctionProto] = []
        self._nodes = []
        self._initializers = {}
        self._inputs = []
        self._outputs = []

    def input(self, name: str, dtype: str, shape: list) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, TENSOR_TYPES[dtype], shape))
        return name

    def output(self, value: str, name: str, dtype: str, shape: list) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output/{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, TENSOR_TYPES[dtype], shape))

    def node(
        self, op_type: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes
    ) -> None:
        """A node whose output names are given, for ops with several outputs and for the graph's own
        outputs."""
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
        shape = "x".join(map(str, array.shape)) or "scalar"
        values = "_".join(map(str, array.ravel().tolist()))
        name = f"c/{array.dtype}/{shape}/{values}"
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str, values, dtype: str | None = None) -> str:
        """An external tensor in the graph's precision, or in `dtype`;
        `values[:]` is read if it is not yet written."""
        kind = dtype or self.precision
        return self._external(
            name, TENSOR_TYPES[kind], values.shape, lambda: [cast_finite(values[:], np.dtype(kind), name)]
        )

    def cast(self, value: str, dtype: str) -> str:
        return self.op("Cast", value, to=TENSOR_TYPES[dtype])

    def convert(self, value: str, source: str, target: str) -> str:
        """`value` of type `source` as `target`: a Cast where they differ."""
        return value if source == target else self.cast(value, target)

    def to_precision(self, value: str) -> str:
        """float32 -> the graph's precision."""
        return self.convert(value, "float32", self.precision)

    def to_float32(self, value: str) -> str:
        return self.convert(value, self.precision, "float32")

    def lowest(self) -> str:
        """The most negative value of the graph's precision, as a mask adds it."""
        return self.const(ml_dtypes.finfo(np.dtype(self.precision)).min, self.precision)

    def linear(
        self,
        x: str,
        name: str,
        weight,
        bias=None,
        kind: Kind | None = None,
        fused_bias: bool = False,
    ) -> str:
        """x @ W.T + b in the graph's precision; W is PyTorch's [N, K], anything whose rows can be sliced.

        kind: how W is stored: a float type (as ONNX multiplies it, [K, N]), quantised in blocks, or
            INT8_COLUMNS; the graph's if left out
        fused_bias: MatMulNBits, where it is what multiplies, adds the bias itself
        """
        kind = kind or self.kind
        if isinstance(kind, Quantization) and CONTRIB in self.opsets and fused_bias:
            return self._quantized_product(x, name, weight, kind, bias)
        if isinstance(kind, Quantization):
            y = self._quantized_product(x, name, weight, kind)
        elif kind == INT8_COLUMNS:
            y = self._int8_product(x, name, weight)
        else:
            stored = self._external(
                f"{name}.weight",
                TENSOR_TYPES[kind],
                weight.shape[::-1],
                lambda: [transposed(weight, np.dtype(kind), f"{name}.weight")],
            )
            y = self.convert(
                self.op("MatMul", self.convert(x, self.precision, kind), stored), kind, self.precision
            )
        return y if bias is None else self.op("Add", y, self.weight(f"{name}.bias", bias))

    def _int8_product(self, x: str, name: str, weight) -> str:
        """x [.., K] float32: a row's codes are its values over its largest, so that no row's rounding depends
        on another's."""
        scales = []

        def codes():
            columns = quantize_columns(weight)
            scales.append(columns.scales)
            return [columns.codes]

        magnitude = self.op("ReduceMax", self.op("Abs", x), self.const([-1]))
        largest = self.op("Max", magnitude, self.const(SMALLEST_ROW, "float32"))
        step = self.const(1 / ACTIVATION_TOP, "float32")
        zero = self.const(ACTIVATION_ZERO, "uint8")
        product = self.op(
            "MatMulIntegerToFloat",
            self.op("QuantizeLinear", self.op("Div", x, largest), step, zero),
            self._external(f"{name}.codes", TensorProto.INT8, weight.shape[::-1], codes),
            step,
            self._external(f"{name}.scales", TensorProto.FLOAT, weight.shape[:1], lambda: scales),
            zero,
            domain=CONTRIB,
        )
        return self.op("Mul", product, largest)

    def _quantized_product(self, x: str, name: str, weight, q: Quantization, bias=None) -> str:
        """MatMulNBits where the flavour may use ONNX Runtime's own ops, else DequantizeLinear,
        over the same bytes."""
        (rows, width) = weight.shape
        contrib = CONTRIB in self.opsets
        blocks = q.blocks(name, width)
        scales = []
        zero_points = []

        def codes():
            for chunk in row_chunks(weight):
                piece = quantize_rows(chunk, q)
                scales.append(cast_finite(piece.scales, np.dtype(self.precision), name))
                zero_points.append(piece.zero_points)
                yield piece.codes

        kind = TensorProto.UINT8 if contrib else CODE_TYPES[q.bits, q.signed]
        code_shape = (rows, blocks, q.block_size * q.bits // 8) if contrib else (rows, width)
        scale_type = TENSOR_TYPES[self.precision]
        inputs = [
            self._external(f"{name}.codes", kind, code_shape, codes),
            self._external(f"{name}.scales", scale_type, (rows, blocks), lambda: scales),
        ]
        if not q.symmetric:
            shape = (rows, blocks * q.bits // 8) if contrib else (rows, blocks)
            inputs.append(self._external(f"{name}.zero_points", kind, shape, lambda: zero_points))
        elif not contrib and not q.signed:
            inputs.append(self._same_zero_points(q, rows, blocks))
        if contrib:
            return self._matmul_nbits(x, name, inputs, rows, width, q, bias)
        dense = self.op("DequantizeLinear", *inputs, axis=1, block_size=q.block_size)
        return self.op("MatMul", x, self.op("Transpose", dense, perm=[1, 0]))

    def _matmul_nbits(
        self, x: str, name: str, inputs: list[str], rows: int, width: int, q: Quantization, bias
    ) -> str:
        """ONNX Runtime's product over quantised weights, which adds the bias itself."""
        if bias is not None:
            absent = [""] * (BIAS_INPUT - 1 - len(inputs))
            inputs = [*inputs, *absent, self.weight(f"{name}.bias", bias)]
        return self.op(
            "MatMulNBits",
            x,
            *inputs,
            domain=CONTRIB,
            K=width,
            N=rows,
            bits=q.bits,
            block_size=q.block_size,
            accuracy_level=q.accuracy_level,
        )

    def _same_zero_points(self, q: Quantization, rows: int, blocks: int) -> str:
        """Symmetry's zero point for every block: DequantizeLinear wants them all,
        so matrices of one shape share them."""
        filled = np.uint8(q.zero_point if q.bits == 8 else q.zero_point << 4 | q.zero_point)
        return self._external(
            f"zero_points.{q.bits}.{rows}x{blocks}",
            CODE_TYPES[q.bits, False],
            (rows, blocks),
            lambda: [np.full(-(-rows * blocks * q.bits // 8), filled)],
        )

    def _external(self, name: str, data_type: int, dims, pieces) -> str:
        if name not in self._initializers:
            self._initializers[name] = self.weights.tensor(name, data_type, dims, pieces)
        return name

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, list(self._initializers.values())
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, functions=self.functions, producer_name="ltbm"
        )
