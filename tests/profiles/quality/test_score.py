import json

import numpy as np
import pytest

from ltbm.profiles.quality.deciding import deciding_items
from ltbm.profiles.quality.items import Item
from ltbm.profiles.quality.predict import Settings, begin, items_hash
from ltbm.profiles.quality.results import ScoreResult
from ltbm.profiles.quality.score import Options, redraw, score, tally
from ltbm.profiles.quality.tables import markdown, write_results
from ltbm.profiles.quality.variants import Variant
from ltbm.runtime.cli import main

FULL = Variant("full", "ltbm", "original", "proportional")
LTBM, GLOBAL = (Variant("keep25", method, "original", "proportional") for method in ("ltbm", "global"))
CHOICES = ("dog", "cat")


def questions(count: int) -> list[Item]:
    return [
        Item(str(i), f"{i}.wav", ("dog",), "which ?", CHOICES, ("sound", "music")[i % 2])
        for i in range(count)
    ]


@pytest.fixture
def answered(tmp_path):
    """(benchmark, items, variant -> texts) -> the folder of these answers; None is an answer not given."""

    def make(benchmark: str, items: list[Item], texts: dict):
        settings = Settings(
            benchmark, "{question}{choices}", 8, "error", "onnxruntime", "cpu", items_hash(items), ""
        )
        with begin(tmp_path / benchmark, settings, items) as log:
            for variant, given in texts.items():
                for item, text in zip(items, given):
                    if text is not None:
                        log.append(
                            {
                                "item": item.id,
                                **vars(variant),
                                "text": text,
                                "finish_reason": "stop" if text else "length",
                                "tokens_in": 40,
                                "tokens_out": 40 if variant == FULL else 10,
                            }
                        )
        return tmp_path / benchmark

    return make


def test_choices_are_counted_over_all_and_by_group(answered):
    result = score(
        answered("mcq", questions(8), {FULL: ["dog"] * 6 + ["cat"] * 2, LTBM: ["the dog"] * 4 + [""] * 4})
    )
    full, ltbm = result.rows
    assert (
        full.figures == {"accuracy": 0.75, "sound": 0.75, "music": 0.75} and ltbm.figures["accuracy"] == 0.5
    )
    assert (ltbm.tokens_in, ltbm.tokens_out, ltbm.cut_off) == (320, 80, 4)
    low, high = full.intervals["accuracy"]
    assert 0.25 <= low < 0.75 < high <= 1


def test_differences_are_paired(answered):
    """Both err on the same items: their difference is certain, though each figure alone is not."""
    same = ["dog", "cat"] * 10
    worse = ["dog", "cat"] * 5 + ["cat"] * 10
    result = score(answered("mcq", questions(20), {FULL: same, LTBM: same, GLOBAL: worse}))
    found = {
        (row.variant.method, row.baseline): row for row in result.comparisons if row.metric == "accuracy"
    }
    assert set(found) == {("ltbm", "full"), ("global", "full"), ("ltbm", "global")}
    assert (found["ltbm", "full"].difference, found["ltbm", "full"].low, found["ltbm", "full"].high) == (
        0,
        0,
        0,
    )
    against_global = found["ltbm", "global"]
    assert against_global.difference == pytest.approx(0.25) == -found["global", "full"].difference
    assert 0 < against_global.low < 0.25 < against_global.high


def test_the_items_that_decide_come_first_and_sum_to_the_difference():
    items = questions(4)
    ltbm = np.array([[1, 10], [9, 10], [2, 10], [0, 10]], float)
    other = np.array([[2, 10], [1, 10], [2, 10], [4, 10]], float)
    tallies = {FULL: other, LTBM: ltbm, GLOBAL: other}
    rows = list(deciding_items(items, tallies, 9))
    assert [(row.item, row.ltbm, row.other) for row in rows] == [("1", 9, 1), ("3", 0, 4), ("0", 1, 2)]
    assert sum(row.points for row in rows) == pytest.approx(3 / 40) == rows[0].difference
    assert [row.item for row in deciding_items(items, tallies, 1)] == ["1"]


def test_score_lists_the_clips_that_decide(answered, capsys):
    items = [Item(name, f"{name}.wav", ("one two three four",)) for name in ("calm", "looping")]
    right = "one two three four"
    folder = answered("whisper", items, {FULL: [right] * 2, LTBM: [right] * 2, GLOBAL: [right, "six " * 50]})
    assert main(["eval", "score", str(folder), "--deciding", "3"]) == 0
    table = capsys.readouterr().out
    assert "| keep25 | Global Merge | -50.0 | looping | 0 | 4 | 4 | -50.0 |" in table
    assert "| calm |" not in table


def test_captions_and_transcripts(answered):
    items = [
        Item(str(i), f"{i}.wav", (text,))
        for i, text in enumerate(("a dog barks loudly", "the rain falls down"))
    ]
    texts = {FULL: [item.references[0] for item in items], LTBM: ["a dog barks loudly", "dog"]}
    captions, transcripts = (
        score(answered(benchmark, items, texts)).rows for benchmark in ("caption", "asr")
    )
    assert [row.figures["cider_d"] for row in captions] == pytest.approx([10, 5]) and next(
        iter(captions[0].intervals)
    ) == "cider_d"
    assert [row.figures["wer"] for row in transcripts] == [0, 0.5]  # four errors in eight words


def test_the_bootstrap_redraws_items():
    """Its interval is the binomial's."""
    weights = redraw(400)
    assert np.all(weights.sum(axis=1) == 400)
    low, high = np.quantile(weights[:, :100].sum(axis=1) / 400, [0.025, 0.975])
    assert low == pytest.approx(
        0.25 - 1.96 * (0.25 * 0.75 / 400) ** 0.5, abs=0.005
    ) and high == pytest.approx(0.5 - low, abs=0.005)


def test_metrics_of_captions_can_be_added(monkeypatch):
    from ltbm.profiles.quality import score as scoring

    monkeypatch.setattr(scoring, "aac_scores", lambda metric, texts, references: np.array([0.5, 0.25]))
    items = [Item(str(i), "", (text,)) for i, text in enumerate("ab")]
    assert tally("caption", items, ["a", "b"], Options(extra=("fense",)))["fense"].tolist() == [
        [0.5, 1],
        [0.25, 1],
    ]


def test_missing_answers_are_refused_unless_asked_for(answered):
    folder = answered("mcq", questions(3), {FULL: ["dog"] * 3, LTBM: ["dog", None, "cat"]})
    with pytest.raises(ValueError, match="1 of 3 items lack answers.*--partial"):
        score(folder)
    result = score(folder, Options(partial=True))
    assert (result.items, result.manifest_items) == (2, 3) and result.rows[1].figures["accuracy"] == 0.5


def test_no_answers_are_an_error(answered, tmp_path):
    with pytest.raises(ValueError, match="no item has answers"):
        score(answered("mcq", questions(2), {}))
    with pytest.raises(ValueError, match="2 have some"):
        score(
            answered("mcq", questions(2), {FULL: ["dog", None], LTBM: [None, "dog"]}), Options(partial=True)
        )
    with pytest.raises(FileNotFoundError, match="ltbm eval caption"):
        score(tmp_path)


def test_the_table_puts_benchmarks_side_by_side(answered):
    compact = Variant("keep25", "ltbm", "compact", "plain")
    mcq = answered(
        "mcq",
        questions(4),
        {LTBM: ["dog"] * 4, FULL: ["dog"] * 4, compact: ["cat"] * 4, GLOBAL: ["dog", "cat"] * 2},
    )
    asr = answered("asr", [Item("1", "1.wav", ("a b",))], {FULL: ["a b"], LTBM: [""]})
    results = [score(mcq), score(asr)]
    lines = markdown(results).splitlines()
    assert lines[0] == "| level | method | kept | mcq accuracy | mcq sound | mcq music | asr WER |"
    assert lines[2].startswith("| full | uncompressed | 100.0 % | 100.0 [100.0, 100.0]") and lines[
        2
    ].endswith("0.0 [0.0, 0.0] |")
    assert lines[4].startswith("| keep25 | ltbm, compact, plain | 25.0 % | 0.0 [0.0, 0.0]") and lines[
        4
    ].endswith(" - |")
    assert (
        "asr: 1 items, transcripts through the plain normalizer; 1 of 2 answers were cut off at 8 tokens."
        in lines
    )
    assert "| keep25 | ltbm | +50.0 [+0.0, +100.0] | - |" in lines  # minus global
    write_results(mcq, results[0])
    assert "mcq sound" in (mcq / "table.md").read_text()


def test_a_result_is_read_back_from_its_file(answered):
    folder = answered("mcq", questions(4), {FULL: ["dog"] * 4, LTBM: ["dog", "cat"] * 2})
    result = score(folder)
    write_results(folder, result)
    data = json.loads((folder / "results.json").read_text())
    assert ScoreResult.from_json(data) == result
    assert list(data["rows"][1]) == [
        *("level", "method", "positions", "attention", "tokens_in", "tokens_out", "cut_off"),
        *("accuracy", "sound", "music", "intervals"),
    ]
    assert data["rows"][1]["accuracy"] == 0.5 and data["metric"] == "accuracy"
    assert data["comparisons"][0]["baseline"] == "full" and data["settings"]["benchmark"] == "mcq"
