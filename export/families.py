"""The supported families: what a configuration means and which checkpoint tensor goes where."""

from dataclasses import dataclass
from pathlib import Path

from ..runtime.bundle import AudioSpec, DecoderSpec, EncoderSpec
from ..runtime.files import read_json_object

LLM_TYPES = ("qwen2", "qwen3", "llama")
"""Text backbones whose blocks the decoder graph writes: pre-norm, SwiGLU, default rotary positions."""


@dataclass(frozen=True)
class Family:
    """What differs between audio-language models that share Whisper's encoder and a Qwen2-like LLM.

    model_type: as config.json names it
    projector: tensor names of the linear layers, applied in order with GELU between them
    max_audio_seconds: the key of processor_config.json that bounds one audio; None where one segment is all
    architecture: the class in transformers, for parity
    frame_mask: what that class calls the mask of valid frames
    tower_takes_frame_mask: its audio tower takes that mask itself; else a 4-D mask of attention logits
    """

    model_type: str
    projector: tuple[str, ...]
    max_audio_seconds: tuple[str, float] | None
    architecture: str
    frame_mask: str
    tower_takes_frame_mask: bool


FAMILIES = {
    family.model_type: family
    for family in (
        Family(
            model_type="qwen2_audio",
            projector=("multi_modal_projector.linear",),
            max_audio_seconds=None,
            architecture="Qwen2AudioForConditionalGeneration",
            frame_mask="feature_attention_mask",
            tower_takes_frame_mask=False,
        ),
        Family(
            model_type="audioflamingo3",
            projector=("multi_modal_projector.linear_1", "multi_modal_projector.linear_2"),
            max_audio_seconds=("max_audio_len", 600.0),
            architecture="AudioFlamingo3ForConditionalGeneration",
            frame_mask="input_features_mask",
            tower_takes_frame_mask=True,
        ),
    )
}
ENCODER_PREFIX = "audio_tower."
DECODER_PREFIX = "language_model.model."
LM_HEAD = "language_model.lm_head.weight"
EMBEDDINGS = DECODER_PREFIX + "embed_tokens.weight"
KNOWINGLY_UNUSED = {"rotary_emb.inv_freq": "recomputed from rope_theta"}


@dataclass(frozen=True)
class LLMSpec:
    """Everything the decoder's graphs are built from."""

    decoder: DecoderSpec
    rope_theta: float
    norm_eps: float
    tied: bool  # the configuration says that the LM head is the embedding table


@dataclass(frozen=True)
class ModelSpec:
    """Everything the graphs are built from."""

    family: Family
    encoder: EncoderSpec
    llm: LLMSpec
    audio: AudioSpec
    audio_token_id: int

    @property
    def decoder(self) -> DecoderSpec:
        return self.llm.decoder


def model_spec(config, checkpoint_path: Path) -> ModelSpec:
    """The specification of a transformers configuration; ValueError for a family or variant not supported."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise ValueError(
            f"model type {config.model_type!r} is not supported; supported: {', '.join(FAMILIES)}"
        )
    return ModelSpec(
        family=family,
        encoder=_encoder_spec(config.audio_config),
        llm=_llm_spec(config),
        audio=_audio_spec(family, config, checkpoint_path),
        audio_token_id=int(config.audio_token_id),
    )


def _encoder_spec(audio) -> EncoderSpec:
    if audio.activation_function != "gelu":
        raise ValueError(
            f"encoder activation {audio.activation_function!r} is not supported; supported: gelu"
        )
    return EncoderSpec(
        layers=audio.num_hidden_layers,
        width=audio.hidden_size,
        heads=audio.num_attention_heads,
        ffn=audio.intermediate_size,
        n_mels=audio.num_mel_bins,
        positions=audio.max_source_positions,
    )


def _llm_spec(config) -> LLMSpec:
    text = config.text_config
    return LLMSpec(
        decoder=_decoder_spec(text),
        rope_theta=float(text.rope_parameters["rope_theta"]),
        norm_eps=float(text.rms_norm_eps),
        tied=any(getattr(part, "tie_word_embeddings", False) for part in (text, config)),
    )


def _decoder_spec(text) -> DecoderSpec:
    from optimum.utils import NormalizedConfigManager

    if text.model_type not in LLM_TYPES:
        raise ValueError(f"LLM type {text.model_type!r} is not supported; supported: {', '.join(LLM_TYPES)}")
    _refuse_variants(text)
    normal = NormalizedConfigManager.get_normalized_config_class(text.model_type)(text)
    heads = normal.num_attention_heads
    return DecoderSpec(
        layers=normal.num_layers,
        hidden_size=normal.hidden_size,
        heads=heads,
        kv_heads=text.num_key_value_heads or heads,
        head_dim=getattr(text, "head_dim", None) or normal.hidden_size // heads,
        vocab_size=normal.vocab_size,
        max_positions=text.max_position_embeddings,
        ffn=text.intermediate_size,
    )


def _refuse_variants(text) -> None:
    rope = text.rope_parameters.get("rope_type", "default")
    if rope != "default":
        raise ValueError(f"rope type {rope!r} is not supported; supported: default")
    if getattr(text, "use_sliding_window", False):
        raise ValueError("sliding window attention is not supported")
    if text.hidden_act != "silu":
        raise ValueError(f"LLM activation {text.hidden_act!r} is not supported; supported: silu")


def _audio_spec(family: Family, config, path: Path) -> AudioSpec:
    features = _feature_config(path)
    encoder = config.audio_config
    frames = encoder.max_source_positions * 2  # the second convolution has stride 2
    hop = features["hop_length"]
    rate = features["sampling_rate"]
    if features["feature_size"] != encoder.num_mel_bins:
        raise ValueError(
            f"the feature extractor makes {features['feature_size']} mel bands, the encoder takes "
            f"{encoder.num_mel_bins}"
        )
    segments = 1
    if family.max_audio_seconds:
        key, default = family.max_audio_seconds
        segments = int(_read_json(path / "processor_config.json").get(key, default) * rate // (frames * hop))
    return AudioSpec(
        sampling_rate=rate,
        n_fft=features["n_fft"],
        hop_length=hop,
        n_mels=encoder.num_mel_bins,
        segment_frames=frames,
        max_segments=segments,
        encoder_width=encoder.hidden_size,
    )


def _feature_config(path: Path) -> dict:
    """Whisper's front end as the checkpoint configures it (transformers 5 keeps it in
    processor_config.json)."""
    found = _read_json(path / "processor_config.json").get("feature_extractor") or _read_json(
        path / "preprocessor_config.json"
    )
    if not found:
        raise FileNotFoundError(
            f"{path} has neither preprocessor_config.json nor a feature_extractor in processor_config.json"
        )
    if found.get("dither", 0.0) or found.get("do_normalize", False):
        raise ValueError("a feature extractor with dither or do_normalize is not supported")
    return {key: int(found[key]) for key in ("feature_size", "hop_length", "n_fft", "sampling_rate")}


def _read_json(path: Path) -> dict:
    return read_json_object(path) if path.is_file() else {}
