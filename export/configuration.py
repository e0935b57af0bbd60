"""What a checkpoint's JSON files say, and what a model assumes where they say nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..runtime.files import read_json_object

ALIASES = {
    "audio_token_index": "audio_token_id",
    "d_model": "hidden_size",
    "encoder_attention_heads": "num_attention_heads",
    "encoder_ffn_dim": "intermediate_size",
    "encoder_layers": "num_hidden_layers",
}
"""Names that mean the same in a configuration, and the one used here."""

QWEN_LLM: Mapping[str, Any] = dict(
    vocab_size=151936,
    hidden_size=4096,
    intermediate_size=22016,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    hidden_act="silu",
    max_position_embeddings=32768,
    rms_norm_eps=1e-6,
    rope_theta=1e4,
    tie_word_embeddings=False,
)
LLM_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "qwen2": QWEN_LLM,
    "qwen3": QWEN_LLM | dict(head_dim=128),
    "llama": QWEN_LLM
    | dict(
        vocab_size=32000,
        intermediate_size=11008,
        num_key_value_heads=None,
        max_position_embeddings=2048,
        eos_token_id=2,
    ),
    "qwen2_5_omni_text": QWEN_LLM
    | dict(
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        rope_theta=1e6,
        tie_word_embeddings=True,
    ),
}
"""Text backbones whose blocks the decoder graph writes (pre-norm, SwiGLU, rotary positions), with what
transformers' class of each assumes; the parity tests hold every value."""

WHISPER_FEATURES: Mapping[str, Any] = dict(
    feature_size=80, sampling_rate=16_000, hop_length=160, chunk_length=30, n_fft=400
)
"""What transformers' WhisperFeatureExtractor assumes."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file; an empty one where there is no file. ValueError names a file that is none."""
    return read_json_object(path) if path.is_file() else {}


def section_of(raw: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """The section of a configuration, None where it has none; ValueError for what is no section."""
    section = raw.get(name)
    if section is not None and not isinstance(section, Mapping):
        raise ValueError(f"config.json: {name} is {str(section)[:80]!r}, not an object of settings")
    return section


def merged(defaults: Mapping[str, Any], raw: Mapping[str, Any] | None) -> dict[str, Any]:
    """`raw` under one name each, over the defaults."""
    values = dict(defaults)
    for name, value in (raw or {}).items():
        if name not in ALIASES:
            values[name] = value
    for name, meant in ALIASES.items():
        if raw and name in raw and meant not in raw:
            values[meant] = raw[name]
    return values


def llm_section(raw: Mapping[str, Any] | None, default_type: str, whole: Mapping[str, Any]) -> dict[str, Any]:
    """The text backbone's section over its type's defaults.

    whole: what stands in for a section that is absent, beside its type's defaults
    ValueError for a type that is not known.
    """
    section = dict(whole) if raw is None else dict(raw)
    kind = section.setdefault("model_type", default_type)
    if str(kind) not in LLM_DEFAULTS:
        raise ValueError(f"LLM type {kind!r} is not supported; supported: {', '.join(LLM_DEFAULTS)}")
    return merged(LLM_DEFAULTS[kind], section)


def rope_parameters(section: Mapping[str, Any]) -> dict[str, Any]:
    """rope_type and rope_theta of a section, under transformers 5's names or under the former ones."""
    given = section_of(section, "rope_scaling") or section_of(section, "rope_parameters") or {}
    kind = given.get("rope_type", given.get("type", "default"))
    defaults = {name: section.get(name) for name in ("rope_theta", "partial_rotary_factor")}
    return defaults | dict(given) | {"rope_type": kind}


def feature_settings(folder: Path) -> dict[str, Any]:
    """The log-mel front end as the checkpoint configures it, over Whisper's own values.

    transformers 5 keeps it in processor_config.json.
    """
    given = read_json(folder / "processor_config.json").get("feature_extractor")
    given = given or read_json(folder / "preprocessor_config.json")
    if not given:
        raise FileNotFoundError(
            f"{folder} has neither preprocessor_config.json nor a feature_extractor in processor_config.json"
        )
    if not isinstance(given, dict):
        raise ValueError(f"{folder}/processor_config.json has the feature_extractor {given!r}: not an object")
    if given.get("dither", 0.0) or given.get("do_normalize", False):
        raise ValueError("a feature extractor with dither or do_normalize is not supported")
    return {**WHISPER_FEATURES, **given}
