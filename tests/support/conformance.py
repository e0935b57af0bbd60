"""Walks an ONNX graph as TensorRT's parser would and says what it would not take, node by node;
the facts are in operators.json."""

import json
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper

TABLE = json.loads(Path(__file__).with_name("operators.json").read_text(encoding="utf-8"))
TENSORRT_TYPES = {
    "FLOAT",
    "FLOAT16",
    "BFLOAT16",
    "INT32",
    "INT64",
    "INT8",
    "INT4",
    "FLOAT8E4M3FN",
    "BOOL",
}  # of tensors within a network
PLUGIN = {"plugin_version": b"1", "plugin_namespace": b"ai.ltbm", "tensorrt_plugin_shape_input_indices": [3]}
# Which inputs an operator's types are about, where it is not all of them.
DATA_INPUTS = {
    "Where": (1, 2),
    "Gather": (0,),
    "GatherND": (0,),
    "Slice": (0,),
    "Reshape": (0,),
    "Split": (0,),
    "Squeeze": (0,),
    "Unsqueeze": (0,),
    "ReduceMean": (0,),
    "DequantizeLinear": (0,),
    "TensorScatter": (0, 1),
    "RotaryEmbedding": (0, 1, 2),
    "TopK": (0,),
}
# Inputs that must be constants, by version: (operator, place).
CONSTANT = {
    "10.3": [("Slice", 3), ("Squeeze", 1), ("Unsqueeze", 1), ("ReduceMean", 1)],
    "10.15": [("Squeeze", 1), ("Unsqueeze", 1), ("ReduceMean", 1)],
}
CONSTANT["11.1"] = CONSTANT["10.15"]
SHAPE_INPUTS = {
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Slice": (1, 2),
    "Expand": (1,),
}  # what TensorRT must know when it works out shapes
SHAPE_OPERATORS = {
    "Shape",
    "Cast",
    "Squeeze",
    "Unsqueeze",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Concat",
    "Gather",
    "Slice",
    "Identity",
    "Max",
}
MAX_TOPK = 3840


@dataclass(frozen=True)
class Walk:
    """A graph with what is known of its values."""

    model: onnx.ModelProto
    version: str
    types: dict[str, str]
    ranks: dict[str, int]
    constants: dict[str, TensorProto]
    makers: dict[str, onnx.NodeProto]


def findings(path: Path, version: str) -> list[str]:
    """What TensorRT `version` would not take of the graph at `path`, each with its node's name."""
    walk = _walk(path, version)
    newest = TABLE["versions"][version]["opset"]
    lines = []
    for opset in walk.model.opset_import:
        if opset.domain == "" and opset.version > newest:
            lines.append(f"graph: opset {opset.version}, the parser takes {newest}")
    for function in walk.model.functions:
        lines.append(f"function {function.name}: would be taken in place of the plugin")
    for node in walk.model.graph.node:
        lines += [f"{node.name}: {problem}" for problem in _node(walk, node)]
    return lines


def _walk(path: Path, version: str) -> Walk:
    model = onnx.load(path)  # with its weights: scales are looked at
    _declare_merged(model)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    types = {}
    ranks = {}
    for value in [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]:
        tensor = value.type.tensor_type
        types[value.name] = TensorProto.DataType.Name(tensor.elem_type)
        if tensor.HasField("shape"):
            ranks[value.name] = len(tensor.shape.dim)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, tensor in constants.items():
        types[name] = TensorProto.DataType.Name(tensor.data_type)
        ranks[name] = len(tensor.dims)
    makers = {}
    for node in model.graph.node:
        for output in node.output:
            makers[output] = node
    return Walk(model, version, types, ranks, constants, makers)


def _declare_merged(model: onnx.ModelProto) -> None:
    """Say what the plugin gives, which ONNX does not know."""
    for value in model.graph.input:
        if value.name == "audio_embeds":
            kind = value.type.tensor_type.elem_type
            merged = onnx.helper.make_tensor_value_info("merged", kind, ["B", "K", "D"])
            model.graph.value_info.append(merged)


def _node(walk: Walk, node: onnx.NodeProto) -> list[str]:
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if (node.domain, node.op_type) == ("ai.ltbm", "LTBM"):
        return _plugin(walk, node, attributes)
    known = TABLE["operators"] | (TABLE["since 10.15"] if walk.version != "10.3" else {})
    if node.domain or node.op_type not in known:
        return [f"operator {node.domain or 'ai.onnx'}::{node.op_type} is not supported"]
    problems = _types(walk, node, TABLE["kinds"][known[node.op_type]]) + _shape_inputs(walk, node)
    if node.op_type in RESTRICTIONS:
        inputs = [name for name in node.input if name]
        problems += RESTRICTIONS[node.op_type](walk, inputs, len(node.output), attributes)
    return problems


def _plugin(walk: Walk, node: onnx.NodeProto, attributes: dict) -> list[str]:
    problems = []
    for name, value in PLUGIN.items():
        if attributes.get(name) != value:
            problems.append(f"plugin attribute {name} is {attributes.get(name)}")
    keep = node.input[3]
    if keep not in [value.name for value in walk.model.graph.input]:
        problems.append(f"shape input {keep} is not an input of the graph")
    return problems


def _types(walk: Walk, node: onnx.NodeProto, allowed: list[str]) -> list[str]:
    """Of the inputs that hold data, and of the outputs."""
    indices = range(1) if node.op_type == "Cast" else DATA_INPUTS.get(node.op_type, range(len(node.input)))
    problems = []
    for index in indices:
        name = node.input[index]
        kind = walk.types.get(name)
        if kind not in allowed:
            problems.append(f"{node.op_type} of {name}, which is {kind}, takes {', '.join(allowed)}")
    for name in node.output:
        kind = walk.types.get(name)
        if kind not in TENSORRT_TYPES:
            problems.append(f"{node.op_type} gives {name} of type {kind}")
    return problems


def _shape_inputs(walk: Walk, node: onnx.NodeProto) -> list[str]:
    """Inputs that must be constants, or be worked out from shapes."""
    problems = []
    for operator, index in CONSTANT[walk.version]:
        given = node.op_type == operator and index < len(node.input) and node.input[index]
        if given and node.input[index] not in walk.constants:
            problems.append(f"{operator}'s input {index} is not constant")
    for index in SHAPE_INPUTS.get(node.op_type, ()):
        if not _from_shapes(walk, node.input[index]):
            problems.append(f"{node.op_type}'s input {index} is not worked out from shapes alone")
    return problems


def _from_shapes(walk: Walk, name: str) -> bool:
    if name in walk.constants:
        return True
    maker = walk.makers.get(name)
    if maker is None or maker.op_type not in SHAPE_OPERATORS:
        return False
    return maker.op_type == "Shape" or all(_from_shapes(walk, source) for source in maker.input if source)


def _attention(walk: Walk, inputs: list[str], outputs: int, attributes: dict) -> list[str]:
    problems = _not_4d(walk, "Attention", inputs)
    for name in ("softcap", "qk_matmul_output_mode", "is_causal"):
        if attributes.get(name):
            problems.append(f"Attention's attribute {name}")
    if len(inputs) > 4 or outputs > 1:
        problems.append("Attention with a cache of its own")
    return problems


def _tensor_scatter(walk: Walk, inputs: list[str], outputs: int, attributes: dict) -> list[str]:
    problems = _not_4d(walk, "TensorScatter", inputs[:2])
    if attributes.get("axis", -2) != -2:
        problems.append("TensorScatter beside axis -2")
    return problems


def _not_4d(walk: Walk, operator: str, names: list[str]) -> list[str]:
    return [f"{operator}'s {name} is not 4D" for name in names if walk.ranks.get(name) != 4]


def _rotary_embedding(walk: Walk, inputs: list[str], outputs: int, attributes: dict) -> list[str]:
    if len(inputs) < 4 or walk.types.get(inputs[3]) != "INT64":
        return ["RotaryEmbedding without INT64 position_ids"]
    return []


def _layer_normalization(walk: Walk, inputs: list[str], outputs: int, attributes: dict) -> list[str]:
    return ["LayerNormalization with more than one output"] if outputs > 1 else []


def _dequantize_linear(walk: Walk, inputs: list[str], outputs: int, attributes: dict) -> list[str]:
    problems = []
    for name in inputs[2:]:
        problems.append(f"DequantizeLinear with a zero point, {name}: only zero is taken")
    if walk.types.get(inputs[0]) == "INT8" and attributes.get("block_size", 0) > 0:
        problems.append("DequantizeLinear of INT8 in blocks")
    scales = walk.constants.get(inputs[1])
    if scales is None or (numpy_helper.to_array(scales) <= 0).any():
        problems.append("DequantizeLinear with scales that are not all positive constants")
    return problems


def _top_k(walk: Walk, inputs: list[str], outputs: int, attributes: dict) -> list[str]:
    problems = []
    if not attributes.get("sorted", 1):
        problems.append("TopK that is not sorted")
    count = walk.constants.get(inputs[1])
    if count is None or numpy_helper.to_array(count).item() >= MAX_TOPK:
        problems.append(f"TopK of {MAX_TOPK} or more, or of a number not known")
    return problems


RESTRICTIONS = {
    "Attention": _attention,
    "TensorScatter": _tensor_scatter,
    "RotaryEmbedding": _rotary_embedding,
    "LayerNormalization": _layer_normalization,
    "DequantizeLinear": _dequantize_linear,
    "TopK": _top_k,
}
"""Operator -> what TensorRT does not take of it, by its inputs, its number of outputs and its attributes."""
