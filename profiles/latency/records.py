"""The records of a profile and their form in profile.json.

Fields have the names they have in the file. Times are in milliseconds and memory is in bytes unless a
comment says otherwise. Fields with a default are those that older files lack.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..json_records import plain, read_record
from .options import Options
from .runs import FailedRun, LevelRun, read_run

FORMAT = "ltbm-profile-1"


@dataclass(frozen=True)
class Figure:
    """One measured figure over rounds: percentiles, mean, and the interquartile range as its spread."""

    p50: float
    p90: float
    p95: float
    p99: float
    mean: float
    spread: float


@dataclass(frozen=True)
class MemorySplit:
    """Peak memory of the process that took most; libraries, weights, kv_cache and rest sum to the peak."""

    metric: str  # how the peak is measured
    peak: int
    peak_outside: int  # the peak as the system accounts for it (getrusage)
    peak_while: str  # "opening" or "running"
    libraries: int  # the interpreter and shared libraries
    weights: int  # what opening the engines allocated, and the bundle's mapped files
    weights_mapped: int  # how much of the weights is mapped files
    kv_cache: int  # as allocated
    rest: int  # activations and arenas, or what loading took where the peak was reached while opening


@dataclass(frozen=True)
class Floor:
    """The least time of one stage on this machine."""

    bytes: float
    operations: float
    ms: float
    bound: str  # "memory" or "matrix", whichever takes longer


@dataclass(frozen=True)
class Row:
    """What one level costs under one method."""

    level: str
    method: str
    runs: tuple[LevelRun, ...]  # of its processes, in order
    tokens_in: int  # audio tokens before merging, summed over the clips like the next three
    tokens_out: int
    prompt_tokens: int
    answer_tokens: int
    applied: bool  # whether any clip was merged
    reason: str  # why the level was not applied, else empty
    figures: dict[str, Figure]  # keys from rows.FIGURES
    memory: MemorySplit
    kv_bytes: int  # KV cache in use, of the clip with most
    floors: dict[str, Floor]  # by stage; empty where the machine's rates do not apply
    load_average: float
    open_ms: float  # median time to open the engines

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Row":
        return read_record(
            Row,
            data,
            runs=tuple(LevelRun.from_json(run) for run in data["runs"]),
            figures={name: read_record(Figure, figure) for name, figure in data["figures"].items()},
            memory=read_record(MemorySplit, data["memory"]),
            floors={stage: read_record(Floor, floor) for stage, floor in data["floors"].items()},
        )


@dataclass(frozen=True)
class FailedRow:
    """A level and method that could not be measured."""

    level: str
    method: str
    runs: tuple[LevelRun | FailedRun, ...]
    error: str  # why


@dataclass(frozen=True)
class Spans:
    """Time from the first to the last token of a group, over the groups of several tokens."""

    p50: float
    p95: float
    max: float


@dataclass(frozen=True)
class FidelityRow:
    """What one method loses at one level, over all clips."""

    level: str
    method: str
    error: float  # share of the encoder tokens' variance that is lost
    span_ms: Spans | None  # None where no group has several tokens
    spill: int  # merges outside the window
    tokens_in: int
    tokens_out: int

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "FidelityRow":
        spans = data["span_ms"]
        return read_record(FidelityRow, data, span_ms=read_record(Spans, spans) if spans else None)


@dataclass(frozen=True)
class MergeMap:
    """The spectrogram and the groups of one segment."""

    mel: str  # bytes [rows, columns] in base64, low frequencies first
    mel_shape: tuple[int, ...]
    source_maps: dict[str, list[int]]  # by level: the group of each encoder token
    anchors: dict[str, list[int]]  # by level: the position that each group keeps

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "MergeMap":
        return read_record(MergeMap, data, mel_shape=tuple(data["mel_shape"]))


@dataclass(frozen=True)
class Fidelity:
    """What merging does to the clips' tokens."""

    rows: tuple[FidelityRow, ...]
    token_ms: float  # audio in one encoder token
    map: MergeMap  # of the first clip's first segment

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Fidelity":
        return read_record(
            Fidelity,
            data,
            rows=tuple(FidelityRow.from_json(row) for row in data["rows"]),
            map=MergeMap.from_json(data["map"]),
        )


@dataclass(frozen=True)
class Clip:
    """One audio file."""

    name: str
    sha256: str
    seconds: float


@dataclass(frozen=True)
class BundleFacts:
    """The bundle that was measured."""

    path: str
    name: str
    sha256: str  # of the manifest, which holds the hash of every file
    family: str
    source: str
    precision: str
    stage_bytes: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """The machine that was measured; None for what the system does not tell."""

    cpu: str | None
    cores: int  # that the process may use
    memory_bytes: int | None
    last_level_cache_bytes: int | None = None
    board: dict[str, Any] | None
    gpu: dict[str, Any] | None
    gpu_clocks: str | None
    system: str
    load_average: float
    governor: str | None
    clock_mhz: float | None
    bandwidth: float  # bytes a second
    matrix_rate: float  # float32 operations a second
    threads: int  # on which the two rates were measured

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "MachineFacts":
        return read_record(MachineFacts, data)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Everything that `ltbm profile` measured."""

    format: str = FORMAT
    complete: bool  # False while rows are still being measured
    created: str  # ISO 8601
    options: Options
    versions: dict[str, str | None]  # by package
    bundle: BundleFacts
    clips: tuple[Clip, ...]
    machine: MachineFacts
    rows: tuple[Row | FailedRow, ...]
    fidelity: Fidelity

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Profile":
        """The record of a profile.json; KeyError or TypeError where a field is missing."""
        return read_record(
            Profile,
            data,
            options=Options.from_json(data["options"]),
            bundle=read_record(BundleFacts, data["bundle"]),
            clips=tuple(read_record(Clip, clip) for clip in data["clips"]),
            machine=MachineFacts.from_json(data["machine"]),
            rows=tuple(_row(row) for row in data["rows"]),
            fidelity=Fidelity.from_json(data["fidelity"]),
        )

    def to_json(self) -> dict[str, Any]:
        return plain(self)


def measured(profile: Profile) -> list[Row]:
    """The rows that did not fail."""
    return [row for row in profile.rows if isinstance(row, Row)]


def _row(data: Mapping[str, Any]) -> Row | FailedRow:
    if "error" in data:
        return read_record(FailedRow, data, runs=tuple(read_run(run) for run in data["runs"]))
    return Row.from_json(data)
