import pytest

from ltbm.profiles.quality.choices import matches

CHOICES = ("Acoustic guitar", "Electric guitar", "A bass, low", "Drums")


@pytest.mark.parametrize(
    "prediction,verdict",
    [  # the verdicts of string_match in MMAU's evaluation.py
        ("Acoustic guitar", True),
        ("It is an ACOUSTIC guitar.", True),
        ("guitar, acoustic", True),
        ("(A) Acoustic guitar", False),  # "a" is a word of a wrong choice
        ("electric or acoustic guitar", False),
        ("acoustic", False),
        ("B", False),
        ("", False),
        ("?!", False),
        ("acoustic_guitar", False),
        ("an acoustic guitar in a low room", False),
        ("acoustic bass guitar", False),
    ],
)
def test_the_published_rule(prediction, verdict):
    assert matches(prediction, "Acoustic guitar", CHOICES) is verdict


def test_words_shared_with_the_right_choice_are_not_wrong():
    assert matches("two dogs", "two dogs", ("two cats", "two dogs", "three dogs"))
    assert not matches("two cats", "two dogs", ("two cats", "two dogs"))
