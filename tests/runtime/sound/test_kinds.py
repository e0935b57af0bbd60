"""Files that cannot be read say which, why, and what to do; names of any bytes are taken."""

import io
import os

import numpy as np
import pytest
import soundfile

from ltbm.runtime.sound.messages import UnreadError
from ltbm.runtime.stages import audio
from ltbm.runtime.stages.audio import load_audio
from tests.support.sound_files import sweep

RATE = 16_000
OGG_PAGE = b"OggS\0\2" + bytes(20) + b"\1\x40"  # the first page of a stream, of 64 bytes


@pytest.mark.parametrize(
    "name,beginning,words",
    [
        ("a.m4a", b"\0\0\0\x20ftypM4A ", "a.m4a is MP4"),
        ("a.aac", b"\xff\xf1\x60\x40", "a.aac is AAC"),
        ("a.webm", b"\x1a\x45\xdf\xa3", "a.webm is WebM or Matroska"),
        ("a.amr", b"#!AMR\n", "a.amr is AMR"),
        ("a.wma", b"\x30\x26\xb2\x75\x8e\x66", "a.wma is WMA"),
        ("a.ogg", OGG_PAGE + b"\x7fFLAC\1\0", "a.ogg is Ogg FLAC"),
        ("a.spx", OGG_PAGE + b"Speex   ", "a.spx is Speex"),
    ],
)
def test_what_is_not_read_names_the_command_that_converts_it(tmp_path, monkeypatch, name, beginning, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(audio, "has_media", lambda: False)
    (tmp_path / name).write_bytes(beginning.ljust(400, b"\0"))
    with pytest.raises(UnreadError, match=f"{words}.*not read.*ffmpeg -i {name} out.wav"):
        load_audio(name, RATE)


@pytest.mark.parametrize(
    "name,content,words",
    [
        ("a.raw", b"\1\2" * 999, "raw PCM, which does not say its rate.*ffmpeg -f s16le"),
        ("a.pcm", b"\1\2" * 999, "raw PCM"),
        (
            "a.wav",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "git-lfs pointer.*git lfs pull",
        ),
        ("a.wav", b"<!DOCTYPE html><html></html>" * 9, "not readable audio.*begins with b'<!DOCTYPE"),
        ("a.flac", b"fLaC\7\7\7\7" * 9, "FLAC header is damaged"),
        ("a.wav", b"RIFF\0\0\0\0WAVEjunk\4\0\0\0abcd", "no chunk of samples"),
        ("a.mp3", b"ID3\4\0\0\0\0\0\0" + bytes(99), "no MP3 frame"),
    ],
)
def test_what_is_no_sound_says_so(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}.*{words}"):
        load_audio(tmp_path / name, RATE)


def test_a_folder_is_named_as_one(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        load_audio(tmp_path, RATE)


def test_gsm_in_a_wav_and_alone_is_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", sweep(8_000, 2.0), 8_000, subtype="GSM610")
    in_wav = load_audio(tmp_path / "a.wav", 8_000)
    assert abs(len(in_wav) - 16_000) <= 320  # whole blocks
    options = dict(format="RAW", subtype="GSM610")
    soundfile.write(tmp_path / "a.gsm", sweep(8_000, 2.0), 8_000, **options)
    alone = load_audio(tmp_path / "a.gsm", 8_000)
    assert np.corrcoef(in_wav[:16_000], alone[:16_000])[0, 1] > 0.999


def test_a_name_that_is_not_utf8(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"\xff\xfe name.wav")
    data = io.BytesIO()
    soundfile.write(data, sweep(RATE, 1.0), RATE, format="WAV")
    with open(path, "wb") as file:
        file.write(data.getvalue())
    assert len(load_audio(os.fsdecode(path), RATE)) == RATE


@pytest.mark.parametrize("rate", [1, 999, 2_000_000_000])
def test_a_rate_that_no_recorder_has_is_refused(rate):
    data = io.BytesIO()
    soundfile.write(data, sweep(RATE, 1.0), RATE, format="WAV", subtype="PCM_16")
    changed = bytearray(data.getvalue())
    changed[24:28] = rate.to_bytes(4, "little")
    with pytest.raises(ValueError, match=f"{rate} Hz is not between 1000 and 768000 Hz"):
        load_audio(bytes(changed), RATE)
