"""Where sound comes from: raw PCM from a pipe, or a microphone."""

from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

READ_SECONDS = 0.1  # of sound taken from a pipe at once
FORMATS = {"s16le": np.dtype("<i2"), "s32le": np.dtype("<i4"), "f32le": np.dtype("<f4")}
"""Sample formats of raw PCM, as ffmpeg names them; arecord's S16_LE, S32_LE and FLOAT_LE."""
CONTAINERS = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3"}  # by their first bytes


def read_pcm(stream: BinaryIO, rate: int, channels: int, sample_format: str) -> Iterator[np.ndarray]:
    """Pieces [n, channels] of raw PCM until the stream ends; ValueError for a container or a torn frame."""
    dtype = FORMATS[sample_format]
    frame_bytes = dtype.itemsize * channels
    size = max(1, round(READ_SECONDS * rate)) * frame_bytes
    first = True
    while data := _read_up_to(stream, size):
        if first:
            _check_raw(data)
            first = False
        if len(data) % frame_bytes:
            raise ValueError(
                f"the sound ends within a frame: {len(data) % frame_bytes} of {frame_bytes} bytes; "
                f"is it {sample_format} with {channels} channel(s)?"
            )
        yield np.frombuffer(data, dtype).reshape(-1, channels)


def _read_up_to(stream: BinaryIO, size: int) -> bytes:
    """`size` bytes, fewer at the end of the stream."""
    parts = []
    while size and (data := stream.read(size)):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def _check_raw(data: bytes) -> None:
    for start, name in CONTAINERS.items():
        if data.startswith(start):
            raise ValueError(
                f"the sound is a {name} file, raw PCM was expected: `arecord -t raw`, "
                f"`ffmpeg -i in.{name.lower()} -ac 1 -ar 16000 -f s16le -`"
            )


class Microphone:
    """A recording device that calls `take` with pieces [n, channels] float32, on a thread of its own.

    fail: called with the reason when no more sound comes, or some was lost
    device: a name or number that `python -m sounddevice` lists; None: the default
    Raises ImportError without sounddevice or PortAudio, RuntimeError for a device that does not open.
    """

    def __init__(
        self,
        take: Callable[[np.ndarray], object],
        fail: Callable[[RuntimeError], object],
        rate: int,
        channels: int,
        device: str | None = None,
    ):
        self._take = take
        self._fail = fail
        self._closing = False
        sounddevice = _sounddevice()
        name = int(device) if device and device.isdecimal() else device
        try:
            self._stream = sounddevice.InputStream(
                samplerate=rate,
                channels=channels,
                device=name,
                dtype="float32",
                callback=self._taken,
                finished_callback=self._finished,
            )
            self._stream.start()
        except (ValueError, sounddevice.PortAudioError) as error:
            which = f"the microphone {device}" if device else "the default microphone"
            raise RuntimeError(
                f"{which} does not open at {rate} Hz with {channels} channel(s): {error}; "
                "`python -m sounddevice` lists the devices"
            ) from None

    def close(self) -> None:
        self._closing = True
        self._stream.close()

    def _taken(self, samples: np.ndarray, frames: int, time, status) -> None:
        if status.input_overflow:
            self._fail(RuntimeError("the microphone lost samples, because this machine was too busy"))
        self._take(samples.copy())

    def _finished(self) -> None:
        if not self._closing:
            self._fail(RuntimeError("the microphone stopped: was it unplugged?"))


def _sounddevice():
    try:
        import sounddevice
    except ImportError:
        raise ImportError("--microphone needs sounddevice: pip install 'ltbm[listen]'") from None
    except OSError:  # the package is there, the library is not
        raise ImportError("--microphone needs PortAudio: sudo apt install libportaudio2") from None
    return sounddevice
