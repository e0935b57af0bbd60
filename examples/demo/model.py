"""The demo model in torch: a stock Qwen2-Audio with tiny.en's encoder and a small language model of its own.

For training and evaluation, from a checkout of ltbm (`train.py`); what ships is the folder `model`.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
)

from . import language
from .encoder import ENCODER, AudioEncoder, feature_extractor
from .packing import PACKED, STOCK, pack, unpack_checkpoint
from .tensors import read_tensors, write_tensors

WIDTH = 128  # of the language model
HEADS = 4
TEXT_LAYERS = 4
TEXT_FFN = 320
MAX_POSITIONS = 8192  # as Qwen2-Audio's


def make_config() -> Qwen2AudioConfig:
    ids = {token: index for index, token in enumerate(language.vocabulary())}
    config = Qwen2AudioConfig(
        audio_config=dict(ENCODER),
        text_config=_text_config(ids),
        audio_token_index=ids[language.AUDIO_TOKEN],
    )
    config.tie_word_embeddings = False
    return config


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


def make_model(encoder: AudioEncoder) -> Qwen2AudioForConditionalGeneration:
    """The encoder, frozen, under a fresh language model; seed torch before for the same weights."""
    model = Qwen2AudioForConditionalGeneration(make_config())
    model.model.audio_tower.load_state_dict(encoder.tower.state_dict())
    model.model.audio_tower.requires_grad_(False)
    return model


def save_model(model: Qwen2AudioForConditionalGeneration, folder: Path) -> None:
    """Writes the packed checkpoint with everything that the stock processor and `generate` read."""
    folder.mkdir(parents=True, exist_ok=True)
    _set_generation(model)
    with TemporaryDirectory() as stock:
        model.save_pretrained(stock)
        write_tensors(folder / PACKED, pack(read_tensors(Path(stock, STOCK))))
        for file in Path(stock).glob("*.json"):
            shutil.copy(file, folder / file.name)
    language.write_tokenizer(folder / "tokenizer.json")
    extractor = feature_extractor()
    tokenizer = _processor_tokenizer(folder / "tokenizer.json")
    Qwen2AudioProcessor(extractor, tokenizer, chat_template=language.CHAT_TEMPLATE).save_pretrained(folder)
    extractor.save_pretrained(folder)


def load_model(folder: Path) -> Qwen2AudioForConditionalGeneration:
    """A packed checkpoint, computed in float32."""
    with TemporaryDirectory() as stock:
        unpack_checkpoint(folder, Path(stock))
        return Qwen2AudioForConditionalGeneration.from_pretrained(stock, dtype=torch.float32).eval()


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
