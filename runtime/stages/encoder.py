"""Stage 2, encoder: log-mels become audio embeddings; a clip pays for its own length, not for 30 s."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ..engine import Array, Engine
from .segments import Segment

MAX_BATCH = 4  # segments encoded at once: bounds the attention scores, B * heads * (F / 2)^2 values


@dataclass(frozen=True)
class EncodedRows:
    """Encoder output of consecutive segments that were run together, all with as many valid tokens.

    audio_embeds: [B, T, D] in the bundle's precision, on the encoder's device; padding after `tokens`
    tokens: L, valid tokens of each row, at least 1
    """

    audio_embeds: Array
    tokens: int

    @property
    def rows(self) -> int:
        return self.audio_embeds.shape[0]


def encode(engine: Engine, segments: list[Segment]) -> list[EncodedRows]:
    """Run the encoder over segments in order, equal ones together; too short ones give nothing."""
    return [_encode_rows(engine, rows) for rows in batches(segments)]


def batches(segments: list[Segment]) -> Iterator[list[Segment]]:
    """Consecutive segments of equal length, at most MAX_BATCH at once."""
    with_tokens = [segment for segment in segments if segment.tokens]
    for _, equal in groupby(with_tokens, key=lambda segment: (segment.frames, segment.frame_length)):
        rows = list(equal)
        for start in range(0, len(rows), MAX_BATCH):
            yield rows[start : start + MAX_BATCH]


def _encode_rows(engine: Engine, rows: list[Segment]) -> EncodedRows:
    features = np.stack([row.input_features for row in rows])
    output = engine.outputs["audio_embeds"]
    audio = rows[0].spec
    audio_embeds = engine.zeros((len(rows), audio.rows(features.shape[2]), output.width), output.dtype)
    arrays: dict[str, Array] = {"input_features": features, "audio_embeds": audio_embeds}
    if not audio.rule.whole:
        arrays["frame_lengths"] = np.array([row.frame_length for row in rows], np.int32)
    if audio.numbered_segments:
        arrays["segment_index"] = np.array([row.index for row in rows], np.int32)
    engine.bind(arrays, once=True).run()
    return EncodedRows(audio_embeds, rows[0].tokens)


def segment_tokens(encoded: list[EncodedRows]) -> list[np.ndarray]:
    """The valid encoder tokens [L, D] of each segment, on the host."""
    tokens: list[np.ndarray] = []
    for group in encoded:
        tokens += [row[: group.tokens] for row in np.asarray(group.audio_embeds)]
    return tokens
