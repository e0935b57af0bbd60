"""Scenes of 6 to 14 s mixed from recordings, each from a pool of them and one seed."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.random import Generator
from scipy.signal import lfilter

from .recordings import SAMPLE_RATE, Pool, Recording
from .sounds import DIGITS, DURATIONS, MAX_COUNT, SOUNDS, SPOKEN, Event, Range, Stretch

MAX_EVENTS = 4
MAX_DIGITS = 4  # of one spoken string
MIN_SCENE_S = 6.0
MAX_SCENE_S = 14.0
SECONDS = {"brief": (1.0, 1.6), "long": (2.8, 4.0)}  # of sustained sounds: the gap keeps the word unambiguous

EVENTS_SHARE = (0.12, 0.34, 0.36, 0.18)  # of scenes with 1, 2, 3 and 4 events
SPOKEN_SHARE = 0.34  # of events that are spoken digits, where the pool has any
EDGE_S = (0.2, 0.8)  # silence before the first event
PAUSE_S = (0.3, 0.9)  # between events
OVERLAP_SHARE = 0.2  # of events that begin before a sustained one has ended
OVERLAP_S = (0.1, 0.4)
STROKE_GAP_S = (0.15, 0.40)  # between strokes
DIGIT_GAP_S = (0.04, 0.25)
SPEED = (0.9, 1.1)  # in training each sound plays a little slower or faster, and so lower or higher
DIGIT_SPEED = (0.86, 1.2)

EVENT_DB = (-10.0, 0.0)
NOISE_DB = (-55.0, -26.0)  # under the loudest possible event
MUSIC_SHARE = 0.15  # of scenes with music under the events
MUSIC_DB = (-28.0, -18.0)
LEVEL_DB = (-20.0, -2.0)  # of the scene's peak under full scale
STEP_S = 0.04  # scene lengths are whole audio tokens
ATTEMPTS = 200  # draws of events until they fit a scene

HELD_OUT = 2_000_000  # the first seed of the benchmark's scenes


@dataclass(frozen=True)
class Scene:
    """A waveform float32 [samples] at SAMPLE_RATE and the events in it, in the order in which they begin."""

    seed: int
    waveform: np.ndarray = field(repr=False)
    events: tuple[Event, ...]
    sources: tuple[Path, ...] = ()  # the recordings that are heard

    @property
    def seconds(self) -> float:
        return len(self.waveform) / SAMPLE_RATE


@dataclass(frozen=True)
class Take:
    """An event and its waveform [samples], before it has a place in a scene."""

    event: Event
    waveform: np.ndarray
    sources: tuple[Path, ...]


def make_scene(pool: Pool, seed: int, vary: bool = False) -> Scene:
    """The scene of a seed.

    vary: play each sound a little slower or faster, as in training
    """
    rng = np.random.default_rng(seed)
    for _ in range(ATTEMPTS):
        number = 1 + rng.choice(MAX_EVENTS, p=EVENTS_SHARE)
        takes = [_take(rng, pool, _draw_name(rng, pool), vary) for _ in range(number)]
        starts, seconds = _draw_starts(rng, takes)
        if seconds <= MAX_SCENE_S:
            return _mix(rng, pool, seed, takes, starts, seconds)
    raise ValueError(
        f"{ATTEMPTS} draws of seed {seed} did not fit {MAX_SCENE_S:g} s: the recordings are too long"
    )


def held_out_scene(pool: Pool, number: int) -> Scene:
    """A scene of the benchmark, of a seed that no training has."""
    return make_scene(pool, HELD_OUT + number)


def _draw_name(rng: Generator, pool: Pool) -> str:
    others = [name for name in pool if name != SPOKEN]
    if SPOKEN in pool and (rng.random() < SPOKEN_SHARE or not others):
        return SPOKEN
    return str(rng.choice(others))


def _take(rng: Generator, pool: Pool, name: str, vary: bool) -> Take:
    draw = _spoken if name == SPOKEN else _counted if SOUNDS[name].counted else _sustained
    take = draw(rng, pool[name], vary)
    return replace(take, waveform=_tilted(rng, take.waveform)) if vary else take


def _tilted(rng: Generator, waveform: np.ndarray) -> np.ndarray:
    """A little duller or brighter."""
    tilt = rng.uniform(-0.5, 0.5)
    return np.asarray(lfilter([1.0, tilt], [1.0], waveform)).astype(np.float32)


def _spoken(rng: Generator, recordings: list[Recording], vary: bool) -> Take:
    """One to MAX_DIGITS digits of one speaker."""
    speaker = str(rng.choice(sorted({recording.speaker for recording in recordings})))
    spoken = [recording for recording in recordings if recording.speaker == speaker]
    chosen = [spoken[k] for k in rng.integers(len(spoken), size=rng.integers(1, MAX_DIGITS + 1))]
    speed = rng.uniform(*DIGIT_SPEED) if vary else 1.0
    waves = [_played(recording.waveform, speed) for recording in chosen]
    waveform, strokes = _joined(rng, waves, DIGIT_GAP_S)
    digits = tuple(DIGITS[recording.digit] for recording in chosen if recording.digit is not None)
    sources = tuple(recording.path for recording in chosen)
    return Take(Event(SPOKEN, digits=digits, strokes=strokes), waveform, sources)


def _counted(rng: Generator, recordings: list[Recording], vary: bool) -> Take:
    """One to MAX_COUNT strokes of one recording."""
    recording = _choice(rng, [recording for recording in recordings if recording.strokes])
    count = int(rng.integers(1, MAX_COUNT + 1))
    speed = rng.uniform(*SPEED) if vary else 1.0
    chosen = rng.integers(len(recording.strokes), size=count)
    gains = rng.uniform(0.7, 1.0, size=count)
    waves = [_played(recording.strokes[k], speed) * gain for k, gain in zip(chosen, gains)]
    waveform, strokes = _joined(rng, waves, STROKE_GAP_S)
    return Take(Event(recording.sound, count=count, strokes=strokes), waveform, (recording.path,))


def _sustained(rng: Generator, recordings: list[Recording], vary: bool) -> Take:
    """A piece of one recording that is long enough."""
    duration = DURATIONS[rng.integers(len(DURATIONS))]
    speed = rng.uniform(*SPEED) if vary else 1.0
    samples = int(rng.uniform(*SECONDS[duration]) * SAMPLE_RATE)
    needed = int(samples * speed) + 2
    recording = _choice(rng, [recording for recording in recordings if len(recording.waveform) >= needed])
    start = _loud_start(rng, recording.waveform, needed)
    piece = _played(recording.waveform[start : start + needed], speed)[:samples]
    event = Event(recording.sound, duration=duration, strokes=((0.0, len(piece) / SAMPLE_RATE),))
    return Take(event, _ramped(piece), (recording.path,))


def _loud_start(rng: Generator, waveform: np.ndarray, needed: int) -> int:
    """A start of a piece [samples] that holds sound: the loudest of three draws."""
    starts = rng.integers(len(waveform) - needed + 1, size=3)
    energies = [float(np.sqrt(np.abs(waveform[start : start + needed])).mean()) for start in starts]
    return int(starts[int(np.argmax(energies))])


def _choice(rng: Generator, recordings: list[Recording]) -> Recording:
    if not recordings:
        raise ValueError("no recording of a class is long enough or has a single stroke")
    return recordings[rng.integers(len(recordings))]


def _played(waveform: np.ndarray, speed: float) -> np.ndarray:
    if speed == 1.0:
        return waveform
    samples = int((len(waveform) - 1) / speed) + 1
    return np.interp(np.arange(samples) * speed, np.arange(len(waveform)), waveform).astype(np.float32)


def _joined(rng: Generator, waves: list[np.ndarray], gap_s: Range) -> tuple[np.ndarray, tuple[Stretch, ...]]:
    """The waves after one another, and the seconds of each."""
    parts = []
    strokes = []
    samples = 0
    for k, wave in enumerate(waves):
        if k:
            gap = int(rng.uniform(*gap_s) * SAMPLE_RATE)
            parts.append(np.zeros(gap, dtype=np.float32))
            samples += gap
        parts.append(wave)
        strokes.append((samples / SAMPLE_RATE, (samples + len(wave)) / SAMPLE_RATE))
        samples += len(wave)
    return np.concatenate(parts), tuple(strokes)


def _ramped(wave: np.ndarray, ramp_s: float = 0.04) -> np.ndarray:
    ramp = np.linspace(0, 1, int(ramp_s * SAMPLE_RATE), dtype=np.float32)
    ramped = wave.copy()
    ramped[: len(ramp)] *= ramp
    ramped[-len(ramp) :] *= ramp[::-1]
    return ramped


def _draw_starts(rng: Generator, takes: list[Take]) -> tuple[list[float], float]:
    """Second at which each event begins, and the scene's length in seconds."""
    starts = [rng.uniform(*EDGE_S)]
    for before in takes[:-1]:
        end_s = starts[-1] + before.event.end_s
        overlaps = before.event.duration is not None and rng.random() < OVERLAP_SHARE
        starts.append(end_s - rng.uniform(*OVERLAP_S) if overlaps else end_s + rng.uniform(*PAUSE_S))
    filled = starts[-1] + takes[-1].event.end_s + rng.uniform(*EDGE_S)
    seconds = np.ceil(max(filled, MIN_SCENE_S) / STEP_S) * STEP_S
    spare = seconds - filled
    shift = rng.uniform(0, spare)
    return [start + shift for start in starts], float(seconds)


def _mix(
    rng: Generator, pool: Pool, seed: int, takes: list[Take], starts: list[float], seconds: float
) -> Scene:
    waveform = _noise(rng, round(seconds * SAMPLE_RATE))
    music = _draw_music(rng, pool, takes)
    sources = []
    if music is not None:
        waveform += _music(rng, music, len(waveform))
        sources.append(music.path)
    events = []
    for take, start_s in zip(takes, starts):
        first = int(start_s * SAMPLE_RATE)
        waveform[first : first + len(take.waveform)] += take.waveform * _gain(rng, EVENT_DB)
        strokes = tuple((start_s + first_s, start_s + last_s) for first_s, last_s in take.event.strokes)
        events.append(replace(take.event, strokes=strokes))
        sources += take.sources
    waveform *= _gain(rng, LEVEL_DB) / np.abs(waveform).max()
    return Scene(seed, waveform.astype(np.float32), tuple(events), tuple(sources))


def _noise(rng: Generator, samples: int) -> np.ndarray:
    """White to brownish noise [samples]."""
    feedback = rng.uniform(0.0, 0.97)
    noise = np.asarray(lfilter([1.0], [1.0, -feedback], rng.normal(size=samples)))
    return noise * _gain(rng, NOISE_DB) / np.sqrt(np.mean(noise**2))


def _draw_music(rng: Generator, pool: Pool, takes: list[Take]) -> Recording | None:
    """What plays under the events of some scenes, where none of them is music."""
    has_music = any(take.event.sound == "music" for take in takes)
    if "music" not in pool or has_music or rng.random() >= MUSIC_SHARE:
        return None
    return _choice(rng, pool["music"])


def _music(rng: Generator, recording: Recording, samples: int) -> np.ndarray:
    start = rng.integers(len(recording.waveform) - samples)
    return recording.waveform[start : start + samples] * _gain(rng, MUSIC_DB)


def _gain(rng: Generator, decibels: Range) -> float:
    return 10 ** (rng.uniform(*decibels) / 20)
