"""Captions against references: CIDEr and CIDEr-D (arXiv 1411.5726), and what aac-metrics adds (SPIDEr,
FENSE).

`cider_d` is what audio captioning papers print as CIDEr: the one of coco-caption and aac-metrics.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

MAX_N = 4  # words of the longest n-gram
SIGMA = 6.0  # words, of CIDEr-D's penalty on a difference in length
SCALE = 10.0
BRACKETS: dict[str, str] = {
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
}
TOKEN: re.Pattern[str] = re.compile(
    r"""
    (?:[a-z]\.){2,}                                  # p.m.
    | \d+(?:[.,:/]\d+)*\w*(?:-\w+)*                  # 3.5, 10:30, 1/2, 40s, 10-second
    | '(?:s|m|d|re|ve|ll)(?!\w) | n't(?!\w)          # the second half of a contraction
    | \w+?(?=n't(?!\w))                              # its first half
    | \w+(?:[-/&.]\w+)*                              # wah-wah
    | [][(){}] | [^\w\s]                             # everything else stands alone
""",
    re.VERBOSE,
)
PUNCTUATION = frozenset(".,;:?!'`\"-–—…‘’“”")
JOINED = {
    "cannot": "can not",
    "gonna": "gon na",
    "gotta": "got ta",
    "wanna": "wan na",
    "gimme": "gim me",
    "lemme": "lem me",
}


def tokenize(caption: str) -> list[str]:
    """Words of a caption as coco-caption's tokenizer gives them, as far as captions need it.

    That one is Stanford's PTBTokenizer (Java) with lower-casing, its punctuation removed afterwards:
    contractions are split, hyphenated words and numbers stay whole.
    Left out are its lists of abbreviations (it keeps the period of "etc.") and its rarer splits.
    """
    words = []
    for token in TOKEN.findall(caption.lower().replace("’", "'")):
        if token not in PUNCTUATION:
            word = str(BRACKETS.get(token, token))
            words += JOINED.get(word, word).split()
    return words


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """`cider` and `cider_d` [N] of N captions, each against its own references;
    ValueError for fewer than two items.

    N-grams are weighed by how few of the N items have them in a reference, so scores depend on the corpus.
    Plain CIDEr is without the stemming of its paper, as its authors' code is.
    """
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} captions for {len(references)} sets of references")
    if len(references) < 2:
        raise ValueError(
            f"{len(references)} item: CIDEr weighs n-grams by their rarity among the items, so it needs at "
            "least two"
        )
    counted = [[ngrams(tokenize(reference)) for reference in own] for own in references]
    frequency = Counter(ngram for own in counted for ngram in set().union(*own))
    rarity = {ngram: math.log(len(references) / items) for ngram, items in frequency.items()}
    unseen = math.log(len(references))
    scores = [
        _score(ngrams(tokenize(candidate)), own, rarity, unseen)
        for candidate, own in zip(candidates, counted)
    ]
    return dict(zip(("cider", "cider_d"), SCALE * np.array(scores).T))


def ngrams(words: Sequence[str]) -> Counter:
    """How often each run of 1 to MAX_N words occurs."""
    return Counter(tuple(words[i : i + n]) for n in range(1, MAX_N + 1) for i in range(len(words) - n + 1))


def _score(candidate: Counter, references: list[Counter], rarity: dict, unseen: float) -> np.ndarray:
    """CIDEr and CIDEr-D [2] of one caption, unscaled: the mean over its references."""
    mine = _weigh(candidate, rarity, unseen)
    scores = []
    for reference in references:
        plain, clipped = _similarity(mine, _weigh(reference, rarity, unseen))
        difference = _bigrams(candidate) - _bigrams(reference)
        scores.append((plain, clipped * math.exp(-(difference**2) / (2 * SIGMA**2))))
    return np.mean(scores, axis=0)


def _weigh(counts: Counter, rarity: dict, unseen: float) -> list[dict]:
    """TF-IDF of the n-grams, one dict per n."""
    weights: list[dict] = [{} for _ in range(MAX_N)]
    for ngram, count in counts.items():
        weights[len(ngram) - 1][ngram] = count * rarity.get(ngram, unseen)
    return weights


def _similarity(mine: list[dict], theirs: list[dict]) -> tuple[float, float]:
    """Mean cosine over n: plain, and with no n-gram counting more than the reference has of it."""
    plain = clipped = 0.0
    for a, b in zip(mine, theirs):
        norm = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
        if norm:
            shared = a.keys() & b.keys()
            plain += sum(a[ngram] * b[ngram] for ngram in shared) / norm
            clipped += sum(min(a[ngram], b[ngram]) * b[ngram] for ngram in shared) / norm
    return plain / MAX_N, clipped / MAX_N


def _bigrams(counts: Counter) -> int:
    """A caption's length as the authors' code takes it: one less than its words."""
    return sum(count for ngram, count in counts.items() if len(ngram) == 2)


def aac_scores(metric: str, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """`spider` or `fense` [N] from the package aac-metrics; SPIDEr needs Java 8 to 13,
    both need what aac-metrics-download fetches."""
    try:
        from aac_metrics import evaluate  # pyright: ignore[reportMissingImports]  # of no extra
    except ImportError as error:
        raise ImportError(
            f"{metric} is computed by aac-metrics: pip install aac-metrics && aac-metrics-download ({error})"
        ) from None
    try:
        _, each = evaluate(list(candidates), [list(own) for own in references], metrics=[metric])
    except Exception as error:  # of Java, of a missing jar, of a model hub: whatever its layers raise
        raise RuntimeError(
            f"aac-metrics could not compute {metric}: {error}; run aac-metrics-download, and have Java 8 to "
            "13"
        ) from error
    return each[metric].cpu().numpy().astype(np.float64)
