"""Files as other programs leave them: tags and metadata around the sound, streams joined, sizes of a pipe."""

import io
import struct

import numpy as np
import pytest
import soundfile

from ltbm.runtime.sound.messages import AudioWarning, UnreadError
from ltbm.runtime.stages import audio
from ltbm.runtime.stages.audio import load_audio
from tests.support.sound_files import correlation, ffmpeg_samples, needs_ffmpeg, shell, sweep, write_wav

RATE = 16_000
SAMPLES = 2 * RATE
HEADER = 44  # bytes of the plainest WAV
ID3V1 = b"TAG" + bytes(125)
ID3V2 = b"ID3\3\0\0\0\0\0\x64" + bytes(100)
NOISE = np.random.default_rng(0).bytes(5000)


def encoded(format: str, rate: int = RATE, channels: int = 1, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sweep(rate, 2.0, channels), rate, format=format, **options)
    return file.getvalue()


def wav(before: bytes = b"", after: bytes = b"", lost: int = 0) -> bytes:
    """A WAV of 2 s less `lost` bytes with chunks around its samples, as programs write them."""
    sound = encoded("WAV", subtype="PCM_16")[HEADER:]
    sound = sound[: len(sound) - lost]
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    body = b"WAVE" + before + form + struct.pack("<4sI", b"data", len(sound)) + sound + after
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def chunk(name: bytes, size: int, content: bytes) -> bytes:
    return struct.pack("<4sI", name, size) + content


@pytest.mark.parametrize(
    "data,samples",
    [
        (wav(before=chunk(b"JUNK", 28, bytes(28))), SAMPLES),
        (wav(before=chunk(b"bext", 602, bytes(602)) + chunk(b"LIST", 5, b"INFOx\0")), SAMPLES),
        (wav(after=chunk(b"id3 ", 900_000, NOISE)), SAMPLES),  # cut
        (wav(after=chunk(b"id3 ", 10, NOISE)), SAMPLES),  # its size is wrong
        (wav(after=chunk(b"LIST", 4, b"INFO") + bytes(2000)), SAMPLES),
        (wav(after=chunk(b"LIST", 4, b"INFO") + bytes(2000), lost=1), SAMPLES - 1),  # no byte between
    ],
)
@pytest.mark.filterwarnings("error::ltbm.runtime.sound.messages.AudioWarning")
def test_metadata_of_a_wav_is_no_sound(data, samples):
    assert len(load_audio(data, RATE)) == samples


def test_zeros_that_fill_a_block_are_left_out_with_a_warning():
    with pytest.warns(AudioWarning, match="has 30000 zeros after its samples"):
        assert len(load_audio(wav(after=bytes(30_000)), RATE)) == SAMPLES


@pytest.mark.parametrize("format", ["FLAC", "MP3"])
@pytest.mark.parametrize("after", [ID3V1, b"ape", b"ape" + ID3V1])
@pytest.mark.filterwarnings("error::ltbm.runtime.sound.messages.AudioWarning")
def test_tags_around_the_sound_are_none(format, after):
    item = b"\x01\0\0\0\0\0\0\0Title\0x"
    footer = b"APETAGEX" + struct.pack("<IIII8x", 2000, len(item) + 32, 1, 0)
    plain = load_audio(encoded(format), RATE)
    tagged = ID3V2 + encoded(format) + after.replace(b"ape", item + footer)
    assert np.array_equal(load_audio(tagged, RATE), plain)


@pytest.mark.parametrize("format,kind", [("WAV", "WAV"), ("AIFF", "AIFF"), ("OGG", "Ogg")])
def test_what_has_a_foreign_tag_before_it_is_named(monkeypatch, format, kind):
    monkeypatch.setattr(audio, "has_media", lambda: False)
    with pytest.raises(UnreadError, match=f"ID3-tagged {kind} audio, which is not read.*ffmpeg"):
        load_audio(ID3V2 + encoded(format), RATE)


def untagged_mp3(**options) -> bytes:
    data = encoded("MP3", **options)
    return data[data.index(data[:2], 4) :]


def test_an_mp3_that_begins_within_a_frame_is_read_with_a_warning():
    whole = untagged_mp3()
    with pytest.warns(AudioWarning, match=r"has \d+ bytes before its first MP3 frame: left out"):
        cut = load_audio(whole[50:], RATE)
    assert len(load_audio(whole, RATE)) - len(cut) == 576  # the frame that was cut


def test_zeros_before_an_mp3_are_none():
    whole = encoded("MP3")
    assert np.array_equal(load_audio(bytes(3000) + whole, RATE), load_audio(whole, RATE))


@pytest.mark.parametrize("rate,channels", [(44_100, 1), (RATE, 2)])
def test_joined_mp3_streams_of_two_kinds_are_refused(rate, channels):
    """A decoder stops at the second, or reads it as the first."""
    data = untagged_mp3() + untagged_mp3(rate=rate, channels=channels)
    kinds = f"layer 3, 16000 Hz, mono; layer 3, {rate} Hz, {'mono' if channels == 1 else 'stereo'}"
    with pytest.raises(ValueError, match=f"joined of MP3 streams of two kinds .{kinds}.*ffmpeg"):
        load_audio(data, RATE)


@needs_ffmpeg
@pytest.mark.parametrize(
    "name,command",
    [
        ("a.aiff", "sox in.wav -t aiff - | cat > a.aiff"),
        ("b.aiff", "ffmpeg -i in.wav -f aiff - | cat > b.aiff"),
        ("a.au", "sox in.wav -t au - | cat > a.au"),
        ("a.caf", "ffmpeg -i in.wav -f caf - | cat > a.caf"),
        ("a.w64", "ffmpeg -i in.wav -f w64 - | cat > a.w64"),
        ("rf64.wav", "ffmpeg -i in.wav -rf64 always -f wav - | cat > rf64.wav"),
        ("mulaw.wav", "ffmpeg -i in.wav -c:a pcm_mulaw -f wav - | cat > mulaw.wav"),
    ],
)
@pytest.mark.filterwarnings("error::ltbm.runtime.sound.messages.AudioWarning")
def test_what_was_written_to_a_pipe_is_read_to_its_end(tmp_path, name, command):
    write_wav(tmp_path / "in.wav", RATE, 2.0, 2)
    shell(command, tmp_path)
    ours = load_audio(tmp_path / name, RATE)
    assert len(ours) == SAMPLES
    assert correlation(ours, ffmpeg_samples(tmp_path / "in.wav", 2).mean(axis=1)) > 0.999


@pytest.mark.parametrize("name", ["nul\0.wav", "\ud800.wav", "https://example.org/a.wav"])
def test_names_that_no_file_has(name):
    with pytest.raises(FileNotFoundError, match="no audio file"):
        load_audio(name, RATE)
