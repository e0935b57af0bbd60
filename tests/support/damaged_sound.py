"""Sound files with a known content, damaged in the ways that disks, networks and programs damage them."""

import io
import struct
from dataclasses import dataclass

import soundfile

from tests.support.sound_files import sweep

RATE = 16_000
SECONDS = 1.5
KINDS = ("cut", "double", "flip", "zero", "drop")
LONGEST_STRETCH = 400  # bytes that are doubled, cleared or dropped at once


@dataclass(frozen=True)
class Damage:
    """One change: its kind, where in the file (a share of its bytes), how many bytes or which byte."""

    kind: str
    share: float
    amount: int

    def apply(self, data: bytes) -> bytes:
        at = int(self.share * len(data))
        end = at + self.amount % LONGEST_STRETCH + 1
        if self.kind == "cut":
            return data[:at]
        if self.kind == "double":
            return data[:end] + data[at:]
        if self.kind == "flip":
            return data[:at] + bytes([self.amount % 256]) + data[at + 1 :]
        if self.kind == "zero":
            return data[:at] + bytes(len(data[at:end])) + data[end:]
        return data[:at] + data[end:]


def whole_files() -> dict[str, bytes]:
    """Every format that is read, by name, of 1.5 s."""
    kinds = [
        ("WAV", "PCM_16"),
        ("WAV", "PCM_U8"),
        ("WAV", "FLOAT"),
        ("WAV", "GSM610"),
        ("WAV", "IMA_ADPCM"),
        ("WAVEX", "PCM_24"),
        ("RF64", "PCM_16"),
        ("W64", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("CAF", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ]
    files = {f"{format} {subtype}": _encoded(format, subtype) for format, subtype in kinds}
    mp3 = files["MP3 MPEG_LAYER_III"]
    files["MP3 untagged"] = untagged = mp3[mp3.index(mp3[:2], 4) :]
    files["MP3 in WAV"] = _mp3_in_wav(untagged)
    for name in ("FLAC PCM_16", "OGG VORBIS", "MP3 untagged"):
        files[f"{name}, two joined"] = files[name] * 2
    return files


def _encoded(format: str, subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sweep(RATE, SECONDS, 2 if subtype == "PCM_24" else 1), RATE, subtype, format=format)
    return file.getvalue()


def _mp3_in_wav(frames: bytes) -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 0x55, 1, RATE, 4000, 1, 0)
    return b"RIFF\0\0\0\0WAVE" + form + struct.pack("<4sI", b"data", len(frames)) + frames
