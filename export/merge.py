"""Stage 3, merge and projector as ONNX: the LTBM op with its function body inside (or as a TensorRT plugin),
then the LLM's width; and the second part alone, for where the op is called outside of graphs."""

from ..plugins.onnx_function import DOMAIN, OP, VERSION, ltbm_function
from ..runtime.precision import Precision
from .checkpoint import Checkpoint
from .graph import Graph
from .specification import ModelSpec
from .weights import WeightFile

OPSET = 20
PLUGIN_ATTRIBUTES = {
    "plugin_version": "1",
    "plugin_namespace": DOMAIN,
    "tensorrt_plugin_shape_input_indices": [3],
}
"""How TensorRT's parser finds the plugin, and that `keep` is a shape."""


def merge_graph(
    spec: ModelSpec,
    checkpoint: Checkpoint,
    precision: Precision,
    weights: WeightFile,
    step: tuple[int, int],
    plugin: bool = False,
) -> Graph:
    """audio_embeds [B, T, D] -> merged_embeds [B, K, H], the plan, and what the LLM takes of each kept token.

    lengths, targets [B], keep [1], window [1]: as the op takes them (docs/algorithm.md)
    first_position [B] int64; original_positions [1] int32, 0 or 1
    bias_strength [1] float32: what log(size) is multiplied with
    sizes, anchors [B, K] and source_map [B, T] int32: the plan, as the op gives it
    position_ids [B, K] int64, key_bias [B, K] float32: made here, so that nothing passes through the host
    plugin: for TensorRT, whose parser would take the op's function body before the plugin of the op
    """
    g = Graph("merge", OPSET, precision.encoder_activations, weights, {DOMAIN: VERSION})
    if not plugin:
        g.functions.append(ltbm_function())
    inputs = [
        g.input("audio_embeds", precision.audio_embeds, ["B", "T", spec.audio.encoder_width]),
        g.input("lengths", "int32", ["B"]),
        g.input("targets", "int32", ["B"]),
        g.input("keep", "int64", [1]),
        g.input("window", "int32", [1]),
    ]
    placing = _placing_inputs(g)
    plan = [
        g.graph_output("sizes", "int32", ["B", "K"]),
        g.graph_output("anchors", "int32", ["B", "K"]),
        g.graph_output("source_map", "int32", ["B", "T"]),
    ]
    attributes = PLUGIN_ATTRIBUTES if plugin else {}
    g.node(OP, inputs, ["merged", *plan], DOMAIN, step_num=step[0], step_den=step[1], **attributes)
    _decoder_inputs(g, spec, checkpoint, precision, "merged", *placing)
    return g


def projector_graph(
    spec: ModelSpec, checkpoint: Checkpoint, precision: Precision, weights: WeightFile
) -> Graph:
    """What follows the op in `merge_graph`: merged_tokens [B, K, D] and their plan -> what the LLM takes of
    them.

    sizes, anchors [B, K] int32: of the op's plan; the other inputs and the outputs as in `merge_graph`
    """
    g = Graph("projector", OPSET, precision.encoder_activations, weights)
    merged = g.input("merged_tokens", precision.audio_embeds, ["B", "K", spec.audio.encoder_width])
    g.input("sizes", "int32", ["B", "K"])
    g.input("anchors", "int32", ["B", "K"])
    _decoder_inputs(g, spec, checkpoint, precision, merged, *_placing_inputs(g))
    return g


def _placing_inputs(g: Graph) -> tuple[str, str, str]:
    """Where an audio begins, and which positions and attention its tokens get."""
    first = g.input("first_position", "int64", ["B"])
    original = g.input("original_positions", "int32", [1])
    strength = g.input("bias_strength", "float32", [1])
    return first, original, strength


def _decoder_inputs(
    g: Graph,
    spec: ModelSpec,
    checkpoint: Checkpoint,
    precision: Precision,
    merged: str,
    first: str,
    original: str,
    strength: str,
) -> None:
    """The outputs that the LLM takes, of the merged tokens and the values `sizes` and `anchors`."""
    _project(g, spec, checkpoint, precision, merged)
    _positions(g, first, original)
    _key_bias(g, strength)


def _project(g: Graph, spec: ModelSpec, checkpoint: Checkpoint, precision: Precision, merged: str) -> None:
    """The merged tokens at the LLM's width, in the type that it takes."""
    merged = g.convert(merged, precision.audio_embeds, precision.encoder_activations)
    projected = _projector(g, spec, checkpoint, merged)
    embeds = g.convert(projected, precision.encoder_activations, precision.inputs_embeds)
    g.output(embeds, "merged_embeds", precision.inputs_embeds, ["B", "K", spec.decoder.hidden_size])


def _positions(g: Graph, first: str, original: str) -> None:
    """first_position plus the anchor, or plus the place among the kept tokens."""
    anchors = g.cast("anchors", "int64")
    count = g.op("Squeeze", g.op("Shape", anchors, start=1, end=2))
    places = g.op("Unsqueeze", g.op("Range", g.const(0), count, g.const(1)), g.const([0]))
    chosen = g.op("Where", g.cast(original, "bool"), anchors, places)
    g.output(g.op("Add", chosen, g.op("Unsqueeze", first, g.const([1]))), "position_ids", "int64", ["B", "K"])


def _key_bias(g: Graph, strength: str) -> None:
    """strength * log(size)."""
    sizes = g.cast(g.op("Max", "sizes", g.const([1], "int32")), "float32")
    bias = g.op("Mul", g.op("Log", sizes), strength)
    g.output(bias, "key_bias", "float32", ["B", "K"])


def _projector(g: Graph, spec: ModelSpec, checkpoint: Checkpoint, x: str) -> str:
    for position, name in enumerate(spec.family.projector):
        if position:
            x = g.op("Gelu", x)
        bias = checkpoint.take(f"{name}.bias", "merge") if f"{name}.bias" in checkpoint else None
        x = g.linear(x, name, checkpoint.take(f"{name}.weight", "merge"), bias)
    return x
