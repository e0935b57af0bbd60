"""A small folder laid out as public recordings are: tones, bursts and hiss in place of sounds."""

from pathlib import Path

import numpy as np
import soundfile

ESC10 = ("dog_bark", "rooster", "person_sneeze", "rain", "sea_waves")
FOLDS = (1, 2, 4, 5)
TAKES = (0, 9, 10, 49)
RATE = 16_000  # Hz
SPOKEN_RATE = 8_000  # Hz
SAMPLES = "debian/usr/share/sonic-pi/samples"
DRUMS = ("bd_ada", "bd_boom", "bd_fat", "bd_gas", "bd_haus")


def write_recordings(folder: Path) -> Path:
    """Ten recordings of each kind; every one is another sound, so that two can be told apart."""
    rng = np.random.default_rng(0)
    for name in ESC10:
        (folder / "esc10" / name).mkdir(parents=True)
        for fold in FOLDS:
            wave = _hiss(rng, 5.0) if name in ("rain", "sea_waves") else _bursts(rng)
            soundfile.write(folder / "esc10" / name / f"{fold}-{1000 + fold}-A.ogg", wave, RATE)
    (folder / "fsdd").mkdir()
    for digit in range(10):
        for take in TAKES:
            wave = _tone(200 + 40 * digit, 0.3, SPOKEN_RATE)
            soundfile.write(folder / "fsdd" / f"{digit}_ann_{take}.wav", wave, SPOKEN_RATE)
    (folder / SAMPLES).mkdir(parents=True)
    for number, name in enumerate(DRUMS):
        soundfile.write(folder / SAMPLES / f"{name}.flac", _tone(80 + 20 * number, 0.3, RATE), RATE)
    return folder


def _bursts(rng: np.random.Generator) -> np.ndarray:
    """Three bursts of half a second in digital silence, 5 s in all."""
    wave = np.zeros(5 * RATE)
    for start in (0.5, 2.0, 3.5):
        first = int(start * RATE)
        wave[first : first + RATE // 2] = rng.normal(size=RATE // 2) * 0.1
    return wave


def _hiss(rng: np.random.Generator, seconds: float) -> np.ndarray:
    return rng.normal(size=int(seconds * RATE)) * 0.1


def _tone(hz: float, seconds: float, rate: int) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)
