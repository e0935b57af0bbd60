"""Scores of a model's answers against what a scene holds.

`score_clip` counts for one clip and `summarise` adds the counts up; a bootstrap redraws clips.
Needs neither torch nor an engine, so that answers of every runtime can be scored.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from .language import caption, parse_caption
from .sounds import Event

RATIOS = {  # metric -> (count of its numerator, count of its denominator)
    "event_f1": ("matched_twice", "predicted_and_true"),
    "exact_match": ("exact", "clips"),
    "question_accuracy": ("question_right", "question_scored"),
    "digit_accuracy": ("digits_right", "digits_scored"),
    "count_accuracy": ("count_right", "count_scored"),
    "duration_accuracy": ("duration_right", "duration_scored"),
    "sequence_accuracy": ("in_order", "clips"),
}
COUNTS = sorted({name for pair in RATIOS.values() for name in pair})
ATTRIBUTES = ("count", "duration")
ATTRIBUTE_COUNTS = [f"{name}_{kind}" for name in (*ATTRIBUTES, "digits") for kind in ("scored", "right")]


def score_clip(
    events: Sequence[Event],
    predicted_caption: str,
    right_answers: Sequence[str] = (),
    answers: Sequence[str] = (),
) -> dict[str, int]:
    """The counts (COUNTS) of one clip from the caption and the answers to questions that a model gave for it.

    Events match as multisets of classes. An attribute is right if the k-th event of its class was predicted
    with it; an event that was not predicted has all attributes wrong.
    """
    predicted = parse_caption(predicted_caption)
    sounds = [event.sound for event in events]
    predicted_sounds = [event.sound for event in predicted]
    counts = {
        "matched_twice": 2 * (Counter(sounds) & Counter(predicted_sounds)).total(),
        "predicted_and_true": len(predicted) + len(events),
        "clips": 1,
        "exact": int(predicted_caption.split() == caption(events).split()),
        "in_order": int(predicted_sounds == sounds),
        "question_scored": len(right_answers),
        "question_right": _equal(right_answers, answers),
    }
    return counts | _attribute_counts(events, predicted)


def summarise(clips: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Every metric of RATIOS over clips as `score_clip` counts them; nan where there was nothing to score."""
    totals = {name: sum(clip[name] for clip in clips) for name in COUNTS}
    return {metric: _ratio(totals[above], totals[below]) for metric, (above, below) in RATIOS.items()}


def _equal(right_answers: Sequence[str], answers: Sequence[str]) -> int:
    """Answers that are the right one word by word."""
    pairs = zip(right_answers, answers, strict=True)
    return sum(answer.split() == right.split() for right, answer in pairs)


def _attribute_counts(events: Sequence[Event], predicted: Sequence[Event]) -> dict[str, int]:
    """For each attribute the events (of digits: the digits) that have one, and those predicted right."""
    counts = dict.fromkeys(ATTRIBUTE_COUNTS, 0)
    for event, match in matched_events(events, predicted):
        for name in ATTRIBUTES:
            true_value = getattr(event, name)
            if true_value is not None:
                counts[f"{name}_scored"] += 1
                counts[f"{name}_right"] += int(match is not None and getattr(match, name) == true_value)
        counts["digits_scored"] += len(event.digits or ())
        counts["digits_right"] += right_words(event.digits or (), (match.digits if match else None) or ())
    return counts


def matched_events(events: Sequence[Event], predicted: Sequence[Event]) -> list[tuple[Event, Event | None]]:
    """Each event with the predicted one that is the k-th of its class too; None where there is none."""
    predicted_by_sound: dict[str, list[Event]] = defaultdict(list)
    for event in predicted:
        predicted_by_sound[event.sound].append(event)
    pairs = []
    for event in events:
        candidates = predicted_by_sound[event.sound]
        pairs.append((event, candidates.pop(0) if candidates else None))
    return pairs


def right_words(words: Sequence[str], answered: Sequence[str]) -> int:
    """The words less the edits that the answer is away from them; none below zero."""
    row = list(range(len(answered) + 1))
    for k, word in enumerate(words, start=1):
        diagonal, row[0] = row[0], k
        for j, other in enumerate(answered, start=1):
            edits = min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
            diagonal, row[j] = row[j], edits
    return max(0, len(words) - row[-1])


def _ratio(above: float, below: float) -> float:
    return above / below if below else float("nan")
