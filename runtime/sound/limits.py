"""What an audio may be: its rate, its length, its samples' values."""

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np

from ..numbers import check_finite
from .messages import warn_audio

LOWEST_RATE = 1_000  # Hz
HIGHEST_RATE = 768_000  # Hz
USUAL_PEAK = 2.0  # of floating point samples; mixing and resampling overshoot 1 a little
HIGHEST_PEAK = 16.0  # beyond it they are integer values that nobody divided


class TooLongError(ValueError):
    """An audio is longer than the seconds that the caller takes."""


@dataclass(frozen=True)
class Limit:
    """How long an audio may be.

    seconds: None for any length
    sampling_rate: Hz that the audio is taken at, whose samples are what is counted
    """

    seconds: float | None
    sampling_rate: float

    def __post_init__(self):
        if self.seconds is not None:
            check_finite("max_seconds", self.seconds, above=True)

    def check(self, samples: int, rate: float, name: str, source: str) -> None:
        """TooLongError if `samples` at `rate` Hz are too many; source: what says that there are so many."""
        if self.seconds is None:
            return
        resampled = int(samples * self.sampling_rate / rate + 0.5)  # as soxr rounds
        if resampled > self.seconds * self.sampling_rate:
            length = f"{source} {samples / rate:.1f} s"
            raise TooLongError(f"{name} is longer than the {self.seconds:g} s the model takes ({length})")


def check_rate(rate, name: str) -> float:
    """`rate` in Hz; ValueError for what no sound is recorded at."""
    if isinstance(rate, bool) or not isinstance(rate, Real):
        raise ValueError(f"{name} {rate!r} is not a number of Hz")
    hertz = float(rate)
    if not LOWEST_RATE <= hertz <= HIGHEST_RATE:  # NaN neither
        raise ValueError(f"{name} {rate} Hz is not between {LOWEST_RATE} and {HIGHEST_RATE} Hz")
    return hertz


def check_samples(waveform: np.ndarray, name: str) -> None:
    """ValueError for what is empty, not finite or out of range; a warning for what is loud beyond use."""
    if waveform.size == 0:
        raise ValueError(f"{name} holds no samples: its audio has zero length")
    peak = float(max(waveform.max(), -waveform.min()))  # NaN if there is one
    if not math.isfinite(peak):
        raise ValueError(f"{name} holds NaN or infinite samples; clean the recording first")
    if peak > HIGHEST_PEAK:
        raise ValueError(
            f"{name} reaches {peak:g}, floating point samples are within -1 and 1: "
            f"divide by the full scale of what they were, 32768 for 16 bits"
        )
    if peak > USUAL_PEAK:
        warn_audio(
            f"{name} reaches {peak:g}, floating point samples are within -1 and 1: is its scale right?"
        )
