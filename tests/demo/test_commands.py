import json

import pytest

from ltbm.demo.commands import read_clips
from ltbm.runtime.cli import main


def test_the_demo_describes_its_clips(capsys):
    assert main(["demo", "--clips", "2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [clip["played"] for clip in shown["clips"]] == [clip.caption for clip in read_clips(2)]
    for clip in shown["clips"]:
        for said in clip["heard"].values():
            assert said["text"].endswith(" .") and said["encoder_ms"] > 0  # no level rides on another's
    tokens = [level["audio_tokens"] for level in shown["levels"]]
    assert tokens == sorted(tokens, reverse=True) and len(set(tokens)) == 4
    assert shown["levels"][0]["event_f1"] > 0.5
    assert "Whisper" in shown["note"]


def test_the_demo_shows_a_table(capsys):
    assert main(["demo", "--clips", "1"]) == 0
    out, err = capsys.readouterr()
    assert "played" in out and "TTFT" in out and "decoder: " in err


@pytest.mark.parametrize("clips", ["0", "11"])
def test_the_demo_has_ten_clips(clips):
    assert main(["demo", "--clips", clips]) == 2
