import sys
import types

import numpy as np
import pytest

from ltbm.profiles.quality.captions import aac_scores, cider, ngrams, tokenize

CAPTIONS = [
    "A dog barks twice, then a man's laughing in the distance.",
    "Rain falls on a tin roof while thunder rumbles (far away)",
    "a car engine idles and idles and idles and idles",
    "",
    "An engine idles; it doesn't stop",
]
REFERENCES = [
    ["A dog barks and a man laughs far away", "A man's laughing after a dog barks twice"],
    [
        "Heavy rain is falling on a metal roof",
        "Rain falls on a tin roof while thunder rumbles",
        "Thunder rumbles far away",
    ],
    ["A car engine idles", "An engine idles, then a car drives off"],
    ["Birds sing in the morning", "Birds chirp"],
    ["An engine idles and doesn't stop", "A motor is running"],
]
# Of PTBTokenizer and Cider of pycocoevalcap 1.2; cider_d of aac-metrics 0.6.0 gives the same to the last bit.
CIDER_D = [3.303381257, 2.67549512, 1.504830048, 0.0, 2.169225912]
# Of pyciderevalcap/cider in its authors' repository (vrama91/cider), run in Python 3, on the same tokens.
CIDER = [3.743221362, 3.76297572, 2.707987992, 0.0, 2.169225912]


def test_scores_equal_the_reference_implementations():
    scores = cider(CAPTIONS, REFERENCES)
    assert scores["cider_d"] == pytest.approx(CIDER_D, abs=1e-8)
    assert scores["cider"] == pytest.approx(CIDER, abs=1e-8)


def test_cider_d_equals_pycocoevalcap_where_it_is_installed():
    scorer = pytest.importorskip("pycocoevalcap.cider.cider", reason="pycocoevalcap is not installed").Cider()
    tokens = {i: [" ".join(tokenize(caption))] for i, caption in enumerate(CAPTIONS)}
    references = {i: [" ".join(tokenize(text)) for text in texts] for i, texts in enumerate(REFERENCES)}
    mean, each = scorer.compute_score(references, tokens)
    assert cider(CAPTIONS, REFERENCES)["cider_d"] == pytest.approx(each, abs=1e-12)


@pytest.mark.parametrize(
    "caption,tokens",
    [  # right sides are PTBTokenizer's, its punctuation removed as coco-caption does
        ("A man's voice; it's loud, isn't it?", "a man 's voice it 's loud is n't it"),
        (
            "Someone doesn't stop - they're \"singing\" (loudly) at 10:30 p.m.",
            "someone does n't stop they 're singing -lrb- loudly -rrb- at 10:30 p.m.",
        ),
        ("wah-wah pedals ... 3.5 seconds, 50% louder", "wah-wah pedals 3.5 seconds 50 % louder"),
        ("People can't, cannot and won't stop", "people ca n't can not and wo n't stop"),
        ("A dog’s bark.another bark", "a dog 's bark.another bark"),
        ("A man in his 40s", "a man in his 40s"),
        ("  ", ""),
    ],
)
def test_tokens_are_those_of_coco_caption(caption, tokens):
    assert " ".join(tokenize(caption)) == tokens


def test_a_perfect_caption_scores_ten_and_repeating_it_gains_only_in_plain_cider():
    words = [["a siren wails over the traffic"], ["two birds chirp in a quiet forest"]]
    once = cider([own[0] for own in words], words)
    twice = cider([f"{own[0]} {own[0]}" for own in words], words)
    assert once["cider"] == pytest.approx([10, 10]) and once["cider_d"] == pytest.approx([10, 10])
    assert np.all(twice["cider_d"] < 7) and np.all(twice["cider"] > 9)


def test_ngrams_are_counted_up_to_four_words():
    counts = ngrams(["a", "b", "a", "b", "a"])
    assert counts[("a", "b")] == 2 and counts[("a",)] == 3 and max(map(len, counts)) == 4


@pytest.mark.parametrize(
    "captions,references,words",
    [(["a"], [["a"]], "at least two"), (["a"], [["a"], ["b"]], "1 captions for 2")],
)
def test_what_cannot_be_scored_is_refused(captions, references, words):
    with pytest.raises(ValueError, match=words):
        cider(captions, references)


@pytest.fixture
def aac_metrics(monkeypatch):
    """A stand-in for the package, since its models are not at hand; `evaluate` can be replaced."""
    module = types.ModuleType("aac_metrics")
    monkeypatch.setitem(sys.modules, "aac_metrics", module)
    return module


def test_aac_metrics_scores_come_per_caption(aac_metrics):
    def evaluate(candidates, mult_references, metrics):
        torch = pytest.importorskip("torch")
        return {}, {metrics[0]: torch.tensor([float(len(references)) for references in mult_references])}

    aac_metrics.evaluate = evaluate
    assert aac_scores("fense", CAPTIONS, REFERENCES).tolist() == [2, 3, 2, 2, 2]


def test_what_aac_metrics_lacks_is_named(aac_metrics, monkeypatch):
    def evaluate(*_, **__):
        raise RuntimeError("no SPICE jar")

    aac_metrics.evaluate = evaluate
    with pytest.raises(RuntimeError, match="no SPICE jar.*aac-metrics-download"):
        aac_scores("spider", CAPTIONS, REFERENCES)
    monkeypatch.setitem(sys.modules, "aac_metrics", None)
    with pytest.raises(ImportError, match="pip install aac-metrics"):
        aac_scores("spider", CAPTIONS, REFERENCES)
