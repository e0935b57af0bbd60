"""Stages 5 and 6, prefill and decode as ONNX: the LLM with its KV cache, in flavours over one weight file."""

import numpy as np

from ..runtime.precision import Precision
from .checkpoint import TensorSource
from .flavours import Flavour, opset_for
from .graph import Graph
from .layouts import DECODER_PREFIX, EMBEDDINGS, LM_HEAD
from .precision import BITS
from .quantize import Quantization
from .specification import LLMSpec
from .weight_files import StoredTensor
from .weights import Rows, Stacked, WeightFile


def decoder_graph(
    spec: LLMSpec,
    checkpoint: TensorSource,
    precision: Precision,
    weights: WeightFile,
    flavour: Flavour,
    lm_head_chunks: int = 1,
) -> Graph:
    """inputs_embeds [B, S, H] and a KV cache of CAP places -> logits [B, V] float32, and the cache written.

    position_ids [B, S] int64: rotary positions, gaps allowed (the place in the cache is always consecutive)
    key_bias [B, CAP] float32: added to the attention logits of each cached key, in every layer
    past_len [B] int32: tokens already cached
    last_index [B] int32: the place in S of each row's last token, whose logits are given
    past.{i}.key/value [B, KV, CAP, head_dim], returned as present.{i}.key/value: bind both to one buffer
    lm_head_chunks: products that the LM head is split into, none larger than its share of the vocabulary
    A flavour whose cache grows has no past_len: it takes P places, returns P + S, and key_bias is [B, P + S].
    One that attends to the tokens seen only takes key_bias [B, USED], past_len + S <= USED <= CAP.
    """
    d = spec.decoder
    g = Graph("decoder", opset_for(flavour, precision), precision.activations, weights, flavour.domains)
    embeds = g.input("inputs_embeds", precision.inputs_embeds, ["B", "S", d.hidden_size])
    hidden = g.convert(embeds, precision.inputs_embeds, "float32")
    position_ids = g.input("position_ids", "int64", ["B", "S"])
    key_bias = g.input("key_bias", "float32", ["B", _key_columns(flavour)])
    past_len = None if flavour.grows else g.input("past_len", "int32", ["B"])
    last_index = g.input("last_index", "int32", ["B"])
    rotate = flavour.rope(g, d, *_rope_tables(g, spec), position_ids)
    attention = flavour.begin(g, d, hidden, past_len, key_bias)
    block = _Block(g, spec, checkpoint, weight_kind(precision, precision.weights), flavour)
    x = _last_token(block, hidden, last_index, rotate, attention)
    head = weight_kind(precision, precision.lm_head)
    g.output(_logits(g, spec, checkpoint, x, head, lm_head_chunks), "logits", "float32", ["B", d.vocab_size])
    return g


def _key_columns(flavour: Flavour) -> str:
    if flavour.grows:
        return "P + S"
    return "USED" if flavour.seen_only else "CAP"


def _last_token(block: "_Block", hidden: str, last_index: str, rotate, attention) -> str:
    """The layers over hidden [B, S, H]; the last token of each row [B, H], normed, is what comes out."""
    g = block.g
    added = None  # what the residual stream still has to take up
    for layer in range(block.d.layers):
        prefix = f"layers.{layer}."
        hidden, x = block.join(prefix + "input_layernorm", hidden, added)
        attended = attention(layer, *block.query_key_value(prefix, x, rotate))
        if layer == block.d.layers - 1:  # only the last token of each row goes on to the logits
            attended = _at_index(g, attended, last_index)
            hidden = _at_index(g, hidden, last_index)
        hidden, x = block.join(prefix + "post_attention_layernorm", hidden, block.output(prefix, attended))
        added = block.mlp(prefix, x)
    _, x = block.join("norm", hidden, added)
    return g.op("Squeeze", x, g.const([1]))  # the LM head's products are then the output as they are


def weight_kind(precision: Precision, name: str) -> str | Quantization:
    """How matrices of the precision `name` are stored: a float type, or quantised."""
    if name not in BITS:
        return name
    return Quantization(
        BITS[name], precision.block_size, precision.symmetric, precision.accuracy_level, precision.signed
    )


class _Block:
    """The parts of one transformer layer that no flavour changes."""

    def __init__(
        self, g: Graph, spec: LLMSpec, checkpoint: TensorSource, kind: str | Quantization, flavour: Flavour
    ):
        self.g = g
        self.spec = spec
        self.d = spec.decoder
        self.checkpoint = checkpoint
        self.kind = kind
        self.flavour = flavour

    def join(self, name: str, hidden: str, added: str | None) -> tuple[str, str]:
        """The residual stream with `added`, float32, and its norm `name` in the graph's precision."""
        scale = self.scale(name)
        if added is None:
            return hidden, self.g.to_precision(self.flavour.norm(self.g, hidden, scale, self.spec.norm_eps))
        hidden, normed = self.flavour.add_norm(
            self.g, hidden, self.g.to_float32(added), scale, self.spec.norm_eps
        )
        return hidden, self.g.to_precision(normed)

    def query_key_value(self, prefix: str, x: str, rotate) -> tuple[str, str, str]:
        """q [B, S, heads * head_dim], k and v [B, S, KV * head_dim]; q and k rotated."""
        d = self.d
        name = prefix + "self_attn."
        packed = self.linear(name + "qkv_proj", [name + part for part in ("q_proj", "k_proj", "v_proj")], x)
        q, k, v = self.g.split(
            packed, [d.heads * d.head_dim, d.kv_heads * d.head_dim, d.kv_heads * d.head_dim]
        )
        q = self.head_norm(name + "q_norm", q, d.heads)
        k = self.head_norm(name + "k_norm", k, d.kv_heads)
        return rotate(q, d.heads), rotate(k, d.kv_heads), v

    def output(self, prefix: str, attended: str) -> str:
        return self.linear(prefix + "self_attn.o_proj", [prefix + "self_attn.o_proj"], attended)

    def mlp(self, prefix: str, x: str) -> str:
        g = self.g
        gate, up = (
            self.linear(prefix + f"mlp.{part}", [prefix + f"mlp.{part}"], x)
            for part in ("gate_proj", "up_proj")
        )
        gated = g.op("Mul", g.op("Mul", gate, g.op("Sigmoid", gate)), up)
        return self.linear(prefix + "mlp.down_proj", [prefix + "mlp.down_proj"], gated)

    def linear(self, name: str, parts: list[str], x: str) -> str:
        """One product over the checkpoint's linear layers `parts`, stacked along the output;
        biases where it has them."""
        biased = any(DECODER_PREFIX + part + ".bias" in self.checkpoint for part in parts)
        bias = Stacked([self.take(part + ".bias") for part in parts]) if biased else None
        return self.g.linear(
            x,
            name,
            Stacked([self.take(part + ".weight") for part in parts]),
            bias,
            self.kind,
            self.flavour.fused_bias,
        )

    def head_norm(self, name: str, x: str, heads: int) -> str:
        """Qwen3's RMSNorm over each head of x [B, S, heads * head_dim];
        nothing where the checkpoint has none."""
        if DECODER_PREFIX + name + ".weight" not in self.checkpoint:
            return x
        split = self.g.op("Reshape", self.g.to_float32(x), self.g.const([0, 0, heads, self.d.head_dim]))
        normed = self.flavour.norm(self.g, split, self.scale(name), self.spec.norm_eps)
        return self.g.to_precision(
            self.g.op("Reshape", normed, self.g.const([0, 0, heads * self.d.head_dim]))
        )

    def scale(self, name: str) -> str:
        return self.g.weight(name + ".weight", self.take(name + ".weight"), "float32")

    def take(self, name: str) -> StoredTensor:
        return self.checkpoint.take(DECODER_PREFIX + name, "decoder")


def _at_index(g: Graph, hidden: str, index: str) -> str:
    """hidden [B, S, H] at index [B] -> [B, 1, H]."""
    picked = g.op("GatherND", hidden, g.cast(g.op("Unsqueeze", index, g.const([1])), "int64"), batch_dims=1)
    return g.op("Unsqueeze", picked, g.const([1]))


def _logits(
    g: Graph, spec: LLMSpec, checkpoint: TensorSource, hidden: str, kind: str | Quantization, chunks: int
) -> str:
    source = LM_HEAD if LM_HEAD in checkpoint else EMBEDDINGS
    if source == EMBEDDINGS and not spec.tied:
        raise ValueError(
            f"{checkpoint.source} has no {LM_HEAD} and its configuration does not tie it to the embeddings"
        )
    table = checkpoint.take(source, "decoder" if source == LM_HEAD else "embeddings, tied to the LM head")
    if chunks == 1:
        logits = g.linear(hidden, "lm_head", table, kind=kind)
    else:
        ends = [table.shape[0] * i // chunks for i in range(chunks + 1)]
        logits = g.op(
            "Concat",
            *(
                g.linear(hidden, f"lm_head.{i}", Rows(table, ends[i], ends[i + 1]), kind=kind)
                for i in range(chunks)
            ),
            axis=-1,
        )
    return g.to_float32(logits)


def _rope_tables(g: Graph, spec: LLMSpec) -> tuple[str, str]:
    """cos and sin [max_positions, head_dim / 2], in the float32 steps of transformers' rotary embedding."""
    head_dim = spec.decoder.head_dim
    steps = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    inverse = np.float32(1.0) / np.power(np.float32(spec.rope_theta), steps)
    angles = np.arange(spec.decoder.max_positions, dtype=np.float32)[:, None] * inverse
    return g.weight("rope.cos", np.cos(angles)), g.weight("rope.sin", np.sin(angles))
