"""What is too long is refused by its header, before anything is decoded, or as soon as it is too long."""

import io
import os
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile

from ltbm.runtime.sound import decode
from ltbm.runtime.sound.limits import TooLongError
from ltbm.runtime.stages.audio import load_audio
from tests.support.sound_files import sweep

RATE = 16_000
MEGABYTE = 1 << 20


@pytest.fixture
def nothing_is_decoded(monkeypatch):
    def read(*_, **__):
        raise AssertionError("decoded")

    monkeypatch.setattr(decode.Stream, "read", read)


def encoded(format: str, seconds: float, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sweep(RATE, seconds), RATE, format=format, **options)
    return file.getvalue()


def test_a_long_wav_is_refused_by_its_header(tmp_path, nothing_is_decoded):
    path = tmp_path / "long.wav"
    size = 1200 * 48_000 * 4  # 20 min in stereo
    form = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 2, 48_000, 192_000, 4, 16
    )
    path.write_bytes(form + struct.pack("<4sI", b"data", size))
    os.truncate(path, 44 + size)
    tracemalloc.start()
    with pytest.raises(TooLongError, match=r"long.wav is longer than the 30 s .*its header says 1200.0 s"):
        load_audio(path, RATE, max_seconds=30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEGABYTE


@pytest.mark.parametrize("format", ["FLAC", "OGG", "MP3"])
def test_other_long_files_are_refused_by_what_they_count(nothing_is_decoded, format):
    data = encoded(format, 4.0)
    with pytest.raises(TooLongError, match="the audio bytes is longer than the 3 s .*its header says"):
        load_audio(data, RATE, max_seconds=3)


def test_an_mp3_without_a_count_is_refused_before_it_is_decoded(nothing_is_decoded):
    data = encoded("MP3", 4.0)
    with pytest.raises(TooLongError):
        load_audio(data[data.index(data[:2], 4) :], RATE, max_seconds=3)


def test_what_does_not_know_its_length_is_refused_while_it_is_read(monkeypatch):
    monkeypatch.setattr(decode, "BLOCK_VALUES", RATE)
    read = []
    whole = decode.Stream.read
    monkeypatch.setattr(decode.Stream, "read", lambda *a, **k: read.append(1) or whole(*a, **k))
    flac = bytearray(encoded("FLAC", 60.0))
    flac[21] &= 0xF0
    flac[22:26] = bytes(4)
    with pytest.raises(TooLongError, match="at least 4.0 s"):
        load_audio(bytes(flac), RATE, max_seconds=3)
    assert len(read) == 4


def test_each_part_counts():
    data = encoded("FLAC", 2.0)
    assert len(load_audio(data + data, RATE, max_seconds=4)) == 4 * RATE
    with pytest.raises(TooLongError):
        load_audio(data + data, RATE, max_seconds=3)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 32_000, 44_100, 48_000])
def test_exactly_as_long_as_is_taken(rate):
    samples = np.zeros(3 * rate, np.float32)
    assert len(load_audio(samples, RATE, rate, max_seconds=3)) == 3 * RATE
    with pytest.raises(TooLongError, match="it lasts"):
        load_audio(np.zeros(3 * rate + rate // 1000, np.float32), RATE, rate, max_seconds=3)


def test_the_pipeline_says_how_to_take_it_all_the_same(pipeline):
    data = encoded("WAV", 31.0)
    with pytest.raises(ValueError, match="longer than the 30 s the model takes.*--long-audio segments"):
        pipeline.segments(data)
    assert len(pipeline.segments(data, "segments")) == 2


def test_many_blocks_are_one_waveform(monkeypatch):
    data = encoded("WAV", 5.0, subtype="FLOAT")
    whole = load_audio(data, RATE)
    monkeypatch.setattr(decode, "BLOCK_VALUES", 1)
    assert np.array_equal(load_audio(data, RATE), whole)
