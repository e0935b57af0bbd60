"""Metrics on examples worked out by hand."""

import pytest

from ltbm.demo.language import caption
from ltbm.demo.metrics import RATIOS, right_words, score_clip, summarise
from ltbm.demo.sounds import SPOKEN, Event

BELL, THREE_BELLS = Event("bell", count=2), Event("bell", count=3)
SEA, RAIN = Event("sea", duration="brief"), Event("rain", duration="long")
SAID = Event(SPOKEN, digits=("seven", "two", "five"))


def scores(played, given, right_answers=(), answers=()):
    return summarise([score_clip(played, caption(given), right_answers, answers)])


def test_all_of_it_right():
    found = scores([BELL, SEA, SAID], [BELL, SEA, SAID], ["twice"], ["twice"])
    assert found == dict.fromkeys(RATIOS, 1.0)


def test_nothing_said():
    assert summarise([score_clip([BELL, SEA, SAID], "", ["twice"], ["once"])]) == dict.fromkeys(RATIOS, 0.0)


def test_one_missed_and_one_made_up():
    found = scores([BELL, SEA, SEA], [BELL, SEA, RAIN, RAIN])
    assert found["event_f1"] == pytest.approx(2 * 2 / (3 + 4))
    assert found["duration_accuracy"] == 1 / 2
    assert found["sequence_accuracy"] == found["exact_match"] == 0


def test_order_counts_for_sequence_but_not_for_f1():
    found = scores([BELL, SEA], [SEA, BELL])
    assert found["event_f1"] == 1
    assert found["sequence_accuracy"] == found["exact_match"] == 0


def test_attributes_count_for_exact_match_but_not_for_sequence():
    found = scores([BELL, SEA], [THREE_BELLS, SEA])
    assert found["event_f1"] == found["sequence_accuracy"] == found["duration_accuracy"] == 1
    assert found["exact_match"] == found["count_accuracy"] == 0


def test_attributes_go_by_occurrence():
    found = scores([BELL, SEA, THREE_BELLS], [BELL, BELL, SEA])
    assert found["event_f1"] == 1
    assert found["count_accuracy"] == 1 / 2


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("seven two five", 3),
        ("seven five", 2),
        ("seven two nine", 2),
        ("seven two two five", 2),
        ("nine", 0),
        ("one one one one one one one", 0),
        ("", 0),
    ],
)
def test_digits_are_right_less_their_word_errors(given, right):
    """Counted by hand: a digit left out, exchanged or added is an error."""
    assert right_words(("seven", "two", "five"), given.split()) == right
    said = score_clip([SAID], f"someone says {given} ." if given else "")
    assert (said["digits_right"], said["digits_scored"]) == (right, 3)


def test_f1_is_micro_averaged_over_clips():
    clips = [score_clip([BELL], caption([BELL])), score_clip([BELL, SEA, RAIN], caption([RAIN]))]
    assert summarise(clips)["event_f1"] == pytest.approx(2 * 2 / (1 + 1 + 3 + 1))
    assert summarise(clips)["exact_match"] == 1 / 2


def test_answers_are_compared_word_by_word():
    clip = score_clip([BELL], caption([BELL]), ["twice", "once"], [" twice ", "three times"])
    assert summarise([clip])["question_accuracy"] == 1 / 2
    with pytest.raises(ValueError):
        score_clip([BELL], caption([BELL]), ["twice"], [])
