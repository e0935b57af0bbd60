"""A profile as files: profile.json, table.md, table.csv and report.html; all replaced whole,
never half-written."""

import csv
import io
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ...runtime.files import write_whole
from .profiler import FORMAT
from .remarks import measured, number, remarks
from .rows import FIGURES

ERROR_NOTE = (
    "Without weights or answers, on these clips: every encoder token against its group's mean, or against "
    "the nearest kept token where a "
    "method drops tokens. Methods without times above are evaluation code; after them the LLM costs what it "
    "costs after ltbm."
)
MIB = 2**20
PERCENTILES = ("p50", "p90", "p95", "p99", "spread")


def write_report(out: Path, profile: dict, quality: dict | None = None) -> None:
    """Write the four files into the folder `out`; `quality` is a results.json of `ltbm eval`."""
    from .html.page import page

    profile = profile | {"remarks": remarks(profile)}
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("profile.json", json.dumps(profile, indent=1)),
        ("table.md", markdown(profile)),
        ("table.csv", table_csv(profile)),
        ("report.html", page(profile, quality)),
    ):
        write_whole(out / name, text.encode())


def read_profile(path) -> dict:
    """A profile.json; ValueError for anything else."""
    path = Path(path)
    path = path / "profile.json" if path.is_dir() else path
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); give the profile.json of `ltbm profile`") from None
    given = found.get("format") if isinstance(found, dict) else None
    if given != FORMAT:
        raise ValueError(
            f"{path} has format {given!r}, expected {FORMAT!r}; give the profile.json of `ltbm profile`, "
            "made by this version"
        )
    return found


def read_quality(path) -> dict:
    """A results.json of `ltbm eval`; ValueError for anything else."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); give the results.json of `ltbm eval`") from None
    quality_points(found)
    return found


def default_folder(bundle) -> Path:
    return Path(f"profile-{Path(bundle).resolve().name}-{datetime.now():%Y%m%d-%H%M}")


def quality_points(results: dict) -> tuple[str, dict[str, dict[str, float]]]:
    """(its main figure's name, method -> level -> percent) of a results.json, in the default modes."""
    modes = {"positions": "original", "attention": "proportional"}
    rows = [
        row
        for row in results.get("rows", [])
        if all(row.get(name, default) == default for name, default in modes.items())
    ]
    figures = [name for row in rows[:1] for name, value in row.items() if isinstance(value, float)]
    figure = next((name for name in (results.get("metric"), "event_f1", *figures) if name in figures), None)
    if figure is None:
        raise ValueError("the quality file has no rows with figures; give the results.json of `ltbm eval`")
    found = {
        method: {
            row["level"]: 100 * row[figure]
            for row in rows
            if row["method"] == method or row["level"] == "full"
        }
        for method in dict.fromkeys(row["method"] for row in rows)
    }
    return figure.replace("_", " "), found


# --- the main table
# -------------------------------------------------------------------------------------------------

COLUMNS = (
    "level",
    "method",
    "audio tokens",
    "TTFT ms",
    "spread",
    "encoder",
    "merge",
    "prefill",
    "TPOT ms",
    "total ms",
    "RTF",
    "KV MiB",
    "peak MiB",
)


def table_rows(profile: dict) -> list[list[str]]:
    """One row of text for each level and method that was timed, in the order of COLUMNS."""
    return [[row["level"], row["method"], *_cells(row)] for row in profile["rows"]]


def _cells(row: dict) -> list[str]:
    if "error" in row:
        return ["failed"] + [""] * (len(COLUMNS) - 3)
    figures = row["figures"]
    times = [
        number(figures[name]["p50"]) if name in figures else ""
        for name in ("ttft", "encoder", "merge", "prefill", "tpot", "total", "rtf")
    ]
    times.insert(1, number(figures["ttft"]["spread"]))
    return [
        f"{row['tokens_in']} → {row['tokens_out']}",
        *times,
        number(row["kv_bytes"] / MIB),
        number(row["memory"]["peak"] / MIB),
    ]


def error_table(fidelity: dict) -> tuple[list[str], list[list[str]]]:
    """Head and rows: what each method loses at each level that merges, in percent of the tokens' variance."""
    errors = {
        (row["method"], row["level"]): f"{100 * row['error']:.1f}"
        for row in fidelity["rows"]
        if row["level"] != "full"
    }
    methods, levels = (list(dict.fromkeys(key[place] for key in errors)) for place in (0, 1))
    return ["variance lost, %", *levels], [
        [method, *(errors[method, level] for level in levels)] for method in methods
    ]


def row_name(row: dict) -> str:
    """A level, and the method where it is not ltbm."""
    return row["level"] if row["method"] == "ltbm" else f"{row['level']} {row['method']}"


def markdown(profile: dict) -> str:
    """The table, what its columns mean, and the remarks."""
    errors = error_table(profile["fidelity"])
    parts = [markdown_table(COLUMNS, table_rows(profile), names=2), explanation(profile)]
    parts += [markdown_table(*errors), ERROR_NOTE] if errors[1] else []
    return "\n\n".join([*parts, "\n".join(f"- {text}" for text in remarks(profile))]) + "\n"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """The first `names` columns are text."""
    rule = "|" + "---|" * names + "---:|" * (len(head) - names)
    first, *others = ("| " + " | ".join(row) + " |" for row in (head, *rows))
    return "\n".join([first, rule, *others])


def explanation(profile: dict) -> str:
    options, clips, machine, bundle = (profile[name] for name in ("options", "clips", "machine", "bundle"))
    seconds = sum(clip["seconds"] for clip in clips)
    rounds = options["turns"] * options["repeats"]
    sentences = [
        f"{bundle['name']} ({bundle['family']}, {bundle['precision']}) on {machine['cpu']}, "
        f"{machine['cores']} cores, "
        f"{options['backend']} {options['device']}; {len(clips)} clip{'s' * (len(clips) > 1)} of "
        f"{seconds:.1f} s in all, "
        f"{options['max_new_tokens']} new tokens at most.",
        f"Medians over {rounds} rounds (processes a row: {options['turns']})"
        + (", of the mean over the clips" if len(clips) > 1 else "")
        + "; spread is the interquartile range of TTFT. Audio tokens are the clips' sum, KV and peak the "
        "largest.",
    ]
    if not profile["complete"]:
        sentences.insert(0, "Not complete: the profile was interrupted.")
    return " ".join(sentences)


def table_csv(profile: dict) -> str:
    """Every figure of every timed row, a line each: level, method, figure, unit, p50, p90, p95, p99,
    spread."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["level", "method", "tokens_in", "tokens_out", "figure", "unit", *PERCENTILES])
    for row in measured(profile):
        names = [row["level"], row["method"], row["tokens_in"], row["tokens_out"]]
        for name in FIGURES:
            if name in row["figures"]:
                writer.writerow(
                    [
                        *names,
                        name,
                        "" if name == "rtf" else "ms",
                        *(f"{row['figures'][name][p]:.6g}" for p in PERCENTILES),
                    ]
                )
        for name in ("peak", "libraries", "weights", "kv_cache", "rest"):
            writer.writerow([*names, f"memory_{name}", "bytes", row["memory"][name], "", "", "", ""])
    return stream.getvalue()
