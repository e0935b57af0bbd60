"""A request's bytes as sound, within the seconds that are allowed."""

import io

import numpy as np
import soundfile

from ..stages.audio import resample
from .errors import ApiError, invalid
from .media import FORMAT_NAMES

READABLE = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")  # of libsndfile's names
BLOCK_SECONDS = 10  # decoded at once
MOST_CHANNELS = 16
RATES = (1_000, 384_000)  # Hz


def decode_audio(data: bytes, sampling_rate: int, max_seconds: float, param: str) -> np.ndarray:
    """A mono waveform [samples] float32 at `sampling_rate` Hz.

    The header's length is checked first, then what is decoded: some files do not know theirs.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as stream:
            _check_header(stream, max_seconds, param)
            waveform = _read(stream, max_seconds, param)
            rate = stream.samplerate
    except (soundfile.LibsndfileError, RuntimeError):
        raise invalid(param, f"not readable audio; {FORMAT_NAMES} are", "invalid_audio") from None
    if not waveform.size:
        raise invalid(param, "the audio has no samples", "invalid_audio")
    if not np.isfinite(waveform).all():
        raise invalid(param, "the audio holds NaN or infinite samples", "invalid_audio")
    return resample(waveform, rate, sampling_rate)


def _check_header(stream, max_seconds: float, param: str) -> None:
    if stream.format not in READABLE:
        raise invalid(param, f"{stream.format} audio is not taken; {FORMAT_NAMES} are", "invalid_audio")
    if stream.channels > MOST_CHANNELS or not RATES[0] <= stream.samplerate <= RATES[1]:
        raise invalid(
            param,
            f"{stream.channels} channels at {stream.samplerate} Hz; at most {MOST_CHANNELS} channels at "
            f"{RATES[0]} to {RATES[1]} Hz are taken",
            "invalid_audio",
        )
    if 0 < stream.frames < 2**62 and stream.frames > max_seconds * stream.samplerate:
        raise too_long(param, max_seconds)


def _read(stream, max_seconds: float, param: str) -> np.ndarray:
    """Mono, block by block, so that a file which is longer than it says is noticed on the way."""
    blocks = []
    samples = 0
    while True:
        block = stream.read(BLOCK_SECONDS * stream.samplerate, dtype="float32", always_2d=True)
        if not len(block):
            return np.concatenate(blocks) if blocks else np.empty(0, np.float32)
        samples += len(block)
        if samples > max_seconds * stream.samplerate:
            raise too_long(param, max_seconds)
        blocks.append(block.mean(axis=1, dtype=np.float32))


def too_long(param: str, max_seconds: float) -> ApiError:
    return invalid(
        param, f"longer than the {max_seconds:g} s of audio that a request may have", "audio_too_long"
    )
