"""What a profile says, in words: where the time and the memory go, what each level changes,
and what to doubt."""

from .records import FailedRow, MachineFacts, Profile, Row, measured
from .rows import OTHER, TTFT_STAGES

STAGE_SUM_TOLERANCE = 0.03  # of end to end, beyond which the rest is remarked on
OUTSIDE_TOLERANCE = 0.05  # between our peak memory and the system's
NOISY_SPREAD = 0.15  # of the median TTFT
BUSY_LOAD = 1.5  # load average for each core, beyond which a machine counts as busy
MIB = 2**20


def remarks(profile: Profile) -> list[str]:
    """Sentences about a profile, the most telling first."""
    rows = measured(profile)
    ltbm = [row for row in rows if row.method == "ltbm"]
    texts = (
        [bottleneck(ltbm), *no_gain(ltbm), decode_floor(ltbm[0], profile.machine), memory(ltbm)]
        if ltbm
        else []
    )
    texts += [*fidelity_gap(profile), *spills(profile), *unapplied(rows), *failures(profile)]
    texts += doubts(profile, rows) if rows else ["No time was measured."]
    return [text for text in texts if text]


def median(row: Row, name: str) -> float:
    return row.figures[name].p50


def number(value: float) -> str:
    """Three digits that count, without an exponent."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def beyond_spread(a: Row, b: Row, name: str) -> bool:
    """Whether two rows differ in a figure by more than both spreads together."""
    return abs(median(a, name) - median(b, name)) > a.figures[name].spread + b.figures[name].spread


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def bottleneck(rows: list[Row]) -> str:
    """The largest stage of the time to first token at the first level,
    and what becomes of it at the fastest."""
    first, fastest = rows[0], min(rows, key=lambda row: median(row, "ttft"))
    stage = max(TTFT_STAGES, key=lambda name: median(first, name))
    text = (
        f"At {first.level}, {stage} is {percent(median(first, stage) / median(first, 'ttft'))} of the "
        "time to first token"
    )
    if fastest is first:
        return f"{text}; no other level is faster."
    text += f"; at {fastest.level} it is {percent(median(fastest, stage) / median(fastest, 'ttft'))}"
    if not beyond_spread(first, fastest, "ttft"):
        return text + "."
    saved = 1 - median(fastest, "ttft") / median(first, "ttft")
    return (
        f"{text}, and the first token comes {percent(saved)} earlier ({number(median(first, 'ttft'))} ms, "
        f"then {number(median(fastest, 'ttft'))} ms)."
    )


def no_gain(rows: list[Row]) -> list[str]:
    """Levels below the first whose first token does not come earlier, beyond the spreads."""
    first, *others = rows
    slow = [
        row
        for row in others
        if not (median(row, "ttft") < median(first, "ttft") and beyond_spread(first, row, "ttft"))
    ]
    if not slow:
        return []
    last = slow[-1]
    saved, cost = (
        median(first, "prefill") - median(last, "prefill"),
        median(last, "merge") - median(first, "merge"),
    )
    return [
        f"{', '.join(row.level for row in slow)}: the first token comes no earlier than at "
        f"{first.level}, beyond the spread; "
        f"at {last.level} prefill takes {_change(saved)}, merging {_change(-cost)}."
    ]


def _change(saved: float) -> str:
    return f"{number(abs(saved))} ms {'less' if saved > 0 else 'more'}"


def decode_floor(row: Row, machine: MachineFacts) -> str | None:
    if "tpot" not in row.figures or not row.floors:
        return None
    floor, tpot = row.floors["decode"], median(row, "tpot")
    text = (
        f"At {row.level} each further token takes {number(tpot)} ms; reading its "
        f"{number(floor.bytes / MIB)} MiB at the measured "
        f"{number(machine.bandwidth / 1e9)} GB/s takes {number(floor.ms)} ms: "
        f"{tpot / floor.ms:.1f} times the floor"
    )
    cache = machine.last_level_cache_bytes or 0
    return text + (
        ", and it all fits the last-level cache, where that floor is lower." if floor.bytes < cache else "."
    )


def memory(rows: list[Row]) -> str:
    first, last = rows[0], min(rows, key=lambda row: row.kv_bytes)
    split = first.memory
    text = (
        f"Peak memory at {first.level} is {split.peak / MIB:.0f} MiB, "
        f"{percent(split.weights / split.peak)} of it weights "
        f"({split.weights_mapped / MIB:.0f} MiB mapped from files)"
    )
    if last is first:
        return text + "."
    return (
        f"{text}; {last.level} holds {number(last.kv_bytes / MIB)} MiB of KV cache in place of "
        f"{number(first.kv_bytes / MIB)} "
        f"and peaks at {last.memory.peak / MIB:.0f} MiB."
    )


def fidelity_gap(profile: Profile) -> list[str]:
    """At the strongest level: what ltbm loses of the tokens, beside the best and the worst other method."""
    rows = [row for row in profile.fidelity.rows if row.tokens_out < row.tokens_in]
    if not rows:
        return []
    level = min(rows, key=lambda row: row.tokens_out).level
    errors = {row.method: row.error for row in rows if row.level == level}
    others = ", ".join(
        f"{method} {percent(error)}"
        for method, error in sorted(errors.items(), key=lambda item: item[1])
        if method != "ltbm"
    )
    if "ltbm" not in errors:
        return []
    return [
        f"At {level}, LTBM's tokens miss {percent(errors['ltbm'])} of the encoder tokens' variance"
        + (f" ({others})." if others else ".")
    ]


def spills(profile: Profile) -> list[str]:
    rows = [row for row in profile.fidelity.rows if row.spill]
    return [
        f"{row.level} took {row.spill} merges outside its window." for row in rows if row.method == "ltbm"
    ]


def unapplied(rows: list[Row]) -> list[str]:
    return [
        f"{row.level} changed nothing: {row.reason}."
        for row in rows
        if not row.applied and row.level != "full"
    ]


def failures(profile: Profile) -> list[str]:
    return [
        f"{row.level} ({row.method}) failed: {row.error}"
        for row in profile.rows
        if isinstance(row, FailedRow)
    ]


def doubts(profile: Profile, rows: list[Row]) -> list[str]:
    """Why to read the figures with care."""
    return [*_doubts_of_times(rows), *_doubts_of_machine(profile, rows), *_doubts_of_memory(profile, rows)]


def _doubts_of_times(rows: list[Row]) -> list[str]:
    texts = []
    rest = max(rows, key=_share_outside_stages)
    if _share_outside_stages(rest) > STAGE_SUM_TOLERANCE:
        texts.append(
            f"Up to {percent(_share_outside_stages(rest))} of end to end ({rest.level}) lies outside the "
            "stages: text, sampling, bookkeeping."
        )
    noisy = [row.level for row in rows if row.figures["ttft"].spread > NOISY_SPREAD * median(row, "ttft")]
    if noisy:
        texts.append(
            f"TTFT of {', '.join(dict.fromkeys(noisy))} spreads by more than {percent(NOISY_SPREAD)}: "
            "measure again with more repeats, or on a quieter machine."
        )
    encoder = [median(row, "encoder") for row in rows]
    if max(encoder) > (1 + NOISY_SPREAD) * min(encoder):
        texts.append(
            f"The encoder does the same at every level, yet took {number(min(encoder))} to "
            f"{number(max(encoder))} ms: the machine changed between the rows."
        )
    return texts


def _share_outside_stages(row: Row) -> float:
    return median(row, OTHER) / median(row, "total")


def _doubts_of_machine(profile: Profile, rows: list[Row]) -> list[str]:
    texts = []
    load, cores = max(row.load_average for row in rows), profile.machine.cores
    if load > BUSY_LOAD * cores:
        texts.append(f"The machine was busy: load average {load:.1f} on {cores} cores.")
    if profile.machine.governor not in (None, "performance"):
        texts.append(
            f"The CPU governor is {profile.machine.governor}: clocks may have changed while measuring."
        )
    return texts


def _doubts_of_memory(profile: Profile, rows: list[Row]) -> list[str]:
    texts = []
    if profile.options.device != "cpu":
        texts.append("Memory is the host's: what the GPU holds is not measured.")
    opening = [row.level for row in rows if row.memory.peak_while == "opening"]
    if opening:
        texts.append(
            "Memory peaked while opening the engines, not while running "
            f"({', '.join(dict.fromkeys(opening))})."
        )
    if any(abs(row.memory.peak / row.memory.peak_outside - 1) > OUTSIDE_TOLERANCE for row in rows):
        texts.append("Peak memory differs by more than 5 % from what the system accounts for (getrusage).")
    return texts
