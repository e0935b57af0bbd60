"""The shape of every tensor by the configuration: a table that was padded, or is of another size, is refused
before anything is written, as transformers refuses it."""

import re
from collections.abc import Callable

from ..runtime.bundle import DecoderSpec, EncoderSpec
from .layouts import DECODER_PREFIX, EMBEDDINGS, ENCODER_PREFIX, LM_HEAD
from .specification import ModelSpec

Shape = tuple[int, ...]
LAYER = re.compile(r"layers\.\d+\.")
KERNEL = 3  # places of the encoder's convolutions


def shapes_of(spec: ModelSpec) -> dict[str, Shape]:
    """Name, with * for a layer's number -> shape."""
    tower = _encoder(spec.encoder, spec.family.tower.norm)
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


def _encoder(e: EncoderSpec, norm_after: str) -> dict[str, Shape]:
    layer = "layers.*."
    shapes = {
        "conv1.weight": (e.width, e.n_mels, KERNEL),
        "conv1.bias": (e.width,),
        "conv2.weight": (e.width, e.width, KERNEL),
        "conv2.bias": (e.width,),
        "embed_positions.weight": (e.positions, e.width),
    }
    for part in ("q", "k", "v", "out"):
        shapes |= _linear(f"{layer}self_attn.{part}_proj", e.width, e.width)
    for norm in (layer + "self_attn_layer_norm", layer + "final_layer_norm", norm_after):
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
    """Each of its layers gives the LLM's width, as the families have it."""
    shapes: dict[str, Shape] = {}
    width = spec.audio.encoder_width
    for name in spec.family.projector:
        shapes |= _linear(name, spec.decoder.hidden_size, width)
        width = spec.decoder.hidden_size
    return shapes
