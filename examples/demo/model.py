"""The demo model in torch: a stock Qwen2-Audio of under two million parameters, and how it is saved.

For training and evaluation, from a checkout of ltbm (`train.py`); what ships is the folder `model`.
"""

from pathlib import Path

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from . import language
from .scenes import MAX_SCENE_S, SAMPLE_RATE

MELS = 128
HOP = 160  # samples of one mel frame
FRAMES_PER_SECOND = SAMPLE_RATE // HOP
FRAMES_PER_POSITION = 2  # conv2's stride
POSITIONS_PER_TOKEN = 2  # the pooling after the encoder's layers: 25 tokens a second
SEGMENT_S = 30  # seconds that the saved encoder takes, as Qwen2-Audio's does
TRAINING_SEGMENT_S = int(MAX_SCENE_S)  # seconds that it takes in training
SINUSOID_BASE = 10_000.0  # longest wavelength, in positions over 2 pi

WIDTH = 128  # of the encoder and the language model
HEADS = 4
ENCODER_LAYERS = 4
ENCODER_FFN = 512
TEXT_LAYERS = 4
TEXT_FFN = 320
MAX_POSITIONS = 8192  # as Qwen2-Audio's


def source_positions(seconds: int) -> int:
    return seconds * FRAMES_PER_SECOND // FRAMES_PER_POSITION


def token_count(frames: int) -> int:
    """Audio tokens of `frames` valid mel frames: Qwen2-Audio's rule."""
    return ((frames - 1) // FRAMES_PER_POSITION + 1 - 2) // POSITIONS_PER_TOKEN + 1


def make_config(segment_s: int = SEGMENT_S) -> Qwen2AudioConfig:
    ids = {token: index for index, token in enumerate(language.vocabulary())}
    config = Qwen2AudioConfig(
        audio_config=_audio_config(segment_s),
        text_config=_text_config(ids),
        audio_token_index=ids[language.AUDIO_TOKEN],
    )
    config.tie_word_embeddings = False
    return config


def _audio_config(segment_s: int) -> dict:
    return {
        "num_mel_bins": MELS,
        "d_model": WIDTH,
        "encoder_layers": ENCODER_LAYERS,
        "encoder_attention_heads": HEADS,
        "encoder_ffn_dim": ENCODER_FFN,
        "max_source_positions": source_positions(segment_s),
    }


def _text_config(ids: dict[str, int]) -> dict:
    return {
        "model_type": "qwen2",
        "vocab_size": len(ids),
        "hidden_size": WIDTH,
        "intermediate_size": TEXT_FFN,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": MAX_POSITIONS,
        "rms_norm_eps": 1e-5,
        "bos_token_id": ids[language.END_OF_TEXT],
        "eos_token_id": ids[language.TURN_END],
        "pad_token_id": ids[language.END_OF_TEXT],
    }


def make_model(segment_s: int = TRAINING_SEGMENT_S) -> Qwen2AudioForConditionalGeneration:
    """A freshly initialised model in float32; seed torch before for the same weights."""
    model = Qwen2AudioForConditionalGeneration(make_config(segment_s))
    _fill_sinusoids(model)
    return model


def with_segment(
    model: Qwen2AudioForConditionalGeneration, segment_s: int
) -> Qwen2AudioForConditionalGeneration:
    """The same weights under a position table for `segment_s` seconds; same outputs for what fits both."""
    wider = make_model(segment_s)
    table = "audio_tower.embed_positions.weight"
    weights = {name: value for name, value in model.state_dict().items() if not name.endswith(table)}
    missing, unexpected = wider.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.endswith(table) for name in missing)
    return wider.eval()


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """Whisper's position table [positions, width]: sines, then cosines, their wavelengths geometric."""
    rates = SINUSOID_BASE ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2 - 1))
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def _fill_sinusoids(model: Qwen2AudioForConditionalGeneration) -> None:
    """The stock encoder's table is random and frozen: put the sinusoids where Whisper has them."""
    table = model.model.audio_tower.embed_positions.weight
    with torch.no_grad():
        table.copy_(sinusoids(*table.shape))


def feature_extractor() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=MELS, chunk_length=SEGMENT_S, return_attention_mask=True)


def encode_audio(
    model: Qwen2AudioForConditionalGeneration, features: torch.Tensor, frames: torch.Tensor
) -> torch.Tensor:
    """Audio tokens [B, T, D] before the projector, for mel frames [B, MELS, F] padded with each clip's floor.

    frames: [B] int64, the valid ones
    The stock forward takes whole segments only; this runs its modules on any F that is a multiple of four,
    and gives the same valid tokens.
    """
    tower = model.model.audio_tower
    x = torch.nn.functional.gelu(tower.conv1(features))
    x = torch.nn.functional.gelu(tower.conv2(x)).transpose(1, 2)  # [B, F/2, D]
    x = x + tower.embed_positions.weight[: x.shape[1]]
    mask = _encoder_mask(frames, x.shape[1], x.dtype)
    for layer in tower.layers:
        x = layer(x, mask)
    return tower.layer_norm(tower.avg_pooler(x.transpose(1, 2)).transpose(1, 2))


def _encoder_mask(frames: torch.Tensor, positions: int, dtype: torch.dtype) -> torch.Tensor:
    """Additive mask [B, 1, positions, positions] that hides the positions after each clip's end."""
    valid_positions = (frames - 1) // FRAMES_PER_POSITION + 1
    valid = torch.arange(positions)[None] < valid_positions[:, None]
    mask = torch.zeros(valid.shape).masked_fill(~valid, torch.finfo(dtype).min)[:, None, None]
    return mask.expand(-1, 1, positions, -1).to(dtype)


def save_model(model: Qwen2AudioForConditionalGeneration, folder: Path) -> None:
    """Writes the checkpoint in float16 with everything that the stock processor and `generate` read."""
    folder.mkdir(parents=True, exist_ok=True)
    shipped = with_segment(model, SEGMENT_S).half()
    _set_generation(shipped)
    shipped.save_pretrained(folder)
    language.write_tokenizer(folder / "tokenizer.json")
    extractor = feature_extractor()
    tokenizer = _processor_tokenizer(folder / "tokenizer.json")
    Qwen2AudioProcessor(extractor, tokenizer, chat_template=language.CHAT_TEMPLATE).save_pretrained(folder)
    extractor.save_pretrained(folder)


def _set_generation(model: Qwen2AudioForConditionalGeneration) -> None:
    """Greedy answers of at most 48 tokens, until the turn ends."""
    generation = model.generation_config
    assert generation is not None
    generation._from_model_config = False  # or its values would give way to the model's own
    generation.max_new_tokens = 48
    generation.do_sample = False
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(generation, key, getattr(model.config.text_config, key))


def _processor_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """A tokenizer.json as the stock processor takes it."""
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        unk_token=language.UNKNOWN,
        eos_token=language.TURN_END,
        pad_token=language.END_OF_TEXT,
        additional_special_tokens=list(language.SPECIAL_TOKENS),
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
