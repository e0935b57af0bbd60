"""The demo model: a stock Qwen2-Audio of under two million parameters, and the folder it is saved in."""

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
WINDOW_S = 30  # seconds the saved encoder takes, as Qwen2-Audio's does
TRAINING_WINDOW_S = int(MAX_SCENE_S)  # seconds it takes in training
SINUSOID_BASE = 10_000.0  # longest wavelength, in positions over 2 pi

WIDTH = 128  # of the encoder and the language model
HEADS = 4
ENCODER_LAYERS, ENCODER_FFN = 4, 512
TEXT_LAYERS, TEXT_FFN = 4, 320
MAX_POSITIONS = 8192  # as Qwen2-Audio's


def source_positions(seconds: int) -> int:
    return seconds * FRAMES_PER_SECOND // FRAMES_PER_POSITION


def token_count(frames: int) -> int:
    """Audio tokens of `frames` valid mel frames: Qwen2-Audio's rule."""
    return ((frames - 1) // FRAMES_PER_POSITION + 1 - 2) // POSITIONS_PER_TOKEN + 1


def make_config(window_s: int = WINDOW_S) -> Qwen2AudioConfig:
    ids = {token: k for k, token in enumerate(language.vocabulary())}
    audio = {
        "num_mel_bins": MELS,
        "d_model": WIDTH,
        "encoder_layers": ENCODER_LAYERS,
        "encoder_attention_heads": HEADS,
        "encoder_ffn_dim": ENCODER_FFN,
        "max_source_positions": source_positions(window_s),
    }
    text = {
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
    return Qwen2AudioConfig(
        audio_config=audio,
        text_config=text,
        audio_token_index=ids[language.AUDIO_TOKEN],
        tie_word_embeddings=False,
    )


def make_model(window_s: int = TRAINING_WINDOW_S) -> Qwen2AudioForConditionalGeneration:
    """A freshly initialised model in float32; seed torch before for the same weights."""
    model = Qwen2AudioForConditionalGeneration(make_config(window_s))
    _fill_sinusoids(model)
    return model


def with_window(
    model: Qwen2AudioForConditionalGeneration, window_s: int
) -> Qwen2AudioForConditionalGeneration:
    """The same weights under a position table for `window_s` seconds: the same outputs for what fits both."""
    wider = make_model(window_s)
    table = "audio_tower.embed_positions.weight"
    weights = {name: value for name, value in model.state_dict().items() if not name.endswith(table)}
    missing, unexpected = wider.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.endswith(table) for name in missing)
    return wider.eval()


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """Whisper's position table [positions, width]: sines, then cosines, of geometrically spaced wavelengths."""
    rates = SINUSOID_BASE ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2 - 1))
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def _fill_sinusoids(model: Qwen2AudioForConditionalGeneration) -> None:
    """The stock encoder's table is random and frozen: put the sinusoids where Whisper has them."""
    table = model.model.audio_tower.embed_positions.weight
    with torch.no_grad():
        table.copy_(sinusoids(*table.shape))


def feature_extractor() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=MELS, chunk_length=WINDOW_S, return_attention_mask=True)


def encode_audio(
    model: Qwen2AudioForConditionalGeneration, features: torch.Tensor, frames: torch.Tensor
) -> torch.Tensor:
    """Audio tokens [B, T, D] before the projector, for mel frames [B, MELS, F] padded with each clip's floor.

    `frames` [B] int64 are the valid ones. The stock forward takes whole windows only; this runs its modules on any F
    that is a multiple of four, and gives the same valid tokens.
    """
    tower = model.model.audio_tower
    x = torch.nn.functional.gelu(tower.conv1(features))
    x = torch.nn.functional.gelu(tower.conv2(x)).transpose(1, 2)  # [B, F/2, D]
    x = x + tower.embed_positions.weight[: x.shape[1]]
    valid = torch.arange(x.shape[1])[None] < ((frames - 1) // FRAMES_PER_POSITION + 1)[:, None]
    mask = torch.zeros(valid.shape).masked_fill(~valid, torch.finfo(x.dtype).min)[:, None, None]
    mask = mask.expand(-1, 1, x.shape[1], -1).to(x.dtype)
    for layer in tower.layers:
        x = layer(x, mask)
    return tower.layer_norm(tower.avg_pooler(x.transpose(1, 2)).transpose(1, 2))


def save_model(model: Qwen2AudioForConditionalGeneration, folder: Path) -> None:
    """Writes the checkpoint in float16 with everything the stock processor and `generate` read."""
    folder.mkdir(parents=True, exist_ok=True)
    shipped = with_window(model, WINDOW_S).half()
    shipped.generation_config._from_model_config = False  # or its values would give way to the model's own
    shipped.generation_config.max_new_tokens = 48
    shipped.generation_config.do_sample = False
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(shipped.generation_config, key, getattr(shipped.config.text_config, key))
    shipped.save_pretrained(folder)
    language.write_tokenizer(folder / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        unk_token=language.UNKNOWN,
        eos_token=language.TURN_END,
        pad_token=language.END_OF_TEXT,
        additional_special_tokens=list(language.SPECIAL_TOKENS),
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    extractor = feature_extractor()
    Qwen2AudioProcessor(extractor, tokenizer, chat_template=language.CHAT_TEMPLATE).save_pretrained(folder)
    extractor.save_pretrained(folder)
