"""Segments: an audio cut to what the encoder takes at once, 30 s for most models."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..bundle import AudioSpec
from ..former import warn
from .features import log_mel
from .whole_audio import WholeAudio

LONG_AUDIO = ("error", "segments")
SHORTEST_AUDIO_SECONDS = 0.03  # that gives an audio token


@dataclass(frozen=True)
class Segment:
    """A row of the encoder and of the merge: at most 30 s of an audio.

    samples: [samples] float32 at the model's rate, at most a segment
    index: which segment of its audio this is
    whole: the audio, where log-mels are those of the whole; None where a segment stands for itself
    """

    samples: np.ndarray
    spec: AudioSpec
    index: int = 0
    whole: WholeAudio | None = None

    @property
    def frame_length(self) -> int:
        """Valid mel frames."""
        return self.spec.frame_length(len(self.samples))

    @property
    def tokens(self) -> int:
        """L, encoder tokens that are valid."""
        return self.spec.tokens(self.frame_length)

    @property
    def frames(self) -> int:
        """Frames that the encoder is given: the valid ones and what its convolutions see beyond."""
        return self.spec.input_frames(self.frame_length)

    @cached_property
    def input_features(self) -> np.ndarray:
        """[n_mels, frames] float32, computed when first asked for."""
        if self.whole is None:
            features = log_mel(self.samples, self.frames, self.spec)
        else:
            features = self.whole.log_mel(self.index * self.spec.segment_frames, self.frames)
        if self.spec.zeros_after:
            features[:, self.frame_length :] = 0
        return features

    def forget_features(self) -> None:
        """Free the log-mel once the encoder has read it: 1.5 MB of 30 s."""
        self.__dict__.pop("input_features", None)

    @cached_property
    def digest(self) -> bytes:
        """sha256 of the samples and of all else that the encoder's output depends on: 1.4 ms for 30 s.

        Computed when first asked for.
        """
        content = hashlib.sha256(self.samples.data)
        if self.spec.numbered_segments:
            content.update(self.index.to_bytes(4, "little"))
        if self.whole is not None:
            content.update(self.whole.context(self.index).tobytes())
        return content.digest()


Audio = list[Segment]
"""One audio of a prompt: its segments in temporal order."""


def cut_segments(waveform: np.ndarray, spec: AudioSpec) -> list[Segment]:
    """The segments of a mono waveform [samples] at the model's rate, in temporal order; after every
    `spec.max_segments` of them another audio begins."""
    longest = spec.max_segments * spec.segment_samples
    segments: list[Segment] = []
    for start in range(0, len(waveform), longest):
        segments += _segments(waveform[start : start + longest], spec)
    return segments


def _segments(waveform: np.ndarray, spec: AudioSpec) -> Iterator[Segment]:
    """Those of one audio."""
    missing = spec.shortest_audio - len(waveform)
    waveform = np.pad(waveform, (0, missing)) if missing > 0 else waveform
    whole = WholeAudio(waveform, spec) if spec.whole_audio else None
    size = spec.segment_samples
    for index, start in enumerate(range(0, len(waveform), size)):
        yield Segment(waveform[start : start + size], spec, index, whole)


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
