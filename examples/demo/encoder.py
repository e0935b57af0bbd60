"""A pretrained Whisper's encoder with Qwen2-Audio's pooling, its weights rounded as they are saved.

Training hears through the rounded weights, so that nothing is lost when they are saved.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import Qwen2AudioEncoder, Qwen2AudioEncoderConfig, WhisperFeatureExtractor

from .packing import AUDIO_TOWER, ENCODER_POSITIONS, ENCODER_WIDTH, pack, unpack
from .recordings import SAMPLE_RATE

HOP = 160  # samples of one mel frame
FRAMES_PER_POSITION = 2  # conv2's stride
SEGMENT_S = 30  # seconds that the encoder takes, as Whisper's and Qwen2-Audio's do
TAIL_FRAMES = 4  # of silence behind a clip, as in a full segment, so that its end is not mirrored
MELS = 80
ENCODER: dict[str, Any] = {  # of tiny and tiny.en
    "num_mel_bins": MELS,
    "d_model": ENCODER_WIDTH,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 4 * ENCODER_WIDTH,
    "max_source_positions": ENCODER_POSITIONS,
}
WHISPER_PREFIX = "model.encoder."


class AudioEncoder:
    """The encoder, computed on a clip's own frames: the same tokens as from a whole segment."""

    def __init__(self, tower: Qwen2AudioEncoder):
        self.tower = tower.eval()
        self.features = feature_extractor()

    @classmethod
    def from_whisper(cls, folder: Path) -> "AudioEncoder":
        """The encoder from the folder of a Whisper checkpoint of tiny's size."""
        weights = {}
        for name, value in load_file(folder / "model.safetensors").items():
            if name.startswith(WHISPER_PREFIX):
                weights[AUDIO_TOWER + name.removeprefix(WHISPER_PREFIX)] = value
        rounded = unpack(pack(weights))
        state = {name.removeprefix(AUDIO_TOWER): torch.from_numpy(value) for name, value in rounded.items()}
        encoder = Qwen2AudioEncoder(Qwen2AudioEncoderConfig(**ENCODER))
        try:
            encoder.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{folder} is no Whisper tiny or tiny.en: {error}") from None
        return cls(encoder)

    @torch.inference_mode()
    def tokens(self, waveform: np.ndarray) -> np.ndarray:
        """Tokens float32 [T, D], before the projector, of a clip of up to a segment."""
        frames = len(waveform) // HOP
        positions = (frames - 1) // FRAMES_PER_POSITION + 1
        samples = (frames + TAIL_FRAMES) * HOP
        features = self.features(waveform, sampling_rate=SAMPLE_RATE, max_length=samples, return_tensors="pt")
        x = torch.nn.functional.gelu(self.tower.conv1(features["input_features"]))
        x = torch.nn.functional.gelu(self.tower.conv2(x)).transpose(1, 2)[:, :positions]
        x = x + self.tower.embed_positions.weight[:positions]
        for layer in self.tower.layers:
            x = layer(x, None)
        pooled = self.tower.avg_pooler(x.transpose(1, 2)).transpose(1, 2)
        return self.tower.layer_norm(pooled)[0].numpy()


def feature_extractor() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=MELS, chunk_length=SEGMENT_S, return_attention_mask=True)
