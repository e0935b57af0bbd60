"""Transcripts: words put into one form, and the errors among them (word error rate = errors / words of the
reference)."""

import re
import unicodedata
from collections.abc import Callable, Sequence

NORMALIZERS = ("plain", "whisper", "digits")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def normalizer(name: str) -> Callable[[str], str]:
    """`plain`, `digits`, or `whisper`: Whisper's English normaliser from the package whisper-normalizer,
    as Qwen2-Audio's authors use."""
    if name == "plain":
        return normalize
    if name == "digits":
        return normalize_digits
    if name != "whisper":
        raise ValueError(f"unknown normalizer {name!r}; known are {', '.join(NORMALIZERS)}")
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise ImportError(
            f"the whisper normalizer is a package of its own: pip install whisper-normalizer ({error})"
        ) from None
    return EnglishTextNormalizer()


def normalize(text: str) -> str:
    """Lower case, no punctuation but apostrophes inside words; numbers,
    spellings and contractions stay as they are."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    text = re.sub(r"[^\w\s']|_", " ", text)
    text = re.sub(r"(?<!\w)'|'(?!\w)", " ", text)
    return " ".join(text.split())


def normalize_digits(text: str) -> str:
    """As `normalize`, with every digit a word of its own: "725" and "7-2-5" are "seven two five"."""
    spelled = re.sub(r"[0-9]", lambda match: f" {DIGITS[int(match[0])]} ", text)
    return normalize(spelled)


def word_errors(reference: Sequence[str], predicted: Sequence[str]) -> int:
    """Substitutions, deletions and insertions between two lists of words (Levenshtein's distance)."""
    row = list(range(len(predicted) + 1))  # distance of the words so far from each start of `predicted`
    for i, word in enumerate(reference, start=1):
        diagonal = row[0]
        row[0] = i
        for j, other in enumerate(predicted, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]
