"""Two profiles side by side: ratios, and whether a difference is beyond the spreads."""

from dataclasses import dataclass

from .records import Profile, Row, measured
from .remarks import beyond_spread, median, number
from .table import row_name

FIGURES = {
    "ttft": "TTFT ms",
    "encoder": "encoder ms",
    "merge": "merge ms",
    "prefill": "prefill ms",
    "tpot": "TPOT ms",
    "total": "total ms",
    "rtf": "RTF",
}
SETTINGS = (
    "backend",
    "device",
    "threads",
    "low_memory",
    "positions",
    "attention",
    "prompt",
    "max_new_tokens",
    "long_audio",
)
BYTES = {"KV MiB": lambda row: row.kv_bytes, "peak MiB": lambda row: row.memory.peak}
MIB = 2**20
Rows = dict[tuple[str, str], Row]  # by level and method


@dataclass(frozen=True)
class Figure:
    """One figure of two rows.

    ratio: b / a, None where a is 0
    beyond_spread: whether they differ by more than both spreads together; None for what was not repeated
    """

    a: float
    b: float
    ratio: float | None
    beyond_spread: bool | None = None

    def to_json(self) -> dict:
        figure = {"a": self.a, "b": self.b, "ratio": self.ratio}
        if self.beyond_spread is not None:
            figure["beyond_spread"] = self.beyond_spread
        return figure


@dataclass(frozen=True)
class ComparedRow:
    """Two rows by name, and their figures by title."""

    a: str
    b: str
    figures: dict[str, Figure]

    def to_json(self) -> dict:
        figures = {title: figure.to_json() for title, figure in self.figures.items()}
        return {"a": self.a, "b": self.b, "figures": figures}


@dataclass(frozen=True)
class Comparison:
    """Two profiles by title, what differs beside their figures, and their rows."""

    a: str
    b: str
    notes: list[str]
    rows: list[ComparedRow]

    def to_json(self) -> dict:
        return {"a": self.a, "b": self.b, "notes": self.notes, "rows": [row.to_json() for row in self.rows]}


def compare(a: Profile, b: Profile, levels: list[str] | None = None) -> Comparison:
    """Every (level, method) of both, or one level of each; ValueError if there is nothing to compare."""
    rows = []
    for left, right in _pairs(_rows(a), _rows(b), levels):
        rows.append(ComparedRow(row_name(left), row_name(right), _figures(left, right)))
    return Comparison(_title(a), _title(b), notes(a, b), rows)


def _rows(profile: Profile) -> Rows:
    return {(row.level, row.method): row for row in measured(profile)}


def _pairs(a: Rows, b: Rows, levels: list[str] | None) -> list[tuple[Row, Row]]:
    if levels:
        wanted = [((levels[0], "ltbm"), (levels[1], "ltbm"))]
        missing = [key[0] for key, rows in zip(wanted[0], (a, b)) if key not in rows]
        if missing:
            raise ValueError(
                f"level {missing[0]} is not in its profile; the first has {_names(a)}, the second {_names(b)}"
            )
    else:
        wanted = [(key, key) for key in a if key in b]
        if not wanted:
            raise ValueError(
                f"the profiles have no level in common: the first has {_names(a)}, the second {_names(b)}; "
                "give --levels A,B to compare a level of the first with one of the second"
            )
    return [(a[left], b[right]) for left, right in wanted]


def _names(rows: Rows) -> str:
    return ", ".join(map(row_name, rows.values())) or "nothing that was measured"


def _title(profile: Profile) -> str:
    return f"{profile.bundle.name} on {profile.machine.cpu}, {profile.options.device}, {profile.created}"


def notes(a: Profile, b: Profile) -> list[str]:
    """What differs beside the figures, and so may be the cause of a difference."""
    differences = []
    for name, left, right in _facts(a, b):
        if left != right:
            differences.append(f"{name} differs: {left} and {right}")
    if a.bundle.sha256 != b.bundle.sha256:
        differences.append(f"the bundles differ: {_bundle(a)} and {_bundle(b)}")
    if [clip.sha256 for clip in a.clips] != [clip.sha256 for clip in b.clips]:
        differences.append(
            f"the clips differ ({_length(a)} and {_length(b)}): only figures per token and the real-time "
            "factor mean anything"
        )
    loads = [max((row.load_average for row in measured(profile)), default=0) for profile in (a, b)]
    if abs(loads[0] - loads[1]) > a.machine.cores / 2:
        differences.append(
            f"the machine was not equally busy: load average {loads[0]:.1f} and {loads[1]:.1f}"
        )
    for which, profile in (("first", a), ("second", b)):
        if not profile.complete:
            differences.append(f"the {which} profile is not complete")
    return differences


def _facts(a: Profile, b: Profile) -> list[tuple]:
    """(name, a's, b's) of the machine, the versions and the options."""
    facts = [
        ("machine", a.machine.cpu, b.machine.cpu),
        ("cores", a.machine.cores, b.machine.cores),
        ("GPU", (a.machine.gpu or {}).get("name"), (b.machine.gpu or {}).get("name")),
        ("governor", a.machine.governor, b.machine.governor),
    ]
    for name in sorted(a.versions | b.versions):
        facts.append((name, a.versions.get(name), b.versions.get(name)))
    for name in SETTINGS:
        facts.append((name, getattr(a.options, name), getattr(b.options, name)))
    return facts


def _bundle(profile: Profile) -> str:
    return f"{profile.bundle.source}, {profile.bundle.precision}"


def _length(profile: Profile) -> str:
    return f"{len(profile.clips)} of {sum(clip.seconds for clip in profile.clips):.1f} s"


def _figures(a: Row, b: Row) -> dict[str, Figure]:
    figures = {}
    for name, title in FIGURES.items():
        if name in a.figures and name in b.figures:
            figures[title] = _figure(median(a, name), median(b, name), beyond_spread(a, b, name))
    for title, read in BYTES.items():
        figures[title] = _figure(read(a) / MIB, read(b) / MIB)
    return figures


def _figure(a: float, b: float, beyond: bool | None = None) -> Figure:
    return Figure(a, b, b / a if a else None, beyond)


def markdown(comparison: Comparison) -> str:
    """A table a pair of rows."""
    lines = [f"a: {comparison.a}", f"b: {comparison.b}", *(f"- {text}" for text in comparison.notes)]
    for row in comparison.rows:
        name = row.a if row.a == row.b else f"{row.a} and {row.b}"
        lines += ["", f"| {name} | a | b | b / a | beyond the spreads |", "|---|---:|---:|---:|---|"]
        for title, figure in row.figures.items():
            ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
            verdict = {True: "yes", False: "no", None: ""}[figure.beyond_spread]
            lines.append(f"| {title} | {number(figure.a)} | {number(figure.b)} | {ratio} | {verdict} |")
    return "\n".join(lines) + "\n"
