"""Tiny random Qwen2.5-Omni checkpoints, as the hub lays them out: thinker, talker, vocoder; and the processor
without its pictures."""

import json
from pathlib import Path

from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5OmniConfig,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    WhisperFeatureExtractor,
)

NAMED = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *NAMED.values()]
LONGEST = 90  # seconds that the extractor takes; the published one takes 300
TEMPLATE = (
    "{% set audio_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant."
    "<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "<|vision_bos|><|IMAGE|><|vision_eos|>"
    "{% elif content['type'] == 'audio' or 'audio' in content or 'audio_url' in content %}"
    "{% set audio_count.value = audio_count.value + 1 %}"
    "{% if add_audio_id %}Audio {{ audio_count.value }}: {% endif %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def thinker_config(text: dict, tok: PreTrainedTokenizerFast, audio: dict) -> Qwen2_5OmniThinkerConfig:
    """audio: layers, width, heads, ffn of the tower."""
    half = text.get("head_dim", text["hidden_size"] // text["num_attention_heads"]) // 2
    sections = [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8]  # 16, 24, 24 of a head of 128
    rope = dict(rope_type="default", rope_theta=text.get("rope_theta", 1e6), mrope_section=sections)
    text = {name: value for name, value in text.items() if name not in ("model_type", "rope_theta")}
    return Qwen2_5OmniThinkerConfig(
        audio_config=dict(
            encoder_layers=audio["layers"],
            d_model=audio["width"],
            encoder_attention_heads=audio["heads"],
            encoder_ffn_dim=audio["ffn"],
            output_dim=text["hidden_size"],
            initializer_range=0.1,
        ),
        vision_config=dict(
            depth=1,
            hidden_size=16,
            intermediate_size=16,
            num_heads=2,
            out_hidden_size=text["hidden_size"],
            fullatt_block_indexes=[0],
        ),
        text_config=text | dict(rope_parameters=rope),
        audio_token_index=tok.convert_tokens_to_ids(NAMED["audio_token"]),
        audio_start_token_id=tok.convert_tokens_to_ids(NAMED["audio_bos_token"]),
        audio_end_token_id=tok.convert_tokens_to_ids(NAMED["audio_eos_token"]),
        image_token_index=tok.convert_tokens_to_ids(NAMED["image_token"]),
        video_token_index=tok.convert_tokens_to_ids(NAMED["video_token"]),
        vision_start_token_id=tok.convert_tokens_to_ids(NAMED["vision_bos_token"]),
    )


def omni_config(text: dict, tok: PreTrainedTokenizerFast, audio: dict) -> Qwen2_5OmniConfig:
    """The thinker with a talker and a vocoder that are as small as they get."""
    thinker = thinker_config(text, tok, audio)
    hidden = thinker.text_config.hidden_size
    talker = dict(
        embedding_size=hidden,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=16,
        vocab_size=32,
    )
    vocoder = dict(
        dit_config=dict(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=1,
            emb_dim=8,
            head_dim=16,
            num_embeds=8,
            enc_emb_dim=8,
            enc_dim=8,
            enc_channels=[8, 8, 8, 8, 24],
            enc_attention_channels=8,
            enc_se_channels=8,
        ),
        bigvgan_config=dict(
            upsample_initial_channel=16,
            upsample_rates=[2],
            upsample_kernel_sizes=[4],
            resblock_kernel_sizes=[3],
            resblock_dilation_sizes=[[1, 3, 5]],
        ),
    )
    return Qwen2_5OmniConfig(thinker_config=thinker, talker_config=talker, token2wav_config=vocoder)


def save_processor(folder: Path, tok: PreTrainedTokenizerFast, longest: int = LONGEST) -> None:
    """As the hub has it: no processor_config.json, the template in chat_template.json."""
    WhisperFeatureExtractor(
        feature_size=128, chunk_length=longest, processor_class="Qwen2_5OmniProcessor"
    ).save_pretrained(folder)
    tok.save_pretrained(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}), encoding="utf-8")


class HearingProcessor(Qwen2_5OmniProcessor):
    """Qwen2.5-Omni's own processor; its pictures, whose processors need torchvision, are left out."""

    @classmethod
    def of(cls, folder: Path) -> "HearingProcessor":
        extractor = WhisperFeatureExtractor.from_pretrained(folder)
        tok = PreTrainedTokenizerFast.from_pretrained(folder)
        template = json.loads((folder / "chat_template.json").read_text(encoding="utf-8"))["chat_template"]
        return cls(None, None, extractor, tok, chat_template=template)

    def check_argument_for_proper_class(self, argument_name, argument):
        if argument is not None:
            return super().check_argument_for_proper_class(argument_name, argument)
        return type(None)
