"""A request's bytes as sound, within the seconds that are allowed."""

import numpy as np

from ..sound.limits import TooLongError
from ..stages.audio import load_audio
from .errors import invalid


def decode_audio(data: bytes, sampling_rate: int, max_seconds: float, param: str) -> np.ndarray:
    """A mono waveform [samples] float32 at `sampling_rate` Hz; ApiError for what is longer, or no audio."""
    try:
        return load_audio(data, sampling_rate, max_seconds=max_seconds)
    except TooLongError:
        message = f"longer than the {max_seconds:g} s of audio that a request may have"
        raise invalid(param, message, "audio_too_long") from None
    except ValueError as error:
        raise invalid(param, str(error), "invalid_audio") from None
