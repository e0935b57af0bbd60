"""`ltbm run --chat`: a mistake is said in one line, and the chat goes on."""

import io
import json

import pytest
import soundfile

from ltbm.runtime.chat import questions
from ltbm.runtime.cli import main


@pytest.fixture
def folder(make_clip, tmp_path, monkeypatch):
    """The current folder, with clip.wav of 5 s, one whose name has spaces, and one that is no sound."""
    monkeypatch.chdir(tmp_path)
    for name in ("clip.wav", "two words.wav", "it's.wav"):
        soundfile.write(tmp_path / name, make_clip(5), 16_000)
    (tmp_path / "text.wav").write_text("no sound")
    return tmp_path


def chat(bundle, lines: list[str], monkeypatch, capsys, *flags: str) -> tuple[list[dict], list[str]]:
    """The answers, and what was said on stderr, of a chat about clip.wav."""
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))
    command = ["run", str(bundle), "clip.wav", "--chat", "--max-new-tokens", "3", "--json", *flags]
    assert main(command) == 0
    out, err = capsys.readouterr()
    return [json.loads(line) for line in out.splitlines()], err.splitlines()


def test_mistakes_do_not_end_it(qwen, folder, monkeypatch, capsys):
    lines = [
        "what ?",
        "/audio nofile.wav",
        "/audio",
        "and ?",
        "/audio text.wav",
        "this ?",
        "why <|AUDIO|> ?",
        "so ?",
    ]
    answers, said = chat(qwen[1], lines, monkeypatch, capsys)
    assert [answer["tokens_in"] for answer in answers] == [125, 125, 125]  # of 5 s at 40 ms
    assert said[0] == "ltbm: no audio file nofile.wav; the chat goes on"
    assert said[1] == "ltbm: /audio FILE brings a clip: name one"
    assert "text.wav" in said[2] and said[2].endswith("; text.wav is left out; the chat goes on")
    assert "stands for audio" in said[3] and said[3].endswith("; the chat goes on")
    assert len(said) == 4


@pytest.mark.parametrize(
    "written", ["two words.wav", '"two words.wav"', "'two words.wav'", r"two\ words.wav", "it's.wav"]
)
def test_a_name_as_it_is_or_as_a_shell_reads_it(folder, written):
    asked = list(questions("?", ["clip.wav"], [f"/audio {written}\n", "and ?\n"]))
    wanted = "it's.wav" if written == "it's.wav" else "two words.wav"
    assert asked == [("?", ["clip.wav"]), ("and ?", [wanted])]


def test_a_first_clip_that_is_no_sound_ends_it(qwen, folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("what ?\n"))
    assert main(["run", str(qwen[1]), "text.wav", "--chat"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
