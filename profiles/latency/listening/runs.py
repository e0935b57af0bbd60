"""What one process of `ltbm bench listen` measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...json_records import read_record


@dataclass(frozen=True)
class EndAnswer:
    """The answer after one end of speech.

    end: seconds of sound before it
    open_seconds: of them in the open segment
    ttft_ms: from the end to the first token; of what is read ahead, from the question
    ahead_ms: what reading the open segment ahead took; 0 where that was not done
    timings: milliseconds of each stage, as `Answer` has them
    """

    end: float
    open_seconds: float
    ttft_ms: float
    ahead_ms: float
    tokens_in: int
    tokens_out: int
    reused_tokens: int
    token_ids: tuple[int, ...]
    timings: dict[str, float]


@dataclass(frozen=True)
class ListenRun:
    """One pass through the sound in one way.

    sound_seconds: how much sound came
    reading_ms: what reading whole segments took while it came
    refused: pushes refused because reading had fallen behind
    peak_bytes: of the process, as the system accounts for it, once it has ended
    """

    approach: str
    answers: tuple[EndAnswer, ...]
    sound_seconds: float
    reading_ms: float
    refused: int
    load_average: float
    peak_bytes: int = 0

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "ListenRun":
        answers = tuple(
            read_record(EndAnswer, answer, token_ids=tuple(answer["token_ids"])) for answer in data["answers"]
        )
        return read_record(ListenRun, data, answers=answers)
