from fractions import Fraction

import pytest

from ltbm.runtime.levels import (
    NAMED_RATIOS,
    Budget,
    Level,
    as_level,
    bias_strength,
    level_of_parts,
    parse_level,
    settle,
)


@pytest.mark.parametrize(
    "name,kept",
    [
        ("full", 750),
        ("keep75", 563),
        ("keep50", 375),
        ("keep33", 250),
        ("keep25", 188),
        ("keep12", 94),
        ("keep6", 47),
    ],
)
def test_named_levels_keep_what_the_specification_says(name, kept):
    assert parse_level(name).target(750) == kept


@pytest.mark.parametrize(
    "name,window",
    [("full", 8), ("keep75", 8), ("keep50", 8), ("keep33", 8), ("keep25", 8), ("keep12", 16), ("keep6", 32)],
)
def test_auto_window(name, window):
    assert parse_level(name).merge_window == window


def test_a_share_is_exact():
    for written in ("0.3", "3/10", 0.3, Fraction(3, 10)):
        level = parse_level(written)
        assert level.ratio == Fraction(3, 10) and level.target(750) == 225 and level.merge_window == 8
    assert parse_level(0.3).target(10) == 3  # binary 0.3 rounded up would keep 4


@pytest.mark.parametrize("length", range(0, 40))
def test_targets_stay_between_one_and_the_length(length):
    for ratio in NAMED_RATIOS.values():
        target = Level("x", ratio).target(length)
        assert (1 <= target <= length) if length else target == 0


def test_a_budget_is_settled_per_clip():
    assert Budget(100).for_clip(750).target(750) == 100
    assert Budget(900).for_clip(750).ratio == 1


def test_settling_says_why_nothing_changes():
    assert settle(parse_level("keep50"), [750]) == (parse_level("keep50"), "")
    level, reason = settle(Budget(800, window=3, positions="compact"), [750])
    assert "not below the clip's 750" in reason and (level.window, level.positions) == (3, "compact")
    assert "keeps every token" in settle(parse_level("full"), [750])[1]
    assert "rounded up" in settle(parse_level("keep75"), [1, 2])[1]
    level, reason = settle(Budget(5), [])
    assert level.ratio == 1 and reason == "the prompt has no audio"


@pytest.mark.parametrize(
    "options,words",
    [
        (dict(level="keep40"), "levels are full, keep75"),
        (dict(keep_ratio="0"), "outside"),
        (dict(keep_ratio="1.1"), "outside"),
        (dict(keep_ratio="half"), "not a number"),
        (dict(keep_ratio="1/0"), "not a number"),
        (dict(audio_tokens=0), "budget 0 is not a whole number from 1"),
        (dict(audio_tokens=2.5), "budget 2.5 is not a whole number"),
        (dict(keep_ratio="1e-999999999"), "not a number"),
        (dict(keep_ratio="1e-9"), "1e-09 is below 1e-06"),
        (dict(window=10**9), "window 1000000000 is not a whole number"),
        (dict(keep_ratio="0.5", audio_tokens=3), "not both"),
        (dict(window="wide"), "auto, global"),
        (dict(window=-2), "window -2 is not a whole number from 0"),
        (dict(audio_tokens=3, window=-2), "window -2 is not a whole number from 0"),
        (dict(positions="old"), "original"),
        (
            dict(attention="more"),
            "'more' is none of proportional, plain, and no number from 0 to 10",
        ),
        (dict(attention="nan"), "no number from 0 to 10"),
        (dict(attention=-1), "attention '-1' is none of"),
        (dict(attention=11, audio_tokens=3), "attention '11' is none of"),
    ],
)
def test_refusals_say_what_is_allowed(options, words):
    with pytest.raises(ValueError, match=words):
        level_of_parts(**options)


def test_the_strength_of_attention():
    assert [bias_strength(name) for name in ("proportional", "plain", "1.25")] == [1, 0, 1.25]
    assert parse_level("keep25", attention=1.5).bias_strength == 1.5


def test_a_level_is_a_name_a_share_or_itself():
    level, budget = parse_level("keep25"), Budget(10)
    assert as_level(level) is level and as_level(budget) is budget
    assert as_level("keep25") == level and as_level(0.25).ratio == level.ratio
