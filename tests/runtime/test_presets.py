import json
from pathlib import Path

import pytest

from ltbm.runtime.levels import NAMED_RATIOS
from ltbm.runtime.presets import TASKS, choose

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "examples" / "demo" / "quality" / "results.json"
SPEECH = ROOT / "docs" / "quality"


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


@pytest.mark.parametrize("model", ["tiny.en", "base"])
def test_the_words_that_are_lost_are_what_was_measured(model):
    """Every figure in the reason is the one in docs/quality."""
    _, figures = TASKS["transcribe"].reason.split(f"{model} ", maxsplit=1)
    result = json.loads((SPEECH / f"{model}-asterisk-report.json").read_text())
    rates = {}
    for row in result["rows"]:
        if (row["method"], row["attention"]) == ("ltbm", "proportional"):
            rates[row["level"]] = f"{100 * row['wer']:.1f} {row['level']}"
    expected = ", ".join(rates[level] for level in ("full", "keep50", "keep33", "keep25"))
    assert figures.startswith(expected)
