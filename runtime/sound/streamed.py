"""AIFF, CAF and W64 written to a pipe: sizes that were not known then are replaced by what the file holds."""

from dataclasses import dataclass
from typing import BinaryIO, Literal

from .part import Part

PLACEHOLDER = 0x7F00_0000  # sizes from here on that a file does not hold: sox writes 0x7F000008, ffmpeg -1


@dataclass(frozen=True)
class Chunks:
    """How a container writes its chunks: name, size, content.

    first: offset of the first one; name, size: bytes of these two; sound: name of the one with the samples
    counts_header: the size is of name and size too; align: chunks begin at its multiples
    whole: offset of the size of the whole file, which then has as many bytes as a chunk's; None for none
    """

    first: int
    name: int
    size: int
    order: Literal["little", "big"]
    sound: bytes
    counts_header: bool = False
    align: int = 1
    whole: int | None = None

    @property
    def header(self) -> int:
        return self.name + self.size


CHUNKS = {
    "AIFF": Chunks(12, 4, 4, "big", b"SSND", align=2, whole=4),
    "CAF": Chunks(8, 4, 8, "big", b"data"),
    "W64": Chunks(40, 16, 8, "little", b"data", counts_header=True, align=8, whole=16),
}


def streamed_part(file: BinaryIO, size: int, kind: str) -> Part | None:
    """The file under sizes that are so; None where its own are none of a pipe's."""
    chunks = CHUNKS.get(kind)
    found = _find_sound(file, size, chunks) if chunks else None
    if chunks is None or found is None:
        return None
    offset, declared = found
    held = size - offset - (0 if chunks.counts_header else chunks.header)
    if declared < PLACEHOLDER or declared <= held:
        return None
    patches = {offset + chunks.name: held.to_bytes(chunks.size, chunks.order)}
    if chunks.whole is not None:
        whole = size if chunks.counts_header else size - chunks.header
        patches[chunks.whole] = whole.to_bytes(chunks.size, chunks.order)
    return Part(0, size, patches=patches)


def _find_sound(file: BinaryIO, size: int, chunks: Chunks) -> tuple[int, int] | None:
    """Offset and declared size of the chunk with the samples; None where there is none."""
    offset = chunks.first
    while offset + chunks.header <= size:
        file.seek(offset)
        header = file.read(chunks.header)
        declared = int.from_bytes(header[chunks.name :], chunks.order)
        if header.startswith(chunks.sound):
            return offset, declared
        length = declared if chunks.counts_header else declared + chunks.header
        offset += -(-max(length, chunks.header) // chunks.align) * chunks.align
    return None
