"""m4a, aac, webm and the like through PyAV, against ffmpeg."""

import pytest

from ltbm.runtime.sound.limits import TooLongError
from ltbm.runtime.stages.audio import load_audio
from tests.support.sound_files import correlation, ffmpeg_samples, needs_ffmpeg, shell, write_wav

pytest.importorskip("av", reason="PyAV is not installed: pip install '.[media]'")
pytestmark = needs_ffmpeg
FRAME = 2048  # samples of the longest AAC frame
RATE = 48_000


@pytest.mark.parametrize(
    "name,options",
    [
        ("a.m4a", "-c:a aac"),
        ("a.aac", "-c:a aac"),
        ("a.webm", "-c:a libopus"),
        ("a.mka", "-c:a pcm_s16le"),
        ("flac.ogg", "-c:a flac"),
        ("a.wma", "-c:a wmav2"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_the_same_samples_as_ffmpeg(tmp_path, name, options, channels):
    write_wav(tmp_path / "in.wav", RATE, 3.0, channels)
    shell(f"ffmpeg -i in.wav {options} {name}", tmp_path)
    theirs = ffmpeg_samples(tmp_path / name, channels).mean(axis=1)
    ours = load_audio(tmp_path / name, RATE)
    assert abs(len(ours) - len(theirs)) <= FRAME
    assert correlation(ours, theirs) > 0.999


def test_a_long_file_is_refused_by_its_header(tmp_path):
    write_wav(tmp_path / "in.wav", RATE, 4.0)
    shell("ffmpeg -i in.wav a.m4a", tmp_path)
    with pytest.raises(TooLongError, match="its header says about"):
        load_audio(tmp_path / "a.m4a", RATE, max_seconds=2)


def test_what_is_damaged_is_refused(tmp_path):
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(400))
    with pytest.raises(ValueError, match="a.m4a is not readable audio"):
        load_audio(tmp_path / "a.m4a", RATE)
