"""What to choose for a task: the fewest audio tokens that cost at most a point where it was measured."""

from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from .levels import DEFAULT_LEVEL, Budget, Level


@dataclass(frozen=True)
class Task:
    """A level's name and what it rests on."""

    level: str
    reason: str


TASKS = {
    "caption": Task(
        "keep50",
        "exact captions of the demo model on 200 scenes of recordings, in %: 47.0 full, 46.0 keep50, "
        "44.0 keep25, 31.5 keep12, 12.5 keep6 (examples/demo/quality)",
    ),
    "qa": Task(
        "keep50",
        "questions about the same scenes answered right, in %: 78.8 full, 79.0 keep50, 76.8 keep25, "
        "69.2 keep12, 53.8 keep6 (examples/demo/quality)",
    ),
    "transcribe": Task(
        "full",
        "words that a pretrained Whisper gets wrong on telephone prompts, in %: tiny.en 2.7 full, "
        "2.7 keep50, 3.0 keep33, 6.9 keep25; base 2.4 full, 2.5 keep50, 2.5 keep33, 4.0 keep25 "
        "(docs/quality.md); no large model was measured, and every published training-free method harms "
        "speech recognition",
    ),
}


LevelChoice = str | float | Fraction | Level | Budget
"""What a caller may give as a level: its name, a share, or the level itself."""


Choice = TypeVar("Choice", bound=LevelChoice)


def choose(level: Choice | None, task: str | None, default: str = DEFAULT_LEVEL) -> Choice | str:
    """The level that was given, else the task's, else the default; ValueError names the tasks there are."""
    if task is not None and task not in TASKS:
        raise ValueError(f"unknown task {task!r}; tasks are {', '.join(TASKS)}")
    if level is not None:
        return level
    return TASKS[task].level if task else default
