"""The demo's benchmark as a picture: quality over the share of tokens kept, one line a method."""

import io
from collections.abc import Iterator
from pathlib import Path

from ...runtime.files import write_whole
from .results import ScoredRow, ScoreResult
from .tables import LABELS
from .variants import DEFAULT_MODE, Variant

METRICS = ("event_f1", "exact_match", "question_accuracy")
Point = tuple[float, float]  # share of tokens kept, and quality, both in %


def plot(result: ScoreResult, path: Path) -> None:
    """Methods in the default mode, and LTBM in its other modes, dashed.

    Nothing is drawn of `full` alone, or where matplotlib is not installed.
    """
    if all(row.variant.level == "full" for row in result.rows):
        return
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(METRICS), figsize=(15, 4.6), sharex=True)
    for axis, metric in zip(axes, METRICS):
        for label, style, points in _lines(result.rows, metric):
            axis.plot(*zip(*points), style, label=label, markersize=4)
        axis.set_xscale("log", base=2)
        axis.set_xticks([100, 50, 25, 12.5, 6.25], ["100", "50", "25", "12.5", "6.25"])
        axis.invert_xaxis()
        axis.set_xlabel("audio tokens kept, %")
        axis.set_title(f"{LABELS[metric]}, %")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.suptitle(f"The demo model on {result.items} scenes that were not trained on", fontsize=10)
    figure.tight_layout()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110)
    write_whole(path, picture.getvalue())
    pyplot.close(figure)


def _lines(rows: tuple[ScoredRow, ...], metric: str) -> Iterator[tuple[str, str, list[Point]]]:
    """(label, style, points by share kept) of each curve, the uncompressed point on every one."""
    full = []
    curves: dict[tuple[str, str, str], list[Point]] = {}
    for row in rows:
        point = (100 * row.tokens_out / row.tokens_in, 100 * row.figures[metric])
        if row.variant.level == "full":
            full.append(point)
        elif row.variant.method == "ltbm" or _mode(row.variant) == DEFAULT_MODE:
            curves.setdefault((row.variant.method, *_mode(row.variant)), []).append(point)
    for (method, *mode), points in curves.items():
        is_default = tuple(mode) == DEFAULT_MODE
        label = method if is_default else ", ".join((method, *mode))
        yield label, "o-" if is_default else "x--", sorted(full + points, reverse=True)


def _mode(variant: Variant) -> tuple[str, str]:
    return variant.positions, variant.attention
