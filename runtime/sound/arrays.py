"""Arrays given through the API: what they may be, and as mono float32."""

from collections.abc import Mapping
from numbers import Real

import numpy as np

from .messages import warn_audio

MOST_CHANNELS = 16
PCM_TYPES = ("int16", "int32")
PCM16_PEAK = 32_768
TAKEN = (
    "a path, bytes, a binary file, an array [samples] or [samples, channels], a pair (array, Hz), "
    "or a list of them"
)


def is_array(source) -> bool:
    """Whether `source` is an array of any library: numpy's, torch's, jax's."""
    return isinstance(source, np.ndarray) or (hasattr(source, "__array__") and hasattr(source, "shape"))


def as_pair(source) -> tuple | None:
    """(array, Hz) of a pair in either order, or of a mapping with `array` and `sampling_rate`; else None."""
    if isinstance(source, Mapping) and {"array", "sampling_rate"} <= source.keys():
        return source["array"], source["sampling_rate"]
    if not isinstance(source, tuple) or len(source) != 2:
        return None
    first, second = source
    if is_array(first) and isinstance(second, Real):
        return first, second
    if is_array(second) and isinstance(first, Real):
        return second, first
    return None


def array_samples(source) -> np.ndarray:
    """A mono waveform [samples] float32 of an array; integers are full-scale PCM."""
    samples = _as_numpy(source)
    return mono(_float_samples(_samples_first(samples)))


def mono(samples: np.ndarray) -> np.ndarray:
    """[samples] or [samples, channels] -> [samples], the mean of its channels."""
    return samples if samples.ndim == 1 else samples.mean(axis=1, dtype=np.float32)


def _as_numpy(source) -> np.ndarray:
    if isinstance(source, np.ndarray):
        return source
    if hasattr(source, "detach"):  # torch: off its graph and its device
        source = source.detach().cpu()
    try:
        return np.asarray(source)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"the audio of type {type(source).__name__} does not become a numpy array ({error}): "
            "give float32 or int16 samples"
        ) from None


def _samples_first(samples: np.ndarray) -> np.ndarray:
    """[samples] or [samples, channels]; one channel as [1, samples] is taken, more are refused."""
    if samples.ndim == 2 and len(samples) == 1:
        return samples[0]
    if samples.ndim == 2 and len(samples) <= MOST_CHANNELS < samples.shape[1]:
        raise ValueError(
            f"the audio array has shape {samples.shape}, which looks like [channels, samples]: "
            "transpose it to [samples, channels]"
        )
    if samples.ndim == 2 and samples.shape[1] == 0:
        raise ValueError(f"the audio array has shape {samples.shape}: it has no channel")
    if samples.ndim not in (1, 2):
        raise ValueError(
            f"the audio array has shape {samples.shape}, expected [samples] or [samples, channels]"
        )
    return samples


def _float_samples(samples: np.ndarray) -> np.ndarray:
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what becomes infinite is refused with the others
            return samples.astype(np.float32)
    if samples.dtype.name not in PCM_TYPES:
        raise ValueError(
            f"the audio array has type {samples.dtype}, expected floating point samples within -1 and 1, "
            f"or full-scale PCM as {' or '.join(PCM_TYPES)}"
        )
    if samples.dtype.name == "int32" and samples.size:
        _check_int32(samples)
    return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)


def _check_int32(samples: np.ndarray) -> None:
    peak = max(int(samples.max()), -int(samples.min()))
    if 0 < peak <= PCM16_PEAK:
        warn_audio(
            f"the int32 audio array reaches {peak} of 2147483648, next to silence: "
            "if these are 16-bit samples, give them as int16"
        )
