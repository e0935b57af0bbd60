"""What `load_audio` reads is what ffmpeg reads: the same number of samples, the same sound."""

from dataclasses import dataclass

import pytest

from ltbm.runtime.stages.audio import load_audio
from tests.support.sound_files import correlation, ffmpeg_samples, needs_ffmpeg, shell, write_wav

pytestmark = [needs_ffmpeg, pytest.mark.filterwarnings("ignore::ltbm.runtime.sound.messages.AudioWarning")]
FRAME = 1152  # samples of the longest MP3 frame
LOWEST_CORRELATION = 0.999


@dataclass(frozen=True)
class Case:
    """A file: the commands that make it from in.wav; the rate and channels it then has.

    padding: samples by which the two decoders may differ, of MP3 alone (its delay and padding)
    """

    name: str
    command: str
    rate: int = 16_000
    channels: int = 1
    seconds: float = 2.0
    padding: int = 0


def encoded(name: str, options: str, rate=16_000, channels=1, seconds=2.0, padding=0) -> Case:
    return Case(name, f"ffmpeg -y -i in.wav {options} {name}", rate, channels, seconds, padding)


CASES = [
    encoded("u8.wav", "-c:a pcm_u8", seconds=1.0),
    encoded("s16.wav", "-c:a pcm_s16le", 8_000),
    encoded("s16_11025.wav", "-c:a pcm_s16le", 11_025, 2),
    encoded("s16_96000.wav", "-c:a pcm_s16le", 96_000, 2),
    encoded("short.wav", "-c:a pcm_s16le", 44_100, 1, 0.05),
    encoded("odd.wav", "-c:a pcm_u8", 8_000, 1, 1.000125),
    encoded("long.wav", "-c:a pcm_s16le", 48_000, 2, 95.0),  # several blocks
    encoded("s24.wav", "-c:a pcm_s24le", 44_100, 2),
    encoded("s32.wav", "-c:a pcm_s32le", 48_000, 1),
    encoded("f32.wav", "-c:a pcm_f32le", 22_050, 2),
    encoded("f64.wav", "-c:a pcm_f64le", 32_000, 1),
    encoded("six.wav", "-c:a pcm_s16le", 48_000, 6),
    encoded("alaw.wav", "-c:a pcm_alaw", 8_000),
    encoded("mulaw.wav", "-c:a pcm_mulaw", 8_000, 2),
    encoded("ima.wav", "-c:a adpcm_ima_wav", 22_050),
    encoded("ms.wav", "-c:a adpcm_ms", 22_050, 2),
    encoded("bext.wav", "-write_bext 1 -metadata title=sweep", 48_000),
    encoded("rf64.wav", "-rf64 always", 48_000, 2),
    encoded("mp3_in.wav", "-c:a libmp3lame", 44_100, 2, padding=FRAME),
    encoded("a.w64", "", 44_100, 2),
    encoded("a.aiff", "", 44_100, 2),
    encoded("a.au", "", 22_050),
    encoded("a.caf", "", 48_000),
    Case("gsm.wav", "sox in.wav -e gsm-full-rate gsm.wav", 8_000),
    Case("a.gsm", "sox in.wav a.gsm", 8_000),
    Case("big_endian.wav", "sox -B in.wav big_endian.wav", 44_100, 2),
    Case("extensible.wav", "sox in.wav -b 24 extensible.wav", 48_000, 4),
    Case("sox_pipe.wav", "sox in.wav -t wav - speed 1 | cat > sox_pipe.wav", 44_100, 2),
    Case("ffmpeg_pipe.wav", "ffmpeg -i in.wav -f wav - | cat > ffmpeg_pipe.wav", 44_100, 2),
    encoded("s16.flac", "", 44_100, 2, 7.3),
    encoded("s24.flac", "-sample_fmt s32 -bits_per_raw_sample 24", 96_000),
    Case("pipe.flac", "ffmpeg -i in.wav -f flac - | cat > pipe.flac", 16_000, 2),
    Case("sox.flac", "sox in.wav -C 8 sox.flac", 8_000),
    encoded("low.ogg", "-c:a libvorbis -q:a 1", 16_000, 1, 7.3),
    encoded("high.ogg", "-c:a libvorbis -q:a 8", 44_100, 2),
    encoded("opus.ogg", "-c:a libopus -b:a 64k", 48_000, 1),
    encoded("a.opus", "-c:a libopus -b:a 96k", 48_000, 2, 7.3),
    Case("pipe.ogg", "ffmpeg -i in.wav -c:a libvorbis -f ogg - | cat > pipe.ogg", 22_050),
    encoded("cbr.mp3", "-b:a 128k", 44_100, 2, padding=FRAME),
    encoded("vbr.mp3", "-q:a 4", 48_000, 2, 7.3, padding=FRAME),
    encoded("low.mp3", "-b:a 32k", 16_000, 1, 7.3, padding=FRAME),
    encoded("mpeg25.mp3", "-b:a 24k", 8_000, padding=FRAME),
    encoded("untagged_cbr.mp3", "-b:a 96k -write_xing 0", 32_000, 2, padding=FRAME),
    encoded("untagged_vbr.mp3", "-q:a 2 -write_xing 0", 16_000, 1, 31.0, padding=FRAME),
    encoded("id3v1.mp3", "-q:a 4 -write_xing 0 -write_id3v1 1 -metadata title=a", 22_050, padding=FRAME),
    Case("pipe.mp3", "ffmpeg -i in.wav -b:a 128k -f mp3 - | cat > pipe.mp3", 44_100, 2, padding=FRAME),
    Case(
        "joined.mp3",
        "ffmpeg -i in.wav -q:a 4 -write_xing 0 -id3v2_version 0 one.mp3 && cat one.mp3 one.mp3 > joined.mp3",
        44_100,
        padding=FRAME,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_samples_as_ffmpeg(tmp_path, case):
    write_wav(tmp_path / "in.wav", case.rate, case.seconds, case.channels)
    shell(case.command, tmp_path)
    theirs = ffmpeg_samples(tmp_path / case.name, case.channels).mean(axis=1)
    ours = load_audio(tmp_path / case.name, case.rate)
    assert abs(len(ours) - len(theirs)) <= case.padding
    assert correlation(ours, theirs) > LOWEST_CORRELATION


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_resampled_as_ffmpeg_does(tmp_path, rate):
    path = write_wav(tmp_path / "in.wav", rate, 3.0)
    theirs = ffmpeg_samples(path, 1, 16_000)[:, 0]
    ours = load_audio(path, 16_000)
    assert abs(len(ours) - len(theirs)) <= 1
    assert correlation(ours, theirs) > LOWEST_CORRELATION


def test_there_are_forty_files():
    assert len(CASES) >= 40
