"""WAV: where the samples are, whatever the header says about their length."""

from dataclasses import dataclass
from typing import BinaryIO

from .messages import truncated, unreadable, warn_audio
from .mp3 import mp3_parts
from .part import Part

PLACEHOLDER = 0x7FF0_0000  # sizes from here on that a file does not hold: written to a pipe, length not known
SLACK = 1024  # bytes by which a header may be off, its own size for instance
MP3_TAG = 0x55  # MP3 frames in a WAV
PCM_TAGS = (1, 3, 0xFFFE)  # integers, floats, either with a channel mask
CHUNK_HEADER = 8  # bytes: four letters and a size
LETTERS = frozenset(range(0x20, 0x7F))  # what chunk names are made of
METADATA = frozenset(  # chunks that programs write after the samples, not always well-formed
    b"LIST|id3 |ID3 |bext|iXML|axml|cue |smpl|inst|fact|JUNK|junk|PAD |FLLR|PEAK|_PMX|cart|chna|DISP|acid|"
    b"afsp|plst|umid|levl".split(b"|")
)
BLOCK = 1 << 16  # bytes read at once


@dataclass(frozen=True)
class Wave:
    """What a WAV's header says.

    tag: how samples are coded; block: bytes of one sample of all channels
    start: offset of the samples; size_at, size_bytes: where their size is written, and in how many bytes
    declared: that size, in bytes; held: bytes from `start` to the file's end
    """

    tag: int
    block: int
    start: int
    size_at: int
    size_bytes: int
    declared: int
    held: int


def wav_parts(file: BinaryIO, size: int, name: str) -> list[Part]:
    """The samples of a WAV file of `size` bytes; ValueError where it is cut or its sizes contradict."""
    order = "big" if _at(file, 0, 4) == b"RIFX" else "little"
    wave = _read_header(file, size, order, name)
    length = _sound_length(file, wave, order, name)
    if wave.tag == MP3_TAG:
        return mp3_parts(file, wave.start, wave.start + length, name)
    promised = length // wave.block if wave.tag in PCM_TAGS and wave.block else None
    patches = {}
    if wave.declared == 0 and length:
        most = 256**wave.size_bytes - 1
        patches[wave.size_at] = min(length, most).to_bytes(wave.size_bytes, order)
    return [Part(0, size, promised, patches=patches)]


def _read_header(file: BinaryIO, size: int, order, name: str) -> Wave:
    tag = block = 0
    long_size_at = None  # of RF64, whose sizes have 64 bits
    offset = 12
    while len(header := _at(file, offset, CHUNK_HEADER)) == CHUNK_HEADER:
        letters, declared = header[:4], int.from_bytes(header[4:], order)
        offset += CHUNK_HEADER
        if letters == b"fmt ":
            fields = _at(file, offset, 16)
            tag = int.from_bytes(fields[:2], order)
            block = _block_size(fields, order)
        elif letters == b"ds64":
            long_size_at = offset + 8
        elif letters == b"data":
            if long_size_at is None or declared != 0xFFFF_FFFF:
                return Wave(tag, block, offset, offset - 4, 4, declared, size - offset)
            declared = int.from_bytes(_at(file, long_size_at, 8), order)
            return Wave(tag, block, offset, long_size_at, 8, declared, size - offset)
        offset += declared + declared % 2
    raise unreadable(name, "its WAV header has no chunk of samples")


def _block_size(fields: bytes, order) -> int:
    """Bytes of one sample of all channels, by its bits: what the header says of it may be wrong."""
    channels = int.from_bytes(fields[2:4], order)
    declared = int.from_bytes(fields[12:14], order)
    width = -(-int.from_bytes(fields[14:16], order) // 8)
    if width == 3 and declared == 4 * channels:  # 24 bits in 32
        return declared
    return channels * width


def _sound_length(file: BinaryIO, wave: Wave, order, name: str) -> int:
    """Bytes of samples that the file holds."""
    missing = wave.declared - wave.held
    if missing > 0:
        if wave.declared >= PLACEHOLDER:
            return wave.held
        if missing > SLACK:
            raise truncated(name, f"{wave.declared} bytes of sound", f"{wave.held}")
        warn_audio(f"{name} is {missing} bytes shorter than its header says; what is there was read")
        return wave.held
    padding = wave.declared % 2  # chunks begin at even offsets
    after = wave.start + wave.declared
    starts = range(after, after + padding + 1)  # not every program writes the byte between
    if -missing <= padding or any(_are_chunks(file, start, order) for start in starts):
        return wave.declared
    if wave.declared == 0:
        return wave.held
    if -missing <= SLACK:
        warn_audio(f"{name} has {-missing} bytes after its samples that are no part of a WAV file: left out")
        return wave.declared
    if _are_zeros(file, after):
        warn_audio(f"{name} has {-missing} zeros after its samples that are no part of a WAV file: left out")
        return wave.declared
    raise ValueError(
        f"{name} holds {-missing} bytes after the {wave.declared} bytes of sound that its header counts: "
        "a recording that was not closed, or files joined by cat; "
        "write it anew with sox --ignore-length, or join WAV files with sox a.wav b.wav out.wav"
    )


def _are_chunks(file: BinaryIO, offset: int, order) -> bool:
    """Whether what stands from `offset` to the file's end is no sound: a chunk that is known, or well-formed
    ones that fill it."""
    size = file.seek(0, 2)
    count = 0
    while offset + CHUNK_HEADER <= size:
        header = _at(file, offset, CHUNK_HEADER)
        if header[:4] in METADATA:
            return True
        if not LETTERS.issuperset(header[:4]) or header[:4] in (b"RIFF", b"RIFX", b"RF64"):
            return False
        length = int.from_bytes(header[4:], order)
        offset += CHUNK_HEADER + length + length % 2
        count += 1
    return count > 0 and offset - 1 <= size <= offset


def _are_zeros(file: BinaryIO, offset: int) -> bool:
    """Whether there is nothing but zeros from `offset` on, with which some recorders fill a block."""
    file.seek(offset)
    while data := file.read(BLOCK):
        if data.count(0) < len(data):
            return False
    return True


def _at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)
