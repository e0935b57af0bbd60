"""transformers' own processors, asked as each model's page says."""

from pathlib import Path
from tempfile import TemporaryDirectory

import soundfile
from transformers import AutoProcessor

from tests.support.tiny_omni import HearingProcessor


def processor_of(family: str, folder: Path):
    """The processor of a checkpoint."""
    return HearingProcessor.of(folder) if family == "qwen2_5_omni" else AutoProcessor.from_pretrained(folder)


def processed(processor, family: str, clips: list, prompt: str) -> dict:
    """The model's inputs for one user turn: input_ids, features and their mask."""
    if family == "voxtral":
        return _voxtral(processor, clips, prompt)
    if family == "qwen3_asr":
        return dict(processor.apply_transcription_request(clips, prompt=[prompt] * len(clips)))
    audios = [{"type": "audio"}] * len(clips)
    conversation = [{"role": "user", "content": [*audios, {"type": "text", "text": prompt}]}]
    text = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    return dict(processor(text=[text], audio=clips, sampling_rate=16_000, return_tensors="pt"))


def _voxtral(processor, clips: list, prompt: str) -> dict:
    """mistral-common reads files, not arrays."""
    with TemporaryDirectory() as folder:
        content: list[dict] = []
        for index, clip in enumerate(clips):
            path = Path(folder) / f"{index}.wav"
            soundfile.write(path, clip, 16_000, subtype="FLOAT")
            content.append({"type": "audio", "path": str(path)})
        conversation = [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}]
        return dict(processor.apply_chat_template(conversation))
