"""Tiny random Qwen3-ASR checkpoints, their tokenizer and processor; and one that says something."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3ASRConfig,
    Qwen3ASRFeatureExtractor,
    Qwen3ASRProcessor,
)

NAMED = {
    "im_start_token": "<|im_start|>",
    "audio_token": "<|audio_pad|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}
MARK = "<asr_text>"  # an added token that is not special
ENGLISH = "language English"  # one token, so that a model can say it without attention
TEMPLATE = (
    "{% set said = namespace(context='', sounds='') %}{% for m in messages %}"
    "{% if m.content is string %}{% if m.role == 'system' %}{% set said.context = said.context + m.content %}"
    "{% endif %}{% else %}{% for c in m.content %}{% if c.type == 'audio' or 'audio_url' in c %}"
    "{% set said.sounds = said.sounds + '<|audio_start|><|audio_pad|><|audio_end|>' %}"
    "{% elif m.role == 'system' %}{% set said.context = said.context + c.text %}{% endif %}{% endfor %}"
    "{% endif %}{% endfor %}<|im_start|>system\n{{ said.context }}<|im_end|>\n<|im_start|>user\n"
    "{{ said.sounds }}<|im_end|>\n{% for m in messages %}{% if m.role == 'assistant' %}"
    "<|im_start|>assistant\n{% generation %}{{ m.content if m.content is string else m.content[0].text }}"
    "{{ '<|im_end|>\n' }}{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Context in the system's turn, sounds in the user's, as Qwen3-ASR's processors have it."""


def tokenizer(ids: dict[str, int] | None = None) -> PreTrainedTokenizerFast:
    """Qwen3-ASR's: byte-level, no merges, and the names that its processor asks for;
    those named in `ids` stand there, with fillers before them."""
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_end|>", *NAMED.values()]
    at = {place: token for token, place in (ids or {}).items()}
    names += [token for token in (*special, MARK, ENGLISH) if token not in at.values()]
    names += [at.get(place, f"<|filler {place}|>") for place in range(len(names), max(at, default=-1) + 1)]
    backend = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(names)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([MARK, ENGLISH])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=NAMED,
    )


def config(text: dict, tok: PreTrainedTokenizerFast, audio: dict) -> Qwen3ASRConfig:
    """Tied, as the published ones are, unless the text says otherwise.

    audio: layers, width, heads, ffn and channels of the tower
    """
    head_dim = text["hidden_size"] // text["num_attention_heads"]
    text = dict(head_dim=head_dim, tie_word_embeddings=True) | text | dict(model_type="qwen3")
    return Qwen3ASRConfig(
        audio_config=dict(
            d_model=audio["width"],
            encoder_layers=audio["layers"],
            encoder_attention_heads=audio["heads"],
            encoder_ffn_dim=audio["ffn"],
            downsample_hidden_size=audio["channels"],
            output_dim=text["hidden_size"],
            initializer_range=0.1,
        ),
        text_config=text,
        audio_token_id=tok.convert_tokens_to_ids(NAMED["audio_token"]),
        tie_word_embeddings=text["tie_word_embeddings"],
        initializer_range=0.2,  # of the projector: transcripts then vary with the sound
    )


def save_processor(folder: Path, tok: PreTrainedTokenizerFast) -> None:
    Qwen3ASRProcessor(Qwen3ASRFeatureExtractor(), tok, chat_template=TEMPLATE).save_pretrained(folder)


def make_transcriber(folder: Path) -> Path:
    """A Qwen3-ASR checkpoint that says `language English<asr_text>hi` of every sound.

    Nothing passes its layers but the last token, and the LM head has what follows each of them.
    """
    from tests.support.tiny import make_checkpoint

    make_checkpoint(folder, "qwen3_asr", tie_word_embeddings=False)
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        if name.endswith(("self_attn.o_proj.weight", "mlp.down_proj.weight")):
            tensors[name].zero_()
    embeddings = tensors["model.language_model.embed_tokens.weight"].zero_()
    head = tensors["lm_head.weight"].zero_()
    tensors["model.language_model.norm.weight"].fill_(1)
    said: Any = tokenizer().convert_tokens_to_ids(["\u010a", ENGLISH, MARK, "h", "i", "<|im_end|>"])
    for place, following in enumerate(said[1:]):
        embeddings[said[place], place] = head[following, place] = 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
