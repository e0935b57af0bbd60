"""Where sound comes from: a path, stdin or a pipe, bytes, a binary file; read from its beginning."""

import io
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from .arrays import TAKEN, as_pair, is_array
from .containers import HEAD_BYTES, recognise

STDIN = "-"
CHUNK = 1 << 20  # bytes read at once
BYTES_PER_SECOND = 48_000 * 8 * 4  # of the largest stream that is taken: 8 channels of 32 bits at 48 kHz
LEAST_STREAM_BYTES = 64 << 20  # that a stream may have, however short its sound may be
MOST_STREAM_BYTES = 4 << 30  # where any length is taken


@dataclass(frozen=True)
class Source:
    """An opened file: how messages name it, its bytes, how many."""

    name: str
    file: BinaryIO
    size: int


def as_list(source) -> list:
    """One audio or a sequence of them as a list."""
    one = isinstance(source, (str, bytes, bytearray, memoryview)) or as_pair(source) is not None
    if one or not isinstance(source, Sequence):
        return [source]
    return list(source)


def name_of(source) -> str:
    """How messages name an audio."""
    if isinstance(source, str):
        return "stdin" if source == STDIN else source
    if isinstance(source, os.PathLike):
        return os.fsdecode(os.fspath(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "the audio bytes"
    if is_array(source) or as_pair(source) is not None:
        return "the audio array"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "the audio file"


def open_source(source, max_seconds: float | None) -> Source:
    """`source` as a file that can be read from any offset.

    max_seconds: how much sound is taken, which bounds what is read of a stream
    Raises FileNotFoundError, ValueError for what is empty or a folder, TypeError for what is no source.
    """
    name = name_of(source)
    opened = _open(source, name, max_seconds)
    if opened.size == 0:
        opened.file.close()
        raise ValueError(f"{name} is an empty file, not audio")
    return opened


def _open(source, name: str, max_seconds: float | None) -> Source:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Source(name, io.BytesIO(source), len(memoryview(source).cast("B")))
    if hasattr(source, "read"):
        return _read_stream(source, name, max_seconds)
    if isinstance(source, str) and source == STDIN:
        if sys.stdin.isatty():
            raise ValueError(
                "stdin is a terminal: pipe a file into it, as in cat clip.wav | ltbm run BUNDLE -"
            )
        return _read_stream(sys.stdin.buffer, name, max_seconds)
    if isinstance(source, (str, os.PathLike)):
        return _open_path(source, name, max_seconds)
    raise TypeError(f"audio of type {type(source).__name__} is not taken: give {TAKEN}")


def _open_path(path, name: str, max_seconds: float | None) -> Source:
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a zero byte in the name
        raise FileNotFoundError(f"no audio file {name}") from None
    if stat.S_ISDIR(mode):
        raise ValueError(f"{name} is a folder, not an audio file: name the files in it")
    file = open(path, "rb")
    if stat.S_ISREG(mode):
        return Source(name, file, os.fstat(file.fileno()).st_size)
    with file:  # a pipe, such as /dev/stdin or <(...)
        return _read_stream(file, name, max_seconds)


def _read_stream(stream, name: str, max_seconds: float | None) -> Source:
    """All that a stream still has, in memory; refused as soon as it is no sound, or more than is taken."""
    most = MOST_STREAM_BYTES
    if max_seconds is not None:
        most = min(max(int(max_seconds * BYTES_PER_SECOND), LEAST_STREAM_BYTES), most)
    data = bytearray()
    is_known = False
    while chunk := stream.read(CHUNK):
        if not isinstance(chunk, (bytes, bytearray)):
            raise TypeError(f"{name} was opened as text: open it with mode 'rb'")
        data += chunk
        if not is_known and len(data) >= HEAD_BYTES:
            recognise(bytes(data[:HEAD_BYTES]), name)
            is_known = True
        if len(data) > most:
            raise ValueError(f"{name} gives more than {most >> 20} MiB, too much for the sound that is taken")
    if not data and hasattr(stream, "tell") and _position(stream):
        raise ValueError(f"{name} is at its end: go back to its beginning with seek(0)")
    return Source(name, io.BytesIO(data), len(data))


def _position(stream) -> int:
    try:
        return stream.tell()
    except (OSError, ValueError):  # a pipe has none
        return 0
