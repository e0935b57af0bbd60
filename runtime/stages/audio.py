"""Audio in: a file or an array becomes a mono float32 waveform at the model's sampling rate."""

from pathlib import Path

import numpy as np


def load_audio(source, sampling_rate: int, source_rate: int | None = None) -> np.ndarray:
    """A mono waveform [samples] float32 at `sampling_rate` Hz.

    source: a path (WAV, FLAC, OGG or MP3, any rate and channels), or an array [samples] or [samples,
        channels] whose rate is `source_rate` Hz (the model's own when left out); integers are read as
        full-scale PCM.
    Raises FileNotFoundError, or ValueError for what is empty, truncated, not audio, or not finite.
    """
    if isinstance(source, np.ndarray):
        waveform = _float_samples(source)
        rate = source_rate or sampling_rate
        what = "the audio array"
    else:
        waveform, rate = _read_file(Path(source))
        what = str(source)
    if waveform.ndim == 2:
        waveform = waveform.mean(axis=1, dtype=np.float32)
    if waveform.ndim != 1:
        raise ValueError(f"{what} has shape {waveform.shape}, expected [samples] or [samples, channels]")
    if waveform.size == 0:
        raise ValueError(f"{what} holds no samples: its audio has zero length")
    if not np.isfinite(waveform).all():
        raise ValueError(f"{what} holds NaN or infinite samples; clean the recording first")
    return resample(waveform, rate, sampling_rate)


def resample(waveform: np.ndarray, source_rate: float, target_rate: int) -> np.ndarray:
    if source_rate <= 0:
        raise ValueError(f"audio rate {source_rate} Hz is not positive")
    if source_rate == target_rate:
        return np.ascontiguousarray(waveform, dtype=np.float32)
    import soxr  # where it is needed: arrays at the model's rate do without

    return soxr.resample(waveform.astype(np.float32), source_rate, target_rate)


def _read_file(path: Path) -> tuple[np.ndarray, int]:
    import soundfile

    if not path.is_file():
        raise FileNotFoundError(f"no audio file {path}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is an empty file, not audio")
    try:
        with soundfile.SoundFile(path) as stream:
            _check_data_size(path, stream)
            waveform = stream.read(dtype="float32")
            promised = stream.frames
            rate = stream.samplerate
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} is not readable audio ({error}); WAV, FLAC, OGG and MP3 are") from None
    if 0 < promised < 2**62 and len(waveform) < promised:
        raise ValueError(
            f"{path} is truncated: its header promises {promised} samples, it holds {len(waveform)}"
        )
    return waveform, rate


def _check_data_size(path: Path, stream) -> None:
    """libsndfile shortens a cut WAV without a word: compare its header's data size with the file."""
    if stream.format not in ("WAV", "WAVEX", "RF64"):
        return
    with open(path, "rb") as raw:
        if raw.read(4) != b"RIFF":
            return
        raw.seek(12)
        while len(header := raw.read(8)) == 8:
            size = int.from_bytes(header[4:], "little")
            if header[:4] == b"data":
                held = path.stat().st_size - raw.tell()
                if size not in (0, 0xFFFFFFFF) and held < size:
                    raise ValueError(
                        f"{path} is truncated: its header promises {size} bytes of sound, it holds {held}"
                    )
                return
            raw.seek(size + size % 2, 1)


def _float_samples(samples: np.ndarray) -> np.ndarray:
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    if samples.dtype.kind == "i":
        return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    raise ValueError(
        f"the audio array has type {samples.dtype}, expected floating point or signed integer samples"
    )
