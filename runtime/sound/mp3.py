"""MP3: its frames counted one by one, since a decoder estimates the length of a file without a count."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from .messages import convert_line, truncated, unreadable, warn_audio
from .part import Part

BITRATES = {  # kbit/s by (MPEG-1 or not, layer); 0 is "free", which is not read
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES = {
    3: (44_100, 48_000, 32_000),
    2: (22_050, 24_000, 16_000),
    0: (11_025, 12_000, 8_000),
}  # Hz, by version
FRAME_SAMPLES = {
    (True, 1): 384,
    (True, 2): 1152,
    (True, 3): 1152,
    (False, 1): 384,
    (False, 2): 1152,
    (False, 3): 576,
}
DECODER_SLACK = 3  # frames that decoding may drop at a start without the bits before it, or at a damage
TAG_OFFSETS = {(True, False): 36, (True, True): 21, (False, False): 21, (False, True): 13}  # (MPEG-1, mono)
MOST_RESYNC = 1 << 20  # bytes searched for the next frame
MOST_OTHERS = 10  # frames of another rate or layer in a row: fewer are bytes that look like frames
FRAMES_TO_TRUST = 4  # in a row, where a file does not begin with one
METADATA = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")  # how bytes begin that are no frames and no damage


@dataclass(frozen=True)
class FrameHeader:
    """A frame: MPEG-1 or a later one, its layer, rate in Hz, one channel or two, bytes."""

    mpeg1: bool
    layer: int
    rate: int
    mono: bool
    size: int

    @property
    def samples(self) -> int:
        return FRAME_SAMPLES[self.mpeg1, self.layer]

    def __str__(self) -> str:
        channels = "mono" if self.mono else "stereo"
        return f"layer {self.layer}, {self.rate} Hz, {channels}"

    def same_stream(self, other: "FrameHeader") -> bool:
        mine = (self.mpeg1, self.layer, self.rate, self.mono)
        return mine == (other.mpeg1, other.layer, other.rate, other.mono)


@dataclass(frozen=True)
class CountTag:
    """The Xing or Info frame that an encoder writes first.

    frames: that follow, 0 where it does not say; trimmed: samples of the encoder's delay and padding
    """

    frames: int
    trimmed: int


@dataclass(frozen=True)
class Frames:
    """The frames of a stream: how many, from the first's start to the last's end, bytes between."""

    first: FrameHeader
    count: int
    start: int
    end: int
    damaged: int


def parse_header(data: bytes) -> FrameHeader | None:
    """The frame header in the first four bytes, None where there is none."""
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return None
    version = data[1] >> 3 & 3
    layer = 4 - (data[1] >> 1 & 3)
    bitrate_index = data[2] >> 4
    rate_index = data[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate_index in (0, 15) or rate_index == 3:
        return None
    mpeg1 = version == 3
    rate = RATES[version][rate_index]
    bits = BITRATES[mpeg1, layer][bitrate_index] * 1000
    padding = data[2] >> 1 & 1
    if layer == 1:
        size = (12 * bits // rate + padding) * 4
    else:
        size = FRAME_SAMPLES[mpeg1, layer] // 8 * bits // rate + padding
    return FrameHeader(mpeg1, layer, rate, data[3] >> 6 == 3, size)


def is_mp3(data: bytes) -> bool:
    """Whether `data` begins with a frame and, where it is long enough, another."""
    header = parse_header(data)
    if header is None:
        return False
    following = data[header.size : header.size + 4]
    return len(following) < 4 or parse_header(following) is not None


def has_frames(data: bytes) -> bool:
    """Whether FRAMES_TO_TRUST frames stand in a row somewhere in `data`, as in bytes of no other kind."""
    index = data.find(b"\xff")
    while index >= 0:
        if _frames_in_a_row(data, index) >= FRAMES_TO_TRUST:
            return True
        index = data.find(b"\xff", index + 1)
    return False


def _frames_in_a_row(data: bytes, index: int) -> int:
    count = 0
    while count < FRAMES_TO_TRUST and (header := parse_header(data[index : index + 4])) is not None:
        count += 1
        index += header.size
    return count


def mp3_parts(file: BinaryIO, start: int, end: int, name: str) -> list[Part]:
    """The frames in the bytes [start, end); ValueError where there is none or the tag counts more."""
    frames = count_frames(file, start, end, name)
    if frames is None:
        raise unreadable(name, "there is no MP3 frame in it")
    if _holds_data(file, start, frames.start):
        warn_audio(f"{name} has {frames.start - start} bytes before its first MP3 frame: left out")
    if frames.damaged:
        warn_audio(f"{name} has {frames.damaged} bytes between its MP3 frames that are none: left out")
    tag = _read_tag(file, frames)
    samples = frames.first.samples
    slack = DECODER_SLACK * samples
    if tag is None:
        return [Part(frames.start, frames.end, frames.count * samples, slack, endless=True)]
    count = frames.count - 1  # the tag has a frame of its own, which is silent
    if tag.frames > count + 1:
        raise truncated(name, f"{tag.frames} MP3 frames", f"{count}")
    if tag.frames < count:  # no count, or files joined: all that is there is read
        return [Part(frames.start + frames.first.size, frames.end, count * samples, slack, endless=True)]
    return [Part(frames.start, frames.end, max(count * samples - tag.trimmed, 0), slack)]


def count_frames(file: BinaryIO, start: int, end: int, name: str) -> Frames | None:
    """Walk from frame to frame; None where there is none, ValueError for joined streams of two kinds."""
    first = None
    first_at = last_end = start
    count = damaged = others = 0
    for offset, header in _frames(file, start, end):
        if first is None:
            first, first_at = header, offset
        elif not header.same_stream(first):
            others += 1
            if others == MOST_OTHERS:
                raise _joined(first, header, name)
            continue
        elif offset > last_end and not _is_metadata(file, last_end):
            damaged += offset - last_end
        count += 1
        others = 0
        last_end = offset + header.size
    return None if first is None else Frames(first, count, first_at, last_end, damaged)


def _joined(first: FrameHeader, other: FrameHeader, name: str) -> ValueError:
    return ValueError(
        f"{name} is joined of MP3 streams of two kinds ({first}; {other}): convert them to one rate and as "
        f"many channels first, {convert_line(name)}"
    )


def _holds_data(file: BinaryIO, start: int, end: int) -> bool:
    """Whether there is more than zeros between two offsets, as far as a frame is searched for."""
    file.seek(start)
    data = file.read(min(end - start, MOST_RESYNC))
    return data.count(0) < len(data)


def _is_metadata(file: BinaryIO, offset: int) -> bool:
    file.seek(offset)
    return file.read(len(max(METADATA, key=len))).startswith(METADATA)


def _frames(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, FrameHeader]]:
    """Offset and header of each whole frame."""
    offset = start
    while offset + 4 <= end:
        file.seek(offset)
        header = parse_header(file.read(4))
        if header is None:
            following = _next_frame(file, offset, end)
            if following is None:
                return
            offset = following
            continue
        if offset + header.size > end:
            return
        yield offset, header
        offset += header.size


def _next_frame(file: BinaryIO, offset: int, end: int) -> int | None:
    """Offset of the next two frames in a row, or of a last one."""
    file.seek(offset)
    data = file.read(min(end - offset, MOST_RESYNC))
    index = data.find(b"\xff", 1)
    while index >= 0:
        header = parse_header(data[index : index + 4])
        if header is not None and _is_followed(
            data, index + header.size, offset + index + header.size == end
        ):
            return offset + index
        index = data.find(b"\xff", index + 1)
    return None


def _is_followed(data: bytes, index: int, at_end: bool) -> bool:
    return at_end or parse_header(data[index : index + 4]) is not None


def _read_tag(file: BinaryIO, frames: Frames) -> CountTag | None:
    file.seek(frames.start)
    data = file.read(frames.first.size)
    offset = TAG_OFFSETS[frames.first.mpeg1, frames.first.mono]
    if data[offset : offset + 4] not in (b"Xing", b"Info"):
        return None
    flags = int.from_bytes(data[offset + 4 : offset + 8], "big")
    counted = int.from_bytes(data[offset + 8 : offset + 12], "big") if flags & 1 else 0
    fields = (4, 4, 100, 4)  # bytes of each field that a flag announces: frames, bytes, seek table, quality
    encoder = offset + 8 + sum(size for bit, size in enumerate(fields) if flags >> bit & 1)
    delays = int.from_bytes(data[encoder + 21 : encoder + 24], "big")
    return CountTag(counted, (delays >> 12) + (delays & 0xFFF))
