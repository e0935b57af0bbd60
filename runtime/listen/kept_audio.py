"""The sound that a listener keeps: whole segments, and the open one that still grows."""

from dataclasses import dataclass

import numpy as np

from ..bundle import AudioSpec
from ..stages.merge import MergedAudio
from ..stages.segments import Audio, Segment, split_long

DROPPED_SHARE = 4  # a quarter of the segments goes at once: prefilling the others again costs all of them


@dataclass
class KeptSegment:
    """A whole segment.

    start: index of its first sample in all the sound
    merged: its merged tokens once it was read; held here so that it is never encoded again
    """

    start: int
    segment: Segment
    merged: MergedAudio | None = None

    @property
    def end(self) -> int:
        return self.start + len(self.segment.samples)


class KeptAudio:
    """Samples as they come, cut into segments at fixed places; the oldest go beyond `max_segments`."""

    def __init__(self, spec: AudioSpec, max_segments: int):
        self.kept: list[KeptSegment] = []
        self._spec = spec
        self._max_segments = max_segments
        self._open = np.zeros(spec.segment_samples, np.float32)
        self._filled = 0
        self._start = 0  # of the open segment, in samples

    @property
    def end(self) -> int:
        """Samples that have come."""
        return self._start + self._filled

    @property
    def start(self) -> int:
        """Index of the first sample that is kept."""
        return self.kept[0].start if self.kept else self._start

    @property
    def has_open_tokens(self) -> bool:
        """Whether the open segment is long enough for an audio token."""
        return Segment(self._open[: self._filled], self._spec).tokens > 0

    @property
    def unread(self) -> list[KeptSegment]:
        """Whole segments that were not read yet, in order."""
        return [one for one in self.kept if one.merged is None]

    def append(self, samples: np.ndarray) -> None:
        """Take samples [n] float32 at the model's rate."""
        while len(samples):
            room = len(self._open) - self._filled
            taken = samples[:room]
            self._open[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            samples = samples[room:]
            if self._filled == len(self._open):
                self._close_segment()

    def too_many(self) -> bool:
        """Whether the segments, the open one with them, are more than are to be kept."""
        return len(self.kept) + (self._filled > 0) > self._max_segments

    def drop_oldest(self) -> list[KeptSegment]:
        """Forget a quarter of the whole segments, at least one; those that went, none if there was none."""
        count = -(-len(self.kept) // DROPPED_SHARE)
        dropped = self.kept[:count]
        self.kept = self.kept[count:]
        return dropped

    def audios(self, end: int) -> list[Audio]:
        """What is kept, up to sample `end`, as the audios of a prompt; ValueError if that is too short."""
        segments = self._segments(end)
        spec = self._spec
        return split_long(segments, spec.max_segments, "the sound so far")

    def _segments(self, end: int) -> list[Segment]:
        segments = []
        for one in self.kept:
            if one.end <= end:
                segments.append(one.segment)
            elif one.start < end:
                segments.append(self._segment(one.segment.samples[: end - one.start], one.start))
        if self._start < end:
            segments.append(self._segment(self._open[: end - self._start].copy(), self._start))
        return segments

    def _segment(self, samples: np.ndarray, start: int) -> Segment:
        """The segment of `samples` that begins at sample `start`; it knows nothing of the others."""
        index = start // self._spec.segment_samples % self._spec.max_segments
        return Segment(samples, self._spec, index)

    def _close_segment(self) -> None:
        self.kept.append(KeptSegment(self._start, self._segment(self._open.copy(), self._start)))
        self._start += self._filled
        self._filled = 0
