"""A Qwen3-ASR checkpoint as its own repository has it, made from one that transformers saved."""

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

NAMES = {
    "model.multi_modal_projector.linear_1.": "thinker.audio_tower.proj1.",
    "model.multi_modal_projector.linear_2.": "thinker.audio_tower.proj2.",
    "model.audio_tower.": "thinker.audio_tower.",
    "model.language_model.": "thinker.model.",
    "lm_head.": "thinker.lm_head.",
}
"""The other way round than transformers' own conversion has them."""
MROPE = {"interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default", "type": "default"}
WHISPER = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128, "chunk_length": 30}


def original_name(name: str) -> str:
    prefix = next(prefix for prefix in NAMES if name.startswith(prefix))
    return NAMES[prefix] + name.removeprefix(prefix)


def as_original(checkpoint: Path, folder: Path) -> Path:
    """A copy of `checkpoint` in the original layout: tensors, nested configuration, Whisper's extractor."""
    folder.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(checkpoint / file, folder / file)
    tensors = load_file(checkpoint / "model.safetensors")
    renamed = {original_name(name): tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_nested(checkpoint)))
    (folder / "preprocessor_config.json").write_text(json.dumps(WHISPER))
    return folder


def _nested(checkpoint: Path) -> dict:
    config = json.loads((checkpoint / "config.json").read_text())
    audio = config["audio_config"] | {"model_type": "qwen3_asr_audio_encoder", "max_source_positions": 1500}
    text = config["text_config"] | {"model_type": "qwen3_asr_text", "rope_scaling": MROPE}
    theta = text.pop("rope_parameters")["rope_theta"]
    thinker = {
        "audio_config": audio,
        "text_config": text | {"rope_theta": theta},
        "audio_token_id": config["audio_token_id"],
    }
    return {"model_type": "qwen3_asr", "support_languages": ["English"], "thinker_config": thinker}
