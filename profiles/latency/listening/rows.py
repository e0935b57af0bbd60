"""What one approach costs: time to first token after the end of speech, as a curve over the open segment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...json_records import read_record
from .options import APPROACHES
from .runs import EndAnswer, ListenRun

BINS = 6  # of the open segment's length


@dataclass(frozen=True)
class Times:
    """Milliseconds to the first token over some ends; None where there was none."""

    ends: int
    p50: float | None
    p95: float | None


@dataclass(frozen=True)
class ListenRow:
    """One approach over all its passes.

    curve: by the open segment's length, in equal parts of a segment
    by_segments: by the number of whole segments before the open one
    ahead: what reading the open segment ahead took; None where that was not done
    busy_share: of the time that the sound lasted, spent on reading whole segments; None where nothing listens
    refused: pushes refused because reading had fallen behind; None where nothing listens
    equal_tokens: share of the ends whose answer has the tokens that the whole clip has at the same level
    """

    approach: str
    ttft: Times
    curve: tuple[Times, ...]
    by_segments: tuple[Times, ...]
    ahead: Times | None
    busy_share: float | None
    refused: int | None
    peak_bytes: int
    load_average: float
    equal_tokens: float | None  # None where the whole clip was not asked about, or is the row

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "ListenRow":
        return read_record(
            ListenRow,
            data,
            ttft=read_record(Times, data["ttft"]),
            curve=tuple(read_record(Times, times) for times in data["curve"]),
            by_segments=tuple(read_record(Times, times) for times in data["by_segments"]),
            ahead=data["ahead"] and read_record(Times, data["ahead"]),
        )


def make_row(name: str, all_runs: Sequence[ListenRun], segment_seconds: float) -> ListenRow:
    """The row of one approach; the others' runs are there for the tokens that it should have."""
    approach = APPROACHES[name]
    runs = [run for run in all_runs if run.approach == name]
    answers = answers_of(name, all_runs)
    open_parts = [int(answer.open_seconds / segment_seconds * BINS) for answer in answers]
    segments = [round((answer.end - answer.open_seconds) / segment_seconds) for answer in answers]
    sound_ms = 1e3 * sum(run.sound_seconds for run in runs)
    return ListenRow(
        approach=name,
        ttft=_times([answer.ttft_ms for answer in answers]),
        curve=_grouped(answers, open_parts, BINS),
        by_segments=_grouped(answers, segments, max(segments) + 1),
        ahead=_times([answer.ahead_ms for answer in answers]) if approach.reads_ahead else None,
        busy_share=sum(run.reading_ms for run in runs) / sound_ms if approach.listens else None,
        refused=sum(run.refused for run in runs) if approach.listens else None,
        peak_bytes=max(run.peak_bytes for run in runs),
        load_average=max(run.load_average for run in runs),
        equal_tokens=_equal_tokens(answers, whole_clip(name, all_runs)) if approach.listens else None,
    )


def answers_of(name: str, runs: Sequence[ListenRun]) -> list[EndAnswer]:
    """The answers of one approach, in the order in which they were given."""
    answers: list[EndAnswer] = []
    for run in runs:
        if run.approach == name:
            answers += run.answers
    return answers


def whole_clip(name: str, runs: Sequence[ListenRun]) -> list[EndAnswer]:
    """The answers about the whole clip at the same level as those of the approach `name`."""
    at_full = APPROACHES[name].at_full
    whole = [key for key, one in APPROACHES.items() if not one.listens and one.at_full == at_full]
    return answers_of(whole[0], runs)


def _equal_tokens(answers: Sequence[EndAnswer], expected: Sequence[EndAnswer]) -> float | None:
    """Over the ends that both have, which are the same in the same order."""
    pairs = list(zip(answers, expected))
    if not pairs:
        return None
    return sum(one.token_ids == other.token_ids for one, other in pairs) / len(pairs)


def _grouped(answers: Sequence[EndAnswer], groups: Sequence[int], count: int) -> tuple[Times, ...]:
    members: list[list[float]] = [[] for _ in range(count)]
    for answer, group in zip(answers, groups):
        members[group].append(answer.ttft_ms)
    return tuple(map(_times, members))


def _times(values: Sequence[float]) -> Times:
    if not values:
        return Times(0, None, None)
    p50, p95 = map(float, np.percentile(values, (50, 95)))
    return Times(len(values), p50, p95)
