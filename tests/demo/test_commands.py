import json

import pytest

from ltbm.profiles.quality.demo import Variant, evaluate
from ltbm.runtime.cli import main


def test_the_demo_hears_its_clips(capsys):
    assert main(["demo", "--clips", "2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [clip["heard"]["full"]["text"] == clip["played"] for clip in shown["clips"]] == [True, True]
    tokens = [level["audio_tokens"] for level in shown["levels"]]
    assert tokens == sorted(tokens, reverse=True) and len(set(tokens)) == 4
    assert "synthetic scenes" in shown["note"]
    assert all(
        heard["encoder_ms"] > 0 for clip in shown["clips"] for heard in clip["heard"].values()
    )  # no level rides on another's


def test_the_demo_shows_a_table(capsys):
    assert main(["demo", "--clips", "1"]) == 0
    out, err = capsys.readouterr()
    assert "played" in out and "TTFT" in out and "decoder: " in err


@pytest.mark.parametrize("clips", ["0", "11"])
def test_the_demo_has_ten_clips(clips):
    assert main(["demo", "--clips", clips]) == 2


def test_eval_writes_its_results(tmp_path, capsys):
    flags = [
        "--scenes",
        "3",
        "--levels",
        "full,keep25",
        "--methods",
        "ltbm,stride",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["eval", "demo", *flags]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(results["rows"]) == 1 + 2 * 4 and results["scenes"] == 3
    assert "| keep25 | stride | original | proportional |" in capsys.readouterr().out


def test_processes_change_nothing(monkeypatch):
    """Scenes in tasks of two over two processes, and one after the other in this one."""
    from ltbm.demo.bundle import demo_bundle
    from ltbm.profiles.quality import demo

    monkeypatch.setattr(demo, "SCENES_PER_TASK", 2)
    chosen = [Variant("keep25", "ltbm", "original", "proportional")]
    with demo_bundle() as bundle:
        alone, together = (evaluate(bundle, 4, 1000, chosen, processes) for processes in (1, 2))
    assert alone == together and len(alone[chosen[0]]) == 4
