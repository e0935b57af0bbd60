"""Samples of any rate, as they come, at the model's rate."""

import numpy as np


class StreamResampler:
    """Keeps what a later sample can still change: some milliseconds come out with the next push.

    All pushes together give what `ltbm.runtime.stages.audio.resample` gives of the whole, up to rounding.
    """

    def __init__(self, source_rate: int, target_rate: int):
        if not 0 < source_rate < float("inf"):
            raise ValueError(f"audio rate {source_rate} Hz is not a positive number")
        self.source_rate = source_rate
        self._stream = None
        if source_rate != target_rate:
            import soxr  # where it is needed: samples at the model's rate do without

            self._stream = soxr.ResampleStream(source_rate, target_rate, num_channels=1, dtype="float32")

    def push(self, samples: np.ndarray) -> np.ndarray:
        """[n] float32 at the source's rate -> [m] float32 at the model's."""
        if self._stream is None:
            return samples
        return self._stream.resample_chunk(samples)
