"""The page's tables: groups, distance from the floor, every percentile, and where it was measured."""

from ..records import Fidelity, FidelityRow, Floor, Profile, Row
from ..remarks import median, number
from ..rows import FIGURES
from ..table import PERCENTILES, row_name
from .elements import facts, folded, note, section, table

MIB = 2**20
FLOOR_FIGURES = {"encoder": "encoder", "merge": "merge", "prefill": "prefill", "decode": "tpot"}
"""Stage of a floor -> the figure it is the floor of."""


def groups(fidelity: Fidelity) -> str:
    head = ["level", "method", "tokens", "variance lost %", "span ms p50", "p95", "max", "spills"]
    text = (
        "Span: from the first to the last token of a group of several. Spills: merges outside the "
        "window, where no pair inside was left."
    )
    return section("Groups", table("Groups", head, map(_group_cells, fidelity.rows), names=2), note(text))


def _group_cells(row: FidelityRow) -> list[str]:
    spans = row.span_ms
    return [
        row.level,
        row.method,
        str(row.tokens_out),
        f"{100 * row.error:.1f}",
        *([number(spans.p50), number(spans.p95), number(spans.max)] if spans else [""] * 3),
        str(row.spill),
    ]


def floors(rows: list[Row]) -> str:
    lines = [
        _floor_cells(row, stage, floor)
        for row in rows
        for stage, floor in row.floors.items()
        if FLOOR_FIGURES[stage] in row.figures
    ]
    if not lines:
        return section(
            "Distance from the floor",
            note("Not known: bandwidth and matrix rate are measured on the CPU only."),
        )
    head = ["level", "stage", "MiB", "G operations", "floor ms", "measured ms", "times floor", "bound"]
    text = (
        "Floor: the stage's bytes (weights as stored, read once) at the measured bandwidth, or its "
        "operations at the measured float32 "
        "matrix rate, whichever takes longer; of merge, its projector. Below 1, bytes came from a cache, or "
        "operations ran faster than numpy's."
    )
    return section(
        "Distance from the floor", table("Distance from the floor", head, lines, names=2), note(text)
    )


def _floor_cells(row: Row, stage: str, floor: Floor) -> list[str]:
    ms = median(row, FLOOR_FIGURES[stage])
    name = "decode, one token" if stage == "decode" else stage
    figures = [floor.bytes / MIB, floor.operations / 1e9, floor.ms, ms]
    return [row_name(row), name, *map(number, figures), f"{ms / floor.ms:.1f}", floor.bound]


def percentiles(rows: list[Row]) -> str:
    text = "Over rounds, each the mean of its clips; step: over every single token after the first."
    return section("Every figure", note(text), *map(_percentile_table, rows))


def _percentile_table(row: Row) -> str:
    name = row_name(row)
    return folded(name, table(name, ["ms", *PERCENTILES], _percentile_cells(row)))


def _percentile_cells(row: Row) -> list[list[str]]:
    return [
        [name, *(number(getattr(row.figures[name], p)) for p in PERCENTILES)]
        for name in FIGURES
        if name in row.figures
    ]


def circumstances(profile: Profile) -> str:
    machine, options, bundle = profile.machine, profile.options, profile.bundle
    return section(
        "Where and how",
        facts(
            {
                "machine": f"{machine.cpu}, {machine.cores} cores, "
                f"{(machine.memory_bytes or 0) / 2**30:.1f} GiB, {machine.system}",
                "board": machine.board and machine.board["model"],
                "GPU": machine.gpu and machine.gpu["name"],
                "GPU driver, clocks": machine.gpu_clocks,
                "clock, governor": f"{machine.clock_mhz or 0:.0f} MHz, "
                f"{machine.governor or 'governor not told'}",
                "measured here": f"{machine.bandwidth / 1e9:.1f} GB/s, "
                f"{machine.matrix_rate / 1e9:.0f} GFLOP/s float32, {machine.threads} "
                "threads",
                "load average": f"{machine.load_average:.2f} at the start",
                "versions": ", ".join(
                    f"{name} {version}" for name, version in profile.versions.items() if version
                ),
                "bundle": f"{bundle.source}, {bundle.precision}, manifest sha256 {bundle.sha256}",
                "clips": ", ".join(f"{clip.name} ({clip.seconds:.1f} s)" for clip in profile.clips),
                "modes": f"{options.positions} positions, {options.attention} attention, prompt "
                f"“{options.prompt}”",
                "command": " ".join(options.command),
            }
        ),
    )
