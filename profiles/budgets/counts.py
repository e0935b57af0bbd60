"""Bytes and operations of each stage, counted from a model's dimensions;
a multiplication and its addition are two operations."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...runtime.stages.encoder import MAX_BATCH
from .front_end import front_end
from .model import VALUE_BYTES, Model

SCORE_COPIES = 3  # scores, masked scores and their softmax, where attention is not one fused kernel
HIDDEN_COPIES = 6  # values of the layer's width that live at once: residual, normed, projections, attended
MLP_COPIES = 3  # gate, up and their product
# How often the exported graphs' ops read or write each kind of value in a layer, one op after the other.
# In an int8 encoder products round and scale values in ops of their own, and attention is one fused op.
ENCODER_HIDDEN_PASSES, ENCODER_MLP_PASSES, SCORE_PASSES = 42, 6, 6
INT8_HIDDEN_PASSES, INT8_MLP_PASSES = 75, 14
HIDDEN_PASSES, MLP_PASSES = 27, 11


@dataclass(frozen=True)
class Work:
    """One run of a stage.

    weight_bytes: read once, the KV cache with them; linear: operations of products with weights
    attention: operations between tokens; live_bytes: activations at their peak
    moved_bytes: activations read and written, where ops are not fused
    """

    weight_bytes: float
    linear: float
    attention: float = 0
    live_bytes: float = 0
    moved_bytes: float = 0


def segment_lengths(model: Model, seconds: float) -> list[int]:
    """Valid mel frames of each segment of an audio."""
    audio = model.audio
    samples = max(round(seconds * audio.sampling_rate), audio.shortest_audio)
    frames = audio.frame_length(samples)
    return [min(audio.segment_frames, frames - start) for start in range(0, frames, audio.segment_frames)]


def encoder_work(model: Model, lengths: Sequence[int]) -> Work:
    """The audio encoder over all segments of an audio."""
    e = model.encoder
    rule = model.audio.rule
    inputs = [model.audio.input_frames(length) for length in lengths]
    positions = [rule.positions(frames) for frames in inputs]
    block = rule.positions(rule.block) if rule.block else max(positions)
    convolutions = front_end(e, rule)
    layer = 4 * e.width**2 + 2 * e.width * e.ffn
    value = VALUE_BYTES[model.precision.encoder_activations]
    longest = max(positions)
    squares = sum(count * min(count, block) for count in positions)
    hidden_passes, mlp_passes = ENCODER_HIDDEN_PASSES, ENCODER_MLP_PASSES
    scores = e.heads * longest * min(longest, block)
    moved_scores = SCORE_PASSES * e.heads * squares
    if model.precision.encoder == "int8":
        hidden_passes, mlp_passes = INT8_HIDDEN_PASSES, INT8_MLP_PASSES
        scores = moved_scores = 0
    blocks = SCORE_COPIES * scores + longest * (HIDDEN_COPIES * e.width + 2 * e.ffn)
    live = value * max(blocks, longest * convolutions.live_values)
    moved = moved_scores + sum(positions) * (hidden_passes * e.width + mlp_passes * e.ffn)
    return Work(
        weight_bytes=model.weights.encoder,
        linear=2 * sum(positions) * (convolutions.products + e.layers * layer),
        attention=4 * e.layers * e.width * squares,
        live_bytes=live * min(len(positions), MAX_BATCH),
        moved_bytes=e.layers * value * moved,
    )


def merge_work(model: Model, kept: int) -> Work:
    """The projector over the kept tokens; the merge itself is less than a thousandth of the encoder and not
    counted."""
    return Work(weight_bytes=model.weights.merge, linear=2 * kept * model.projector)


def prefill_work(model: Model, prompt: int) -> Work:
    """The LLM over `prompt` tokens; only the last one goes on from the last layer's attention."""
    d = model.decoder
    linear = (
        prompt * (d.layers * model.attention_in + (d.layers - 1) * model.layer_rest)
        + model.layer_rest
        + model.head
    )
    live = model.value_bytes * prompt * (HIDDEN_COPIES * d.hidden_size + MLP_COPIES * d.ffn)
    return Work(
        weight_bytes=model.weights.decoder,
        linear=2 * linear,
        attention=4 * d.layers * d.heads * d.head_dim * prompt**2,
        live_bytes=live + model.value_bytes * d.heads * prompt**2,
        moved_bytes=d.layers
        * model.value_bytes
        * prompt
        * (HIDDEN_PASSES * d.hidden_size + MLP_PASSES * d.ffn),
    )


def decode_work(model: Model, context: float) -> Work:
    """One token after `context` others."""
    d = model.decoder
    return Work(
        weight_bytes=model.weights.decoder + model.kv_bytes(context),
        linear=2 * (d.layers * (model.attention_in + model.layer_rest) + model.head),
        attention=4 * d.layers * d.heads * d.head_dim * context,
    )
