"""How fast strokes may follow one another before their count is lost: `python -m ltbm.demo.rates DIR`.

DIR is a folder of `ltbm eval demo`, `--recordings` the folder that was given there. Needs a checkout of ltbm.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ltbm.profiles.quality.demo import scene_number
from ltbm.profiles.quality.predict import ANSWERS, read_answers
from ltbm.profiles.quality.variants import DEFAULT_MODE

from .language import parse_caption
from .metrics import matched_events
from .recordings import SHIPPED, read_pool
from .scenes import held_out_scene
from .sounds import Event

EDGES_S = (0.5, 0.7, 1.0)  # seconds from the start of a stroke to the next one's, between the groups


@dataclass(frozen=True)
class CountedEvent:
    """An event of two strokes or more in one answer."""

    level: str
    group: int  # how many of EDGES_S its mean interval reaches
    is_right: bool


def counted_events(out: Path, recordings: Path) -> Iterator[CountedEvent]:
    """Every such event in LTBM's answers in the default mode."""
    answers, _ = read_answers(out / ANSWERS)
    pool = read_pool(recordings, "test")
    scenes = {number: held_out_scene(pool, number) for number in {scene_number(item) for item, _ in answers}}
    for (item, variant), answer in answers.items():
        if variant.method != "ltbm" or (variant.positions, variant.attention) != DEFAULT_MODE:
            continue
        predicted = parse_caption(answer["text"].split("\n")[0])
        for event, match in matched_events(scenes[scene_number(item)].events, predicted):
            if event.count is not None and event.count > 1:
                is_right = match is not None and match.count == event.count
                yield CountedEvent(variant.level, _group(event), is_right)


def _group(event: Event) -> int:
    starts = [start_s for start_s, _ in event.strokes]
    interval_s = sum(after - before for before, after in pairwise(starts)) / (len(starts) - 1)
    return sum(interval_s >= edge for edge in EDGES_S)


def table(events: list[CountedEvent]) -> str:
    """Counts that are right, in %, as Markdown: intervals down, levels across."""
    levels = list(dict.fromkeys(event.level for event in events))
    total = Counter((event.level, event.group) for event in events)
    right = Counter((event.level, event.group) for event in events if event.is_right)
    lines = [f"| interval | events | {' | '.join(levels)} |", "|---" * (2 + len(levels)) + "|"]
    for group in range(len(EDGES_S) + 1):
        counts = [total[level, group] for level in levels]
        if not any(counts):
            continue
        cells = [f"{100 * right[level, group] / total[level, group]:.0f}" for level in levels]
        lines.append(f"| {_label(group)} | {counts[0]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _label(group: int) -> str:
    if group == 0:
        return f"under {EDGES_S[0]:g} s"
    if group == len(EDGES_S):
        return f"from {EDGES_S[-1]:g} s"
    return f"{EDGES_S[group - 1]:g} to {EDGES_S[group]:g} s"


def main() -> None:
    parser = argparse.ArgumentParser(description="Counts that are right by the strokes' interval.")
    parser.add_argument("out", type=Path, help="folder that `ltbm eval demo` wrote")
    parser.add_argument("--recordings", type=Path, default=SHIPPED, help="folder that was given there")
    options = parser.parse_args()
    print(table(list(counted_events(options.out, options.recordings))))


if __name__ == "__main__":
    main()
