"""`ltbm eval demo`: scenes of a folder of recordings through the engines, scored as every evaluation is."""

import json

import pytest

from ltbm.demo.language import parse_caption
from ltbm.demo.metrics import score_clip
from ltbm.profiles.quality import demo
from ltbm.profiles.quality.items import Item
from ltbm.profiles.quality.results import ScoreResult
from ltbm.profiles.quality.score import tally
from ltbm.runtime.cli import main
from tests.support.recordings import write_recordings

LEVELS = ["--levels", "full,keep25", "--methods", "ltbm,stride", "--positions", "original"]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return write_recordings(tmp_path_factory.mktemp("recordings"))


def run(out, recordings, *flags: str) -> int:
    return main(["eval", "demo", "--recordings", str(recordings), "--out", str(out), *LEVELS, *flags])


def test_an_evaluation_from_start_to_end(recordings, tmp_path, capsys, monkeypatch):
    """Scenes in tasks of two over two processes; then one more scene in this one, and the same at once."""
    monkeypatch.setattr(demo, "SCENES_PER_TASK", 2)
    grown, whole = tmp_path / "grown", tmp_path / "whole"
    assert run(grown, recordings, "--scenes", "4", "--processes", "2") == 0
    assert "| keep25 | stride, original, plain |" in capsys.readouterr().out
    assert run(grown, recordings, "--scenes", "5", "--processes", "1", "--json") == 0
    captured = capsys.readouterr()
    assert "1 of 1 scenes" in captured.err
    printed = json.loads(captured.out)
    assert printed == json.loads((grown / "results.json").read_text())
    result = ScoreResult.from_json(printed)
    assert result.items == 5 and len(result.rows) == 1 + 2 * 2 and result.metric == "event_f1"

    assert run(whole, recordings, "--scenes", "5", "--processes", "1") == 0
    assert json.loads((whole / "results.json").read_text())["rows"] == printed["rows"]
    answers = [set((out / "answers.jsonl").read_text().splitlines()) for out in (grown, whole)]
    assert answers[0] == answers[1] and len(answers[0]) == 5 * 5
    names = {path.name for path in whole.iterdir()}
    assert names >= {"results.json", "table.md", "items.jsonl", "settings.json"}


def test_other_recordings_want_another_folder(recordings, tmp_path, capsys):
    assert run(tmp_path / "out", recordings, "--scenes", "1", "--levels", "full") == 0
    assert run(tmp_path / "out", recordings, "--scenes", "1", "--levels", "full", "--seed", "3") == 1
    assert "other settings (items was" in capsys.readouterr().err


def test_a_folder_without_recordings(tmp_path, capsys):
    assert run(tmp_path / "out", tmp_path) == 1
    assert "no recording of the test split" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--levels", "keep99"], ["--methods", "magic"], ["--scenes", "0"]])
def test_wrong_usage(flags):
    assert main(["eval", "demo", *flags]) == 2


def test_an_answer_counts_as_its_lines_do():
    true = "a dog barks twice , then someone says seven two ."
    item = Item("scene 0", "dog.ogg", (true, "twice", "seven two"), "how often ?\nwhich digits ?")
    said = "a dog barks once , then someone says seven ."
    tallies = tally("demo", [item], [f"{said}\ntwice\nseven"])
    counts = score_clip(parse_caption(true), said, ["twice", "seven two"], ["twice", "seven"])
    assert tallies["event_f1"].tolist() == [[4, 4]] and tallies["exact_match"].tolist() == [[0, 1]]
    assert tallies["question_accuracy"].tolist() == [[1, 2]] and tallies["digit_accuracy"].tolist() == [
        [1, 2]
    ]
    assert tallies["count_accuracy"].tolist() == [[counts["count_right"], counts["count_scored"]]] == [[0, 1]]
    assert "duration_accuracy" not in tallies  # nothing lasted: there is no such figure


def test_scenes_that_differ_are_refused(tmp_path):
    items = [Item("scene 0", "a", ("a dog barks once .",)), Item("scene 1", "b", ("rain falls briefly .",))]
    (tmp_path / demo.ITEMS).write_text(demo.item_line(items[0]) + "\n")
    demo.extend_items(tmp_path, items)
    assert len((tmp_path / demo.ITEMS).read_text().splitlines()) == 2
    demo.extend_items(tmp_path, items[:1])
    assert len((tmp_path / demo.ITEMS).read_text().splitlines()) == 2
    with pytest.raises(ValueError, match="other scenes"):
        demo.extend_items(tmp_path, items[::-1])
