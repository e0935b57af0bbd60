"""The main table of a profile, one row a level, and the table of what each method loses."""

from .records import FailedRow, Fidelity, Profile, Row
from .remarks import number

MIB = 2**20
PERCENTILES = ("p50", "p90", "p95", "p99", "spread")
ERROR_NOTE = (
    "Without weights or answers, on these clips: every encoder token against its group's mean, or against "
    "the nearest kept token where a "
    "method drops tokens. Methods without times above are evaluation code; after them the LLM costs what it "
    "costs after ltbm."
)
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


def table_rows(profile: Profile) -> list[list[str]]:
    """One row of text for each level and method that was timed, in the order of COLUMNS."""
    return [[row.level, row.method, *_cells(row)] for row in profile.rows]


def _cells(row: Row | FailedRow) -> list[str]:
    if isinstance(row, FailedRow):
        return ["failed"] + [""] * (len(COLUMNS) - 3)
    figures = row.figures
    times = [
        number(figures[name].p50) if name in figures else ""
        for name in ("ttft", "encoder", "merge", "prefill", "tpot", "total", "rtf")
    ]
    times.insert(1, number(figures["ttft"].spread))
    return [
        f"{row.tokens_in} → {row.tokens_out}",
        *times,
        number(row.kv_bytes / MIB),
        number(row.memory.peak / MIB),
    ]


def error_table(fidelity: Fidelity) -> tuple[list[str], list[list[str]]]:
    """Head and rows: what each method loses at each level that merges, in percent of the tokens' variance."""
    errors = {
        (row.method, row.level): f"{100 * row.error:.1f}" for row in fidelity.rows if row.level != "full"
    }
    methods, levels = (list(dict.fromkeys(key[part] for key in errors)) for part in (0, 1))
    return ["variance lost, %", *levels], [
        [method, *(errors[method, level] for level in levels)] for method in methods
    ]


def row_name(row: Row | FailedRow) -> str:
    """A level, and the method where it is not ltbm."""
    return row.level if row.method == "ltbm" else f"{row.level} {row.method}"


def explanation(profile: Profile) -> str:
    options, clips, machine, bundle = profile.options, profile.clips, profile.machine, profile.bundle
    seconds = sum(clip.seconds for clip in clips)
    rounds = options.turns * options.repeats
    sentences = [
        f"{bundle.name} ({bundle.family}, {bundle.precision}) on {machine.cpu}, "
        f"{machine.cores} cores, "
        f"{options.backend} {options.device}; {len(clips)} clip{'s' * (len(clips) > 1)} of "
        f"{seconds:.1f} s in all, "
        f"{options.max_new_tokens} new tokens at most.",
        f"Medians over {rounds} rounds (processes a row: {options.turns})"
        + (", of the mean over the clips" if len(clips) > 1 else "")
        + "; spread is the interquartile range of TTFT. Audio tokens are the clips' sum, KV and peak the "
        "largest.",
    ]
    if not profile.complete:
        sentences.insert(0, "Not complete: the profile was interrupted.")
    return " ".join(sentences)
