"""Benchmark scores as Markdown: levels and methods down, benchmarks across."""

import json
from collections.abc import Sequence
from pathlib import Path

from ...runtime.levels import parse_level
from .predict import write_text
from .variants import DEFAULT_MODE

LABELS = {
    "cider_d": "CIDEr-D",
    "cider": "CIDEr",
    "spider": "SPIDEr",
    "fense": "FENSE",
    "accuracy": "accuracy",
    "wer": "WER",
    "wer_capped": "WER, clips capped at 100 %",
    "loops": "clips that loop",
}


def write_results(folder, result: dict) -> None:
    """results.json and table.md of one benchmark, beside its answers."""
    write_text(Path(folder) / "results.json", json.dumps(result, indent=1))
    write_text(Path(folder) / "table.md", markdown([result]))


def markdown(results: Sequence[dict]) -> str:
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


def _figures(results: Sequence[dict]) -> list[str]:
    columns = [(result, metric) for result in results for metric in result["rows"][0]["intervals"]]
    rows = [{_variant(row): row for row in result["rows"]} for result, _ in columns]
    lines = _header("kept", [f"{result['name']} {LABELS.get(metric, metric)}" for result, metric in columns])
    for variant in _in_order(results):
        cells = [
            _cell(mine[variant][metric], *mine[variant]["intervals"][metric]) if variant in mine else "-"
            for mine, (_, metric) in zip(rows, columns)
        ]
        lines.append(_line(variant, [_kept(results, variant), *cells]))
    return lines


def _differences(results: Sequence[dict], baseline: str, title: str) -> list[str]:
    """The main metric of every benchmark; nothing if no variant has that baseline."""
    columns = [
        {
            _variant(row): row
            for row in result["comparisons"]
            if (row["baseline"], row["metric"]) == (baseline, result["metric"])
        }
        for result in results
    ]
    if not any(columns):
        return []
    lines = [
        "",
        f"{title}, item by item:",
        "",
        *_header(None, [f"{result['name']} {LABELS[result['metric']]}" for result in results]),
    ]
    for variant in _in_order(results):
        if any(variant in mine for mine in columns):
            lines.append(_line(variant, [_difference_cell(mine.get(variant)) for mine in columns]))
    return lines


def _difference_cell(row: dict | None) -> str:
    return "-" if row is None else _cell(row["difference"], row["low"], row["high"], "+")


def _notes(results: Sequence[dict]) -> list[str]:
    first = results[0]
    lines = [
        f"All figures times 100; in brackets {100 * first['confidence']:g} % intervals of a bootstrap over "
        f"items, {first['draws']} draws."
    ]
    for result in results:
        of = (
            ""
            if result["items"] == result["manifest_items"]
            else f" of the manifest's {result['manifest_items']}"
        )
        how = (
            f", transcripts through the {result['normalizer']} normalizer"
            if result["benchmark"] in ("asr", "whisper")
            else ""
        )
        cut = sum(row["cut_off"] for row in result["rows"])
        answers = result["items"] * len(result["rows"])
        ends = (
            f"; {cut} of {answers} answers were cut off at {result['settings']['max_new_tokens']} tokens"
            if cut
            else ""
        )
        lines.append(f"{result['name']}: {result['items']} items{of}{how}{ends}.")
    return lines


def _in_order(results: Sequence[dict]) -> list[tuple]:
    """Every variant once, the mildest level first."""
    found = dict.fromkeys(_variant(row) for result in results for row in result["rows"])
    return sorted(found, key=lambda variant: -parse_level(variant[0]).ratio)


def _variant(row: dict) -> tuple:
    mode = (row["positions"], row["attention"])
    method = "uncompressed" if row["level"] == "full" else row["method"]
    return row["level"], method if mode == DEFAULT_MODE or row[
        "level"
    ] == "full" else f"{method}, {', '.join(mode)}"


def _kept(results: Sequence[dict], variant: tuple) -> str:
    rows = [row for result in results for row in result["rows"] if _variant(row) == variant]
    return f"{100 * sum(row['tokens_out'] for row in rows) / sum(row['tokens_in'] for row in rows):.1f} %"


def _header(first: str | None, names: list[str]) -> list[str]:
    columns = ["level", "method", *([first] if first else []), *names]
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def _line(variant: tuple, cells: list[str]) -> str:
    return f"| {' | '.join([*variant, *cells])} |"


def _cell(value: float, low: float, high: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"
