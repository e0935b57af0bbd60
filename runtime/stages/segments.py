"""Segments: an audio cut to what the encoder takes at once, 30 s for the models known."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..bundle import AudioSpec
from ..former import warn
from .features import encoder_frames, log_mel, token_length

LONG_AUDIO = ("error", "segments")
SHORTEST_AUDIO_SECONDS = 0.03  # that gives an audio token


@dataclass(frozen=True)
class Segment:
    """A row of the encoder and of the merge: at most 30 s of an audio.

    samples: [samples] float32 at the model's rate, at most a segment
    """

    samples: np.ndarray
    spec: AudioSpec

    @property
    def frame_length(self) -> int:
        """Valid mel frames."""
        return -(-len(self.samples) // self.spec.hop_length)

    @property
    def tokens(self) -> int:
        """L, encoder tokens that are valid."""
        return token_length(self.frame_length)

    @property
    def frames(self) -> int:
        """Frames that the encoder is given: the valid ones and at least two true padded ones, which its first
        convolution sees, rounded up to its stride."""
        return min(encoder_frames(self.frame_length), self.spec.segment_frames)

    @cached_property
    def input_features(self) -> np.ndarray:
        """[n_mels, frames] float32, computed when first asked for."""
        return log_mel(self.samples, self.frames, self.spec)

    def forget_features(self) -> None:
        """Free the log-mel once the encoder has read it: 1.5 MB of 30 s."""
        self.__dict__.pop("input_features", None)

    @cached_property
    def digest(self) -> bytes:
        """sha256 of the samples, computed when first asked for: 1.4 ms for 30 s."""
        return hashlib.sha256(self.samples.data).digest()


Audio = list[Segment]
"""One audio of a prompt: its segments in temporal order."""


def cut_segments(waveform: np.ndarray, spec: AudioSpec) -> list[Segment]:
    """The segments of a mono waveform [samples] at the model's rate, in temporal order."""
    size = spec.segment_samples
    return [Segment(waveform[start : start + size], spec) for start in range(0, len(waveform), size)]


def read_long_audio(choice: str) -> str:
    """One of LONG_AUDIO; ValueError for anything else, a warning for what `segments` was called."""
    if choice == "windows":
        warn("long audio 'windows'", "'segments'")
        return "segments"
    if choice not in LONG_AUDIO:
        raise ValueError(f"long_audio {choice!r} is none of {', '.join(LONG_AUDIO)}")
    return choice


def split_long(segments: Audio, limit: int, name: str) -> list[Audio]:
    """One audio as audios of at most `limit` segments each; ValueError for what is too short.

    name: how a message names it
    """
    if not has_tokens(segments):
        raise ValueError(
            f"{name} is too short to give one audio token: at least {SHORTEST_AUDIO_SECONDS} s are needed"
        )
    return [part for part in _parts(segments, limit) if has_tokens(part)]


def has_tokens(segments: Audio) -> bool:
    """Whether any segment is long enough for an encoder token."""
    return any(segment.tokens for segment in segments)


def _parts(segments: Audio, limit: int) -> Iterator[Audio]:
    for start in range(0, len(segments), limit):
        yield segments[start : start + limit]
