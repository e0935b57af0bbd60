"""The language before a transcript is taken off, as Qwen3-ASR's processor in transformers does it."""

import pytest

from ltbm.runtime.bundle import TranscriptSpec
from ltbm.runtime.stop_strings import StopStrings
from ltbm.runtime.transcript import AnswerText, Transcript, answer_beginning, language_name

SPEC = TranscriptSpec("<asr_text>", {"en": "English", "zh": "Chinese"})
RAW = [
    "language English<asr_text>Hello there.",
    "language English<asr_text>  Hello\n there.  \n",
    "language None<asr_text>",
    "language None<asr_text> la la",
    "Chinese<asr_text>x",
    "\n\nlanguage Chinese\nmore<asr_text>a <asr_text> b",
    "language <asr_text>x",
    "<asr_text>x",
    "no mark at all ",
    "language English",
    "",
    "   ",
]


@pytest.mark.parametrize("raw", RAW)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_pieces_are_what_transformers_parses(raw, size):
    from transformers.models.qwen3_asr.processing_qwen3_asr import _parse_single_output

    transcript = Transcript(SPEC)
    pieces = [transcript.push(raw[start : start + size]) for start in range(0, len(raw), size)]
    text = "".join([*pieces, transcript.finish()])
    assert {"language": transcript.language or None, "transcription": text} == _parse_single_output(raw)


def test_words_come_as_they_are_said():
    """After the mark nothing waits but spaces that may be the last."""
    transcript = Transcript(SPEC)
    pieces = ("language", " English", "<asr_", "text>", " He", "y ", "you", " ")
    said = [transcript.push(piece) for piece in pieces]
    assert said == ["", "", "", "", "He", "y", " you", ""]
    assert transcript.finish() == "" and transcript.language == "English"


def test_a_language_that_was_asked_for_needs_no_mark():
    transcript = Transcript(SPEC, answer_beginning(SPEC, "zh"))
    assert [transcript.push("ni"), transcript.push(" hao"), transcript.finish()] == ["ni", " hao", ""]
    assert transcript.language == "Chinese"


def test_other_models_answers_pass_untouched():
    transcript = Transcript(None)
    given = [transcript.push(" a "), transcript.push("<asr_text>"), transcript.finish()]
    assert given == [" a ", "<asr_text>", ""]


def test_stop_strings_are_looked_for_in_the_transcript():
    text = AnswerText(Transcript(SPEC), StopStrings(["English", "you"]))
    given = text.push("language English<asr_text>Hey ") + text.push("you there") + text.finish()
    assert given == text.text == "Hey " and text.stopped and text.language == "English"


@pytest.mark.parametrize("language", ["en", "EN", "en-US", "English", "english"])
def test_a_language_by_its_code_or_name(language):
    assert language_name(SPEC, language) == "English"


@pytest.mark.parametrize("language", ["xx", "e", "Englis"])
def test_an_unknown_language_names_those_that_there_are(language):
    with pytest.raises(ValueError, match=rf"knows no language '{language}'; it knows en \(English\), zh"):
        language_name(SPEC, language)
