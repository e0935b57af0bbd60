"""The table of `ltbm bench listen`."""

from collections.abc import Sequence

import numpy as np

from .bench import ListenResult
from .options import APPROACHES, FULL
from .rows import BINS, ListenRow, Times, answers_of

MIB = 2**20
GAINS = (  # what is gained, over what: (slower approach, faster one)
    ("listening at the level", "whole", "listen"),
    (f"listening at {FULL}", "whole-full", "listen-full"),
    ("merging, of the whole clip", "whole-full", "whole"),
    ("merging, while listening", "listen-full", "listen"),
    ("both", "whole-full", "listen"),
)


def markdown(result: ListenResult) -> str:
    lines = [*_setup(result), "", *_main_table(result), ""]
    lines += _curves(result)
    lines += [*_gains(result), *_notes(result)]
    return "\n".join(lines) + "\n"


def _setup(result: ListenResult) -> list[str]:
    options = result.options
    pace = "at real pace" if options.real_time else "idle time skipped"
    ends = result.rows[0].ttft.ends if result.rows else 0
    return [
        f"{result.bundle.name} ({result.bundle.family}, {result.bundle.precision}): {ends} of {options.ends} "
        f"ends within {options.seconds:g} s of sound, {pace}, segments of {result.segment_seconds:g} s",
        f"{result.machine.cpu}, {options.threads or result.machine.cores} threads; "
        f"load average {max((row.load_average for row in result.rows), default=0.0):.1f} at most",
    ]


def _main_table(result: ListenResult) -> list[str]:
    head = ["", "level", "TTFT p50 ms", "p95", "busy %", "refused", "peak MiB", "equal tokens %"]
    return _table(head, [_cells(row, result) for row in result.rows])


def _cells(row: ListenRow, result: ListenResult) -> list[str]:
    return [
        *_names(row, result),
        *_both(row.ttft),
        "" if row.busy_share is None else f"{100 * row.busy_share:.1f}",
        "" if row.refused is None else str(row.refused),
        f"{row.peak_bytes / MIB:,.0f}",
        "" if row.equal_tokens is None else f"{100 * row.equal_tokens:.0f}",
    ]


def _names(row: ListenRow, result: ListenResult) -> list[str]:
    approach = APPROACHES[row.approach]
    return [approach.title, FULL if approach.at_full else result.options.level]


def _curves(result: ListenResult) -> list[str]:
    """TTFT at p50 by the open segment's length, and by the whole segments before it."""
    if not result.rows:
        return []
    edges = [f"{part * result.segment_seconds / BINS:g}" for part in range(BINS + 1)]
    spans = [f"{low} to {high} s" for low, high in zip(edges, edges[1:])]
    segments = max(len(row.by_segments) for row in result.rows)
    counts = [f"{count} before" for count in range(segments)]
    lines = ["TTFT p50 ms by the open segment's length:", ""]
    lines += [*_table(["", "level", *spans], [_curve(row, result, row.curve) for row in result.rows]), ""]
    lines += ["and by the whole segments before it:", ""]
    rows = [_curve(row, result, row.by_segments) for row in result.rows]
    return [*lines, *_table(["", "level", *counts], rows), ""]


def _curve(row: ListenRow, result: ListenResult, curve: Sequence[Times]) -> list[str]:
    return [*_names(row, result), *(_both(times)[0] for times in curve)]


def _gains(result: ListenResult) -> list[str]:
    """Medians over the ends of one time over the other's, end by end."""
    lines = []
    for gain, slower, faster in GAINS:
        pairs = list(zip(answers_of(slower, result.runs), answers_of(faster, result.runs)))
        if pairs:
            ratio = np.median([slow.ttft_ms / fast.ttft_ms for slow, fast in pairs])
            lines.append(f"Gain of {gain}: {ratio:.2f} times (median over {len(pairs)} ends, end by end).")
    return lines


def _notes(result: ListenResult) -> list[str]:
    notes = ["TTFT is from the end of the sound; what notices the end of speech adds its own time."]
    for row in result.rows:
        if row.ahead is not None:
            p50, p95 = _both(row.ahead)
            notes.append(
                f"Reading the open segment ahead took {p50} ms (p50), {p95} ms (p95): after a shorter pause "
                "the question waits for the rest."
            )
    if not result.complete:
        notes.append("Not all passes were measured.")
    return notes


def _both(times: Times) -> tuple[str, str]:
    """p50 and p95 as a table has them."""
    return _milliseconds(times.p50), _milliseconds(times.p95)


def _milliseconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruler = ["---" if name in ("", "level") else "---:" for name in head]
    return ["| " + " | ".join(cells) + " |" for cells in (head, ruler, *rows)]
