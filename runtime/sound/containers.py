"""Which kind of file it is, by its first bytes, and what of it a decoder is to read."""

from pathlib import PurePath
from typing import BinaryIO

from .flac import flac_parts
from .messages import UnreadError, truncated, unreadable
from .mp3 import has_frames, is_mp3, mp3_parts
from .ogg import ogg_parts
from .part import Part
from .streamed import streamed_part
from .tags import after_id3
from .wav import SLACK, wav_parts

HEAD_BYTES = 1 << 14  # that tell the kind
LFS_POINTER = b"version https://git-lfs"
RAW_SUFFIXES = (".raw", ".pcm", ".s16", ".s16le", ".f32", ".ul", ".al")
GSM_SUFFIX = ".gsm"
GSM_MARK = 0xD0  # upper half of every GSM 6.10 frame's first byte
OTHERS = {  # read by the decoder without a look into them, by the first bytes
    b"FORM": "AIFF",
    b".snd": "AU",
    b"caff": "CAF",
    b"riff\x2e\x91\xcf\x11": "W64",
    b"NIST_1A": "NIST",
    b"Creative Voice File": "VOC",
}
AFTER_ID3 = {  # other kinds that have such tags before them, by the first bytes
    b"fLaC": "FLAC",
    b"RIFF": "ID3-tagged WAV",
    b"FORM": "ID3-tagged AIFF",
    b"OggS": "ID3-tagged Ogg",
}
UNREAD = {  # known and not read, by the first bytes
    b"\x1a\x45\xdf\xa3": "WebM or Matroska",
    b"#!AMR": "AMR",
    b"\x30\x26\xb2\x75": "WMA",
    b"ADIF": "AAC",
    b"wvpk": "WavPack",
    b"MAC ": "Monkey's Audio",
    b"DSD ": "DSD",
    b"FLV\x01": "FLV",
    b"TTA1": "TTA",
    b"\x0b\x77": "AC-3",
}


def file_parts(file: BinaryIO, size: int, name: str) -> list[Part]:
    """What a decoder is to read of `file`; ValueError for no sound, or a kind that is not read."""
    start = after_id3(file)
    head = _at(file, start, HEAD_BYTES)
    kind = recognise(head, name) if start == 0 else _recognise_after_id3(head)
    if kind == "WAV":
        return wav_parts(file, size, name)
    if kind == "FLAC":
        return flac_parts(file, start, size, name)
    if kind == "OGG":
        return ogg_parts(file, size, name)
    if kind == "MP3":
        return mp3_parts(file, start, size, name)
    if kind == "GSM":
        return [Part(0, size, raw_gsm=True)]
    if kind in OTHERS.values():
        streamed = streamed_part(file, size, kind)
        if streamed is not None:
            return [streamed]
        _check_size(head, size, name)
        return [Part(0, size)]
    raise UnreadError(name, f"{kind} audio")


def recognise(head: bytes, name: str) -> str:
    """The kind of file that begins with `head`; ValueError where it is none that is known."""
    if head[8:12] == b"WAVE" and head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return "WAV"
    if head.startswith(b"fLaC"):
        return "FLAC"
    if head.startswith(b"OggS"):
        return "OGG"
    if head.startswith(b"ID3") or is_mp3(head):
        return "MP3"
    for kinds in (OTHERS, UNREAD):
        for mark, kind in kinds.items():
            if head.startswith(mark):
                return kind
    if head[4:8] == b"ftyp":
        return "MP4 (m4a)"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "AVI"
    if _is_aac(head):
        return "AAC"
    return _recognise_by_name(head, name)


def _recognise_after_id3(head: bytes) -> str:
    """MP3 unless it is another kind that has such tags: there may be padding before the first frame."""
    for mark, kind in AFTER_ID3.items():
        if head.startswith(mark):
            return kind
    return "AAC" if _is_aac(head) else "MP3"


def _is_aac(head: bytes) -> bool:
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0


def _recognise_by_name(head: bytes, name: str) -> str:
    """Headerless GSM; ValueError for everything else, which is named where it can be."""
    suffix = PurePath(name).suffix.lower()
    if suffix == GSM_SUFFIX and head and head[0] & 0xF0 == GSM_MARK:
        return "GSM"
    if has_frames(head):  # after a cut, or zeros
        return "MP3"
    if head.startswith(LFS_POINTER):
        raise ValueError(f"{name} is a git-lfs pointer, not the sound itself: run git lfs pull")
    if suffix in RAW_SUFFIXES:
        raise ValueError(
            f"{name} seems to be raw PCM, which does not say its rate: convert, from 16 bits at 16 kHz with "
            f"ffmpeg -f s16le -ar 16000 -ac 1 -i {name} out.wav"
        )
    raise unreadable(name, f"it begins with {head[:12]!r}")


def _check_size(head: bytes, size: int, name: str) -> None:
    """The decoder shortens these without a word where they are cut."""
    declared = _declared_size(head)
    if declared is not None and declared > size + SLACK:
        raise truncated(name, f"{declared} bytes", f"{size}")


def _declared_size(head: bytes) -> int | None:
    """Bytes of the whole file as its header says, None where it does not."""
    if head.startswith(b"FORM"):
        return 8 + int.from_bytes(head[4:8], "big")
    if head.startswith(b"riff"):
        return int.from_bytes(head[16:24], "little")
    if head.startswith(b".snd") and head[8:12] != b"\xff\xff\xff\xff":
        return int.from_bytes(head[4:8], "big") + int.from_bytes(head[8:12], "big")
    return None


def _at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)
