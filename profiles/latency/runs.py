"""What one process of a profile measured, and its form in profile.json.

Times are in milliseconds and memory is in bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..json_records import read_record


@dataclass(frozen=True)
class ProcessMemory:
    """A process at one moment."""

    resident: int
    mapped: int  # how much of it is mapped files
    peak: int  # so far (VmHWM)

    @property
    def allocated(self) -> int:
        """Resident bytes that are not mapped files."""
        return self.resident - self.mapped


@dataclass(frozen=True)
class RunMemory:
    """A process before its engines were opened, after that, and at its end."""

    before: ProcessMemory
    opened: ProcessMemory
    end: ProcessMemory
    weights_mapped: int  # of the bundle's files, at the end

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "RunMemory":
        moments = {name: read_record(ProcessMemory, data[name]) for name in ("before", "opened", "end")}
        return read_record(RunMemory, data, **moments)


@dataclass(frozen=True)
class MachineState:
    """What changes from minute to minute; None for what the system does not tell."""

    load_average: float
    governor: str | None
    clock_mhz: float | None


@dataclass(frozen=True)
class ClipAnswer:
    """What an answer about one clip is in every round."""

    text: str
    tokens_in: int  # audio tokens before merging
    tokens_out: int
    window: int
    applied: bool  # whether the level changed anything
    reason: str  # why not, else empty
    finish_reason: str
    kv_bytes: int
    kv_allocated_bytes: int
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class RequestTimes:
    """One request about one clip: `timings` by stage as `Answer` has them, and each decode step's."""

    timings: dict[str, float]
    step_ms: tuple[float, ...]


@dataclass(frozen=True)
class LevelRun:
    """What one process measured at one level."""

    open_ms: float
    state: MachineState
    clips: tuple[ClipAnswer, ...]
    rounds: tuple[tuple[RequestTimes, ...], ...]  # of a round a request for every clip
    memory: RunMemory
    peak_outside: int = 0  # the peak as the system accounts for it (getrusage), once the process has ended

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "LevelRun":
        return read_record(
            LevelRun,
            data,
            state=read_record(MachineState, data["state"]),
            clips=tuple(read_record(ClipAnswer, clip) for clip in data["clips"]),
            rounds=tuple(_read_round(requests) for requests in data["rounds"]),
            memory=RunMemory.from_json(data["memory"]),
        )


@dataclass(frozen=True)
class FailedRun:
    """A process that ended without a result."""

    error: str


def read_run(data: Mapping[str, Any]) -> LevelRun | FailedRun:
    return FailedRun(data["error"]) if "error" in data else LevelRun.from_json(data)


def _read_round(requests: list[dict[str, Any]]) -> tuple[RequestTimes, ...]:
    return tuple(read_record(RequestTimes, one, step_ms=tuple(one["step_ms"])) for one in requests)
