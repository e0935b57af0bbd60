"""Tags around a recording: ID3v2 before it, ID3v1 and APE after it, whatever the recording's kind."""

from typing import BinaryIO

ID3_HEADER = 10  # bytes
ID3V1_BYTES = 128
APE_FOOTER = 32  # bytes
APE_HAS_HEADER = 1 << 31  # of its flags


def after_id3(file: BinaryIO) -> int:
    """Offset after the ID3v2 tags at the beginning."""
    offset = 0
    while (header := _at(file, offset, ID3_HEADER))[:3] == b"ID3" and len(header) == ID3_HEADER:
        size = 0
        for byte in header[6:]:
            size = size << 7 | byte & 0x7F
        has_footer = header[5] >> 4 & 1
        offset += ID3_HEADER + size + has_footer * ID3_HEADER
    return offset


def before_tags(file: BinaryIO, size: int) -> int:
    """Offset where the tags at the end begin, `size` where there are none."""
    end = size
    if end > ID3V1_BYTES and _at(file, end - ID3V1_BYTES, 3) == b"TAG":
        end -= ID3V1_BYTES
    footer = _at(file, max(end - APE_FOOTER, 0), APE_FOOTER)
    if footer[:8] == b"APETAGEX":
        has_header = int.from_bytes(footer[20:24], "little") & APE_HAS_HEADER
        end -= int.from_bytes(footer[12:16], "little") + (APE_FOOTER if has_header else 0)
    return max(end, 0)


def _at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)
