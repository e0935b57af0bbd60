from fractions import Fraction

import pytest

from ltbm.runtime.levels import NAMED_RATIOS, Level, parse_level


@pytest.mark.parametrize(
    "name,kept",
    [("full", 750), ("keep75", 563), ("keep50", 375), ("keep25", 188), ("keep12", 94), ("keep6", 47)],
)
def test_named_levels_keep_what_the_specification_says(name, kept):
    assert parse_level(name).target(750) == kept


@pytest.mark.parametrize(
    "name,window", [("full", 8), ("keep75", 8), ("keep50", 8), ("keep25", 8), ("keep12", 16), ("keep6", 32)]
)
def test_auto_window(name, window):
    assert parse_level(name).merge_window == window


def test_a_decimal_ratio_is_exact():
    level = parse_level(keep_ratio="0.3")
    assert level.ratio == Fraction(3, 10) and level.target(750) == 225 and level.merge_window == 8
    assert parse_level(keep_ratio=0.3).target(10) == 3  # binary 0.3 rounded up would keep 4


@pytest.mark.parametrize("length", range(0, 40))
def test_targets_stay_between_one_and_the_length(length):
    for ratio in NAMED_RATIOS.values():
        target = Level("x", ratio).target(length)
        assert (1 <= target <= length) if length else target == 0


def test_a_budget_is_settled_per_clip():
    assert parse_level(audio_tokens=100).for_clip(750).target(750) == 100
    assert parse_level(audio_tokens=900).for_clip(750).ratio == 1


@pytest.mark.parametrize(
    "options,words",
    [
        (dict(level="keep40"), "levels are full, keep75"),
        (dict(keep_ratio="0"), "outside"),
        (dict(keep_ratio="1.1"), "outside"),
        (dict(keep_ratio="half"), "no number"),
        (dict(keep_ratio="1/0"), "no number"),
        (dict(audio_tokens=0), "below 1"),
        (dict(keep_ratio="0.5", audio_tokens=3), "not both"),
        (dict(window="wide"), "auto, global"),
        (dict(window=-2), "below -1"),
        (dict(positions="old"), "original"),
        (dict(attention="more"), "proportional"),
    ],
)
def test_refusals_say_what_is_allowed(options, words):
    with pytest.raises(ValueError, match=words):
        parse_level(**options)


def test_a_complete_level_takes_no_further_options():
    level = parse_level("keep25")
    assert parse_level(level) is level
    with pytest.raises(ValueError, match="dataclasses.replace"):
        parse_level(level, window=3)
