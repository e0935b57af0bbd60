"""A model that only transcribes, in every way it is asked: transcript, language, default level."""

import io
import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from ltbm.runtime.cli import main
from ltbm.runtime.session import Session


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    from ltbm.export.writer import export_bundle
    from tests.support.tiny_asr import make_transcriber

    folder = tmp_path_factory.mktemp("transcriber")
    checkpoint = make_transcriber(folder / "checkpoint")
    return export_bundle(checkpoint, folder / "bundle", progress=lambda line: None)


@pytest.fixture(scope="module")
def transcriber(bundle):
    with Session.open(bundle) as session:
        yield session


@pytest.fixture
def clip(make_clip, tmp_path):
    soundfile.write(tmp_path / "clip.wav", make_clip(2), 16_000)
    return tmp_path / "clip.wav"


def run(capsys, *command) -> tuple[int, str, str]:
    code = main([*map(str, command)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("language,said", [("", "English"), ("zh", "Chinese")])
def test_an_answer_is_the_transcript_and_its_language(transcriber, make_clip, language, said):
    stream = transcriber.stream(make_clip(2), "", language=language)
    pieces = list(stream)
    assert "".join(pieces) == stream.answer.text == "hi"
    assert (stream.answer.language, stream.answer.level) == (said, "full")


def test_a_level_that_is_asked_for_counts(transcriber, make_clip):
    assert transcriber.generate(make_clip(2), "", "keep25").tokens_out == 7  # of 26
    assert transcriber.generate(make_clip(2), "", task="qa").level == "keep50"


def test_a_conversation_is_refused(transcriber, make_clip):
    conversation = transcriber.converse()
    assert conversation.ask("", make_clip(2)).text == "hi"
    with pytest.raises(ValueError, match="transcribes and holds no conversation"):
        conversation.ask("and then?")
    with pytest.raises(ValueError, match="listen without one"):
        transcriber.listen(conversation=True)


def test_other_models_take_no_language(session, make_clip):
    with pytest.raises(ValueError, match="takes no language 'en': write it into the prompt"):
        session.generate(make_clip(1), "?", language="en")


def test_an_unknown_language(transcriber, make_clip):
    with pytest.raises(ValueError, match="knows no language 'xx'; it knows ar"):
        transcriber.generate(make_clip(1), "", language="xx")


def test_a_listener_asks_without_words(transcriber, make_clip):
    with transcriber.listen() as listener:
        listener.push(make_clip(9))
        answer = listener.ask("").finish()
    assert (answer.text, answer.language, answer.level) == ("hi", "English", "full")
    assert answer.tokens_in == 104 + 13


@pytest.mark.parametrize("language,said", [("zh", "Chinese"), ("Chinese", "Chinese"), ("", "English")])
def test_a_listener_is_told_the_language(transcriber, make_clip, language, said):
    """The answer is that about the whole clip, and sound that was read before is not read again."""
    expected = transcriber.generate(make_clip(9), "ltbm", language=language)
    with transcriber.listen() as listener:
        listener.push(make_clip(9))
        assert listener.ask("ltbm").finish().language == "English"
        answer = listener.ask("ltbm", language=language).finish()
    assert (answer.text, answer.language) == ("hi", said)
    assert answer.prompt_token_ids == expected.prompt_token_ids
    assert answer.reused_tokens > 104


def test_a_listener_refuses_a_language(transcriber, session, make_clip):
    with transcriber.listen() as listener:
        listener.push(make_clip(1))
        with pytest.raises(ValueError, match="knows no language 'xx'; it knows ar"):
            listener.ask("", language="xx")
        assert listener.ask("").finish().text == "hi"
    with session.listen() as listener:
        listener.push(make_clip(1))
        with pytest.raises(ValueError, match="takes no language 'en': write it into the prompt"):
            listener.ask("?", language="en")


def test_the_command_needs_no_prompt(bundle, clip, capsys):
    code, out, err = run(capsys, "run", bundle, clip)
    assert (code, out) == (0, "hi\n") and err.startswith("English; full (level full keeps every token): 26 ")
    code, out, _ = run(capsys, "run", bundle, clip, "--language", "fr", "--json", "--level", "keep50")
    answer = json.loads(out)
    assert (answer["text"], answer["language"], answer["level"]) == ("hi", "French", "keep50")
    code, _, err = run(capsys, "run", bundle, clip, "--language", "xx")
    assert code == 1 and "knows no language 'xx'" in err and err.count("\n") == 1


def test_listening_is_told_the_language(bundle, make_clip, monkeypatch, capsys):
    def listen(*flags) -> tuple[int, str, str]:
        sound = np.round(make_clip(2) * 2**15).astype("<i2").tobytes()
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(sound)))
        return run(capsys, "listen", bundle, "-", *flags)

    code, out, err = listen("--prompt", "", "--language", "fr")
    assert (code, out) == (0, "hi\n") and err.startswith("French; full: 0.0 to 2.0 s, 26 audio tokens")
    code, out, _ = listen("--prompt", "", "--language", "zh", "--json")
    assert json.loads(out)["language"] == "Chinese"
    code, out, err = listen("--language", "xx", "--questions", os.devnull)
    assert (code, out) == (1, "") and "knows no language 'xx'" in err and err.count("\n") == 1


def test_other_models_need_one(qwen, clip, capsys):
    code, _, err = run(capsys, "run", qwen[1], clip)
    assert code == 2 and "give --prompt with a question" in err


def test_inspect_says_the_default_level(bundle, qwen, capsys):
    levels = []
    for path in (bundle, qwen[1]):
        _, out, _ = run(capsys, "inspect", path, "--json")
        levels.append(json.loads(out)["default_level"])
    assert levels == ["full", "keep50"]


def test_an_evaluation_reads_transcripts(bundle, clip, tmp_path, capsys):
    """Scored without the language, asked without words."""
    manifest = tmp_path / "items.jsonl"
    manifest.write_text(json.dumps({"id": "a", "audio": str(clip), "references": ["hi"]}) + "\n")
    command = ("eval", "asr", bundle, "--manifest", manifest, "--levels", "full", "--methods", "ltbm")
    code, _, err = run(capsys, *command, "--out", tmp_path / "answers")
    assert code == 0, err
    (line,) = (tmp_path / "answers" / "answers.jsonl").read_text().splitlines()
    assert json.loads(line)["text"] == "hi"
    assert json.loads((tmp_path / "answers" / "settings.json").read_text())["prompt"] == ""


def test_sound_is_cut_where_blocks_end(transcriber):
    audio = transcriber.manifest.audio
    (segments,) = transcriber.pipeline.segments(np.zeros(16_000 * 20, np.float32))
    assert audio.segment_seconds == 8 and [segment.tokens for segment in segments] == [104, 104, 52]
