"""Headers that do not know their length: all samples are read, or the file is refused with what is there."""

import io
import re
import struct
import warnings

import numpy as np
import pytest
import soundfile

from ltbm.runtime.sound.messages import AudioWarning
from ltbm.runtime.stages.audio import load_audio
from tests.support.sound_files import needs_ffmpeg, shell, sweep

RATE = 16_000
SAMPLES = 2 * RATE
WAV_HEADER = 44  # bytes of the plainest WAV
FRAME = 576  # samples of an MP3 frame at 16 kHz


@pytest.fixture(autouse=True)
def warnings_are_errors():
    """Where a test does not expect a warning there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", AudioWarning)
        yield


def encoded(format: str, subtype: str | None = None, seconds: float = 2.0) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sweep(RATE, seconds), RATE, format=format, subtype=subtype)
    return file.getvalue()


def wav(size: int, sound: bytes | None = None, after: bytes = b"") -> bytes:
    """A WAV of 2 s whose header says that its sound has `size` bytes."""
    sound = encoded("WAV", "PCM_16")[WAV_HEADER:] if sound is None else sound
    form = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 0, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return form + struct.pack("<4sI", b"data", size % 2**32) + sound + after


def untagged_mp3(seconds: float = 2.0) -> tuple[bytes, int]:
    """An MP3 without the frame that counts the others; how many those are, as its encoder counted them."""
    data = encoded("MP3", seconds=seconds)
    tag = re.search(rb"Xing|Info", data).start()
    count = int.from_bytes(data[tag + 8 : tag + 12], "big")
    second = data.index(data[:2], 4)  # the sync word comes again with the next frame
    return data[second:], count


# --- a decoder's estimate


def test_an_mp3_without_a_count_is_read_to_its_end():
    data, frames = untagged_mp3()
    assert len(load_audio(data, RATE)) == frames * FRAME


def test_the_estimate_of_a_variable_bit_rate_is_not_trusted():
    """A decoder estimates from the first frames, which are small or large beside the others."""
    quiet, first = untagged_mp3()
    file = io.BytesIO()
    loud = np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLES)
    soundfile.write(file, loud, RATE, format="MP3", compression_level=0.0, bitrate_mode="CONSTANT")
    data = file.getvalue()
    tag = re.search(rb"Xing|Info", data).start()
    second = int.from_bytes(data[tag + 8 : tag + 12], "big")
    loud_frames = data[data.index(data[:2], 4) :]
    for joined in (quiet + loud_frames, loud_frames + quiet):
        assert abs(len(load_audio(joined, RATE)) - (first + second) * FRAME) <= 2 * FRAME


def test_joined_mp3_files_are_read_to_the_end():
    data = encoded("MP3")
    assert abs(len(load_audio(data + data, RATE)) - 2 * SAMPLES) <= 6 * FRAME  # their delays and padding


@pytest.mark.parametrize("format,subtype", [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16")])
def test_joined_files_are_read_to_the_end(format, subtype):
    data = encoded(format, subtype)
    one = load_audio(data, RATE)
    both = load_audio(data + data, RATE)
    assert len(one) == SAMPLES and len(both) == 2 * SAMPLES
    assert np.array_equal(both[SAMPLES:], one)


def test_joined_files_of_two_rates_are_refused():
    other = io.BytesIO()
    soundfile.write(other, sweep(8_000, 1.0), 8_000, format="FLAC")
    with pytest.raises(ValueError, match="joined of parts at 16000 and 8000 Hz"):
        load_audio(encoded("FLAC") + other.getvalue(), RATE)


def test_mp3_in_a_wav_is_read_to_its_end():
    frames, count = untagged_mp3()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 0x55, 1, RATE, 4000, 1, 0)
    data = b"RIFF\0\0\0\0WAVE" + form + struct.pack("<4sI", b"data", len(frames)) + frames
    assert len(load_audio(data, RATE)) == count * FRAME


def test_a_cut_mp3_says_how_many_frames_are_there():
    data = encoded("MP3")
    with pytest.raises(
        ValueError, match=r"truncated or damaged: its header promises \d+ MP3 frames, it holds"
    ):
        load_audio(data[: len(data) // 2], RATE)


def with_flac_total(data: bytes, total: int) -> bytes:
    changed = bytearray(data)
    changed[21] &= 0xF0
    changed[22:26] = total.to_bytes(4, "big")
    return bytes(changed)


def test_a_flac_from_a_pipe_is_read():
    assert len(load_audio(with_flac_total(encoded("FLAC"), 0), RATE)) == SAMPLES


def test_a_flac_with_more_samples_than_its_header_counts_is_read_with_a_warning():
    with pytest.warns(AudioWarning, match="holds 32000 samples, its header counts 1000; all of them"):
        assert len(load_audio(with_flac_total(encoded("FLAC"), 1000), RATE)) == SAMPLES


def test_a_flac_with_fewer_samples_than_its_header_counts_is_refused():
    with pytest.raises(ValueError, match="promises 99000 samples, it holds 32000"):
        load_audio(with_flac_total(encoded("FLAC"), 99_000), RATE)


def test_an_ogg_without_its_end_is_read_with_a_warning():
    data = encoded("OGG", "VORBIS", 8.0)
    with pytest.warns(AudioWarning, match="does not end with a last Ogg page"):
        assert RATE < len(load_audio(data[: len(data) * 3 // 4], RATE)) < 8 * RATE


@needs_ffmpeg
@pytest.mark.parametrize(
    "command,samples",
    [  # counted by ffmpeg 5.1; clip02 has 98,560 samples at 16 kHz
        ("ffmpeg -i $C -ar 44100 -ac 2 -b:a 128k -f mp3 - | cat > out", 273_024),
        ("ffmpeg -i $C -q:a 4 -write_xing 0 -f mp3 out", 100_224),
        ("ffmpeg -i $C -c:a libmp3lame -f wav out", 100_224),
        ("ffmpeg -i $C -f ogg a && cat a a > out", 2 * 98_560),
        ("ffmpeg -i $C -f flac - | cat > out", 98_560),
        ("ffmpeg -i $C -f wav - | cat > out", 98_560),
        ("ffmpeg -i $C base.wav && sox base.wav -t wav - speed 1 | cat > out", 98_560),
        ("ffmpeg -i $C base.wav && sox base.wav -e gsm -r 8000 -t wav out", 49_280),
    ],
)
def test_a_clip_as_ffmpeg_and_sox_write_it(tmp_path, demo_clip, command, samples):
    shell(f"C={demo_clip}; {command}", tmp_path)
    rate = soundfile.info(tmp_path / "out").samplerate
    assert len(load_audio(tmp_path / "out", rate)) == samples


# --- the size in a WAV's header


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFF000 - 36, 0x7FFFFFFF - 44])
def test_a_placeholder_means_to_the_end_of_the_file(size):
    waveform = load_audio(wav(size), RATE)
    assert np.array_equal(waveform, load_audio(encoded("WAV", "PCM_16"), RATE))
    assert len(waveform) == SAMPLES


@pytest.mark.parametrize("excess", [1, 2, 8, 36, 44])
def test_a_header_that_says_some_bytes_too_many_plays_with_a_warning(excess):
    with pytest.warns(AudioWarning, match=f"{excess} bytes shorter than its header says"):
        assert len(load_audio(wav(2 * SAMPLES + excess), RATE)) == SAMPLES


@pytest.mark.parametrize("lack", [2, 8, 44])
def test_a_header_that_says_some_bytes_too_few_plays_with_a_warning(lack):
    with pytest.warns(AudioWarning, match=f"{lack} bytes after its samples"):
        assert len(load_audio(wav(2 * SAMPLES - lack), RATE)) == SAMPLES - lack // 2


@pytest.mark.parametrize("field,value", [(32, 0xFC02), (32, 0), (32, 3)])
def test_a_wrong_block_size_in_a_header_does_not_matter(field, value):
    data = bytearray(wav(2 * SAMPLES))
    data[field : field + 2] = value.to_bytes(2, "little")
    assert len(load_audio(bytes(data), RATE)) == SAMPLES


def test_a_cut_wav_is_refused():
    data = wav(2 * SAMPLES)
    with pytest.raises(ValueError, match="truncated.*promises 64000 bytes of sound, it holds 32000"):
        load_audio(data[:-SAMPLES], RATE)


def test_a_recording_that_was_not_closed_is_refused_with_the_next_step():
    with pytest.raises(ValueError, match="holds 62000 bytes after the 2000 bytes.*sox --ignore-length"):
        load_audio(wav(2000), RATE)


def test_joined_wav_files_are_refused_with_the_next_step():
    with pytest.raises(ValueError, match="sox a.wav b.wav out.wav"):
        load_audio(wav(2 * SAMPLES) + wav(2 * SAMPLES), RATE)


def test_chunks_after_the_samples_are_no_sound():
    after = struct.pack("<4sI", b"LIST", 4) + b"INFO"
    assert len(load_audio(wav(2 * SAMPLES, after=after), RATE)) == SAMPLES
    with pytest.raises(ValueError, match="zero length"):
        load_audio(wav(0, sound=b"", after=after), RATE)


@pytest.mark.parametrize("format", ["W64", "AIFF", "AU", "RF64"])
def test_other_formats_that_are_cut_are_refused(format):
    data = encoded(format, "PCM_16")
    with pytest.raises(ValueError, match="truncated"):
        load_audio(data[: len(data) // 2], RATE)
