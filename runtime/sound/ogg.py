"""Ogg: a chain of streams one after another, each with pages from its first to its last."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from .messages import UnreadError, unreadable, warn_audio
from .part import Part

PAGE_HEADER = 27  # bytes before the table of segment sizes
FIRST, LAST = 2, 4  # flags of a page: it begins or ends its stream
SEARCH = 1 << 16  # bytes read at once in search of a page
UNREAD = {
    b"\x7fFLAC": "Ogg FLAC",
    b"Speex   ": "Speex",
    b"\x80theora": "Theora video",
}  # how first packets begin


@dataclass(frozen=True)
class Page:
    """A page: its bytes [start, end), what its flags say, the beginning of its content."""

    start: int
    end: int
    is_first: bool
    is_last: bool
    content: bytes


def ogg_parts(file: BinaryIO, size: int, name: str) -> list[Part]:
    """A part for each stream of the chain; ValueError for codecs that are not read."""
    starts = []
    end = 0
    previous = None
    damaged = 0
    for page in _pages(file, size):
        damaged += page.start - end
        if page.is_first:
            _check_codec(page.content, name)
        if page.is_first and (previous is None or not previous.is_first):
            starts.append(page.start)
        end = page.end
        previous = page
    if not starts or previous is None:
        raise unreadable(name, "no Ogg stream begins in it")
    if damaged:
        warn_audio(f"{name} has {damaged} bytes between its Ogg pages that are none: left out")
    if not previous.is_last:
        warn_audio(f"{name} does not end with a last Ogg page: it may be cut; all that is there was read")
    return [Part(start, stop) for start, stop in zip(starts, [*starts[1:], end])]


def _check_codec(content: bytes, name: str) -> None:
    for magic, codec in UNREAD.items():
        if content.startswith(magic):
            raise UnreadError(name, codec)


def _pages(file: BinaryIO, size: int) -> Iterator[Page]:
    """Every whole page; what lies between two is passed over."""
    offset = 0
    while (offset := _next_page(file, offset, size)) >= 0:
        file.seek(offset)
        header = file.read(PAGE_HEADER)
        table = file.read(header[26])
        end = offset + PAGE_HEADER + header[26] + sum(table)
        if end > size:
            offset += 4
            continue
        yield Page(offset, end, bool(header[5] & FIRST), bool(header[5] & LAST), file.read(8))
        offset = end


def _next_page(file: BinaryIO, offset: int, size: int) -> int:
    """Offset of the next page whose header is whole, -1 where there is none."""
    while offset + PAGE_HEADER <= size:
        file.seek(offset)
        data = file.read(SEARCH)
        index = data.find(b"OggS")
        if index >= 0:
            return offset + index if offset + index + PAGE_HEADER <= size else -1
        offset += max(len(data) - 3, 1)
    return -1
