import json

import numpy as np
import pytest
import soundfile

from ltbm.profiles.quality.transcripts import normalizer
from ltbm.runtime.cli import main


@pytest.fixture
def digits(tmp_path):
    """Takes of two digits by two speakers, half a second each; every take has a level of its own."""
    for number in range(160):
        name = f"{number % 2}_{('ann', 'bob')[number // 80]}_{number}.wav"
        soundfile.write(tmp_path / name, np.full(4000, (number + 1) / 200), 8000)
    return tmp_path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def levels(path) -> set[int]:
    """The takes in a joined clip, by their level."""
    samples, rate = soundfile.read(path)
    half_a_second, gap = rate // 2, int(0.3 * rate)
    return {round(200 * middle) for middle in samples[half_a_second // 2 :: half_a_second + gap]}


def test_clips_are_joined_of_one_voice_and_the_halves_share_no_recording(digits):
    out = digits / "out"
    assert main(["eval", "join", "fsdd", str(digits), "--out", str(out)]) == 0
    taken = {}
    for half in ("look", "report"):
        items = read(out / f"fsdd-{half}.jsonl")
        assert [item["group"] for item in items[:2]] in (["ann", "bob"], ["bob", "ann"])
        taken[half] = set()
        for item in items:
            seconds = soundfile.info(out / item["audio"]).duration
            assert 17 <= seconds <= 28
            takes = levels(out / item["audio"])
            assert len(takes) == len(item["references"][0].split())
            assert taken[half].isdisjoint(takes)
            assert len({take > 80 for take in takes}) == 1
            taken[half] |= takes
    assert min(taken["look"] | taken["report"]) > 5, "takes 0 to 4 are the published test set"
    assert taken["look"] and taken["report"] and taken["look"].isdisjoint(taken["report"])


def test_the_same_seed_gives_the_same_halves(digits):
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["eval", "join", "fsdd", str(digits), "--out", str(digits / out), "--seed", seed]) == 0
    first, same, other = (read(digits / out / "fsdd-look.jsonl") for out in "abc")
    assert first == same != other


def test_prompts_with_sounds_in_brackets_or_of_few_words_are_left_out(tmp_path):
    texts = {"a/one": "please hold the line", "two": "[long beep] please hold the line", "three": "hello"}
    (tmp_path / "a").mkdir()
    for name in texts:
        soundfile.write(tmp_path / f"{name}.wav", np.ones(8000 * 18) / 2, 8000)
    (tmp_path / "texts.txt").write_text("; a comment\n" + "".join(f"{k}: {v}\n" for k, v in texts.items()))
    command = ["eval", "join", "asterisk", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(command) == 1, "without the words"
    assert main([*command, "--transcripts", str(tmp_path / "texts.txt")]) == 0
    items = [*read(tmp_path / "out/asterisk-look.jsonl"), *read(tmp_path / "out/asterisk-report.jsonl")]
    assert [item["references"] for item in items] == [["please hold the line"]]


def test_an_empty_folder_is_refused(tmp_path, capsys):
    assert main(["eval", "join", "fsdd", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "no recordings of fsdd" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["725", "7-2-5", "7, 2, 5.", "Seven two five"])
def test_digits_are_words_however_they_are_written(text):
    assert normalizer("digits")(text) == "seven two five"
