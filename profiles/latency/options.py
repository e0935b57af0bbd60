"""What is profiled and how."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ...runtime.levels import NAMED_RATIOS
from ...runtime.request import DEFAULT_PROMPT
from ..quality.variants import METHODS

LEVELS = tuple(NAMED_RATIOS)
TIMED_METHODS = {"ltbm": "auto", "global": "global"}
"""Methods that the engines run, and their window; the others are evaluation code,
whose LLM costs what ltbm's does at equal tokens."""


@dataclass(frozen=True)
class Options:
    """Settings of a profile; `check` refuses those with which nothing can be measured."""

    clips: tuple[str, ...]  # paths of audio files
    levels: tuple[str, ...] = LEVELS
    methods: tuple[str, ...] = METHODS
    positions: str = "original"
    attention: str = "proportional"
    backend: str = "onnxruntime"
    device: str = "cpu"
    threads: int | None = None
    low_memory: bool = False  # engines loaded in turn: their weights then count among the memory of running
    kv_cache: str | None = None  # int8, or of the type of the activations
    packed: bool = True  # weights that `ltbm pack` packed are mapped, where there are any
    native_products: bool = True  # quantised weights are multiplied by our op on the CPU
    prompt: str = DEFAULT_PROMPT
    max_new_tokens: int = 32
    long_audio: str = "error"
    turns: int = 2  # processes per row
    repeats: int = 5  # rounds measured in each process
    warmup: int = 1  # rounds before them
    command: tuple[str, ...] = field(default_factory=lambda: tuple(sys.argv))

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Options":
        """The options in a profile.json; what older files lack has its default."""
        known = {"command": []} | {name: data[name] for name in _names() if name in data}
        values: dict[str, Any] = {}
        for name, value in known.items():
            values[name] = tuple(value) if isinstance(value, list) else value
        return Options(**values)

    def check(self) -> None:
        """ValueError that names the first setting with which nothing can be measured."""
        for name, known in (("levels", LEVELS), ("methods", METHODS)):
            unknown = [value for value in getattr(self, name) if value not in known]
            if unknown or not getattr(self, name):
                raise ValueError(
                    f"unknown {name} {', '.join(unknown) or '(none given)'}; known are {', '.join(known)}"
                )
        if not self.clips:
            raise ValueError("no clips were given; name one audio file or more")
        for name, least in (("turns", 1), ("repeats", 1), ("warmup", 0), ("max_new_tokens", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} is below {least}")

    def timed_rows(self) -> list[tuple[str, str]]:
        """(level, method) of every row whose time is measured;
        merging nothing is the same under every method."""
        return [
            (level, method)
            for level in self.levels
            for method in self.methods
            if method in TIMED_METHODS and (level != "full" or method == "ltbm")
        ]


def _names() -> list[str]:
    return [item.name for item in fields(Options)]
