"""The quality benchmark as JSON, a table and a plot."""

import json
from pathlib import Path

from .demo import COMPARED
from .variants import DEFAULT_MODE

COLUMNS = {
    "event_f1": "event F1",
    "exact_match": "exact",
    "question_accuracy": "questions",
    "sequence_accuracy": "sequence",
    "count_accuracy": "counts",
    "duration_accuracy": "durations",
    "pitch_accuracy": "pitch",
}


def write_results(out: Path, results: dict) -> None:
    """results.json, table.md and, where matplotlib is installed, quality.png in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    scratch = out / ".results.json"
    scratch.write_text(json.dumps(results, indent=1), encoding="utf-8")
    scratch.rename(out / "results.json")
    (out / "table.md").write_text(markdown(results), encoding="utf-8")
    plot(results, out / "quality.png")


def markdown(results: dict) -> str:
    """All variants as a Markdown table, in %; then ltbm against each method in the default mode."""
    lines = [
        "| level | method | positions | attention | kept | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (5 + len(COLUMNS)) + "|",
    ]
    for row in results["rows"]:
        kept = row["tokens_out"] / row["tokens_in"]
        figures = " | ".join("-" if row[name] is None else f"{100 * row[name]:.1f}" for name in COLUMNS)
        lines.append(
            f"| {row['level']} | {row['method']} | {row['positions']} | {row['attention']} | "
            f"{100 * kept:.1f} | {figures} |"
        )
    lines += [
        "",
        "LTBM minus the other method, in points, with 95 % intervals of a paired bootstrap over scenes:",
        "",
        "| level | method | " + " | ".join(COLUMNS[name] for name in COMPARED) + " |",
        "|---" * (2 + len(COMPARED)) + "|",
    ]
    compared = [row for row in results["comparisons"] if (row["positions"], row["attention"]) == DEFAULT_MODE]
    for first, *others in zip(*[iter(compared)] * len(COMPARED)):
        cells = " | ".join(
            f"{100 * row['difference']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
            for row in (first, *others)
        )
        lines.append(f"| {first['level']} | {first['method']} | {cells} |")
    return "\n".join(lines) + "\n"


def plot(results: dict, path: Path) -> None:
    """Quality against the share of tokens kept: methods in the default mode, and ltbm in its other modes,
    dashed."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(COMPARED), figsize=(15, 4.6), sharex=True)
    for axis, metric in zip(axes, COMPARED):
        for label, style, points in _lines(results["rows"], metric):
            axis.plot(*zip(*points), style, label=label, markersize=4)
        axis.set_xscale("log", base=2)
        axis.set_xticks([100, 50, 25, 12.5, 6.25], ["100", "50", "25", "12.5", "6.25"])
        axis.invert_xaxis()
        axis.set_xlabel("audio tokens kept, %")
        axis.set_title(COLUMNS[metric] + ", %")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.suptitle(
        f"Synthetic scenes, {results['scenes']} held out: mechanism, not evidence about 7B models",
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _lines(rows: list[dict], metric: str):
    """(label, style, points sorted by share kept) of each curve, the uncompressed point on every one."""

    def point(row):
        return 100 * row["tokens_out"] / row["tokens_in"], 100 * row[metric]

    full = [point(row) for row in rows if row["level"] == "full"]
    curves = dict.fromkeys(
        (row["method"], row["positions"], row["attention"]) for row in rows if row["level"] != "full"
    )
    for method, positions, attention in curves:
        default = (positions, attention) == DEFAULT_MODE
        if not default and method != "ltbm":
            continue
        points = [
            point(row)
            for row in rows
            if (row["method"], row["positions"], row["attention"]) == (method, positions, attention)
            and row["level"] != "full"
        ]
        yield (
            (method if default else f"ltbm, {positions}, {attention}"),
            "o-" if default else "x--",
            sorted(full + points, reverse=True),
        )
