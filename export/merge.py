"""Stage 3, merge and projector as ONNX: the LTBM op with its function body inside, then the LLM's width."""

from ltbm.export.checkpoint import Checkpoint
from ltbm.export.families import ModelSpec
from ltbm.export.graph import Graph
from ltbm.export.weights import WeightFile
from ltbm.plugins.onnx_function import DOMAIN, OP, VERSION, ltbm_function

OPSET = 20


def merge_graph(spec: ModelSpec, checkpoint: Checkpoint, precision: str, weights: WeightFile, step: tuple[int, int]) -> Graph:
    """audio_embeds [B, T, D], lengths [B], targets [B], keep [1], window [1] -> merged_embeds [B, K, H] and the plan.

    Also sizes, anchors [B, K] and source_map [B, T] int32, as the op gives them (LTBM.md).
    """
    g = Graph("merge", OPSET, precision, weights, {DOMAIN: VERSION})
    g.functions.append(ltbm_function())
    inputs = [g.input("audio_embeds", precision, ["B", "T", spec.encoder.width]), g.input("lengths", "int32", ["B"]),
              g.input("targets", "int32", ["B"]), g.input("keep", "int64", [1]), g.input("window", "int32", [1])]
    plan = [g.graph_output(name, "int32", shape)
            for name, shape in (("sizes", ["B", "K"]), ("anchors", ["B", "K"]), ("source_map", ["B", "T"]))]
    g.node(OP, inputs, ["merged"] + plan, DOMAIN, step_num=step[0], step_den=step[1])
    g.output(_projector(g, spec, checkpoint, "merged"), "merged_embeds", precision, ["B", "K", spec.decoder.hidden_size])
    return g


def _projector(g: Graph, spec: ModelSpec, checkpoint: Checkpoint, x: str) -> str:
    def take(name: str):
        return lambda: checkpoint.take(name, "merge")

    for position, name in enumerate(spec.family.projector):
        if position:
            x = g.op("Gelu", x)
        x = g.linear(x, name, take(f"{name}.weight"), take(f"{name}.bias") if f"{name}.bias" in checkpoint else None)
    return x
