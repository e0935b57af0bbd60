"""Stage 1, features: a waveform becomes log-mels of its own length (Whisper's front end in numpy)."""

from functools import lru_cache

import numpy as np

from ..bundle import AudioSpec

LOG_FLOOR = 1e-10  # Whisper's floor under the mel power
DYNAMIC_RANGE = 8.0  # log10 units kept below the loudest value of a segment


def log_mel(samples: np.ndarray, frames: int, spec: AudioSpec) -> np.ndarray:
    """The first `frames` frames [n_mels, frames] float32 of a segment's log-mel; after `samples` is silence.

    Whisper's: Hann window, centred frames with reflected edges, power, slaney mels, log10, 8 decades,
    (x + 4) / 4; float64 inside, as transformers' numpy path; only the frames asked for are computed.
    """
    mel = log_power(pad_segment(samples, frames, spec), frames, spec)
    return scaled(mel, mel.max())


def log_power(padded: np.ndarray, frames: int, spec: AudioSpec) -> np.ndarray:
    """log10 of the mel power [n_mels, frames] float64 of frames that begin at every hop of `padded`."""
    power = power_spectrum(padded, frames, spec)
    filters = mel_filters(spec.n_mels, spec.n_fft, spec.sampling_rate)
    return np.log10(np.maximum(filters.T @ power.T, LOG_FLOOR))


def scaled(mel: np.ndarray, loudest: float) -> np.ndarray:
    """Log-mels as the encoder takes them, float32: 8 decades below the loudest value, shifted and divided."""
    return ((np.maximum(mel, loudest - DYNAMIC_RANGE) + 4.0) / 4.0).astype(np.float32)


def pad_segment(samples: np.ndarray, frames: int, spec: AudioSpec) -> np.ndarray:
    """The samples under `frames` centred frames: zeros up to the segment's end, reflected at its edges."""
    half = spec.n_fft // 2
    needed = min(frames * spec.hop_length + half, spec.segment_samples)
    padded = np.zeros(needed, dtype=np.float64)
    padded[: len(samples)] = samples
    right = half if needed == spec.segment_samples else 0
    return np.pad(padded, (half, right), mode="reflect")


def power_spectrum(padded: np.ndarray, frames: int, spec: AudioSpec) -> np.ndarray:
    """|STFT|^2 [frames, n_fft // 2 + 1] float64."""
    views = np.lib.stride_tricks.sliding_window_view(padded, spec.n_fft)[:: spec.hop_length][:frames]
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(spec.n_fft) / spec.n_fft)
    spectrum = np.fft.rfft(views * window, axis=1)
    return spectrum.real**2 + spectrum.imag**2


@lru_cache(maxsize=4)
def mel_filters(n_mels: int, n_fft: int, sampling_rate: int) -> np.ndarray:
    """Slaney's triangular mel filters [n_fft // 2 + 1, n_mels] float64 of unit area, as librosa's default."""
    edges = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(sampling_rate / 2), n_mels + 2))
    bins = np.linspace(0.0, sampling_rate / 2, n_fft // 2 + 1)
    slopes = edges[None, :] - bins[:, None]
    falling = slopes[:, 2:] / np.diff(edges)[1:]
    rising = -slopes[:, :-2] / np.diff(edges)[:-1]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return triangles * (2.0 / (edges[2:] - edges[:-2]))


# Slaney's mel scale: linear to 1 kHz at 3 mels per 200 Hz, then logarithmic, 27 mels per factor 6.4.
_LINEAR_HERTZ = 1000.0
_LINEAR_MELS = 15.0
_LOG_STEP = 27.0 / np.log(6.4)


def _hertz_to_mel(hertz: float) -> float:
    if hertz < _LINEAR_HERTZ:
        return 3.0 * hertz / 200.0
    return _LINEAR_MELS + np.log(hertz / _LINEAR_HERTZ) * _LOG_STEP


def _mel_to_hertz(mels: np.ndarray) -> np.ndarray:
    linear = 200.0 * mels / 3.0
    return np.where(mels < _LINEAR_MELS, linear, _LINEAR_HERTZ * np.exp((mels - _LINEAR_MELS) / _LOG_STEP))
