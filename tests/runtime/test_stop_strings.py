from itertools import pairwise

import pytest

from ltbm.runtime.stop_strings import StopStrings


def passed(strings, pieces):
    """What comes out for each piece, and at the end."""
    stop = StopStrings(strings)
    out = [stop.push(piece) for piece in pieces]
    return [*out, stop.finish()], stop


def test_without_strings_everything_passes_at_once():
    assert passed([], ["a", "", "bc"])[0] == ["a", "", "bc", ""]


def test_the_answer_ends_before_the_string_however_it_is_cut():
    text = "one two three"
    for first in range(len(text)):
        for second in range(first, len(text)):
            pieces = [text[:first], text[first:second], text[second:]]
            out, stop = passed(["two"], pieces)
            assert "".join(out) == stop.text == "one " and stop.met


def test_the_first_of_several_ends_it():
    out, _ = passed(["three", "two"], ["one two three"])
    assert "".join(out) == "one "


def test_only_what_may_begin_a_string_is_held_back():
    out, stop = passed(["abc"], ["xab", "a", "b", "d"])
    assert out == ["x", "ab", "", "abd", ""] and not stop.met


def test_what_was_held_comes_at_the_end():
    out, stop = passed(["abc"], ["xab"])
    assert out == ["x", "ab"] and stop.text == "xab"


def test_nothing_comes_after_it():
    out, stop = passed(["b"], ["a", "b", "c"])
    assert out == ["a", "", "", ""] and stop.text == "a"


@pytest.mark.parametrize("strings", [["aab"], ["aab", "ab"]])
def test_overlapping_beginnings(strings):
    text = "aaab"
    for cut, _ in pairwise(range(len(text) + 1)):
        out, _ = passed(strings, [text[:cut], text[cut:]])
        assert "".join(out) == "a"
