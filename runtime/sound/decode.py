"""A file's parts through libsndfile: decoded block by block, counted, and compared with what was promised."""

import io
import os

import numpy as np
import soundfile

from .arrays import mono
from .limits import Limit, check_rate
from .messages import truncated, unreadable, warn_audio
from .part import Part, PartFile
from .source import Source

BLOCK_VALUES = 1 << 22  # samples of all channels that are decoded at once: 16 MiB at most
UNKNOWN_BLOCK_VALUES = 1 << 20  # the same where nothing says how many there are
END_SAMPLES = 4096  # the smallest block, and what is read after a block that was not full
UNKNOWN_LENGTH = 1 << 62  # the decoder's count from here on means that it has none
RAW_GSM = {"format": "RAW", "subtype": "GSM610", "samplerate": 8000, "channels": 1}


class Stream(soundfile.SoundFile):
    """Read from beginning to end: without this each read seeks, where some formats cannot or do it badly."""

    def seekable(self) -> bool:
        return False


def decode(source: Source, parts: list[Part], limit: Limit) -> tuple[np.ndarray, int]:
    """The parts after one another: mono [samples] float32 and their rate in Hz."""
    waveform = np.empty(0, np.float32)
    rate = None
    try:
        for part in parts:
            with _open(source, part) as stream:
                rate = _check_stream(stream, rate, source.name)
                waveform = _read_part(stream, part, waveform, limit, source.name)
    except soundfile.LibsndfileError as error:
        raise unreadable(source.name, error.error_string) from None
    except soundfile.SoundFileError as error:
        raise unreadable(source.name, str(error)) from None
    assert rate is not None, "a file has at least one part"
    return waveform, rate


def _open(source: Source, part: Part) -> Stream:
    options = RAW_GSM if part.raw_gsm else {}
    if _is_plain_file(source, part):
        descriptor = source.file.fileno()
        os.lseek(descriptor, 0, os.SEEK_SET)
        return Stream(descriptor, closefd=False, **options)
    return Stream(PartFile(source.file, part), **options)  # pyright: ignore[reportArgumentType]  # any file does


def _is_plain_file(source: Source, part: Part) -> bool:
    """Whether libsndfile may read the file itself, which is fastest."""
    is_whole = part.start == 0 and part.end == source.size
    in_memory = isinstance(source.file, io.BytesIO)
    return is_whole and not part.patches and not part.endless and not in_memory


def _check_stream(stream: Stream, rate: int | None, name: str) -> int:
    check_rate(stream.samplerate, f"{name} has a rate that is not taken:")
    if rate not in (None, stream.samplerate):
        raise ValueError(
            f"{name} is joined of parts at {rate} and {stream.samplerate} Hz: convert them to one rate first"
        )
    return stream.samplerate


def _read_part(stream: Stream, part: Part, waveform: np.ndarray, limit: Limit, name: str) -> np.ndarray:
    """`waveform` and after it the part's samples."""
    before = len(waveform)
    promised = _promised(stream, part)
    if promised is not None:
        limit.check(before + promised, stream.samplerate, name, "its header says")
    for block in _blocks(stream, promised):
        waveform = block if not len(waveform) else _append(waveform, block)
        limit.check(len(waveform), stream.samplerate, name, "at least")
    held = len(waveform) - before
    if promised is not None and held < promised - part.slack:
        raise truncated(name, f"{promised} samples", f"{held}")
    if part.promised is not None and held > part.promised + part.slack:
        warn_audio(f"{name} holds {held} samples, its header counts {promised}; all of them were read")
    return waveform


def _promised(stream: Stream, part: Part) -> int | None:
    if part.promised is not None:
        return part.promised
    return stream.frames if 0 < stream.frames < UNKNOWN_LENGTH else None


def _blocks(stream: Stream, promised: int | None):
    """Mono blocks up to the end, in one piece where the whole is short."""
    if promised is None:
        size = max(min(UNKNOWN_BLOCK_VALUES, BLOCK_VALUES) // stream.channels, 1)
    else:
        size = max(min(BLOCK_VALUES // stream.channels, promised + 1), END_SAMPLES)
    left = promised
    while len(block := stream.read(size, dtype="float32")):
        is_short = len(block) < size
        yield mono(block).copy() if len(block) < size // 2 else mono(block)  # a view keeps the whole buffer
        if left is not None:
            left -= len(block)
        if is_short and left == 0:
            return
        if is_short:  # most likely the end, which needs no large buffer to be seen
            size = min(size, END_SAMPLES)


def _append(waveform: np.ndarray, block: np.ndarray) -> np.ndarray:
    """`waveform` grown in place: its memory is moved, not copied."""
    start = len(waveform)
    if not waveform.flags.owndata:
        waveform = waveform.copy()
    waveform.resize(start + len(block), refcheck=False)
    waveform[start:] = block
    return waveform
