"""The shape of every tensor by the configuration: a table that was padded, or is of another size, is refused
before anything is written, as transformers refuses it."""

import re
from collections.abc import Callable
from itertools import pairwise

from ..runtime.bundle import DecoderSpec, EncoderSpec
from ..runtime.token_rules import strided
from .chunked_front_end import CONVOLUTIONS
from .layouts import DECODER_PREFIX, EMBEDDINGS, ENCODER_PREFIX, LM_HEAD
from .specification import ModelSpec

Shape = tuple[int, ...]
LAYER = re.compile(r"layers\.\d+\.")
KERNEL = 3  # places of the encoder's convolutions


def shapes_of(spec: ModelSpec) -> dict[str, Shape]:
    """Name, with * for a layer's number -> shape."""
    norm = _norm(spec.family.tower.norm, spec.encoder.width)
    tower = _front_end(spec.encoder) | _blocks(spec.encoder) | norm
    encoder = {ENCODER_PREFIX + name: shape for name, shape in tower.items()}
    decoder = {DECODER_PREFIX + name: shape for name, shape in _decoder(spec.decoder).items()}
    table = (spec.decoder.vocab_size, spec.decoder.hidden_size)
    return encoder | decoder | _projector(spec) | {EMBEDDINGS: table, LM_HEAD: table}


def shape_check(spec: ModelSpec, source: str) -> Callable[[str, Shape], None]:
    """Of a tensor's name and shape: ValueError where the configuration of `source` makes it another."""
    shapes = shapes_of(spec)

    def check(name: str, shape: Shape) -> None:
        wanted = shapes.get(LAYER.sub("layers.*.", name), shape)
        if shape == wanted:
            return
        advice = "convert the checkpoint again, or take the config.json that belongs to it"
        if name in (EMBEDDINGS, LM_HEAD) and shape[1:] == wanted[1:]:
            advice = f"if embeddings and LM head were resized, set vocab_size in it to {shape[0]}"
        raise ValueError(
            f"{source} holds {name} {list(shape)}, its config.json makes it {list(wanted)}: {advice}"
        )

    return check


def _linear(name: str, rows: int, columns: int) -> dict[str, Shape]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _front_end(e: EncoderSpec) -> dict[str, Shape]:
    if e.channels:
        return _chunked_front_end(e)
    return {
        "conv1.weight": (e.width, e.n_mels, KERNEL),
        "conv1.bias": (e.width,),
        "conv2.weight": (e.width, e.width, KERNEL),
        "conv2.bias": (e.width,),
        "embed_positions.weight": (e.positions, e.width),
    }


def _chunked_front_end(e: EncoderSpec) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    inputs = 1
    for name in CONVOLUTIONS:
        shapes |= {f"{name}.weight": (e.channels, inputs, KERNEL, KERNEL), f"{name}.bias": (e.channels,)}
        inputs = e.channels
    bands = strided(e.n_mels, len(CONVOLUTIONS))
    return shapes | {"conv_out.weight": (e.width, e.channels * bands)}


def _blocks(e: EncoderSpec) -> dict[str, Shape]:
    layer = "layers.*."
    shapes: dict[str, Shape] = {}
    for part in ("q", "k", "v", "out"):
        shapes |= _linear(f"{layer}self_attn.{part}_proj", e.width, e.width)
    for norm in (layer + "self_attn_layer_norm", layer + "final_layer_norm"):
        shapes |= _norm(norm, e.width)
    return shapes | _linear(layer + "fc1", e.ffn, e.width) | _linear(layer + "fc2", e.width, e.ffn)


def _decoder(d: DecoderSpec) -> dict[str, Shape]:
    layer = "layers.*."
    shapes: dict[str, Shape] = {}
    for part, heads in (("q", d.heads), ("k", d.kv_heads), ("v", d.kv_heads)):
        shapes |= _linear(f"{layer}self_attn.{part}_proj", heads * d.head_dim, d.hidden_size)
    shapes |= _linear(layer + "self_attn.o_proj", d.hidden_size, d.heads * d.head_dim)
    for part in ("gate", "up"):
        shapes |= _linear(f"{layer}mlp.{part}_proj", d.ffn, d.hidden_size)
    shapes |= _linear(layer + "mlp.down_proj", d.hidden_size, d.ffn)
    for norm in (layer + "input_layernorm", layer + "post_attention_layernorm", "norm"):
        shapes |= _norm(norm, d.hidden_size)
    for norm in ("q_norm", "k_norm"):
        shapes |= _norm(f"{layer}self_attn.{norm}", d.head_dim)
    return shapes


def _projector(spec: ModelSpec) -> dict[str, Shape]:
    """Layer by layer, from the tower's width to the LLM's."""
    shapes: dict[str, Shape] = {}
    widths = projector_widths(spec)
    for name, (inputs, outputs) in zip(spec.family.projector, pairwise(widths)):
        shapes |= _linear(name, outputs, inputs)
    return shapes


def projector_widths(spec: ModelSpec) -> list[int]:
    """What the projector's first layer takes, then what each of its layers gives."""
    tower = spec.audio.encoder_width
    llm = spec.decoder.hidden_size
    inner = tower if spec.family.projector_width == "tower" else llm
    return [tower, *[inner] * (len(spec.family.projector) - 1), llm]
