"""Scenes: reproducible, disjoint between splits, and what their events say."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from ltbm.demo import scenes
from ltbm.demo.scenes import SPLITS, held_out_scene, make_scene, split_seeds
from ltbm.demo.sounds import MAX_COUNT, PERIOD_S, SAMPLE_RATE, SOUNDS, render_sound

SEEDS = split_seeds("test", 60)


@pytest.mark.parametrize("recurring", [None, True, False])
def test_a_seed_gives_the_same_scene(recurring):
    first, second = make_scene(SEEDS[3], recurring), make_scene(SEEDS[3], recurring)
    assert first.events == second.events
    np.testing.assert_array_equal(first.waveform, second.waveform)


def test_seeds_give_different_scenes():
    drawn = [make_scene(seed).waveform for seed in SEEDS[:20]]
    assert len({waveform.tobytes() for waveform in drawn}) == len(drawn)


def test_splits_are_disjoint():
    ranges = sorted(SPLITS.values(), key=lambda seeds: seeds.start)
    assert all(before.stop <= after.start for before, after in itertools.pairwise(ranges))
    with pytest.raises(ValueError, match="do not fit"):
        split_seeds("train", 2, first=len(SPLITS["train"]) - 1)
    with pytest.raises(ValueError, match="not held out"):
        held_out_scene(SPLITS["train"][5])
    with pytest.raises(ValueError, match="no split"):
        split_seeds("tests", 1)


def test_recurring_is_what_was_asked_for():
    for seed in SEEDS:
        assert make_scene(seed, recurring=True).recurring
        assert not make_scene(seed, recurring=False).recurring
        assert held_out_scene(seed).recurring == (seed % 2 == 1)


def test_scenes_stay_within_their_bounds():
    for seed in SEEDS:
        scene = held_out_scene(seed)
        assert scenes.MIN_SCENE_S <= scene.seconds <= scenes.MAX_SCENE_S
        assert scene.waveform.dtype == np.float32 and np.abs(scene.waveform).max() <= 1
        assert 1 <= len(scene.events) <= scenes.MAX_EVENTS
        edges = [
            0.0,
            *(edge for event in scene.events for edge in (event.start_s, event.end_s)),
            scene.seconds,
        ]
        assert edges == sorted(edges)
        gaps = [
            after.start_s - before.end_s
            for before, after in zip(scene.events, scene.events[1:], strict=False)
        ]
        assert all(gap >= scenes.PAUSE_S - 1e-6 for gap in gaps)


def test_events_sound_where_they_say():
    for seed in SEEDS[:20]:
        scene = held_out_scene(seed)
        for event in scene.events:
            inside = scene.waveform[int(event.start_s * SAMPLE_RATE) : int(event.end_s * SAMPLE_RATE)]
            before = scene.waveform[: int(scene.events[0].start_s * SAMPLE_RATE)]
            assert np.abs(inside).max() > 2 * np.sqrt(np.mean(before**2))


@pytest.mark.parametrize("name", SOUNDS)
def test_sounds_have_the_attributes_they_are_asked_for(name):
    sound, rng = SOUNDS[name], np.random.default_rng(0)
    for pitch in ("low", "high"):
        if sound.counted:
            seconds = [
                len(render_sound(rng, sound, count, pitch, None)) / SAMPLE_RATE
                for count in range(1, MAX_COUNT + 1)
            ]
            steps = [(b - sound.pulse_s[1], b - sound.pulse_s[0]) for b in seconds]
            for count, (least, most) in enumerate(steps):  # `count` periods come before the last pulse
                assert least <= count * PERIOD_S[1] and most >= count * PERIOD_S[0] - 1e-3
        else:
            brief, long = (render_sound(rng, sound, None, pitch, duration) for duration in ("brief", "long"))
            assert len(long) > 1.5 * len(brief)
        waveform = render_sound(rng, sound, 1, pitch, "long")
        assert np.isfinite(waveform).all() and np.abs(waveform).max() == pytest.approx(1)


@pytest.mark.parametrize("name", [name for name, sound in SOUNDS.items() if sound.pitched])
def test_low_is_lower_than_high(name):
    sound, rng = SOUNDS[name], np.random.default_rng(1)
    low, high = (_centroid_hz(render_sound(rng, sound, 1, pitch, "brief")) for pitch in ("low", "high"))
    assert low < high


def _centroid_hz(waveform: np.ndarray) -> float:
    """Geometric mean frequency, so that it follows the fundamental."""
    power = np.abs(np.fft.rfft(waveform)) ** 2
    hz = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    heard = hz > 15
    return float(np.exp(np.sum(power[heard] * np.log(hz[heard])) / power[heard].sum()))


def test_runtime_side_needs_no_torch():
    code = "import sys, ltbm.demo.scenes, ltbm.demo.language, ltbm.demo.metrics, ltbm.demo.clips\n"
    code += "sys.exit(' '.join(name for name in ('torch', 'transformers') if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
