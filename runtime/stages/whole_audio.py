"""Log-mels of a whole audio, of which segments are cut: one floor, and frames that reach across the cuts."""

from functools import cached_property

import numpy as np

from ..bundle import AudioSpec
from .features import log_power, scaled

BLOCK_FRAMES = 3000  # computed at once: 10 MB of spectrum


class WholeAudio:
    """A mono waveform [samples] and the log-mel of all of it, padded as the model's processor pads it."""

    def __init__(self, waveform: np.ndarray, spec: AudioSpec):
        self._waveform = waveform
        self._spec = spec

    def log_mel(self, first: int, frames: int) -> np.ndarray:
        """Frames [n_mels, frames] float32 from `first` on; frames after the last are zeros."""
        features = np.zeros((self._spec.n_mels, frames), np.float32)
        mel = self._mel[:, first : first + frames]
        features[:, : mel.shape[1]] = scaled(mel, self._loudest)
        return features

    def context(self, segment: int) -> np.ndarray:
        """What else a segment's log-mel depends on: the loudest value, and the samples around the segment."""
        start = segment * self._spec.segment_samples
        end = start + self._spec.segment_samples
        half = self._spec.n_fft
        around = (self._waveform[max(0, start - half) : start], self._waveform[end : end + half])
        return np.concatenate([np.array([self._loudest], np.float32), *around])

    @cached_property
    def _loudest(self) -> float:
        return float(self._mel.max())

    @cached_property
    def _mel(self) -> np.ndarray:
        """log10 of the mel power [n_mels, all frames] float32."""
        spec = self._spec
        samples = self._padded_samples
        frames = samples // spec.hop_length
        blocks = []
        for first in range(0, frames, BLOCK_FRAMES):
            count = min(BLOCK_FRAMES, frames - first)
            begin = first * spec.hop_length
            end = begin + (count - 1) * spec.hop_length + spec.n_fft
            blocks.append(log_power(self._centred(begin, end, samples), count, spec).astype(np.float32))
        return np.concatenate(blocks, axis=1)

    @property
    def _padded_samples(self) -> int:
        """Samples of the waveform and the zeros after it."""
        spec = self._spec
        multiple = spec.audio_multiple or 1
        samples = -(-len(self._waveform) // multiple) * multiple
        # Of zeros alone nothing is computed beyond what the encoder is fed: they are as loud as nothing.
        whole, rest = divmod(spec.frame_length(len(self._waveform)), spec.segment_frames)
        fed = whole * spec.segment_frames + (spec.input_frames(rest) if rest else 0)
        return min(samples, fed * spec.hop_length + spec.n_fft) if spec.audio_multiple else samples

    def _centred(self, begin: int, end: int, samples: int) -> np.ndarray:
        """Samples [begin, end) of the padded waveform, where 0 is half a window before its first sample; its
        edges are reflected."""
        half = self._spec.n_fft // 2
        places = np.abs(np.arange(begin - half, end - half))
        places = np.where(places >= samples, 2 * (samples - 1) - places, places)
        inside = (places >= 0) & (places < len(self._waveform))
        return np.where(inside, self._waveform[np.where(inside, places, 0)], 0.0).astype(np.float64)
