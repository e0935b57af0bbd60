"""The page's charts, each with a note on how to read it and its figures as a table."""

from collections.abc import Sequence

from ...quality.variants import METHODS
from ..quality_points import quality_points
from ..records import Fidelity, FidelityRow, Row
from ..remarks import median, number
from ..rows import OTHER
from ..table import ERROR_NOTE, error_table, row_name
from .charts import Bar, Line, Point, line_chart, stacked_bars
from .elements import folded, note, section, table
from .merge_map import merge_map

MIB = 2**20
TIME_SERIES = {
    "load, features": ("load", "features"),
    "encoder": ("encoder",),
    "merge": ("merge",),
    "prefill": ("prefill",),
    "decode": ("decode",),
    "prompt, splice, other": ("prompt", "splice", OTHER),
}
MEMORY_SERIES = {
    "libraries": "libraries",
    "weights": "weights",
    "KV cache": "kv_cache",
    "activations and arenas": "rest",
}


def latency(rows: list[Row]) -> str:
    bars = [
        Bar(row_name(row), [sum(median(row, stage) for stage in stages) for stages in TIME_SERIES.values()])
        for row in rows
    ]
    chart = stacked_bars(
        "Time of a request by stage",
        "Median milliseconds of each stage, one bar a level",
        list(TIME_SERIES),
        bars,
        "ms",
    )
    text = "Median of each stage; the number is their sum."
    return section("Time of a request", chart, note(text), _as_table("Time by stage, ms", TIME_SERIES, bars))


def memory(rows: list[Row]) -> str:
    bars = [
        Bar(row_name(row), [getattr(row.memory, key) / MIB for key in MEMORY_SERIES.values()]) for row in rows
    ]
    chart = stacked_bars(
        "Peak memory",
        "Peak resident memory of the process, one bar a level",
        list(MEMORY_SERIES),
        bars,
        "MiB",
    )
    split = rows[0].memory
    text = (
        f"{split.metric}. Of the weights {split.weights_mapped / MIB:.0f} MiB are mapped files, which "
        "the system can drop and read again. "
        "The KV cache counts as allocated. Where memory peaked while opening, the last part is what loading "
        "took for a moment."
    )
    return section("Peak memory", chart, note(text), _as_table("Peak memory, MiB", MEMORY_SERIES, bars))


def _as_table(title: str, series: dict, bars: list[Bar]) -> str:
    return folded(
        "as a table",
        table(title, ["level", *series], [[bar.label, *map(number, bar.values)] for bar in bars]),
    )


def tokens_and_ttft(rows: list[Row], clips: int) -> str:
    def point(row: Row) -> Point:
        return Point(row.tokens_out / clips, median(row, "ttft"), row.level, row.figures["ttft"].spread)

    lines = [
        _line(method, [point(row) for row in rows if row.method == method or row.level == "full"])
        for method in _methods(rows)
    ]
    chart = line_chart(
        "Audio tokens and time to first token",
        "One mark a level",
        lines,
        "audio tokens that the LLM reads, a clip",
        "TTFT, ms",
    )
    return section(
        "Tokens and time to first token",
        chart,
        note("Bars at the marks: the interquartile range over rounds."),
    )


def quality(rows: list[Row], results: dict) -> str:
    """What `ltbm eval` measured against our TTFT; methods that are not timed stand at ltbm's TTFT of their
    level."""
    figure, points = quality_points(results)
    ttft = {row.level: median(row, "ttft") for row in rows if row.method == "ltbm"}
    lines = [
        _line(method, [Point(ttft[level], value, level) for level, value in values.items() if level in ttft])
        for method, values in points.items()
        if method in METHODS
    ]
    if not any(line.points for line in lines):
        return section("Quality and speed", note("No level was measured in both files."))
    chart = line_chart(
        "Quality and speed",
        f"{figure} in percent against time to first token",
        [line for line in lines if line.points],
        "TTFT, ms",
        f"{figure}, %",
        scale="near",
    )
    return section(
        "Quality and speed",
        chart,
        note("Quality as `ltbm eval` measured it; other methods stand at LTBM's time of their level."),
    )


def error(fidelity: Fidelity) -> str:
    rows = [row for row in fidelity.rows if row.error > 0]
    lines = [
        _line(
            method,
            [
                Point(100 * row.tokens_out / row.tokens_in, 100 * row.error)
                for row in rows
                if row.method == method
            ],
        )
        for method in _methods(rows)
    ]
    chart = line_chart(
        "Error of the kept tokens",
        "Share of the encoder tokens' variance that is lost, against the share kept",
        lines,
        "audio tokens kept, %",
        "variance lost, %",
        scale="log",
    )
    return section(
        "What the kept tokens miss",
        chart,
        note(ERROR_NOTE),
        folded("as a table", table("Variance lost, %", *error_table(fidelity))),
    )


def _line(method: str, points: list[Point]) -> Line:
    """In the method's own colour, the same in every chart."""
    return Line(method, points, METHODS.index(method))


def _methods(rows: Sequence[Row | FidelityRow]) -> list[str]:
    return list(dict.fromkeys(row.method for row in rows))


def groups(fidelity: Fidelity, clip: str) -> str:
    text = (
        f"The first window of {clip}. A cell is a stretch of encoder tokens ({fidelity.token_ms:g} ms "
        "each) of one group, an arc joins "
        "pieces of one group, a tick stands at the place that the merged token keeps on the time axis."
    )
    return section("What was merged", merge_map(fidelity.map, fidelity.token_ms), note(text))
