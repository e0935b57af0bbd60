"""Stage 2, encoder: log-mel windows become audio embeddings; a clip pays for its own length, not for 30 s."""

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ltbm.runtime.engine import Engine
from ltbm.runtime.stages.features import FeatureWindow

MAX_BATCH = 4  # windows encoded at once: bounds the attention scores, B * heads * (F / 2)^2 values


@dataclass(frozen=True)
class EncodedRows:
    """Encoder output of consecutive windows that were run together.

    audio_embeds: [B, T, D] in the bundle's precision, padding after each row's length
    lengths: [B] int32, valid tokens L of each row
    """

    audio_embeds: np.ndarray
    lengths: np.ndarray


def encode(engine: Engine, windows: list[FeatureWindow]) -> list[EncodedRows]:
    """Run the encoder over windows in order, those of equal size together."""
    groups = []
    for _, same_size in groupby(windows, key=lambda window: window.input_features.shape[1]):
        rows = list(same_size)
        groups += [_encode_rows(engine, rows[start:start + MAX_BATCH]) for start in range(0, len(rows), MAX_BATCH)]
    return groups


def _encode_rows(engine: Engine, rows: list[FeatureWindow]) -> EncodedRows:
    outputs = engine.run({
        "input_features": np.stack([row.input_features for row in rows]),
        "frame_lengths": np.array([row.frame_length for row in rows], np.int32),
    })
    return EncodedRows(outputs["audio_embeds"], np.array([row.tokens for row in rows], np.int32))
