"""Scenes: one to four sounds after one another in background noise, each from one seed.

Splits are disjoint by construction: a seed belongs to exactly one split, and a scene is a pure function of
its seed and of whether sounds recur.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from .sounds import DURATIONS, MAX_COUNT, PITCHES, SAMPLE_RATE, SOUNDS, render_sound

MAX_EVENTS = 4
MIN_SCENE_S = 3.0
MAX_SCENE_S = 8.0
EDGE_S = 0.15  # least silence before the first and after the last event
PAUSE_S = 0.60  # least silence between events: longer than from one pulse to the next within an event
STEP_S = 0.01  # scene lengths are whole mel frames
SPLITS = {
    "train": range(1_000_000),
    "validation": range(1_000_000, 2_000_000),
    "test": range(2_000_000, 3_000_000),
}

EVENTS_SHARE = (0.16, 0.28, 0.30, 0.26)  # of scenes with 1, 2, 3 and 4 events, where recurrence is left open
REPEAT_SHARE = 0.2  # chance that an event takes an earlier event's class on purpose, where it is left open
EVENT_DB = (-9.0, 0.0)  # level of an event under the loudest possible one
NOISE_DB = (-52.0, -30.0)  # background's RMS under the loudest possible event's peak
LEVEL_DB = (-18.0, -2.0)  # level of the scene under full scale
RECURRENCE_STREAMS = {None: 0, False: 1, True: 2}  # keeps the draws of a seed's three scenes apart


@dataclass(frozen=True)
class Event:
    """One sound of a scene; two are equal if they sound the same, whenever they do."""

    sound: str  # a key of SOUNDS
    count: int | None  # 1..MAX_COUNT for counted sounds
    pitch: str | None  # of PITCHES for pitched sounds
    duration: str | None  # of DURATIONS for sustained sounds
    start_s: float | None = field(default=None, compare=False)  # seconds from the scene's start
    end_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Scene:
    """A waveform float32 [samples] at SAMPLE_RATE and the events in it, in order."""

    seed: int
    waveform: np.ndarray = field(repr=False)
    events: tuple[Event, ...]

    @property
    def seconds(self) -> float:
        return len(self.waveform) / SAMPLE_RATE

    @property
    def recurring(self) -> bool:
        return _recurs([event.sound for event in self.events])


def make_scene(seed: int, recurring: bool | None = None) -> Scene:
    """The scene of a seed.

    recurring: whether some class of sound occurs twice; None leaves it to chance
    """
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; take one from SPLITS")
    rng = np.random.default_rng([seed, RECURRENCE_STREAMS[recurring]])
    names = _draw_names(rng, recurring)
    longest_s = MAX_SCENE_S - 2 * EDGE_S - PAUSE_S * (len(names) - 1)
    events, sounds = _draw_events(rng, names)
    while _total_seconds(sounds) > longest_s:
        events, sounds = _draw_events(rng, names)
    return _arrange(rng, seed, events, sounds)


def held_out_scene(seed: int) -> Scene:
    """A benchmark scene: of the test split, with recurring sounds where the seed is odd."""
    if seed not in SPLITS["test"]:
        raise ValueError(f"seed {seed} is not held out: expected {SPLITS['test']}")
    return make_scene(seed, recurring=seed % 2 == 1)


def split_seeds(split: str, count: int, first: int = 0) -> range:
    """`count` seeds of a split, from its `first` one on."""
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: expected one of {', '.join(SPLITS)}")
    if not 0 <= first <= first + count <= len(SPLITS[split]):
        raise ValueError(f"{count} seeds from {first} do not fit the {len(SPLITS[split])} of split {split}")
    return SPLITS[split][first : first + count]


def _draw_names(rng: np.random.Generator, recurring: bool | None) -> list[str]:
    share = np.array(EVENTS_SHARE)
    if recurring:
        share[0] = 0  # a single sound cannot recur
    number = 1 + rng.choice(MAX_EVENTS, p=share / share.sum())
    names = list(rng.choice(list(SOUNDS), size=number, replace=recurring is not False))
    for k in range(1, number):
        if recurring is not False and rng.random() < REPEAT_SHARE:
            names[k] = names[rng.integers(k)]
    if recurring and not _recurs(names):
        last = rng.integers(1, number)
        names[last] = names[rng.integers(last)]
    return [str(name) for name in names]


def _recurs(names: list[str]) -> bool:
    return len(set(names)) < len(names)


def _draw_events(rng: np.random.Generator, names: list[str]) -> tuple[list[Event], list[np.ndarray]]:
    """Attributes and waveforms [samples] of the named sounds, their times not yet known."""
    events = []
    sounds = []
    for name in names:
        sound = SOUNDS[name]
        count = int(rng.integers(1, MAX_COUNT + 1)) if sound.counted else None
        pitch = PITCHES[rng.integers(len(PITCHES))] if sound.pitched else None
        duration = None if sound.counted else DURATIONS[rng.integers(len(DURATIONS))]
        events.append(Event(name, count, pitch, duration))
        sounds.append(render_sound(rng, sound, count, pitch, duration) * _gain(rng, EVENT_DB))
    return events, sounds


def _arrange(rng: np.random.Generator, seed: int, events: list[Event], sounds: list[np.ndarray]) -> Scene:
    """Events spread over the scene with random pauses, in noise, at a random level."""
    seconds, pauses = _draw_pauses(rng, sounds)
    waveform = _background(rng, round(seconds * SAMPLE_RATE))
    timed = []
    start_s = 0.0
    for event, sound, pause in zip(events, sounds, pauses):
        start_s += pause
        end_s = start_s + len(sound) / SAMPLE_RATE
        timed.append(replace(event, start_s=float(start_s), end_s=float(end_s)))
        first = int(start_s * SAMPLE_RATE)
        waveform[first : first + len(sound)] += sound
        start_s = end_s
    waveform *= _gain(rng, LEVEL_DB) / max(1.0, np.abs(waveform).max())
    return Scene(seed, waveform.astype(np.float32), tuple(timed))


def _draw_pauses(rng: np.random.Generator, sounds: list[np.ndarray]) -> tuple[float, np.ndarray]:
    """The scene's length in seconds, and the pause [s] before each sound."""
    least = np.array([EDGE_S] + [PAUSE_S] * (len(sounds) - 1) + [EDGE_S])
    filled = _total_seconds(sounds) + least.sum()
    seconds = max(filled, rng.uniform(max(MIN_SCENE_S, filled), MAX_SCENE_S))
    seconds = min(np.ceil(seconds / STEP_S) * STEP_S, MAX_SCENE_S)
    pauses = least + (seconds - filled) * rng.dirichlet(np.ones(len(least)))
    return seconds, pauses[:-1]


def _total_seconds(sounds: list[np.ndarray]) -> float:
    return sum(len(sound) for sound in sounds) / SAMPLE_RATE


def _background(rng: np.random.Generator, samples: int) -> np.ndarray:
    """White to brownish noise [samples] at a random level."""
    feedback = rng.uniform(0.0, 0.97)
    from scipy.signal import lfilter  # here: the demo plays what is recorded, and needs no scipy

    noise = np.asarray(lfilter([1.0], [1.0, -feedback], rng.normal(size=samples)))
    return noise / np.sqrt(np.mean(noise**2)) * _gain(rng, NOISE_DB)


def _gain(rng: np.random.Generator, decibels: tuple[float, float]) -> float:
    return 10 ** (rng.uniform(*decibels) / 20)
