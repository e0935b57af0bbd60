"""Names and shapes of a hub checkpoint's tensors at given sizes, for tests/full_size.py."""

from collections.abc import Iterator

from tests.support import full_size_qwen3_asr as qwen3_asr

POSITIONS, N_MELS = 1500, 128
STACKED = 4  # neighbouring positions of Voxtral's encoder that its projector takes side by side
Shapes = Iterator[tuple[str, tuple]]


def tensor_shapes(family: str, encoder: dict, llm: dict) -> Shapes:
    """Name and shape of every tensor, in the order of a hub checkpoint."""
    if family in qwen3_asr.LLMS:
        yield from qwen3_asr.tensor_shapes(encoder, llm)
        return
    omni = family == "qwen2_5_omni"
    yield from _tower(encoder, llm["hidden_size"], omni)
    yield from _projector(family, encoder["width"], llm["hidden_size"])
    yield from _llm(llm, "thinker." if omni else "language_model.")


def _tower(encoder: dict, hidden: int, omni: bool) -> Shapes:
    """Whisper's; Qwen2.5-Omni computes its positions."""
    width, ffn = encoder["width"], encoder["ffn"]
    tower = "thinker.audio_tower." if omni else "audio_tower."
    for name, inputs in (("conv1", N_MELS), ("conv2", width)):
        yield from _linear(tower + name, (width, inputs, 3))
    if omni:
        yield tower + "audio_bos_eos_token.weight", (2, hidden)
    else:
        yield tower + "embed_positions.weight", (POSITIONS, width)
    for layer in range(encoder["layers"]):
        block = f"{tower}layers.{layer}."
        for part in ("q_proj", "v_proj", "out_proj"):
            yield from _linear(f"{block}self_attn.{part}", (width, width))
        yield f"{block}self_attn.k_proj.weight", (width, width)
        yield from _linear(block + "fc1", (ffn, width))
        yield from _linear(block + "fc2", (width, ffn))
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            yield from _linear(block + norm, (width,))
    yield from _linear(tower + ("ln_post" if omni else "layer_norm"), (width,))


def _projector(family: str, width: int, hidden: int) -> Shapes:
    if family == "qwen2_audio":
        yield from _linear("multi_modal_projector.linear", (hidden, width))
    elif family == "qwen2_5_omni":
        yield from _linear("thinker.audio_tower.proj", (hidden, width))
    elif family == "voxtral":  # without biases
        yield "multi_modal_projector.linear_1.weight", (hidden, STACKED * width)
        yield "multi_modal_projector.linear_2.weight", (hidden, hidden)
    else:
        yield from _linear("multi_modal_projector.linear_1", (hidden, width))
        yield from _linear("multi_modal_projector.linear_2", (hidden, hidden))


def _linear(name: str, shape: tuple) -> Shapes:
    yield name + ".weight", shape
    yield name + ".bias", shape[:1]


def _llm(llm: dict, root: str) -> Shapes:
    """Qwen2's, whose queries, keys and values have a bias, or Llama's, whose have none."""
    hidden, ffn, model = llm["hidden_size"], llm["intermediate_size"], root + "model."
    head = llm.get("head_dim", hidden // llm["num_attention_heads"])
    queries, keys = head * llm["num_attention_heads"], head * llm["num_key_value_heads"]
    yield model + "embed_tokens.weight", (llm["vocab_size"], hidden)
    for layer in range(llm["num_hidden_layers"]):
        block = f"{model}layers.{layer}."
        for part, rows in (("q", queries), ("k", keys), ("v", keys)):
            weight, bias = _linear(f"{block}self_attn.{part}_proj", (rows, hidden))
            yield weight
            if llm["model_type"] != "llama":
                yield bias
        yield f"{block}self_attn.o_proj.weight", (hidden, queries)
        for part, shape in (("gate", (ffn, hidden)), ("up", (ffn, hidden)), ("down", (hidden, ffn))):
            yield f"{block}mlp.{part}_proj.weight", shape
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{block}{norm}.weight", (hidden,)
    yield model + "norm.weight", (hidden,)
    yield root + "lm_head.weight", (llm["vocab_size"], hidden)
