import json
from pathlib import Path

import pytest

from ltbm.runtime.levels import NAMED_RATIOS
from ltbm.runtime.presets import TASKS, choose

RESULTS = Path(__file__).parents[2] / "examples" / "demo" / "quality" / "results.json"


def test_a_task_chooses_where_no_level_is_given():
    assert [(task, choose(None, task)) for task in TASKS] == [
        ("caption", "keep50"),
        ("qa", "keep50"),
        ("transcribe", "full"),
    ]
    assert choose("keep6", "transcribe") == "keep6" and choose(None, None) == "keep50"


def test_an_unknown_task_names_those_there_are():
    with pytest.raises(ValueError, match="caption, qa, transcribe"):
        choose("keep50", "translate")


@pytest.mark.parametrize("task,measure", [("caption", "exact_match"), ("qa", "question_accuracy")])
def test_the_reasons_are_what_was_measured(task, measure):
    """Every figure of the demo in a reason is the one in results.json; the level is the strongest that loses
    at most a point."""
    rows = {
        row["level"]: row[measure]
        for row in json.loads(RESULTS.read_text())["rows"]
        if (row["method"], row["positions"], row["attention"]) == ("ltbm", "original", "proportional")
    }
    for level, value in rows.items():
        assert f"{100 * value:.1f} {level}" in TASKS[task].reason
    cheap = [level for level, value in rows.items() if value >= rows["full"] - 0.01 - 1e-9]
    assert min(cheap, key=NAMED_RATIOS.__getitem__) == TASKS[task].level
