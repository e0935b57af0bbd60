"""Multiple choice: MMAU's published matching rule (arXiv 2410.19168)."""

import re
from collections.abc import Sequence

WORD = re.compile(r"\w+")


def matches(prediction: str, answer: str, choices: Sequence[str]) -> bool:
    """Whether a free-text answer picks the right choice, as MMAU's evaluation.py decides it.

    It must hold every word of the right choice and none that only wrong choices have,
    in any order and any case; words of no choice do no harm. The letter of a choice alone is not taken.
    """
    given = words(prediction)
    wanted = words(answer)
    wrong = set().union(*map(words, choices)) - wanted
    return bool(given) and wanted <= given and given.isdisjoint(wrong)


def words(text: str) -> set[str]:
    return set(WORD.findall(text.lower()))
