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
    said = [
        f"graph: opset {opset.version}, the parser takes {TABLE['versions'][version]['opset']}"
        for opset in walk.model.opset_import
        if opset.domain == "" and opset.version > TABLE["versions"][version]["opset"]
    ]
    said += [
        f"function {function.name}: would be taken in place of the plugin"
        for function in walk.model.functions
    ]
    for node in walk.model.graph.node:
        said += [f"{node.name}: {what}" for what in _node(walk, node)]
    return said


def _walk(path: Path, version: str) -> Walk:
    model = onnx.load(path)  # with its weights: scales are looked at
    embeds = next(
        (value.type.tensor_type.elem_type for value in model.graph.input if value.name == "audio_embeds"),
        None,
    )
    if embeds:  # ONNX does not know what the plugin gives
        model.graph.value_info.append(onnx.helper.make_tensor_value_info("merged", embeds, ["B", "K", "D"]))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    types = {value.name: TensorProto.DataType.Name(value.type.tensor_type.elem_type) for value in values}
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in values
        if value.type.tensor_type.HasField("shape")
    }
    types |= {name: TensorProto.DataType.Name(tensor.data_type) for name, tensor in constants.items()}
    ranks |= {name: len(tensor.dims) for name, tensor in constants.items()}
    makers = {output: node for node in model.graph.node for output in node.output}
    return Walk(model, version, types, ranks, constants, makers)


def _node(walk: Walk, node: onnx.NodeProto) -> list[str]:
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if (node.domain, node.op_type) == ("ai.ltbm", "LTBM"):
        wrong = [name for name, value in PLUGIN.items() if attributes.get(name) != value]
        keep = node.input[3]
        return [f"plugin attribute {name} is {attributes.get(name)}" for name in wrong] + (
            []
            if any(keep == value.name for value in walk.model.graph.input)
            else [f"shape input {keep} is no input of the graph"]
        )
    known = TABLE["operators"] | (TABLE["since 10.15"] if walk.version != "10.3" else {})
    if node.domain or node.op_type not in known:
        return [f"operator {node.domain or 'ai.onnx'}::{node.op_type} is not supported"]
    return (
        _types(walk, node, TABLE["kinds"][known[node.op_type]])
        + _places(walk, node)
        + _restrictions(walk, node, attributes)
    )


def _types(walk: Walk, node: onnx.NodeProto, allowed: list[str]) -> list[str]:
    said = []
    for name in (
        node.input[:1]
        if node.op_type == "Cast"
        else [node.input[i] for i in DATA_INPUTS.get(node.op_type, range(len(node.input)))]
    ):
        kind = walk.types.get(name)
        if kind not in allowed:
            said.append(f"{node.op_type} of {name}, which is {kind}, takes {', '.join(allowed)}")
    within = [
        (name, walk.types.get(name)) for name in node.output if walk.types.get(name) not in TENSORRT_TYPES
    ]
    return said + [f"{node.op_type} gives {name} of type {kind}" for name, kind in within]


def _places(walk: Walk, node: onnx.NodeProto) -> list[str]:
    """Inputs that must be constants or shapes."""
    said = [
        f"{operator}'s input {place} is not constant"
        for operator, place in CONSTANT[walk.version]
        if node.op_type == operator
        and place < len(node.input)
        and node.input[place]
        and node.input[place] not in walk.constants
    ]
    return said + [
        f"{node.op_type}'s input {place} is not worked out from shapes alone"
        for place in SHAPE_INPUTS.get(node.op_type, ())
        if not _from_shapes(walk, node.input[place])
    ]


def _from_shapes(walk: Walk, name: str) -> bool:
    if name in walk.constants:
        return True
    maker = walk.makers.get(name)
    return (
        maker is not None
        and maker.op_type in SHAPE_OPERATORS
        and (maker.op_type == "Shape" or all(_from_shapes(walk, source) for source in maker.input if source))
    )


def _restrictions(walk: Walk, node: onnx.NodeProto, attributes: dict) -> list[str]:
    said, inputs = [], [name for name in node.input if name]
    if node.op_type == "Attention":
        said += [f"Attention's {name} is not 4D" for name in inputs if walk.ranks.get(name) != 4]
        said += [
            f"Attention's attribute {name}"
            for name in ("softcap", "qk_matmul_output_mode", "is_causal")
            if attributes.get(name)
        ]
        said += ["Attention with a cache of its own"] * (len(inputs) > 4 or len(node.output) > 1)
    if node.op_type == "TensorScatter":
        said += ["TensorScatter beside axis -2"] * (attributes.get("axis", -2) != -2)
        said += [f"TensorScatter's {name} is not 4D" for name in inputs[:2] if walk.ranks.get(name) != 4]
    if node.op_type == "RotaryEmbedding" and (len(inputs) < 4 or walk.types.get(inputs[3]) != "INT64"):
        said.append("RotaryEmbedding without INT64 position_ids")
    if node.op_type == "LayerNormalization" and len(node.output) > 1:
        said.append("LayerNormalization with more than one output")
    if node.op_type == "DequantizeLinear":
        scales = walk.constants.get(inputs[1])
        said += [f"DequantizeLinear with a zero point, {inputs[2]}: only zero is taken" for _ in inputs[2:]]
        said += ["DequantizeLinear of INT8 in blocks"] * (
            walk.types.get(inputs[0]) == "INT8" and attributes.get("block_size", 0) > 0
        )
        if scales is None or (numpy_helper.to_array(scales) <= 0).any():
            said.append("DequantizeLinear with scales that are not all positive constants")
    if node.op_type == "TopK":
        count = walk.constants.get(inputs[1])
        said += ["TopK that is not sorted"] * (not attributes.get("sorted", 1))
        said += ["TopK of 3840 or more, or of a number not known"] * (
            count is None or numpy_helper.to_array(count).item() >= MAX_TOPK
        )
    return said
