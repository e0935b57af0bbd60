"""Sixteen sounds as seeded procedural waveforms.

`render_sound` is the door: it draws one event's waveform.
Counted sounds repeat one pulse 1 to 3 times; sustained sounds last briefly or for long.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter, sawtooth

SAMPLE_RATE = 16_000  # Hz
MAX_COUNT = 3  # pulses of a counted sound
PERIOD_S = (0.36, 0.46)  # seconds from the start of a pulse to the next one's
BRIEF_S = (0.5, 0.9)  # seconds of a brief sustained sound
LONG_S = (1.5, 2.1)  # seconds of a long one: the gap between the two keeps the word unambiguous
RAMP_S = 0.008  # seconds of fade in and out, so that no edge clicks

PITCHES = ("low", "high")
DURATIONS = ("brief", "long")

Render = Callable[[np.random.Generator, str | None, float], np.ndarray]


@dataclass(frozen=True)
class Sound:
    """One class of sound: how it is drawn and which attributes it has."""

    name: str  # as questions and metrics call it
    render: Render  # (rng, pitch, seconds) -> waveform
    pitched: bool  # whether "low" and "high" are told apart
    pulse_s: tuple[float, float] | None = None  # seconds of one pulse; None: a sustained sound

    @property
    def counted(self) -> bool:
        return self.pulse_s is not None


def render_sound(
    rng: np.random.Generator, sound: Sound, count: int | None, pitch: str | None, duration: str | None
) -> np.ndarray:
    """The waveform float64 [samples] of one event, of peak 1."""
    if not sound.counted:
        seconds = rng.uniform(*(BRIEF_S if duration == "brief" else LONG_S))
        return _peak_one(_faded(sound.render(rng, pitch, seconds)))
    pulse = _peak_one(_faded(sound.render(rng, pitch, rng.uniform(*sound.pulse_s))))
    step = _samples(rng.uniform(*PERIOD_S))
    waveform = np.zeros(step * (count - 1) + len(pulse))
    for start in range(0, step * count, step):
        waveform[start : start + len(pulse)] += pulse * rng.uniform(0.8, 1.0)
    return _peak_one(waveform)


def _beep(rng, pitch, seconds):
    return np.sin(_phase(_pitch_hz(rng, pitch, (320, 480), (1100, 1600)), seconds))


def _bell(rng, pitch, seconds):
    hz = _pitch_hz(rng, pitch, (230, 330), (750, 1050))
    partials = zip((1.0, 2.0, 2.4, 3.01, 4.2), (1.0, 0.7, 0.5, 0.4, 0.25), strict=True)
    return sum(a * np.sin(_phase(hz * k, seconds)) * _decay(seconds, 0.18 / k**0.5) for k, a in partials)


def _horn(rng, pitch, seconds):
    hz = _pitch_hz(rng, pitch, (170, 230), (420, 560))
    chord = sawtooth(_phase(hz, seconds)) + sawtooth(_phase(hz * 1.26, seconds))
    return lfilter([0.4], [1, -0.6], chord)


def _knock(rng, pitch, seconds):
    wood = np.sin(_phase(rng.uniform(330, 480), seconds)) + 0.6 * np.sin(
        _phase(rng.uniform(800, 1100), seconds)
    )
    return (wood + 0.4 * _noise(rng, seconds)) * _decay(seconds, 0.016)


def _drum(rng, pitch, seconds):
    hz = _pitch_hz(rng, pitch, (60, 90), (190, 260))
    sweep = hz * (1 + 0.6 * _decay(seconds, 0.03))
    skin = lfilter([0.1], [1, -0.9], _noise(rng, seconds)) * _decay(seconds, 0.02)
    return np.sin(_phase(sweep, seconds)) * _decay(seconds, 0.09) + skin


def _click(rng, pitch, seconds):
    burst = lfilter([1, -0.95], [1], _noise(rng, seconds))
    return burst * _decay(seconds, rng.uniform(0.003, 0.005))


def _clap(rng, pitch, seconds):
    hands = _resonant(_noise(rng, seconds), rng.uniform(1000, 1700), 900.0)
    t = _time(seconds)
    bursts = sum(np.exp(-(t - d) / w) * (t >= d) for d, w in ((0.0, 0.004), (0.012, 0.004), (0.024, 0.035)))
    return hands * bursts


def _rising(rng, pitch, seconds):
    hz = _pitch_hz(rng, pitch, (400, 520), (1500, 1900))
    return np.sin(_phase(np.geomspace(hz, hz * 2.7, _samples(seconds)), seconds))


def _falling(rng, pitch, seconds):
    return _rising(rng, pitch, seconds)[::-1]


def _bird(rng, pitch, seconds):
    t = _time(seconds)
    hz = rng.uniform(3400, 4600) + rng.uniform(500, 900) * np.sin(2 * np.pi * rng.uniform(24, 34) * t)
    return np.sin(_phase(hz, seconds))


def _siren(rng, pitch, seconds):
    t = _time(seconds)
    swing = np.sin(2 * np.pi * rng.uniform(1.6, 2.2) * t + rng.uniform(0, 2 * np.pi))
    phase = _phase(rng.uniform(750, 900) * 1.45**swing, seconds)
    return np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)


def _alarm(rng, pitch, seconds):
    low = rng.uniform(1700, 2100)
    second = np.floor(_time(seconds) * rng.uniform(14, 18)) % 2
    return np.tanh(3 * np.sin(_phase(low * (1 + 0.3 * second), seconds)))


def _static(rng, pitch, seconds):
    hold = _samples(0.006)
    crackle = rng.choice([0.25, 1.0], size=_samples(seconds) // hold + 1, p=[0.6, 0.4])
    return _noise(rng, seconds) * np.repeat(crackle, hold)[: _samples(seconds)]


def _rain(rng, pitch, seconds):
    drops = rng.normal(size=_samples(seconds)) * (rng.random(_samples(seconds)) < 0.004) * 12
    hiss = lfilter([0.35, 0.1], [1, -0.75], _noise(rng, seconds))
    return hiss + _resonant(drops, rng.uniform(1800, 2600), 700.0)


def _engine(rng, pitch, seconds):
    hz = _pitch_hz(rng, pitch, (22, 32), (75, 105)) * (1 + 0.04 * np.sin(2 * np.pi * 3 * _time(seconds)))
    strokes = _pulses(hz, seconds) * rng.uniform(0.7, 1.0, _samples(seconds))
    return _resonant(strokes, 140.0, 120.0) + 0.5 * _resonant(strokes, 420.0, 300.0)


VOWELS_HZ = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))


def _voice(rng, pitch, seconds):
    tone = _pitch_hz(rng, pitch, (90, 125), (210, 280))
    t = _time(seconds)
    glottis = _pulses(tone * (1 + 0.12 * np.sin(2 * np.pi * rng.uniform(0.8, 1.6) * t)), seconds)
    glottis = lfilter([1.0], [1, -0.9], glottis) + 0.01 * _noise(rng, seconds)
    syllable = _samples(rng.uniform(0.17, 0.24))
    parts = []
    for start in range(0, len(t), syllable):
        part = glottis[start : start + syllable]
        vowel = VOWELS_HZ[rng.integers(len(VOWELS_HZ))]
        envelope = np.sin(np.pi * (np.arange(len(part)) + 0.5) / syllable) ** 0.5
        parts.append(
            sum(_resonant(part, f, 90.0) * g for f, g in zip(vowel, (1, 0.6, 0.3), strict=True)) * envelope
        )
    return np.concatenate(parts)


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


def _noise(rng: np.random.Generator, seconds: float) -> np.ndarray:
    return rng.normal(size=_samples(seconds))


def _pitch_hz(rng: np.random.Generator, pitch: str, low: tuple, high: tuple) -> float:
    return rng.uniform(*(low if pitch == "low" else high))


def _phase(hz: float | np.ndarray, seconds: float) -> np.ndarray:
    """Phase in radians [samples] of a tone whose frequency is `hz`, constant or per sample."""
    return 2 * np.pi * np.cumsum(np.broadcast_to(hz, _samples(seconds))) / SAMPLE_RATE


def _decay(seconds: float, tau_s: float) -> np.ndarray:
    return np.exp(-_time(seconds) / tau_s)


def _pulses(hz: np.ndarray, seconds: float) -> np.ndarray:
    """A unit impulse wherever the phase of `hz` passes a whole turn [samples]."""
    return np.diff(np.floor(_phase(hz, seconds) / (2 * np.pi)), prepend=0.0)


def _resonant(x: np.ndarray, hz: float, bandwidth_hz: float) -> np.ndarray:
    """x through a two-pole resonator."""
    r = np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE)
    return lfilter([1 - r], [1, -2 * r * np.cos(2 * np.pi * hz / SAMPLE_RATE), r * r], x)


def _faded(waveform: np.ndarray) -> np.ndarray:
    """Faded in over a fifth of the ramp, so that attacks stay sharp, and out over all of it."""
    out = _samples(RAMP_S)
    ramp_in, ramp_out = np.linspace(0, 1, out // 5), np.linspace(1, 0, out)
    faded = waveform.copy()
    faded[: out // 5] *= ramp_in
    faded[-out:] *= ramp_out
    return faded


def _peak_one(waveform: np.ndarray) -> np.ndarray:
    return waveform / np.abs(waveform).max()
