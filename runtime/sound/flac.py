"""FLAC: the count of samples in its header is compared with what is decoded, never trusted."""

from typing import BinaryIO

from .messages import unreadable
from .part import Part
from .tags import before_tags

STREAM_MARK = b"fLaC\x00\x00\x00\x22"  # and the header of its first block, 34 bytes
LAST_BLOCK_MARK = b"fLaC\x80\x00\x00\x22"  # the same where that block is the only one
TOTAL_AT = 21  # offset in the stream of the five bytes whose last 36 bits count the samples
SEARCH = 1 << 20  # bytes searched at once


def flac_parts(file: BinaryIO, start: int, size: int, name: str) -> list[Part]:
    """A part for each FLAC stream from `start` on: files joined by cat are several."""
    end = before_tags(file, size)
    starts = _stream_starts(file, start, end)
    if not starts:
        raise unreadable(name, "its FLAC header is damaged")
    return [_part(file, begin, end) for begin, end in zip(starts, [*starts[1:], end])]


def _part(file: BinaryIO, start: int, end: int) -> Part:
    """The decoder is told no count (0), so that it reads to the end."""
    file.seek(start + TOTAL_AT)
    total = file.read(5).ljust(5, b"\0")
    promised = int.from_bytes(total, "big") & 0xF_FFFF_FFFF
    return Part(
        start, end, promised or None, patches={start + TOTAL_AT: bytes([total[0] & 0xF0, 0, 0, 0, 0])}
    )


def _stream_starts(file: BinaryIO, start: int, size: int) -> list[int]:
    starts = []
    offset = start
    overlap = len(STREAM_MARK) - 1
    while offset < size:
        file.seek(offset)
        data = file.read(SEARCH + overlap)
        for mark in (STREAM_MARK, LAST_BLOCK_MARK):
            index = data.find(mark)
            while index >= 0:
                starts.append(offset + index)
                index = data.find(mark, index + 1)
        offset += SEARCH
    return sorted(starts)
