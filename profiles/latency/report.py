"""A profile as files: profile.json, table.md, table.csv and report.html; all replaced whole,
never half-written."""

import csv
import io
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ...runtime.files import as_utf8, write_whole
from .html.page import page
from .quality_points import quality_points
from .records import FORMAT, Profile, measured
from .remarks import remarks
from .rows import FIGURES
from .table import COLUMNS, ERROR_NOTE, PERCENTILES, error_table, explanation, table_rows


def write_report(out: Path, profile: Profile, quality: dict | None = None) -> None:
    """Write the four files into the folder `out`; `quality` is a results.json of `ltbm eval`."""
    data = profile.to_json() | {"remarks": remarks(profile)}
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("profile.json", json.dumps(data, indent=1)),
        ("table.md", markdown(profile)),
        ("table.csv", table_csv(profile)),
        ("report.html", page(profile, quality)),
    ):
        write_whole(out / name, as_utf8(text))


def read_profile(path) -> Profile:
    """A profile.json; ValueError for anything else."""
    path = Path(path)
    path = path / "profile.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); give the profile.json of `ltbm profile`") from None
    given = content.get("format") if isinstance(content, dict) else None
    if given != FORMAT:
        raise ValueError(
            f"{path} has format {given!r}, expected {FORMAT!r}; give the profile.json of `ltbm profile`, "
            "made by this version"
        )
    try:
        return Profile.from_json(content)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} lacks fields of a profile ({error}); give a profile.json as `ltbm profile` wrote it"
        ) from None


def read_quality(path) -> dict:
    """A results.json of `ltbm eval`; ValueError for anything else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); give the results.json of `ltbm eval`") from None
    quality_points(content)
    return content


def default_folder(bundle) -> Path:
    return Path(f"profile-{Path(bundle).resolve().name}-{datetime.now():%Y%m%d-%H%M}")


def markdown(profile: Profile) -> str:
    """The table, what its columns mean, and the remarks."""
    errors = error_table(profile.fidelity)
    parts = [markdown_table(COLUMNS, table_rows(profile), names=2), explanation(profile)]
    parts += [markdown_table(*errors), ERROR_NOTE] if errors[1] else []
    return "\n\n".join([*parts, "\n".join(f"- {text}" for text in remarks(profile))]) + "\n"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """The first `names` columns are text."""
    rule = "|" + "---|" * names + "---:|" * (len(head) - names)
    first, *others = ("| " + " | ".join(row) + " |" for row in (head, *rows))
    return "\n".join([first, rule, *others])


def table_csv(profile: Profile) -> str:
    """Every figure of every timed row, a line each: level, method, figure, unit, p50, p90, p95, p99,
    spread."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["level", "method", "tokens_in", "tokens_out", "figure", "unit", *PERCENTILES])
    for row in measured(profile):
        names = [row.level, row.method, row.tokens_in, row.tokens_out]
        for name in FIGURES:
            if name in row.figures:
                writer.writerow(
                    [
                        *names,
                        name,
                        "" if name == "rtf" else "ms",
                        *(f"{getattr(row.figures[name], p):.6g}" for p in PERCENTILES),
                    ]
                )
        for name in ("peak", "libraries", "weights", "kv_cache", "rest"):
            writer.writerow([*names, f"memory_{name}", "bytes", getattr(row.memory, name), "", "", "", ""])
    return stream.getvalue()
