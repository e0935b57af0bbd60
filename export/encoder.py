"""Stage 2, the audio encoder as ONNX: Whisper's tower with dynamic batch and dynamic time."""

import numpy as np

from ..runtime.bundle import EncoderSpec, Precision
from .checkpoint import Checkpoint
from .families import ENCODER_PREFIX
from .graph import Graph
from .weights import Stacked, WeightFile

OPSET = 20
LAYER_NORM_EPS = 1e-5  # torch.nn.LayerNorm's default, which both towers use


def encoder_graph(
    spec: EncoderSpec, checkpoint: Checkpoint, precision: Precision, weights: WeightFile
) -> Graph:
    """input_features [B, n_mels, F] float32, frame_lengths [B] int32 -> audio_embeds [B, F / 4, D].

    F is a multiple of 4, at most twice `spec.positions`; keys beyond a row's valid frames are masked,
    so its valid tokens do not depend on F (the cost follows the clip).
    """
    g = Graph("encoder", OPSET, precision.encoder, weights)
    take = _taker(checkpoint)
    features = g.input("input_features", "float32", ["B", spec.n_mels, "F"])
    lengths = g.input("frame_lengths", "int32", ["B"])
    hidden = _front_end(g, spec, take, features)
    mask = _key_mask(g, hidden, lengths)
    for layer in range(spec.layers):
        hidden = _block(g, spec, take, f"layers.{layer}.", hidden, mask)
    audio_embeds = _layer_norm(g, take, "layer_norm", _average_pairs(g, hidden, spec.width))
    g.output(
        g.convert(audio_embeds, "float32", precision.audio_embeds),
        "audio_embeds",
        precision.audio_embeds,
        ["B", "T", spec.width],
    )
    return g


def _taker(checkpoint: Checkpoint):
    return lambda name: checkpoint.take(ENCODER_PREFIX + name, "encoder")


def _front_end(g: Graph, spec: EncoderSpec, take, features: str) -> str:
    """Two convolutions with GELU, then positions: [B, n_mels, F] -> [B, F / 2, D] float32."""
    x = g.to_precision(features)
    for name, stride in (("conv1", 1), ("conv2", 2)):
        w, b = (g.weight(f"{name}.{part}", take(f"{name}.{part}")) for part in ("weight", "bias"))
        x = g.op("Gelu", g.op("Conv", x, w, b, kernel_shape=[3], pads=[1, 1], strides=[stride]))
    hidden = g.to_float32(g.op("Transpose", x, perm=[0, 2, 1]))
    table = g.weight("embed_positions", take("embed_positions.weight"), "float32")
    used = g.op("Slice", table, g.const([0]), g.op("Shape", hidden, start=1, end=2), g.const([0]))
    return g.op("Add", hidden, used)


def _key_mask(g: Graph, hidden: str, lengths: str) -> str:
    """[B, 1, 1, F / 2] additive: 0 for the (frames - 1) // 2 + 1 positions of each row, lowest beyond."""
    one = g.const(1, "int32")
    two = g.const(2, "int32")
    valid = g.op("Add", g.op("Div", g.op("Sub", lengths, one), two), one)
    count = g.cast(g.op("Squeeze", g.op("Shape", hidden, start=1, end=2)), "int32")
    places = g.op("Range", g.const(0, "int32"), count, one)
    inside = g.op(
        "Less", g.op("Unsqueeze", places, g.const([0, 1, 2])), g.op("Unsqueeze", valid, g.const([1, 2, 3]))
    )
    return g.op("Where", inside, g.const(0.0, g.precision), g.lowest())


def _block(g: Graph, spec: EncoderSpec, take, prefix: str, hidden: str, mask: str) -> str:
    attended = _attention(
        g, spec, take, prefix + "self_attn.", _normed(g, take, prefix + "self_attn_layer_norm", hidden), mask
    )
    hidden = g.op("Add", hidden, g.to_float32(attended))
    x = _normed(g, take, prefix + "final_layer_norm", hidden)
    x = g.op("Gelu", g.linear(x, prefix + "fc1", take(prefix + "fc1.weight"), take(prefix + "fc1.bias")))
    x = g.linear(x, prefix + "fc2", take(prefix + "fc2.weight"), take(prefix + "fc2.bias"))
    return g.op("Add", hidden, g.to_float32(x))


def _attention(g: Graph, spec: EncoderSpec, take, prefix: str, x: str, mask: str) -> str:
    """Multi-head self-attention with one packed projection; k has no bias."""
    head_dim = spec.width // spec.heads
    weight = Stacked([take(f"{prefix}{part}_proj.weight") for part in "qkv"])
    bias = Stacked(
        [take(prefix + "q_proj.bias"), np.zeros(spec.width, np.float32), take(prefix + "v_proj.bias")]
    )
    qkv = g.linear(x, prefix + "qkv_proj", weight, bias)
    heads = [
        g.op("Reshape", part, g.const([0, 0, spec.heads, head_dim]))
        for part in g.split(qkv, [spec.width] * 3)
    ]
    q, v = (g.op("Transpose", part, perm=[0, 2, 1, 3]) for part in (heads[0], heads[2]))
    q = g.op("Mul", q, g.const(head_dim**-0.5, g.precision))
    scores = g.op("MatMul", q, g.op("Transpose", heads[1], perm=[0, 2, 3, 1]))
    attended = g.op("MatMul", g.op("Softmax", g.op("Add", scores, mask), axis=-1), v)
    merged = g.op("Reshape", g.op("Transpose", attended, perm=[0, 2, 1, 3]), g.const([0, 0, spec.width]))
    return g.linear(
        merged, prefix + "out_proj", take(prefix + "out_proj.weight"), take(prefix + "out_proj.bias")
    )


def _average_pairs(g: Graph, hidden: str, width: int) -> str:
    """AvgPool1d(2, stride 2) over time."""
    pairs = g.op("Reshape", hidden, g.const([0, -1, 2, width]))
    return g.op("ReduceMean", pairs, g.const([2]), keepdims=0)


def _layer_norm(g: Graph, take, name: str, hidden: str) -> str:
    scale, bias = (
        g.weight(f"{name}.{part}", take(f"{name}.{part}"), "float32") for part in ("weight", "bias")
    )
    return g.op("LayerNormalization", hidden, scale, bias, axis=-1, epsilon=LAYER_NORM_EPS)


def _normed(g: Graph, take, name: str, hidden: str) -> str:
    return g.to_precision(_layer_norm(g, take, name, hidden))
