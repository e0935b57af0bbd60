"""Audio in: a file, bytes or an array becomes a mono float32 waveform at the model's sampling rate."""

import numpy as np

from ..sound.arrays import array_samples, as_pair, is_array
from ..sound.limits import Limit, check_rate, check_samples
from ..sound.media import decode_media, has_media
from ..sound.messages import UnreadError
from ..sound.source import name_of, open_source


def load_audio(
    source, sampling_rate: int, source_rate: float | None = None, *, max_seconds: float | None = None
) -> np.ndarray:
    """A mono waveform [samples] float32 at `sampling_rate` Hz.

    source: a path (WAV, FLAC, OGG or MP3, any rate and channels), "-" for stdin, the bytes of such a file, a
        binary file; an array [samples] or [samples, channels] at `source_rate` Hz (`sampling_rate` when left
        out), a pair (array, Hz); integers are read as full-scale PCM
    max_seconds: longer audio is refused, by its header where that says so, else while it is read
    Raises FileNotFoundError, TooLongError, TypeError, or ValueError for what is empty, truncated, not audio,
    not finite or out of range. Warns (AudioWarning) of what was read though its header is wrong.
    """
    check_rate(sampling_rate, "sampling rate")
    limit = Limit(max_seconds, sampling_rate)
    pair = as_pair(source)
    if pair is not None:
        source, source_rate = pair
    if is_array(source):
        rate = sampling_rate if source_rate is None else check_rate(source_rate, "audio rate")
        waveform = array_samples(source)
        limit.check(len(waveform), rate, "the audio array", "it lasts")
    else:
        waveform, rate = _read_file(source, limit)
    check_samples(waveform, name_of(source))
    return resample(waveform, rate, sampling_rate)


def resample(waveform: np.ndarray, source_rate: float, target_rate: int) -> np.ndarray:
    if source_rate == target_rate:
        return np.ascontiguousarray(waveform, dtype=np.float32)
    import soxr  # where it is needed: arrays at the model's rate do without

    return soxr.resample(waveform.astype(np.float32, copy=False), source_rate, target_rate)


def _read_file(source, limit: Limit) -> tuple[np.ndarray, float]:
    from ..sound.containers import file_parts  # where they are needed: arrays do without soundfile
    from ..sound.decode import decode

    opened = open_source(source, limit.seconds)
    with opened.file:
        try:
            parts = file_parts(opened.file, opened.size, opened.name)
        except UnreadError:
            if not has_media():
                raise
            return decode_media(opened, limit)
        return decode(opened, parts, limit)
