"""Published sizes of LLMs and the ids of their special tokens, for tests/full_size.py."""

from ltbm.export.families import VOXTRAL_LLM
from ltbm.profiles.benchmarks.models import LLMS as BENCHMARKED
from tests.support import full_size_qwen3_asr as qwen3_asr


def _benchmarked(llm: str, positions: int) -> dict:
    """The configuration whose widths `ltbm bench decoder` takes, in a checkpoint's words."""
    config = dict(BENCHMARKED[llm], model_type="qwen2", max_position_embeddings=positions)
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    return config


AUDIO_FLAMINGO_3_LLM = _benchmarked("audioflamingo3", 32768)
LLMS = {
    "qwen2_audio": _benchmarked("qwen2_audio", 8192),
    "audioflamingo3": AUDIO_FLAMINGO_3_LLM,
    "musicflamingo": AUDIO_FLAMINGO_3_LLM,
    "voxtral": dict(VOXTRAL_LLM, model_type="llama", num_attention_heads=32),
    "qwen2_5_omni": dict(  # of the 3B; its talker, vocoder and pictures, which no graph takes, are left out
        model_type="qwen2_5_omni_text",
        num_hidden_layers=36,
        hidden_size=2048,
        num_attention_heads=16,
        num_key_value_heads=2,
        intermediate_size=11008,
        vocab_size=151936,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
    ),
    **qwen3_asr.LLMS,
}
SPECIAL_IDS = {
    "qwen2_audio": {
        "<|AUDIO|>": 151646,
        "<|endoftext|>": 151643,
        "<|im_end|>": 151645,
        "<|im_start|>": 151644,
    },
    "audioflamingo3": {
        "<sound>": 151669,
        "<|endoftext|>": 151643,
        "<|im_end|>": 151645,
        "<|im_start|>": 151644,
    },
    "musicflamingo": {
        "<sound>": 151669,
        "<|sound_bos|>": 151670,
        "<|sound_eos|>": 151671,
        "<|endoftext|>": 151643,
        "<|im_end|>": 151645,
        "<|im_start|>": 151644,
    },
    "voxtral": {},  # those of its tekken.json
    "qwen2_5_omni": {
        "<|AUDIO|>": 151646,
        "<|audio_bos|>": 151647,
        "<|audio_eos|>": 151648,
        "<|endoftext|>": 151643,
        "<|im_end|>": 151645,
        "<|im_start|>": 151644,
    },
    **dict.fromkeys(qwen3_asr.LLMS, qwen3_asr.SPECIAL_IDS),
}
