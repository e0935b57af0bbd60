"""The recordings that scenes are mixed from: where they lie, and which of them are kept for testing.

A folder of recordings holds esc10/CLASS/FOLD-SOURCE-TAKE.ogg and fsdd/DIGIT_SPEAKER_TAKE.wav, as their
publishers name them, and debian/ with the contents of the Debian packages sonic-pi-samples,
asterisk-moh-opsound-wav and asterisk-core-sounds-en-wav (`dpkg -x PACKAGE.deb debian`). Any may lack.
The folder that ships, SHIPPED, holds those of the packages that are kept for testing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from .sounds import SOUNDS, SPOKEN, VOICE, Sound

SHIPPED = Path(__file__).parent / "recordings"
SAMPLE_RATE = 16_000  # Hz
SPLITS = ("train", "test")
TEST_FOLDS = ("4", "5")  # of ESC-10, whose folds share no source
TEST_TAKES = range(10)  # of the spoken digits; their publisher tests on 0 to 4
TEST_FILES = {  # of the packages' recordings: every fourth of each class by name, and one piece of music
    "drum": {
        "bd_ada",
        "bd_haus",
        "bd_sone",
        "drum_bass_hard",
        "drum_tom_hi_soft",
        "drum_tom_mid_soft",
        "tabla_ghe3",
        "tabla_ghe7",
        "tabla_ke3",
        "tabla_re",
        "tabla_te1",
        "tabla_tun1",
    },
    "cymbal": {"drum_cymbal_hard", "drum_splash_hard"},
    "bell": {"elec_bell", "elec_triangle"},
    "music": {"macroform-robot_dity"},
}

LOUD_S = 0.2  # a sound is as loud as its loudest 0.2 s
FLOOR_DB = -55.0  # under a recording's loudest moment: what is quieter for long is padding
SPEECH_FLOOR_DB = -35.0  # the same for spoken digits
HOP_S = 0.01  # of envelopes


@dataclass(frozen=True)
class Recording:
    """One file of one class."""

    path: Path
    sound: str
    speaker: str = ""  # of spoken digits
    digit: int | None = None

    @cached_property
    def waveform(self) -> np.ndarray:
        """float32 [samples] at SAMPLE_RATE, without what surrounds the sound; loudest moment 1."""
        wave, rate = soundfile.read(self.path, dtype="float32", always_2d=True)
        normal = _normal(_resampled(wave.mean(axis=1), rate))
        return _trimmed(normal, SPEECH_FLOOR_DB if self.speaker else FLOOR_DB)

    @cached_property
    def strokes(self) -> list[np.ndarray]:
        """The single barks, knocks, ... of a counted sound, each of loudest moment 1."""
        sound = SOUNDS[self.sound]
        shortest, longest = sound.stroke_s or (0.0, 0.0)
        cut = [self.waveform[first:last] for first, last in _bursts(self.waveform)]
        whole = [stroke for stroke in cut if shortest <= len(stroke) / SAMPLE_RATE]
        if sound.package:  # each file is one stroke
            whole = [self.waveform]
        return [_normal(_faded(stroke[: int(longest * SAMPLE_RATE)])) for stroke in whole]


Pool = Mapping[str, list[Recording]]  # class -> its recordings, SPOKEN among the classes


def read_pool(folder: Path, split: str) -> Pool:
    """The split's recordings of every class that the folder has."""
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: expected one of {', '.join(SPLITS)}")
    finders: dict[str, Callable[[], Iterator[tuple[Recording, bool]]]] = {SPOKEN: lambda: _spoken(folder)}
    for sound in SOUNDS.values():
        finders[sound.name] = lambda sound=sound: _of_class(folder, sound)
    pool = {}
    for name, find in finders.items():
        chosen = [recording for recording, is_test in find() if is_test == (split == "test")]
        if chosen:
            pool[name] = chosen
    if not pool:
        raise FileNotFoundError(
            f"{folder} has no recording of the {split} split: "
            "expected esc10/CLASS/*.ogg, fsdd/*.wav or debian/"
        )
    return pool


def _of_class(folder: Path, sound: Sound) -> Iterator[tuple[Recording, bool]]:
    """Every recording of a class and whether it is kept for testing."""
    if sound.esc10:
        for path in sorted((folder / "esc10" / sound.esc10).glob("*.ogg")):
            yield Recording(path, sound.name), path.name.split("-")[0] in TEST_FOLDS
    if sound.package:
        for path in sorted((folder / sound.package).glob("*")):
            if path.name.startswith(sound.files) and path.suffix in (".wav", ".flac"):
                yield Recording(path, sound.name), path.stem in TEST_FILES[sound.name]


def _spoken(folder: Path) -> Iterator[tuple[Recording, bool]]:
    """The speakers of fsdd by take; the prompts' voice has one take of each digit, all kept for testing."""
    for path in sorted((folder / "fsdd").glob("*.wav")):
        digit, speaker, take = path.stem.split("_")
        yield Recording(path, SPOKEN, speaker, int(digit)), int(take) in TEST_TAKES
    for digit in range(10):
        path = folder / VOICE / f"{digit}.wav"
        if path.exists():
            yield Recording(path, SPOKEN, "allison", digit), True


def _resampled(wave: np.ndarray, rate: int) -> np.ndarray:
    common = gcd(rate, SAMPLE_RATE)
    return resample_poly(wave, SAMPLE_RATE // common, rate // common).astype(np.float32)


def _envelope(wave: np.ndarray) -> np.ndarray:
    """RMS of each HOP_S [hops]."""
    hop = int(HOP_S * SAMPLE_RATE)
    whole = wave[: len(wave) // hop * hop].reshape(-1, hop).astype(np.float64)
    return np.sqrt((whole**2).mean(axis=1)) + 1e-9


def _normal(wave: np.ndarray) -> np.ndarray:
    """The wave with an RMS of 1 over its loudest LOUD_S."""
    power = _envelope(wave) ** 2
    hops = max(1, min(round(LOUD_S / HOP_S), len(power)))
    means = np.convolve(power, np.ones(hops) / hops, mode="valid") if len(power) else np.ones(1)
    return (wave / np.sqrt(max(means.max(), 1e-12))).astype(np.float32)


def _trimmed(wave: np.ndarray, below_db: float = FLOOR_DB) -> np.ndarray:
    envelope = _envelope(wave)
    loud = np.flatnonzero(envelope > envelope.max() * 10 ** (below_db / 20))
    hop = int(HOP_S * SAMPLE_RATE)
    return wave[loud[0] * hop : (loud[-1] + 1) * hop] if len(loud) else wave


def _bursts(wave: np.ndarray, below_db: float = -22.0, gap_s: float = 0.09) -> list[tuple[int, int]]:
    """(first, last) sample of each run within `below_db` of the loudest moment, gaps up to gap_s bridged."""
    smooth = np.convolve(_envelope(wave), np.ones(3) / 3, mode="same")
    loud = np.flatnonzero(smooth > smooth.max() * 10 ** (below_db / 20))
    if not len(loud):
        return []
    breaks = np.flatnonzero(np.diff(loud) > gap_s / HOP_S)
    firsts = loud[np.concatenate([[0], breaks + 1])]
    lasts = loud[np.concatenate([breaks, [len(loud) - 1]])] + 1
    hop = int(HOP_S * SAMPLE_RATE)
    return [(max(0, int(a) - 1) * hop, (int(b) + 3) * hop) for a, b in zip(firsts, lasts)]


def _faded(wave: np.ndarray, out_s: float = 0.03) -> np.ndarray:
    out = min(len(wave) // 2, int(out_s * SAMPLE_RATE))
    faded = wave.copy()
    faded[: out // 8] *= np.linspace(0, 1, out // 8, dtype=np.float32)
    if out:
        faded[-out:] *= np.linspace(1, 0, out, dtype=np.float32)
    return faded
