"""Tiny random checkpoints of both families, with their processors, for tests that need no download."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

AUDIO_TOKENS = {"qwen2_audio": "<|AUDIO|>", "audioflamingo3": "<sound>"}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<sound>"]
QWEN_TEMPLATE = (
    "{% set audio_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if 'audio' in content or content['type'] == 'audio' %}"
    "{% set audio_count.value = audio_count.value + 1 %}Audio {{ audio_count.value }}: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FLAMINGO_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
    "{% if content['type'] == 'audio' %}<sound>{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, no merges: 256 bytes and the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                   extra_special_tokens=SPECIAL)


def text_config(**changes) -> dict:
    return dict(model_type="qwen2", hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, vocab_size=272, max_position_embeddings=4096, rms_norm_eps=1e-5,
                initializer_range=0.2) | changes


def make_checkpoint(folder: Path, family: str, seed: int = 0, drop_lm_head: bool = False, **text_changes) -> Path:
    """Save a checkpoint of `family` into `folder`; weights are wide enough that greedy tokens vary."""
    torch.manual_seed(seed)
    tok = tokenizer()
    audio_id = tok.convert_tokens_to_ids(AUDIO_TOKENS[family])
    text, extractor = text_config(**text_changes), WhisperFeatureExtractor(feature_size=128)
    if family == "qwen2_audio":
        audio = dict(model_type="qwen2_audio_encoder", d_model=32, encoder_layers=2, encoder_attention_heads=2,
                     encoder_ffn_dim=64, initializer_range=0.1)
        model = Qwen2AudioForConditionalGeneration(Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=audio_id))
        processor = Qwen2AudioProcessor(extractor, tok, chat_template=QWEN_TEMPLATE)
    else:
        audio = dict(model_type="audioflamingo3_encoder", hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                     intermediate_size=64, initializer_range=0.1)
        model = AudioFlamingo3ForConditionalGeneration(AudioFlamingo3Config(audio_config=audio, text_config=text, audio_token_id=audio_id))
        processor = AudioFlamingo3Processor(extractor, tok, chat_template=FLAMINGO_TEMPLATE)
    for parameter in model.parameters():  # biases are zero at the start, which would hide a lost one
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.generation_config.eos_token_id = [tok.convert_tokens_to_ids("<|im_end|>"), tok.convert_tokens_to_ids("<|endoftext|>")]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if drop_lm_head:  # a tied checkpoint as a hub stores it: one table, no LM head
        _drop_lm_head(folder / "model.safetensors")
    return folder


def _drop_lm_head(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors.pop("language_model.lm_head.weight", None)
    save_file(tensors, path, metadata={"format": "pt"})
