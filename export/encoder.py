"""Stage 2, the audio encoder as ONNX: Whisper's tower and its kin, with dynamic batch and dynamic time."""

import numpy as np

from ..runtime.bundle import EncoderSpec
from ..runtime.precision import Precision
from .blocks import block_lengths, join_tokens, sinusoids, split_frames, valid_frames
from .checkpoint import Checkpoint
from .chunked_front_end import chunked_front_end, valid_positions
from .graph import CONTRIB, INT8_COLUMNS, Graph
from .layouts import ENCODER_PREFIX
from .rotary_time import rotate_by_time
from .specification import ModelSpec
from .weights import Stacked, WeightFile

OPSET = 20
LAYER_NORM_EPS = 1e-5  # torch.nn.LayerNorm's default, which all towers use


def encoder_graph(
    spec: ModelSpec, checkpoint: Checkpoint, precision: Precision, weights: WeightFile
) -> Graph:
    """input_features [B, n_mels, F] float32, frame_lengths [B] int32 -> audio_embeds [B, T, D].

    F is as `AudioSpec.input_frames` gives it; keys beyond a row's valid frames are masked, so its valid
    tokens do not depend on F (the cost follows the clip).
    A tower that always takes whole segments has no frame_lengths. One whose output is turned by its time
    takes segment_index [B] int32, each row's place in its audio. One of blocks works on a row a block.
    In int8 attention is fused, and all rows have the first one's length.
    """
    e = spec.encoder
    rule = spec.audio.rule
    g = _graph(precision, weights)
    take = _taker(checkpoint)
    features = rows = g.input("input_features", "float32", ["B", e.n_mels, "F"])
    lengths = None if rule.whole else g.input("frame_lengths", "int32", ["B"])
    if rule.block and lengths:
        rows = split_frames(g, features, e.n_mels, rule.block)
        lengths = block_lengths(g, features, lengths, rule.block)
    if rule.chunk:
        hidden = chunked_front_end(g, spec, take, rows)
    else:
        hidden = _front_end(g, spec, take, rows, lengths)
    choose_keys = _key_count if _is_fused(g, spec) else _key_mask
    keys = choose_keys(g, hidden, _valid_positions(g, spec, lengths)) if lengths else None
    for layer in range(e.layers):
        hidden = _block(g, spec, take, f"layers.{layer}.", hidden, keys)
    audio_embeds = _tokens(g, spec, take, hidden, features)
    g.output(
        g.convert(audio_embeds, "float32", precision.audio_embeds),
        "audio_embeds",
        precision.audio_embeds,
        ["B", "T", spec.audio.encoder_width],
    )
    return g


def _tokens(g: Graph, spec: ModelSpec, take, hidden: str, features: str) -> str:
    """What the merge takes, [B, T, D] float32, of the last block's output."""
    tower = spec.family.tower
    rule = spec.audio.rule
    width = spec.audio.encoder_width
    if rule.pooled > tower.stacked:
        hidden = _average_pairs(g, hidden, spec.encoder.width)
    tokens = _layer_norm(g, take, tower.norm, hidden)
    if spec.rotary_time:
        index = g.input("segment_index", "int32", ["B"])
        tokens = rotate_by_time(g, spec, spec.rotary_time, tokens, index)
    if rule.block:
        tokens = join_tokens(g, tokens, features, width)
    if tower.stacked > 1:
        tokens = g.op("Reshape", tokens, g.const([0, -1, width]))
    return tokens


def _graph(precision: Precision, weights: WeightFile) -> Graph:
    """An empty one, whose linear layers are of the encoder's precision."""
    if precision.encoder == "int8":
        domains = {CONTRIB: 1}
        return Graph("encoder", OPSET, precision.encoder_activations, weights, domains, INT8_COLUMNS)
    return Graph("encoder", OPSET, precision.encoder, weights)


def _is_fused(g: Graph, spec: ModelSpec) -> bool:
    """Whether attention is ONNX Runtime's for CPUs, whose fast kernel takes no mask: not over blocks, of
    which the last is shorter."""
    return CONTRIB in g.opsets and not spec.audio.rule.block


def _taker(checkpoint: Checkpoint):
    return lambda name: checkpoint.take(ENCODER_PREFIX + name, "encoder")


def _front_end(g: Graph, spec: ModelSpec, take, features: str, lengths: str | None) -> str:
    """Two convolutions with GELU, then positions: [B, n_mels, F] -> [B, F / 2, D] float32."""
    masked = lengths if spec.family.tower.masks_frames else None
    x = g.to_precision(features)
    for name, stride in (("conv1", 1), ("conv2", 2)):
        x = valid_frames(g, x, masked) if masked else x
        w, b = (g.weight(f"{name}.{part}", take(f"{name}.{part}")) for part in ("weight", "bias"))
        x = g.op("Gelu", g.op("Conv", x, w, b, kernel_shape=[3], pads=[1, 1], strides=[stride]))
    hidden = g.to_float32(g.op("Transpose", x, perm=[0, 2, 1]))
    table = g.weight("embed_positions", _positions(spec, take), "float32")
    used = g.op("Slice", table, g.const([0]), g.op("Shape", hidden, start=1, end=2), g.const([0]))
    return g.op("Add", hidden, used)


def _positions(spec: ModelSpec, take):
    """The table [positions, D], stored or computed."""
    if spec.family.tower.positions == "stored":
        return take("embed_positions.weight")
    return sinusoids(spec.encoder.positions, spec.encoder.width)


def _valid_positions(g: Graph, spec: ModelSpec, lengths: str) -> str:
    """[B] int32: positions of the valid frames [B] int32; (frames + 1) // 2 after Whisper's convolutions."""
    if spec.audio.rule.chunk:
        return valid_positions(g, spec.audio.rule.chunk, lengths)
    return g.op("Div", g.op("Add", lengths, g.const(1, "int32")), g.const(2, "int32"))


def _key_mask(g: Graph, hidden: str, valid: str) -> str:
    """[B, 1, 1, positions] additive: 0 for the valid positions [B] of each row, lowest beyond."""
    count = g.cast(g.op("Squeeze", g.op("Shape", hidden, start=1, end=2)), "int32")
    places = g.op("Range", g.const(0, "int32"), count, g.const(1, "int32"))
    inside = g.op(
        "Less", g.op("Unsqueeze", places, g.const([0, 1, 2])), g.op("Unsqueeze", valid, g.const([1, 2, 3]))
    )
    return g.op("Where", inside, g.const(0.0, g.precision), g.lowest())


def _key_count(g: Graph, hidden: str, valid: str) -> str:
    """[1]: the valid positions [B] of the first row."""
    return g.cast(g.op("Slice", valid, g.const([0]), g.const([1])), "int64")


def _block(g: Graph, spec: ModelSpec, take, prefix: str, hidden: str, keys: str | None) -> str:
    attended = _attention(
        g, spec, take, prefix + "self_attn.", _normed(g, take, prefix + "self_attn_layer_norm", hidden), keys
    )
    hidden = g.op("Add", hidden, g.to_float32(attended))
    x = _normed(g, take, prefix + "final_layer_norm", hidden)
    x = g.op("Gelu", g.linear(x, prefix + "fc1", take(prefix + "fc1.weight"), take(prefix + "fc1.bias")))
    x = g.linear(x, prefix + "fc2", take(prefix + "fc2.weight"), take(prefix + "fc2.bias"))
    return g.op("Add", hidden, g.to_float32(x))


def _attention(g: Graph, spec: ModelSpec, take, prefix: str, x: str, keys: str | None) -> str:
    """Multi-head self-attention with one packed projection; in Whisper k has no bias."""
    e = spec.encoder
    weight = Stacked([take(f"{prefix}{part}_proj.weight") for part in "qkv"])
    biased = spec.family.tower.key_bias
    key_bias = take(prefix + "k_proj.bias") if biased else np.zeros(e.width, np.float32)
    bias = Stacked([take(prefix + "q_proj.bias"), key_bias, take(prefix + "v_proj.bias")])
    qkv = g.linear(x, prefix + "qkv_proj", weight, bias)
    attend = _attend_fused if _is_fused(g, spec) else _attend
    q, k, v = g.split(qkv, [e.width] * 3)
    attended = attend(g, e, q, k, v, keys)
    return g.linear(
        attended, prefix + "out_proj", take(prefix + "out_proj.weight"), take(prefix + "out_proj.bias")
    )


def _attend(g: Graph, e: EncoderSpec, q: str, k: str, v: str, mask: str | None) -> str:
    """Of q, k, v [B, S, D] under an additive mask [B, 1, 1, S], in standard ops."""
    head_dim = e.width // e.heads
    heads = [g.op("Reshape", part, g.const([0, 0, e.heads, head_dim])) for part in (q, k, v)]
    q, v = (g.op("Transpose", part, perm=[0, 2, 1, 3]) for part in (heads[0], heads[2]))
    q = g.op("Mul", q, g.const(head_dim**-0.5, g.precision))
    scores = g.op("MatMul", q, g.op("Transpose", heads[1], perm=[0, 2, 3, 1]))
    scores = g.op("Add", scores, mask) if mask else scores
    attended = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
    return g.op("Reshape", g.op("Transpose", attended, perm=[0, 2, 1, 3]), g.const([0, 0, e.width]))


def _attend_fused(g: Graph, e: EncoderSpec, q: str, k: str, v: str, count: str | None) -> str:
    """The same over the first `count` [1] keys of every row, with no scores in memory."""
    if count:
        k, v = (g.op("Slice", part, g.const([0]), count, g.const([1])) for part in (k, v))
    return g.op("MultiHeadAttention", q, k, v, domain=CONTRIB, num_heads=e.heads)


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
