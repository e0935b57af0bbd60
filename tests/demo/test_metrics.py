"""Metrics on examples worked out by hand."""

import math

import numpy as np
import pytest

from ltbm.demo.language import Question, caption
from ltbm.demo.metrics import RATIOS, bootstrap_difference, score_clip, summarise
from ltbm.demo.scenes import Event

BELL, HIGH_BELL = Event("bell", 2, "low", None), Event("bell", 3, "high", None)
SIREN, RAIN = Event("siren", None, None, "brief"), Event("rain", None, None, "long")
PITCH = Question("pitch", "is the bell low or high ?", ("low", "high"), "low")
COUNT = Question(
    "count", "how often does the bell sound : once or three times ?", ("once", "three times"), "once"
)


def scores(played, heard, questions=(), answers=()):
    return summarise([score_clip(played, caption(heard), questions, answers)])


def test_all_heard():
    found = scores([BELL, SIREN], [BELL, SIREN], [PITCH], ["low"])
    assert found == dict.fromkeys(RATIOS, 1.0)


def test_nothing_heard():
    found = summarise([score_clip([BELL, SIREN], "", [PITCH], ["high"])])
    assert math.isnan(found.pop("event_precision"))
    assert found == dict.fromkeys(found, 0.0)


def test_one_missed_and_one_made_up():
    found = scores([BELL, SIREN, SIREN], [BELL, SIREN, RAIN, RAIN])
    assert found["event_precision"] == 2 / 4
    assert found["event_recall"] == 2 / 3
    assert found["event_f1"] == pytest.approx(4 / 7)
    assert found["duration_accuracy"] == 1 / 2
    assert found["sequence_accuracy"] == found["exact_match"] == 0


def test_order_counts_for_sequence_but_not_for_f1():
    found = scores([BELL, SIREN], [SIREN, BELL])
    assert found["event_f1"] == 1
    assert found["sequence_accuracy"] == found["exact_match"] == 0


def test_attributes_count_for_exact_match_but_not_for_sequence():
    found = scores([BELL, SIREN], [HIGH_BELL, SIREN])
    assert found["event_f1"] == found["sequence_accuracy"] == found["duration_accuracy"] == 1
    assert found["exact_match"] == found["count_accuracy"] == found["pitch_accuracy"] == 0


def test_attributes_go_by_occurrence():
    found = scores([BELL, SIREN, HIGH_BELL], [BELL, BELL, SIREN])
    assert found["event_f1"] == 1
    assert found["count_accuracy"] == found["pitch_accuracy"] == 1 / 2


def test_f1_is_micro_averaged_over_clips():
    clips = [score_clip([BELL], caption([BELL])), score_clip([BELL, SIREN, RAIN], caption([RAIN]))]
    assert summarise(clips)["event_f1"] == pytest.approx(2 * 2 / (1 + 1 + 3 + 1))
    assert summarise(clips)["exact_match"] == 1 / 2


def test_answers_are_compared_word_by_word():
    clip = score_clip([BELL], caption([BELL]), [PITCH, COUNT], [" low ", "three times"])
    assert summarise([clip])["question_accuracy"] == 1 / 2
    with pytest.raises(ValueError):
        score_clip([BELL], caption([BELL]), [PITCH], [])


def test_bootstrap_is_paired():
    good = [score_clip([BELL], caption([BELL])) for _ in range(40)]
    poor = [score_clip([BELL], caption([BELL if k % 4 else SIREN])) for k in range(40)]
    assert bootstrap_difference(good, good, "event_f1") == (0, 0, 0)
    difference, low, high = bootstrap_difference(good, poor, "event_f1")
    assert difference == pytest.approx(0.25)
    assert 0.1 < low < difference < high < 0.42
    assert bootstrap_difference(good, poor, "event_f1") == (difference, low, high)
    assert np.allclose(bootstrap_difference(poor, good, "event_f1"), (-difference, -high, -low), atol=0.02)
    with pytest.raises(ValueError, match="same clips"):
        bootstrap_difference(good, poor[1:], "event_f1")
