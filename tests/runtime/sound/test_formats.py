import numpy as np
import pytest
import soundfile

from ltbm.runtime.stages.audio import load_audio

RATE = 16_000


def tone(rate: int, seconds: float = 1.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize(
    "suffix,subtype",
    [("wav", "PCM_16"), ("wav", "FLOAT"), ("flac", "PCM_16"), ("ogg", "VORBIS"), ("mp3", "MPEG_LAYER_III")],
)
@pytest.mark.parametrize("rate,channels", [(16_000, 1), (44_100, 2)])
def test_formats_rates_and_channels(tmp_path, suffix, subtype, rate, channels):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, np.repeat(tone(rate)[:, None], channels, axis=1), rate, subtype=subtype)
    waveform = load_audio(str(path), RATE)
    assert waveform.dtype == np.float32 and waveform.ndim == 1
    assert abs(len(waveform) - RATE) < RATE // 10
    spectrum = np.abs(np.fft.rfft(waveform[:RATE]))
    assert abs(spectrum.argmax() * RATE / min(len(waveform), RATE) - 440) < 3
    assert abs(np.abs(waveform).max() - 0.5) < 0.05


def test_channels_are_averaged():
    stereo = np.stack([np.ones(100), -np.ones(100)], axis=1).astype(np.float32)
    assert np.abs(load_audio(stereo, RATE)).max() == 0


def test_integers_are_full_scale():
    assert load_audio(np.array([16384], np.int16), RATE)[0] == 0.5


def test_resamples_arrays():
    assert len(load_audio(tone(48_000).astype(np.float32), RATE, source_rate=48_000)) == RATE


@pytest.mark.parametrize(
    "content,words", [(b"", "empty file"), (b"hello, this is no sound" * 9, "not readable audio")]
)
def test_refuses_what_is_not_audio(tmp_path, content, words):
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        load_audio(path, RATE)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_refuses_a_truncated_file(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, RATE), RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="truncated|not readable"):
        load_audio(path, RATE)


def test_refuses_zero_length(tmp_path):
    soundfile.write(tmp_path / "clip.wav", np.zeros(0), RATE)
    with pytest.raises(ValueError, match="zero length"):
        load_audio(tmp_path / "clip.wav", RATE)


def test_refuses_nan(tmp_path):
    soundfile.write(tmp_path / "clip.wav", np.array([0.0, np.nan, 0.0]), RATE, subtype="FLOAT")
    with pytest.raises(ValueError, match="NaN"):
        load_audio(tmp_path / "clip.wav", RATE)


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no audio file"):
        load_audio(tmp_path / "clip.wav", RATE)
