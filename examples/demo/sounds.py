"""Sixteen sounds as seeded procedural waveforms.

`render_sound` draws one event's waveform. Counted sounds repeat one pulse 1 to 3 times; sustained sounds last
briefly or for long.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

SAMPLE_RATE = 16_000  # Hz
MAX_COUNT = 3  # pulses of a counted sound
PERIOD_S = (0.36, 0.46)  # seconds from the start of a pulse to the next one's
BRIEF_S = (0.5, 0.9)  # seconds of a brief sustained sound
LONG_S = (1.5, 2.1)  # seconds of a long one: the gap between the two keeps the word unambiguous
RAMP_S = 0.008  # seconds of fade in and out, so that no edge clicks

PITCHES = ("low", "high")
DURATIONS = ("brief", "long")

BELL_PARTIALS = ((1.0, 1.0), (2.0, 0.7), (2.4, 0.5), (3.01, 0.4), (4.2, 0.25))  # (frequency ratio, gain)
CLAP_BURSTS = ((0.0, 0.004), (0.012, 0.004), (0.024, 0.035))  # (seconds of its start, seconds of its decay)
VOWELS_HZ = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
FORMANT_GAINS = (1, 0.6, 0.3)  # of the vowel's three resonances

Range = tuple[float, float]  # least and greatest value of a uniform draw
Render = Callable[[Generator, str | None, float], np.ndarray]  # (rng, pitch, seconds) -> waveform [samples]


@dataclass(frozen=True)
class Sound:
    """One class of sound: how it is drawn and which attributes it has."""

    name: str  # as questions and metrics call it
    render: Render
    pitched: bool  # whether "low" and "high" are told apart
    pulse_s: Range | None = None  # seconds of one pulse; None: a sustained sound

    @property
    def counted(self) -> bool:
        return self.pulse_s is not None


def render_sound(
    rng: Generator, sound: Sound, count: int | None, pitch: str | None, duration: str | None
) -> np.ndarray:
    """The waveform float64 [samples] of one event, of peak 1.

    count: of counted sounds, duration: of sustained ones, pitch: of pitched ones; the others are not read
    """
    if sound.pulse_s is None:
        seconds = rng.uniform(*(BRIEF_S if duration == "brief" else LONG_S))
        return _peak_one(_faded(sound.render(rng, pitch, seconds)))
    if count is None:
        raise ValueError(f"{sound.name} is a counted sound: give a count of 1 to {MAX_COUNT}")
    pulse = _peak_one(_faded(sound.render(rng, pitch, rng.uniform(*sound.pulse_s))))
    step = _samples(rng.uniform(*PERIOD_S))
    waveform = np.zeros(step * (count - 1) + len(pulse))
    for start in range(0, step * count, step):
        waveform[start : start + len(pulse)] += pulse * rng.uniform(0.8, 1.0)
    return _peak_one(waveform)


def _beep(rng: Generator, pitch: str | None, seconds: float) -> np.ndarray:
    return np.sin(_phase(_pitch_hz(rng, pitch, (320, 480), (1100, 1600)), seconds))


def _bell(rng: Generator, pitch: str | None, seconds: float) -> np.ndarray:
    hz = _pitch_hz(rng, pitch, (230, 330), (750, 1050))
    tone = np.zeros(_samples(seconds))
    for ratio, gain in BELL_PARTIALS:
        tone += gain * np.sin(_phase(hz * ratio, seconds)) * _decay(seconds, 0.18 / ratio**0.5)
    return tone


def _horn(rng: Generator, pitch: str | None, seconds: float) -> np.ndarray:
    hz = _pitch_hz(rng, pitch, (170, 230), (420, 560))
    from scipy.signal import sawtooth  # here: the demo plays what is recorded, and needs no scipy

    chord = sawtooth(_phase(hz, seconds)) + sawtooth(_phase(hz * 1.26, seconds))
    return _filtered(chord, [0.4], [1, -0.6])


def _knock(rng: Generator, pitch: str | None, seconds: float) -> np.ndarray:
    low = np.sin(_phase(rng.uniform(330, 480), seconds))
    high = np.sin(_phase(rng.uniform(800, 1100), seconds))
    wood = low + 0.6 * high
    return (wood + 0.4 * _noise(rng, seconds)) * _decay(seconds, 0.016)


def _drum(rng: Generator, pitch: str | None, seconds: float) -> np.ndarray:
    hz = _pitch_hz(rng, pitch, (60, 90), (190, 260))
    sweep = hz * (1 + 0.6 * _decay(seconds, 0.03))
    skin = _filtered(_noise(rng, seconds), [0.1], [1, -0.9]) * _decay(seconds, 0.02)
    return np.sin(_phase(sweep, seconds)) * _decay(seconds, 0.09) + skin


def _click(rng: Generator, pitch: str | None, seconds: float) -> np.ndarray:
    burst = _filtered(_noise(rng, seconds), [1, -0.95], [1])
    return burst * _decay(seconds, rng.uniform(0.003, 0.005))


def _clap(rng: Generator, pitch: str | None, seconds: float) -> np.ndarray:
    hands = _resonant(_noise(rng, seconds), rng.uniform(1000, 1700), 900.0)
    t = _time(seconds)
    bursts = np.zeros(len(t))
    for start, tau in CLAP_BURSTS:
        bursts += np.exp(-(t - start) / tau) * (t >= start)
    return hands * bursts


def _rising(rng: Generator, pitch: str | None, seconds: float) -> np.ndarray:
    hz = _pitch_hz(rng, pitch, (400, 520), (1500, 1900))
    return np.sin(_phase(np.geomspace(hz, hz * 2.7, _samples(seconds)), seconds))


def _falling(rng: Generator, pitch: str | None, seconds: float) -> np.ndarray:
    return _rising(rng, pitch, seconds)[::-1]


def _bird(rng: Generator, pitch: str | None, seconds: float) -> np.ndarray:
    t = _time(seconds)
    centre = rng.uniform(3400, 4600)
    swing = rng.uniform(500, 900) * np.sin(2 * np.pi * rng.uniform(24, 34) * t)
    return np.sin(_phase(centre + swing, seconds))


def _siren(rng: Generator, pitch: str | None, seconds: float) -> np.ndarray:
    t = _time(seconds)
    swing = np.sin(2 * np.pi * rng.uniform(1.6, 2.2) * t + rng.uniform(0, 2 * np.pi))
    phase = _phase(rng.uniform(750, 900) * 1.45**swing, seconds)
    return np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)


def _alarm(rng: Generator, pitch: str | None, seconds: float) -> np.ndarray:
    low = rng.uniform(1700, 2100)
    second = np.floor(_time(seconds) * rng.uniform(14, 18)) % 2
    return np.tanh(3 * np.sin(_phase(low * (1 + 0.3 * second), seconds)))


def _static(rng: Generator, pitch: str | None, seconds: float) -> np.ndarray:
    hold = _samples(0.006)
    crackle = rng.choice([0.25, 1.0], size=_samples(seconds) // hold + 1, p=[0.6, 0.4])
    return _noise(rng, seconds) * np.repeat(crackle, hold)[: _samples(seconds)]


def _rain(rng: Generator, pitch: str | None, seconds: float) -> np.ndarray:
    drops = rng.normal(size=_samples(seconds)) * (rng.random(_samples(seconds)) < 0.004) * 12
    hiss = _filtered(_noise(rng, seconds), [0.35, 0.1], [1, -0.75])
    return hiss + _resonant(drops, rng.uniform(1800, 2600), 700.0)


def _engine(rng: Generator, pitch: str | None, seconds: float) -> np.ndarray:
    wobble = 1 + 0.04 * np.sin(2 * np.pi * 3 * _time(seconds))
    hz = _pitch_hz(rng, pitch, (22, 32), (75, 105)) * wobble
    strokes = _pulses(hz, seconds) * rng.uniform(0.7, 1.0, _samples(seconds))
    return _resonant(strokes, 140.0, 120.0) + 0.5 * _resonant(strokes, 420.0, 300.0)


def _voice(rng: Generator, pitch: str | None, seconds: float) -> np.ndarray:
    tone = _pitch_hz(rng, pitch, (90, 125), (210, 280))
    vibrato = 1 + 0.12 * np.sin(2 * np.pi * rng.uniform(0.8, 1.6) * _time(seconds))
    glottis = _filtered(_pulses(tone * vibrato, seconds), [1.0], [1, -0.9]) + 0.01 * _noise(rng, seconds)
    syllable = _samples(rng.uniform(0.17, 0.24))
    parts = []
    for start in range(0, len(glottis), syllable):
        part = glottis[start : start + syllable]
        vowel = VOWELS_HZ[rng.integers(len(VOWELS_HZ))]
        envelope = np.sin(np.pi * (np.arange(len(part)) + 0.5) / syllable) ** 0.5
        parts.append(_formants(part, vowel) * envelope)
    return np.concatenate(parts)


def _formants(x: np.ndarray, vowel: tuple[float, ...]) -> np.ndarray:
    """x through the resonators of a vowel, whose frequencies are in Hz."""
    out = np.zeros(len(x))
    for hz, gain in zip(vowel, FORMANT_GAINS):
        out += _resonant(x, hz, 90.0) * gain
    return out


SOUNDS = {
    sound.name: sound
    for sound in (
        Sound("beep", _beep, pitched=True, pulse_s=(0.12, 0.18)),
        Sound("bell", _bell, pitched=True, pulse_s=(0.24, 0.32)),
        Sound("horn", _horn, pitched=True, pulse_s=(0.22, 0.30)),
        Sound("knock", _knock, pitched=False, pulse_s=(0.07, 0.10)),
        Sound("drum", _drum, pitched=True, pulse_s=(0.20, 0.26)),
        Sound("click", _click, pitched=False, pulse_s=(0.05, 0.07)),
        Sound("clap", _clap, pitched=False, pulse_s=(0.12, 0.16)),
        Sound("rising whistle", _rising, pitched=True, pulse_s=(0.24, 0.32)),
        Sound("falling whistle", _falling, pitched=True, pulse_s=(0.24, 0.32)),
        Sound("bird", _bird, pitched=False, pulse_s=(0.12, 0.20)),
        Sound("siren", _siren, pitched=False),
        Sound("alarm", _alarm, pitched=False),
        Sound("static", _static, pitched=False),
        Sound("rain", _rain, pitched=False),
        Sound("engine", _engine, pitched=True),
        Sound("voice", _voice, pitched=True),
    )
}


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def _time(seconds: float) -> np.ndarray:
    return np.arange(_samples(seconds)) / SAMPLE_RATE


def _noise(rng: Generator, seconds: float) -> np.ndarray:
    return rng.normal(size=_samples(seconds))


def _pitch_hz(rng: Generator, pitch: str | None, low: Range, high: Range) -> float:
    return rng.uniform(*(low if pitch == "low" else high))


def _phase(hz: float | np.ndarray, seconds: float) -> np.ndarray:
    """Phase in radians [samples] of a tone whose frequency is `hz`, constant or per sample."""
    return 2 * np.pi * np.cumsum(np.broadcast_to(hz, _samples(seconds))) / SAMPLE_RATE


def _decay(seconds: float, tau_s: float) -> np.ndarray:
    return np.exp(-_time(seconds) / tau_s)


def _pulses(hz: np.ndarray, seconds: float) -> np.ndarray:
    """A unit impulse wherever the phase of `hz` passes a whole turn [samples]."""
    return np.diff(np.floor(_phase(hz, seconds) / (2 * np.pi)), prepend=0.0)


def _filtered(x: np.ndarray, numerator: list[float], denominator: list[float]) -> np.ndarray:
    """x [samples] through the filter of these coefficients."""
    from scipy.signal import lfilter

    return np.asarray(lfilter(numerator, denominator, x))


def _resonant(x: np.ndarray, hz: float, bandwidth_hz: float) -> np.ndarray:
    """x through a two-pole resonator."""
    r = np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE)
    turn = np.cos(2 * np.pi * hz / SAMPLE_RATE)
    return _filtered(x, [1 - r], [1, -2 * r * turn, r * r])


def _faded(waveform: np.ndarray) -> np.ndarray:
    """Faded in over a fifth of the ramp, so that attacks stay sharp, and out over all of it."""
    out = _samples(RAMP_S)
    attack = out // 5
    faded = waveform.copy()
    faded[:attack] *= np.linspace(0, 1, attack)
    faded[-out:] *= np.linspace(1, 0, out)
    return faded


def _peak_one(waveform: np.ndarray) -> np.ndarray:
    return waveform / np.abs(waveform).max()
