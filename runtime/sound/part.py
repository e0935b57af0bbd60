"""A stretch of a file as a file of its own, for a decoder that reads one recording."""

import io
import os
from dataclasses import dataclass, field
from typing import BinaryIO

ENDLESS_FACTOR = 1000  # an endless part shows this many times its bytes
TAIL = 128  # bytes of an MP3's ID3v1 tag, which mpg123 reads from the end


@dataclass(frozen=True)
class Part:
    """What one decoder reads of a file.

    start, end: bytes of the file
    promised: samples of a channel that headers or frames count, None where the decoder counts
    slack: samples of a channel by which decoding may fall short of that
    patches: bytes that take the place of the file's, by their offset in the file
    endless: hide the length, from which a decoder estimates where the sound ends
    raw_gsm: frames of GSM 6.10 without a header
    """

    start: int
    end: int
    promised: int | None = None
    slack: int = 0
    patches: dict[int, bytes] = field(default_factory=dict)
    endless: bool = False
    raw_gsm: bool = False


class PartFile(io.RawIOBase):
    """The part's bytes, from 0 on."""

    def __init__(self, file: BinaryIO, part: Part):
        self._file = file
        self._part = part
        self._held = part.end - part.start
        self._shown = self._held * (ENDLESS_FACTOR if part.endless else 1)
        self._position = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._shown}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer) -> int:
        data = self._bytes(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _bytes(self, count: int) -> bytes:
        if self._part.endless and self._position >= self._shown - TAIL:
            return bytes(min(count, self._shown - self._position))  # where a tag would be: there is none
        count = max(min(count, self._held - self._position), 0)
        offset = self._part.start + self._position
        self._file.seek(offset)
        data = self._file.read(count)
        return self._patched(data, offset) if self._part.patches else data

    def _patched(self, data: bytes, offset: int) -> bytes:
        """`data`, which stands at `offset` in the file, under the patches."""
        changed = bytearray(data)
        for start, patch in self._part.patches.items():
            for index, byte in enumerate(patch, start - offset):
                if 0 <= index < len(changed):
                    changed[index] = byte
        return bytes(changed)
