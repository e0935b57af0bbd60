"""Qwen3-ASR's published sizes, and the tensors of a checkpoint of such sizes as transformers names them."""

from collections.abc import Iterator

LLM = dict(
    model_type="qwen3",
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    vocab_size=151936,
    max_position_embeddings=65536,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    tie_word_embeddings=True,
)
LLMS = {
    "qwen3_asr": LLM | dict(hidden_size=1024, intermediate_size=3072),
    "qwen3_asr_1.7b": LLM | dict(hidden_size=2048, intermediate_size=6144),
}
ENCODERS = {
    "qwen3_asr": dict(layers=18, width=896, heads=14, ffn=3584, channels=480),
    "qwen3_asr_1.7b": dict(layers=24, width=1024, heads=16, ffn=4096, channels=480),
}
"""0.6B and 1.7B."""
SPECIAL_IDS = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<|audio_start|>": 151669,
    "<|audio_end|>": 151670,
    "<|audio_pad|>": 151676,
    "<asr_text>": 151704,
}
BANDS = 16  # of mel, after three strides of two from 128
Shapes = Iterator[tuple[str, tuple]]


def tensor_shapes(encoder: dict, llm: dict) -> Shapes:
    """Name and shape of every tensor; the LM head is the embedding table."""
    yield from _tower(encoder)
    width, hidden = encoder["width"], llm["hidden_size"]
    yield from _linear("model.multi_modal_projector.linear_1", (width, width))
    yield from _linear("model.multi_modal_projector.linear_2", (hidden, width))
    yield from _llm(llm)


def _tower(encoder: dict) -> Shapes:
    width, ffn, channels = encoder["width"], encoder["ffn"], encoder["channels"]
    tower = "model.audio_tower."
    for name, inputs in (("conv2d1", 1), ("conv2d2", channels), ("conv2d3", channels)):
        yield from _linear(tower + name, (channels, inputs, 3, 3))
    yield tower + "conv_out.weight", (width, channels * BANDS)
    for layer in range(encoder["layers"]):
        block = f"{tower}layers.{layer}."
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{block}self_attn.{part}", (width, width))
        yield from _linear(block + "fc1", (ffn, width))
        yield from _linear(block + "fc2", (width, ffn))
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            yield from _linear(block + norm, (width,))
    yield from _linear(tower + "ln_post", (width,))


def _linear(name: str, shape: tuple) -> Shapes:
    yield name + ".weight", shape
    yield name + ".bias", shape[:1]


def _llm(llm: dict) -> Shapes:
    hidden, ffn, model = llm["hidden_size"], llm["intermediate_size"], "model.language_model."
    queries = llm["num_attention_heads"] * llm["head_dim"]
    keys = llm["num_key_value_heads"] * llm["head_dim"]
    yield model + "embed_tokens.weight", (llm["vocab_size"], hidden)
    for layer in range(llm["num_hidden_layers"]):
        block = f"{model}layers.{layer}."
        for part, rows in (("q", queries), ("k", keys), ("v", keys)):
            yield f"{block}self_attn.{part}_proj.weight", (rows, hidden)
        yield f"{block}self_attn.o_proj.weight", (hidden, queries)
        for norm in ("q_norm", "k_norm"):
            yield f"{block}self_attn.{norm}.weight", (llm["head_dim"],)
        for part, shape in (("gate", (ffn, hidden)), ("up", (ffn, hidden)), ("down", (hidden, ffn))):
            yield f"{block}mlp.{part}_proj.weight", shape
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{block}{norm}.weight", (hidden,)
    yield model + "norm.weight", (hidden,)
