"""Which items decide whether LTBM is ahead of Global Merge or of mean pooling."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from .items import Item
from .score import Options, Tally, read_scored
from .tables import LABELS
from .variants import DEFAULT_MODE, Variant

BASELINES = {"global": "Global Merge", "pool": "mean pooling"}
CAPPED = "wer_capped"  # a clip that loops counts its words and no more


@dataclass(frozen=True)
class DecidingItem:
    """What one item adds to the difference of LTBM and a baseline at a level.

    ltbm, other, total: what it adds above and below the metric's fraction bar (errors and words)
    points: its part of `difference`, which is LTBM minus the baseline over all items
    """

    level: str
    baseline: str
    item: str
    ltbm: float
    other: float
    total: float
    points: float
    difference: float


def deciding_table(folder, options: Options, count: int) -> str:
    """The `count` items of each level and baseline that move the difference most, as Markdown."""
    scored = read_scored(folder, options)
    metric = next(iter(scored.tallies.values()))
    name = CAPPED if CAPPED in metric else next(iter(metric))
    tallies = {variant: metrics[name] for variant, metrics in scored.tallies.items()}
    lines = [
        "",
        f"The items that decide between LTBM and another method, {LABELS.get(name, name)}:",
        "",
        "| level | against | LTBM - it | item | LTBM | it | of | points |",
        "|---" * 8 + "|",
    ]
    for row in deciding_items(scored.items, tallies, count):
        lines.append(
            f"| {row.level} | {BASELINES[row.baseline]} | {100 * row.difference:+.1f} | {row.item} | "
            f"{row.ltbm:g} | {row.other:g} | {row.total:g} | {100 * row.points:+.1f} |"
        )
    return "\n".join(lines) + "\n"


def deciding_items(
    items: Sequence[Item], tallies: Mapping[Variant, Tally], count: int
) -> Iterator[DecidingItem]:
    """By level and baseline, the items with the largest part in the difference first."""
    for variant in tallies:
        if variant.level == "full" or variant.method != "ltbm":
            continue
        if (variant.positions, variant.attention) != DEFAULT_MODE:
            continue
        for baseline in BASELINES:
            other = replace(variant, method=baseline)
            if other in tallies:
                rows = _parts(variant.level, baseline, items, tallies[variant], tallies[other])
                yield from sorted(rows, key=_size)[:count]


def _size(row: DecidingItem) -> tuple[float, str]:
    return -abs(row.points), row.item


def _parts(
    level: str, baseline: str, items: Sequence[Item], mine: Tally, theirs: Tally
) -> Iterator[DecidingItem]:
    whole = mine[:, 1].sum()
    difference = float((mine[:, 0] - theirs[:, 0]).sum() / whole)
    for item, (ltbm, total), (other, _) in zip(items, mine, theirs):
        points = float((ltbm - other) / whole)
        if points:
            yield DecidingItem(level, baseline, item.id, ltbm, other, total, points, difference)
