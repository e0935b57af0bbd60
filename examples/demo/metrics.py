"""Scores of what was heard against what was played: numpy only, so that every runtime can use them.

`score_clip` counts for one clip, `summarise` adds the counts up: so a bootstrap can redraw clips.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from .language import Question, caption, parse_caption
from .scenes import Event

RATIOS = {  # metric -> (counts of its numerator, counts of its denominator)
    "event_precision": ("matched", "heard"),
    "event_recall": ("matched", "played"),
    "event_f1": ("matched_twice", "heard_and_played"),
    "exact_match": ("exact", "clips"),
    "sequence_accuracy": ("in_order", "clips"),
    "count_accuracy": ("count_right", "count_asked"),
    "duration_accuracy": ("duration_right", "duration_asked"),
    "pitch_accuracy": ("pitch_right", "pitch_asked"),
    "question_accuracy": ("question_right", "question_asked"),
}
COUNTS = sorted({name for pair in RATIOS.values() for name in pair})
ATTRIBUTES = ("count", "duration", "pitch")


def score_clip(
    events: Sequence[Event],
    heard_caption: str,
    questions: Sequence[Question] = (),
    answers: Sequence[str] = (),
) -> dict[str, int]:
    """The counts (COUNTS) of one clip from the caption and the answers that were given for it.

    Events match as multisets of classes. An attribute is right where the k-th event of its class was heard with it; an
    event that was not heard has all attributes wrong.
    """
    heard = parse_caption(heard_caption)
    matched = sum((Counter(e.sound for e in events) & Counter(e.sound for e in heard)).values())
    counts = {
        "matched": matched,
        "matched_twice": 2 * matched,
        "heard": len(heard),
        "played": len(events),
        "heard_and_played": len(heard) + len(events),
        "clips": 1,
        "exact": int(_words(heard_caption) == _words(caption(events))),
        "in_order": int([e.sound for e in heard] == [e.sound for e in events]),
        "question_asked": len(questions),
        "question_right": sum(
            _words(answer) == _words(question.answer)
            for question, answer in zip(questions, answers, strict=True)
        ),
    }
    return counts | _attribute_counts(events, heard)


def summarise(clips: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Every metric of RATIOS over clips, each clip as `score_clip` counts it; nan where nothing was asked."""
    totals = {name: sum(clip[name] for clip in clips) for name in COUNTS}
    return {metric: _ratio(totals[above], totals[below]) for metric, (above, below) in RATIOS.items()}


def bootstrap_difference(
    clips: Sequence[Mapping[str, int]],
    others: Sequence[Mapping[str, int]],
    metric: str,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """(difference, low, high) of a metric between two ways of hearing the same clips: a paired bootstrap."""
    if len(clips) != len(others):
        raise ValueError(f"{len(clips)} clips against {len(others)}: a paired bootstrap needs the same clips")
    pairs = [_matrix(side, metric) for side in (clips, others)]  # each [clips, 2]
    picks = np.random.default_rng(seed).integers(len(clips), size=(draws, len(clips)))
    redrawn = [side[picks].sum(axis=1) for side in pairs]  # each [draws, 2]
    differences = redrawn[0][:, 0] / redrawn[0][:, 1] - redrawn[1][:, 0] / redrawn[1][:, 1]
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return summarise(clips)[metric] - summarise(others)[metric], float(low), float(high)


def _attribute_counts(events: Sequence[Event], heard: Sequence[Event]) -> dict[str, int]:
    pools = defaultdict(list)
    for event in heard:
        pools[event.sound].append(event)
    counts = {f"{name}_{what}": 0 for name in ATTRIBUTES for what in ("asked", "right")}
    for event in events:
        found = pools[event.sound].pop(0) if pools[event.sound] else None
        for name in ATTRIBUTES:
            expected = getattr(event, name)
            if expected is not None:
                counts[f"{name}_asked"] += 1
                counts[f"{name}_right"] += int(found is not None and getattr(found, name) == expected)
    return counts


def _matrix(clips: Sequence[Mapping[str, int]], metric: str) -> np.ndarray:
    return np.array([[clip[name] for name in RATIOS[metric]] for clip in clips], dtype=float)


def _ratio(above: float, below: float) -> float:
    return above / below if below else float("nan")


def _words(text: str) -> list[str]:
    return text.split()
