"""The scores of a folder of answers, and their form in results.json.

There a row is flat: a variant's names, counts and figures stand side by side.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..json_records import plain, read_record
from .predict import Settings
from .variants import Variant


@dataclass(frozen=True)
class ScoredRow:
    """One variant over all items.

    tokens_in, tokens_out: audio tokens before and after merging, of all items
    cut_off: answers that ended at max_new_tokens
    figures: by metric, the main one first
    intervals: of each figure, from a bootstrap over items
    """

    variant: Variant
    tokens_in: int
    tokens_out: int
    cut_off: int
    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]]

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "ScoredRow":
        intervals = {metric: tuple(interval) for metric, interval in data["intervals"].items()}
        figures = {metric: data[metric] for metric in intervals}
        variant = read_record(Variant, data)
        return read_record(ScoredRow, data, variant=variant, figures=figures, intervals=intervals)

    def to_json(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("tokens_in", "tokens_out", "cut_off")}
        return asdict(self.variant) | counts | self.figures | {"intervals": plain(self.intervals)}


@dataclass(frozen=True)
class ScoreDifference:
    """A variant minus a baseline in one metric, item by item, with the ends of its interval."""

    variant: Variant
    baseline: str
    metric: str
    low: float
    high: float
    difference: float

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "ScoreDifference":
        return read_record(ScoreDifference, data, variant=read_record(Variant, data))

    def to_json(self) -> dict[str, Any]:
        own = {name: value for name, value in vars(self).items() if name != "variant"}
        return asdict(self.variant) | own


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """The scores of one folder.

    metric: the main one
    items, manifest_items: scored, and in the manifest
    draws, confidence: of the bootstrap
    """

    name: str
    benchmark: str
    metric: str
    items: int
    manifest_items: int
    normalizer: str
    draws: int
    confidence: float
    settings: Settings
    rows: tuple[ScoredRow, ...]
    comparisons: tuple[ScoreDifference, ...]

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "ScoreResult":
        """The record of a results.json; KeyError or TypeError where a field is missing."""
        return read_record(
            ScoreResult,
            data,
            settings=read_record(Settings, data["settings"]),
            rows=tuple(ScoredRow.from_json(row) for row in data["rows"]),
            comparisons=tuple(ScoreDifference.from_json(row) for row in data["comparisons"]),
        )

    def to_json(self) -> dict[str, Any]:
        nested = {name: [row.to_json() for row in getattr(self, name)] for name in ("rows", "comparisons")}
        return vars(self) | {"settings": asdict(self.settings)} | nested
