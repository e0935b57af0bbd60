import random

import pytest

from ltbm.profiles.quality.transcripts import normalize, normalizer, word_errors


@pytest.mark.parametrize(
    "reference,heard,errors",
    [  # substitutions, deletions and insertions of jiwer 4.0.0
        ("he began a confused complaint", "he begun a confused complaint", 1),
        ("a b c d", "a c d e", 2),
        ("one two three", "", 3),
        ("the cat", "the the cat sat", 2),
        ("it's here", "its here", 1),
        ("", "uh", 1),
    ],
)
def test_errors_are_the_published_count(reference, heard, errors):
    assert word_errors(reference.split(), heard.split()) == errors


def test_errors_equal_jiwer_where_it_is_installed():
    jiwer = pytest.importorskip("jiwer", reason="jiwer is not installed")
    draw = random.Random(0)
    for _ in range(200):
        reference, heard = ([draw.choice("abcd") for _ in range(draw.randrange(low, 12))] for low in (1, 0))
        counted = jiwer.process_words(" ".join(reference), " ".join(heard))
        assert word_errors(reference, heard) == counted.substitutions + counted.deletions + counted.insertions


@pytest.mark.parametrize(
    "text,normal",
    [
        ("HE BEGAN A CONFUSED COMPLAINT", "he began a confused complaint"),
        ("“It’s” - the dogs' 'bark', isn’t it?", "it's the dogs bark isn't it"),
        ("Well-known, snake_case;  20 %", "well known snake case 20"),
        ("...", ""),
    ],
)
def test_normal_form(text, normal):
    assert normalize(text) == normal


def test_the_whisper_normalizer():
    pytest.importorskip("whisper_normalizer", reason="whisper-normalizer is not installed")
    assert normalizer("whisper")("It's Mr. Smith's two hundred").split() == [
        "it",
        "is",
        "mister",
        "smith",
        "is",
        "200",
    ]


def test_unknown_normalizers_are_refused():
    with pytest.raises(ValueError, match="plain, whisper"):
        normalizer("magic")
