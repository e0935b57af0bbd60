"""Tiny random checkpoints of every family, with their processors, for tests that need no download."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    MusicFlamingoConfig,
    MusicFlamingoForConditionalGeneration,
    MusicFlamingoProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5OmniForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen3ASRForConditionalGeneration,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    WhisperFeatureExtractor,
)

from tests.support import tiny_asr, tiny_omni
from tests.support.tiny_tekken import VOCABULARY, write_tekken

AUDIO_TOKENS = {
    "qwen2_audio": "<|AUDIO|>",
    "audioflamingo3": "<sound>",
    "musicflamingo": "<sound>",
}
LLM_CHANGES = {"voxtral": dict(model_type="llama", head_dim=16, vocab_size=VOCABULARY)}
SEGMENT_POSITIONS = 1500  # of the encoder, 20 ms each: 30 s
SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<sound>",
    "<|sound_bos|>",
    "<|sound_eos|>",
]

QWEN_TEMPLATE = (
    "{% set audio_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful "
    "assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] "
    "}}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if 'audio' in content or content['type'] == 'audio' %}"
    "{% set audio_count.value = audio_count.value + 1 %}Audio {{ audio_count.value }}: "
    "<|audio_bos|><|AUDIO|><|audio_eos|>\n"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% "
    "endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FLAMINGO_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
    "{% if content['type'] == 'audio' %}<sound>{% else %}{{ content['text'] }}{% endif %}{% endfor "
    "%}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(
    ids: dict[str, int] | None = None, special: list[str] = SPECIAL, **named: str
) -> PreTrainedTokenizerFast:
    """Byte-level, no merges: 256 bytes and the special tokens; those named in `ids` stand there,
    with fillers before them.

    named: attributes of the tokenizer, a special token each
    """
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    if ids:
        at = {place: token for token, place in ids.items()}
        names += [token for token in special if token not in ids]
        names += [at.get(place, f"<|filler {place}|>") for place in range(len(names), max(at) + 1)]
    backend = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(names)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=special,
        **named,
    )


def tokenizer_of(family: str, ids: dict[str, int] | None = None) -> PreTrainedTokenizerFast:
    """The one of `family`."""
    if family == "qwen2_5_omni":
        return tokenizer(ids, tiny_omni.SPECIAL, **tiny_omni.NAMED)
    return tiny_asr.tokenizer(ids) if family == "qwen3_asr" else tokenizer(ids)


def text_config(**changes) -> dict:
    return (
        dict(
            model_type="qwen2",
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=272,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
            initializer_range=0.2,
        )
        | changes
    )


def make_config(
    family: str,
    text: dict,
    tok: PreTrainedTokenizerFast,
    layers: int = 2,
    width: int = 32,
    heads: int = 2,
    ffn: int = 64,
    positions: int = SEGMENT_POSITIONS,
    channels: int = 6,
):
    """The configuration of `family` with an encoder of these sizes and the LLM `text`."""
    if family == "qwen2_5_omni":
        return tiny_omni.omni_config(text, tok, dict(layers=layers, width=width, heads=heads, ffn=ffn))
    if family == "qwen3_asr":
        return tiny_asr.config(
            text, tok, dict(layers=layers, width=width, heads=heads, ffn=ffn, channels=channels)
        )
    if family == "qwen2_audio":
        audio = dict(
            model_type="qwen2_audio_encoder",
            d_model=width,
            encoder_layers=layers,
            encoder_attention_heads=heads,
            encoder_ffn_dim=ffn,
            max_source_positions=positions,
            initializer_range=0.1,
        )
        audio_id = tok.convert_tokens_to_ids(AUDIO_TOKENS[family])
        return Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=audio_id)
    audio = dict(
        model_type="audioflamingo3_encoder",
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=ffn,
        max_source_positions=positions,
        initializer_range=0.1,
    )
    return _relative_of_flamingo(family, text, tok, audio)


def _relative_of_flamingo(family: str, text: dict, tok: PreTrainedTokenizerFast, audio: dict):
    """Audio Flamingo 3, and those whose encoder is configured as its is."""
    if family == "voxtral":
        audio = audio | dict(model_type="voxtral_encoder", intermediate_size=4 * audio["hidden_size"])
        return VoxtralConfig(audio_config=audio, text_config=text, audio_token_id=24)
    audio_id = tok.convert_tokens_to_ids(AUDIO_TOKENS[family])
    if family == "musicflamingo":
        around = {
            f"audio_{side}_token_id": tok.convert_tokens_to_ids(f"<|sound_{side}|>")
            for side in ("bos", "eos")
        }
        return MusicFlamingoConfig(audio_config=audio, text_config=text, audio_token_id=audio_id, **around)
    return AudioFlamingo3Config(audio_config=audio, text_config=text, audio_token_id=audio_id)


def save_processor(folder: Path, family: str, tok: PreTrainedTokenizerFast, **omni: int) -> None:
    if family == "qwen2_5_omni":
        tiny_omni.save_processor(folder, tok, **omni)
        return
    if family == "voxtral":  # as the hub has it: no processor's file, no template
        WhisperFeatureExtractor(feature_size=128, processor_class="VoxtralProcessor").save_pretrained(folder)
        write_tekken(folder)
        return
    if family == "qwen3_asr":
        tiny_asr.save_processor(folder, tok)
        return
    kind, template = {
        "qwen2_audio": (Qwen2AudioProcessor, QWEN_TEMPLATE),
        "audioflamingo3": (AudioFlamingo3Processor, FLAMINGO_TEMPLATE),
        "musicflamingo": (MusicFlamingoProcessor, FLAMINGO_TEMPLATE),
    }[family]
    kind(WhisperFeatureExtractor(feature_size=128), tok, chat_template=template).save_pretrained(folder)


def make_checkpoint(
    folder: Path,
    family: str,
    seed: int = 0,
    drop_lm_head: bool = False,
    positions: int = SEGMENT_POSITIONS,
    **text_changes,
) -> Path:
    """Save a checkpoint of `family` into `folder`; weights are wide enough that greedy tokens vary.

    positions: of the encoder, 20 ms each: a segment is so long
    """
    torch.manual_seed(seed)
    tok = tokenizer_of(family)
    text = text_config(**text_changes | LLM_CHANGES.get(family, {}))
    config = make_config(family, text, tok, positions=positions)
    model = {
        "qwen2_audio": Qwen2AudioForConditionalGeneration,
        "audioflamingo3": AudioFlamingo3ForConditionalGeneration,
        "musicflamingo": MusicFlamingoForConditionalGeneration,
        "voxtral": VoxtralForConditionalGeneration,
        "qwen2_5_omni": Qwen2_5OmniForConditionalGeneration,
        "qwen3_asr": Qwen3ASRForConditionalGeneration,
    }[family](config)
    for parameter in model.parameters():  # biases are zero at the start, which would hide a lost one
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.generation_config.eos_token_id = [
        tok.convert_tokens_to_ids("<|im_end|>"),
        tok.convert_tokens_to_ids("<|endoftext|>"),
    ]
    if family == "voxtral":
        model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    save_processor(folder, family, tok)
    if drop_lm_head:  # a tied checkpoint as a hub stores it: one table, no LM head
        _drop_lm_head(folder / "model.safetensors")
    return folder


def _drop_lm_head(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors.pop("language_model.lm_head.weight", None)
    save_file(tensors, path, metadata={"format": "pt"})
