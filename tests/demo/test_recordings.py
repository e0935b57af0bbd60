"""Recordings: which are kept for testing, and how they are cut."""

import re

import numpy as np
import pytest

from ltbm.demo.recordings import SAMPLE_RATE, read_pool
from ltbm.demo.sounds import SPOKEN


def test_no_recording_is_both_trained_and_tested_on(recordings):
    trained, tested = (_paths(read_pool(recordings, split)) for split in ("train", "test"))
    assert not trained & tested
    assert trained | tested == {path for path in recordings.rglob("*") if path.is_file()}


def test_whole_sources_and_takes_are_kept_for_testing(recordings):
    """ESC-10's folds 4 and 5, which share no source with the others, and the published takes of digits."""
    tested = read_pool(recordings, "test")
    assert {path.name[0] for path in _paths(tested) if "esc10" in path.parts} == {"4", "5"}
    takes = {recording.path.stem.split("_")[2] for recording in tested[SPOKEN]}
    assert takes == {"0", "9"}


def test_a_part_of_the_folder_is_enough(recordings, tmp_path):
    (tmp_path / "fsdd").symlink_to(recordings / "fsdd")
    assert list(read_pool(tmp_path, "test")) == [SPOKEN]


def test_a_folder_without_recordings_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path)) + ".*esc10/CLASS"):
        read_pool(tmp_path, "test")
    with pytest.raises(ValueError, match="no split 'tests': expected one of train, test"):
        read_pool(tmp_path, "tests")


def test_a_counted_sound_is_cut_into_its_strokes(pool):
    for recording in pool["dog"]:
        assert len(recording.strokes) == 3
        for stroke in recording.strokes:
            assert 0.45 < len(stroke) / SAMPLE_RATE < 0.61
            assert 0.9 < _loudest(stroke) < 1.1


def test_what_surrounds_a_sound_is_cut_off(pool):
    """Bursts from 0.5 to 4.0 s of 5."""
    for recording in pool["dog"]:
        assert len(recording.waveform) / SAMPLE_RATE == pytest.approx(3.5, abs=0.1)


def test_telephone_rates_become_the_model_s(pool):
    for recording in pool[SPOKEN]:
        assert len(recording.waveform) / SAMPLE_RATE == pytest.approx(0.3, abs=0.02)
        assert recording.speaker == "ann" and recording.path.name.startswith(str(recording.digit))


def _paths(pool) -> set:
    paths = set()
    for recordings in pool.values():
        paths |= {recording.path for recording in recordings}
    return paths


def _loudest(wave: np.ndarray) -> float:
    """Greatest RMS of 0.2 s."""
    power = np.convolve(wave.astype(np.float64) ** 2, np.ones(3200) / 3200, mode="valid")
    return float(np.sqrt(power.max()))
