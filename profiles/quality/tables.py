"""Benchmark scores as Markdown: levels and methods down, benchmarks across."""

import json
from collections.abc import Sequence
from pathlib import Path

from ...runtime.files import as_utf8, write_whole
from ...runtime.levels import parse_level
from .results import ScoreDifference, ScoredRow, ScoreResult
from .variants import DEFAULT_MODE, Variant

LABELS = {
    "cider_d": "CIDEr-D",
    "cider": "CIDEr",
    "spider": "SPIDEr",
    "fense": "FENSE",
    "accuracy": "accuracy",
    "wer": "WER",
    "wer_capped": "WER, clips capped at 100 %",
    "loops": "clips that loop",
    "event_f1": "event F1",
    "exact_match": "exact captions",
    "question_accuracy": "questions",
    "sequence_accuracy": "order",
    "count_accuracy": "counts",
    "duration_accuracy": "durations",
    "digit_accuracy": "digits",
}


def write_results(folder, result: ScoreResult) -> None:
    """results.json and table.md of one benchmark, beside its answers."""
    write_whole(Path(folder) / "results.json", as_utf8(json.dumps(result.to_json(), indent=1)))
    write_whole(Path(folder) / "table.md", as_utf8(markdown([result])))


def markdown(results: Sequence[ScoreResult]) -> str:
    """Every benchmark's figures per level and method, then the differences to full and to global."""
    lines = [*_figures(results), "", *_notes(results)]
    for baseline, title in (
        ("full", "Minus uncompressed"),
        ("global", "Minus Global Merge at the same level"),
        ("pool", "Minus mean pooling at the same level"),
        ("ltbm", "Minus LTBM at the same level"),
        ("proportional", "Minus the same in proportional attention"),
    ):
        lines += _differences(results, baseline, title)
    return "\n".join(lines) + "\n"


def _figures(results: Sequence[ScoreResult]) -> list[str]:
    columns = [(result, metric) for result in results for metric in result.rows[0].intervals]
    rows = [{_variant(row.variant): row for row in result.rows} for result, _ in columns]
    lines = _header("kept", [f"{result.name} {LABELS.get(metric, metric)}" for result, metric in columns])
    for variant in _in_order(results):
        cells = [_figure_cell(mine.get(variant), metric) for mine, (_, metric) in zip(rows, columns)]
        lines.append(_line(variant, [_kept(results, variant), *cells]))
    return lines


def _differences(results: Sequence[ScoreResult], baseline: str, title: str) -> list[str]:
    """The main metric of every benchmark; nothing if no variant has that baseline."""
    columns = [
        {
            _variant(row.variant): row
            for row in result.comparisons
            if (row.baseline, row.metric) == (baseline, result.metric)
        }
        for result in results
    ]
    if not any(columns):
        return []
    lines = [
        "",
        f"{title}, item by item:",
        "",
        *_header(None, [f"{result.name} {LABELS[result.metric]}" for result in results]),
    ]
    for variant in _in_order(results):
        if any(variant in mine for mine in columns):
            lines.append(_line(variant, [_difference_cell(mine.get(variant)) for mine in columns]))
    return lines


def _figure_cell(row: ScoredRow | None, metric: str) -> str:
    return "-" if row is None else _cell(row.figures[metric], *row.intervals[metric])


def _difference_cell(row: ScoreDifference | None) -> str:
    return "-" if row is None else _cell(row.difference, row.low, row.high, "+")


def _notes(results: Sequence[ScoreResult]) -> list[str]:
    first = results[0]
    lines = [
        f"All figures times 100; in brackets {100 * first.confidence:g} % intervals of a bootstrap over "
        f"items, {first.draws} draws."
    ]
    return lines + [_note(result) for result in results]


def _note(result: ScoreResult) -> str:
    note = f"{result.name}: {result.items} items"
    if result.items != result.manifest_items:
        note += f" of the manifest's {result.manifest_items}"
    if result.benchmark in ("asr", "whisper"):
        note += f", transcripts through the {result.normalizer} normalizer"
    if cut := sum(row.cut_off for row in result.rows):
        answers = result.items * len(result.rows)
        note += f"; {cut} of {answers} answers were cut off at {result.settings.max_new_tokens} tokens"
    return f"{note}."


def _in_order(results: Sequence[ScoreResult]) -> list[tuple]:
    """Every variant once, the mildest level first."""
    found = dict.fromkeys(_variant(row.variant) for result in results for row in result.rows)
    return sorted(found, key=lambda variant: -parse_level(variant[0]).ratio)


def _variant(variant: Variant) -> tuple[str, str]:
    """Its level, and its method as the table calls it."""
    mode = (variant.positions, variant.attention)
    if variant.level == "full":
        return variant.level, "uncompressed"
    if mode == DEFAULT_MODE:
        return variant.level, variant.method
    return variant.level, f"{variant.method}, {', '.join(mode)}"


def _kept(results: Sequence[ScoreResult], variant: tuple) -> str:
    rows = [row for result in results for row in result.rows if _variant(row.variant) == variant]
    return f"{100 * sum(row.tokens_out for row in rows) / sum(row.tokens_in for row in rows):.1f} %"


def _header(first: str | None, names: list[str]) -> list[str]:
    columns = ["level", "method", *([first] if first else []), *names]
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def _line(variant: tuple, cells: list[str]) -> str:
    return f"| {' | '.join([*variant, *cells])} |"


def _cell(value: float, low: float, high: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"
