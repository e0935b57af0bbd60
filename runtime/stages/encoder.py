"""Stage 2, encoder: log-mel windows become audio embeddings; a clip pays for its own length, not for 30 s."""

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ..engine import Array, Engine
from .features import ENCODER_STRIDE, FeatureWindow

MAX_BATCH = 4  # windows encoded at once: bounds the attention scores, B * heads * (F / 2)^2 values


@dataclass(frozen=True)
class EncodedRows:
    """Encoder output of consecutive windows that were run together, all with as many valid tokens.

    audio_embeds: [B, T, D] in the bundle's precision, on the encoder's device; padding after `tokens`
    tokens: L, valid tokens of each row, at least 1
    """

    audio_embeds: Array
    tokens: int

    @property
    def rows(self) -> int:
        return self.audio_embeds.shape[0]


def encode(engine: Engine, windows: list[FeatureWindow]) -> list[EncodedRows]:
    """Run the encoder over windows in order, those of equal size together; windows too short for a token give nothing."""
    heard = [window for window in windows if window.tokens]
    groups = []
    for _, same_size in groupby(heard, key=lambda window: (window.frames, window.tokens)):
        rows = list(same_size)
        groups += [
            _encode_rows(engine, rows[start : start + MAX_BATCH]) for start in range(0, len(rows), MAX_BATCH)
        ]
    return groups


def _encode_rows(engine: Engine, rows: list[FeatureWindow]) -> EncodedRows:
    features = np.stack([row.input_features for row in rows])
    spec = engine.outputs["audio_embeds"]
    audio_embeds = engine.zeros((len(rows), features.shape[2] // ENCODER_STRIDE, spec.shape[2]), spec.dtype)
    engine.bind(
        {
            "input_features": features,
            "frame_lengths": np.array([row.frame_length for row in rows], np.int32),
            "audio_embeds": audio_embeds,
        }
    ).run()
    return EncodedRows(audio_embeds, rows[0].tokens)
