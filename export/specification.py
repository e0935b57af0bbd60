"""What a configuration means: sizes and rules that the graphs are built from, or a refusal."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.bundle import AudioSpec, DecoderSpec, EncoderSpec
from ..runtime.numbers import check_finite, check_whole
from ..runtime.records import check_types
from ..runtime.token_rules import CONVOLUTION_STRIDE, TOKEN_RULES
from .configuration import feature_settings, llm_section, merged, read_json, rope_parameters, section_of
from .families import FAMILIES, Family, family_of

# What Music Flamingo's class assumes where a configuration does not say.
TIME_THETA = 1200.0  # seconds
TIME_SHARE = 0.2  # of the width that is turned
FRAME_STEP = 0.01  # seconds
FRAMES_PER_TOKEN = 4


@dataclass(frozen=True)
class LLMSpec:
    """Everything the decoder's graphs are built from."""

    decoder: DecoderSpec
    rope_theta: float
    norm_eps: float
    tied: bool  # the configuration says that the LM head is the embedding table


@dataclass(frozen=True)
class RotaryTime:
    """How the tower's output is turned by its time.

    theta: seconds, the bound of both axes
    share: of the width that is turned
    token_seconds: from one token to the next
    """

    theta: float
    share: float
    token_seconds: float


@dataclass(frozen=True)
class ModelSpec:
    """Everything the graphs and the prompt are built from."""

    family: Family
    encoder: EncoderSpec
    llm: LLMSpec
    audio: AudioSpec
    audio_token_id: int
    audio_around: tuple[int, ...]
    end_token_ids: tuple[int, ...]  # of the configuration; generation_config.json's count before them
    rotary_time: RotaryTime | None

    @property
    def decoder(self) -> DecoderSpec:
        return self.llm.decoder


def model_spec(config: Mapping[str, Any], folder: Path) -> ModelSpec:
    """The specification of a config.json; ValueError for a family or variant not supported."""
    kind = config.get("model_type")
    family = family_of(kind)
    if family is None:
        raise ValueError(f"model type {kind!r} is not supported; supported: {', '.join(FAMILIES)}")
    model = _model_section(family, config)
    audio = merged(family.audio_defaults, section_of(model, "audio_config"))
    _refuse_towers(family, model, audio)
    text = _text_section(family, model)
    encoder = _encoder_spec(family, audio)
    llm = _llm_spec(text, model)
    _check_sizes(encoder, llm.decoder)
    return ModelSpec(
        family=family,
        encoder=encoder,
        llm=llm,
        audio=_audio_spec(family, encoder, llm.decoder, folder),
        audio_token_id=_token_id(model, "audio_token_id", llm.decoder),
        audio_around=tuple(
            _token_id({key: value, **model}, key, llm.decoder) for key, value in family.prompt.audio_around
        ),
        end_token_ids=_end_token_ids(family, model, text),
        rotary_time=_rotary_time(model) if family.rotary_time else None,
    )


def _check_sizes(*specs: EncoderSpec | DecoderSpec) -> None:
    """ValueError for a size that is no number."""
    for spec in specs:
        try:
            check_types(spec)
        except TypeError as error:
            raise ValueError(f"config.json does not hold a model's sizes: {error}") from None


def _token_id(model: Mapping[str, Any], key: str, decoder: DecoderSpec) -> int:
    """The token that the configuration names; ValueError where the LLM has no row for it."""
    return check_whole(f"config.json: {key}", model[key], 0, decoder.vocab_size - 1)


def _model_section(family: Family, config: Mapping[str, Any]) -> dict[str, Any]:
    section = section_of(config, family.section) if family.section else None
    defaults = {} if family.audio_token_id is None else {"audio_token_id": family.audio_token_id}
    model = merged(defaults, config if section is None else section)
    if "audio_token_id" not in model:
        raise ValueError("config.json has no audio_token_id, which says what stands for audio")
    return model


def _text_section(family: Family, model: Mapping[str, Any]) -> dict[str, Any]:
    given = section_of(model, "text_config")
    if given is not None:
        given = {**family.text_defaults, **given, "model_type": _type_of(family, given, family.llm_types[0])}
    defaults = {**family.text_defaults, **family.whole_text_defaults}
    return llm_section(given, family.llm_types[0], defaults)


def _type_of(family: Family, section: Mapping[str, Any], default: str) -> str:
    """The model type of a part, under transformers' name."""
    given = section.get("model_type", default)
    return family.type_names.get(str(given), given)


def _refuse_towers(family: Family, model: Mapping[str, Any], audio: Mapping[str, Any]) -> None:
    """ValueError names the part that the family's record does not state."""
    wanted = {
        "audio tower": (_type_of(family, audio, family.audio_type), family.audio_type),
        "encoder activation": (audio["activation_function"], "gelu"),
        "scale_embedding": (audio["scale_embedding"], False),
        "projector activation": (model.get("projector_hidden_act", "gelu"), "gelu"),
    }
    rule = TOKEN_RULES[family.tower.token_rule]
    if family.tower.stacked > 1:
        stacked = family.tower.stacked * check_whole("config.json: hidden_size", audio["hidden_size"])
        wanted["width that the projector takes"] = (audio["intermediate_size"], stacked)
    if rule.chunk or rule.block:
        wanted["n_window"] = (audio["n_window"], (rule.chunk or rule.block) // 2)
    if rule.chunk:
        wanted["n_window_infer"] = (audio["n_window_infer"], family.sound.segment_frames)
    for part, (value, supported) in wanted.items():
        if value != supported:
            raise ValueError(
                f"{part} {value!r} is not supported for {family.model_type}; supported: {supported}"
            )


def _encoder_spec(family: Family, audio: Mapping[str, Any]) -> EncoderSpec:
    rule = TOKEN_RULES[family.tower.token_rule]
    computed = rule.positions(rule.chunk or rule.block)
    return EncoderSpec(
        layers=audio["num_hidden_layers"],
        width=audio["hidden_size"],
        heads=audio["num_attention_heads"],
        ffn=audio["intermediate_size"],
        n_mels=audio["num_mel_bins"],
        positions=computed or audio["max_source_positions"],
        channels=audio["downsample_hidden_size"] if rule.chunk else 0,
    )


def _llm_spec(text: Mapping[str, Any], model: Mapping[str, Any]) -> LLMSpec:
    rope = rope_parameters(text)
    _refuse_llms(text, rope)
    heads = check_whole("config.json: num_attention_heads", text["num_attention_heads"])
    hidden_size = check_whole("config.json: hidden_size", text["hidden_size"])
    decoder = DecoderSpec(
        layers=text["num_hidden_layers"],
        hidden_size=hidden_size,
        heads=heads,
        kv_heads=text["num_key_value_heads"] or heads,
        head_dim=text.get("head_dim") or hidden_size // heads,
        vocab_size=text["vocab_size"],
        max_positions=text["max_position_embeddings"],
        ffn=text["intermediate_size"],
    )
    return LLMSpec(
        decoder=decoder,
        rope_theta=check_finite("config.json: rope_theta", rope["rope_theta"], above=True),
        norm_eps=check_finite("config.json: rms_norm_eps", text["rms_norm_eps"]),
        tied=any(part.get("tie_word_embeddings", False) for part in (text, model)),
    )


def _refuse_llms(text: Mapping[str, Any], rope: Mapping[str, Any]) -> None:
    if rope["rope_type"] != "default":
        raise ValueError(f"rope type {rope['rope_type']!r} is not supported; supported: default")
    if rope.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise ValueError(
            f"partial_rotary_factor {rope['partial_rotary_factor']} is not supported; supported: 1"
        )
    if text.get("use_sliding_window", False):
        raise ValueError("sliding window attention is not supported")
    if text["hidden_act"] != "silu":
        raise ValueError(f"LLM activation {text['hidden_act']!r} is not supported; supported: silu")


def _audio_spec(family: Family, encoder: EncoderSpec, decoder: DecoderSpec, folder: Path) -> AudioSpec:
    features = feature_settings(folder)
    if features["feature_size"] != encoder.n_mels:
        raise ValueError(
            f"the feature extractor makes {features['feature_size']} mel bands, the encoder takes "
            f"{encoder.n_mels}"
        )
    sound = family.sound
    hop = _whole_feature(features, "hop_length")
    frames = sound.segment_frames or encoder.positions * CONVOLUTION_STRIDE
    longest = _longest_samples(family, features, folder)
    return AudioSpec(
        sampling_rate=_whole_feature(features, "sampling_rate"),
        n_fft=_whole_feature(features, "n_fft"),
        hop_length=hop,
        n_mels=encoder.n_mels,
        segment_frames=frames,
        max_segments=_max_segments(family, frames, longest // hop, decoder.max_positions),
        encoder_width=encoder.width * family.tower.stacked,
        token_length_rule=family.tower.token_rule,
        whole_audio=sound.whole_audio,
        audio_multiple=_audio_multiple(family, frames * hop, longest),
        shortest_audio=int(features.get("min_length", sound.shortest_audio)) if sound.shortest_audio else 0,
        zeros_after=sound.zeros_after,
        full_frames_only=sound.full_frames_only,
        numbered_segments=family.rotary_time,
    )


def _audio_multiple(family: Family, segment: int, longest: int) -> int:
    """Samples that an audio is padded to a multiple of: a segment, the longest audio, or 0 for neither."""
    if family.sound.pads_to_segments:
        return segment
    return longest if family.sound.chunk_is_longest else 0


def _whole_feature(features: Mapping[str, Any], name: str) -> int:
    return int(check_finite(f"the feature extractor's {name}", features[name], 1))


def _longest_samples(family: Family, features: Mapping[str, Any], folder: Path) -> int:
    """Samples of the longest audio that the processor takes; 0 where it names no bound."""
    seconds = 0.0
    if family.sound.longest:
        key, default = family.sound.longest
        given = read_json(folder / "processor_config.json").get(key, default)
        seconds = check_finite(f"processor_config.json: {key}", given)
    elif family.sound.chunk_is_longest:
        seconds = check_finite("the feature extractor's chunk_length", features["chunk_length"])
    return int(seconds * _whole_feature(features, "sampling_rate"))


def _max_segments(family: Family, frames: int, longest_frames: int, max_positions: int) -> int:
    """Segments of one audio: as the processor bounds it, else as many as the LLM has positions for."""
    if family.sound.one_segment:
        return 1
    if longest_frames:
        return _whole_segments(longest_frames, frames)
    return max(1, max_positions // TOKEN_RULES[family.tower.token_rule].tokens(frames))


def _whole_segments(longest_frames: int, frames: int) -> int:
    if longest_frames < frames:
        raise ValueError(
            f"the processor takes {longest_frames} frames of an audio, less than a segment ({frames})"
        )
    return longest_frames // frames


def _end_token_ids(family: Family, model: Mapping[str, Any], text: Mapping[str, Any]) -> tuple[int, ...]:
    for given in (text.get("eos_token_id"), model.get("eos_token_id")):
        if given is not None:
            ids = given if isinstance(given, (list, tuple)) else [given]
            return tuple(check_whole("config.json: eos_token_id", token, 0) for token in ids)
    return family.end_token_ids


def _rotary_time(model: Mapping[str, Any]) -> RotaryTime:
    rope = rope_parameters({"rope_theta": TIME_THETA, "partial_rotary_factor": TIME_SHARE} | dict(model))
    if rope["rope_type"] != "default":
        raise ValueError(f"rope type {rope['rope_type']!r} of the time is not supported; supported: default")
    return RotaryTime(
        theta=check_finite("config.json: rope_theta", rope["rope_theta"], above=True),
        share=check_finite("config.json: partial_rotary_factor", rope["partial_rotary_factor"]),
        token_seconds=float(model.get("audio_frame_step", FRAME_STEP)) * FRAMES_PER_TOKEN,
    )
