"""What the API takes beside paths: arrays of any library and shape, pairs, bytes, files; values and rates."""

import io
import warnings

import numpy as np
import pytest
import soundfile

from ltbm.runtime.sound.messages import AudioWarning
from ltbm.runtime.stages.audio import load_audio
from tests.support.sound_files import sweep

RATE = 16_000
X = sweep(RATE, 1.0)[:, 0].astype(np.float32)


class Foreign:
    """An array of another library."""

    shape = X.shape

    def __array__(self, dtype=None, copy=None):
        return X


def wav_bytes() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, X, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.mark.parametrize(
    "source",
    [
        X[None],
        X[:, None],
        X.astype(np.float64),
        Foreign(),
        (X, RATE),
        (RATE, X),
        {"array": X, "sampling_rate": RATE, "path": None},
        wav_bytes(),
        bytearray(wav_bytes()),
        memoryview(wav_bytes()),
        io.BytesIO(wav_bytes()),
    ],
    ids=lambda source: type(source).__name__,
)
def test_what_is_taken(source):
    assert np.array_equal(load_audio(source, RATE), X)


def test_torch_tensors_are_taken():
    torch = pytest.importorskip("torch")
    for tensor in (torch.tensor(X), torch.tensor(X)[None], torch.tensor(X, requires_grad=True)):
        assert np.array_equal(load_audio(tensor, RATE), X)
    with pytest.raises(ValueError, match="Tensor does not become a numpy array.*float32"):
        load_audio(torch.tensor(X).bfloat16(), RATE)


def test_the_rate_of_a_pair_is_its_own():
    assert len(load_audio((X, 8_000), RATE)) == 2 * RATE
    assert len(load_audio({"array": X, "sampling_rate": 32_000}, RATE)) == RATE // 2


@pytest.mark.parametrize("dtype,full_scale", [(np.int16, 2**15), (np.int32, 2**31)])
def test_integers_are_full_scale_pcm(dtype, full_scale):
    assert load_audio(np.array([full_scale // 2], dtype), RATE)[0] == 0.5


@pytest.mark.parametrize(
    "source,error,words",
    [
        (
            np.zeros((2, RATE), np.float32),
            ValueError,
            r"\(2, 16000\).*looks like \[channels, samples\].*transpose",
        ),
        (np.zeros((1, 1, RATE), np.float32), ValueError, r"expected \[samples\] or \[samples, channels\]"),
        (np.float32(0.5) * np.ones(()), ValueError, "shape"),
        (np.zeros(RATE, np.int64), ValueError, "type int64.*int16 or int32"),
        (np.zeros(RATE, np.uint8), ValueError, "type uint8"),
        (np.zeros(RATE, bool), ValueError, "type bool"),
        (np.zeros(RATE, complex), ValueError, "type complex128"),
        (0.5, TypeError, "audio of type float is not taken: give a path, bytes"),
        (None, TypeError, "NoneType is not taken"),
        (io.StringIO("text"), TypeError, "opened as text"),
    ],
)
def test_what_is_not_taken_says_what_came_and_what_is(source, error, words):
    with pytest.raises(error, match=words):
        load_audio(source, RATE)


def test_a_file_read_to_its_end_says_so():
    file = io.BytesIO()
    file.write(wav_bytes())
    with pytest.raises(ValueError, match=r"at its end.*seek\(0\)"):
        load_audio(file, RATE)


@pytest.mark.parametrize("scale", [32_768, 2**31, 1e30])
def test_integer_values_as_floats_are_refused(scale):
    with pytest.raises(ValueError, match="reaches .*within -1 and 1: divide"):
        load_audio((X * np.float32(scale)), RATE)


def test_integer_values_in_a_float_file_are_refused():
    file = io.BytesIO()
    soundfile.write(file, X * 32_768, RATE, format="WAV", subtype="FLOAT")
    with pytest.raises(ValueError, match="the audio bytes reaches"):
        load_audio(file.getvalue(), RATE)


def test_a_loud_array_is_taken_with_a_warning():
    with pytest.warns(AudioWarning, match="reaches 4.*is its scale right"):
        load_audio(X / np.abs(X).max() * 4, RATE)


def test_16_bit_values_as_int32_are_taken_with_a_warning():
    with pytest.warns(AudioWarning, match="give them as int16"):
        load_audio((X * 32_767).astype(np.int32), RATE)


def test_values_that_overshoot_a_little_are_taken():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_audio(X / np.abs(X).max() * 1.4, RATE)


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), 0, -16_000, True, "16000", 10**9, 999])
def test_rates_that_are_none_are_refused(rate):
    with pytest.raises(ValueError, match="audio rate .*(is not a number of Hz|is not between)"):
        load_audio(X, RATE, rate)
    with pytest.raises(ValueError, match="sampling rate"):
        load_audio(X, rate)


def test_a_session_takes_a_pair_as_one_audio_and_a_list_as_several(pipeline):
    assert len(pipeline.segments((X, RATE))) == 1
    assert len(pipeline.segments([X, (X, RATE), wav_bytes()])) == 3
    assert len(pipeline.segments((X, X))) == 2
    assert len(pipeline.segments(wav_bytes())) == 1


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), 0])
def test_a_session_refuses_rates_that_are_none(session, rate):
    with pytest.raises(ValueError, match="audio rate"):
        session.generate(X, "hm ?", sampling_rate=rate)
