"""What `ltbm bench listen` measures and how."""

from dataclasses import dataclass, field

import numpy as np

from ....runtime.levels import Level, parse_level
from ....runtime.request import DEFAULT_PROMPT

SHORTEST_SECONDS = 0.5  # of sound before an end
ENDS_A_PASS = 10  # about so many questions in one process
FULL = "full"


@dataclass(frozen=True)
class Approach:
    """A way to answer about sound that has just ended.

    listens: read while it came; else the whole clip after its end
    at_full: nothing merged; else the level that is measured
    reads_ahead: asked once the open segment is read too, as in a pause that lasts long enough
    """

    title: str
    listens: bool
    at_full: bool = False
    reads_ahead: bool = False


APPROACHES = {
    "listen": Approach("listening", listens=True),
    "ahead": Approach("listening, the open segment read ahead", listens=True, reads_ahead=True),
    "whole": Approach("the whole clip", listens=False),
    "listen-full": Approach("listening", listens=True, at_full=True),
    "whole-full": Approach("the whole clip", listens=False, at_full=True),
}


@dataclass(frozen=True)
class Options:
    """Settings of a measurement, refused with ValueError where nothing could be measured.

    clips: sound files, which are joined, and repeated where they are shorter than `seconds`
    ends: how often speech ends and a question follows, at random moments of the first `seconds`
    real_time: sound comes as from a microphone; else as soon as the device has read what came before
    """

    clips: tuple[str, ...]
    level: str = "keep25"
    window: int | None = None
    positions: str = "original"
    attention: str = "proportional"
    approaches: tuple[str, ...] = tuple(APPROACHES)
    ends: int = 100
    seconds: float = 120.0
    seed: int = 0
    real_time: bool = False
    prompt: str = DEFAULT_PROMPT
    max_new_tokens: int = 8
    backend: str = "onnxruntime"
    device: str = "cpu"
    threads: int | None = None
    kv_cache: str | None = None
    packed: bool = True
    native_products: bool = True
    command: tuple[str, ...] = field(default=())

    def __post_init__(self):
        if not self.clips:
            raise ValueError("no clips were given; name one sound file or more")
        unknown = [name for name in self.approaches if name not in APPROACHES]
        if unknown or not self.approaches:
            given = ", ".join(unknown) or "(none given)"
            raise ValueError(f"unknown approaches {given}; known are {', '.join(APPROACHES)}")
        for name in ("ends", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is below 1")
        if not SHORTEST_SECONDS < self.seconds <= 3600:
            raise ValueError(f"seconds {self.seconds} is not above {SHORTEST_SECONDS} and at most 3600")
        self.level_of(Approach("", listens=True))

    def level_of(self, approach: Approach) -> Level:
        name = FULL if approach.at_full else self.level
        return parse_level(name, self.window, self.positions, self.attention)

    def passes(self) -> list[tuple[float, ...]]:
        """The ends, in seconds and in order, dealt out so that every pass goes through all of the sound."""
        drawn = np.random.default_rng(self.seed).uniform(SHORTEST_SECONDS, self.seconds, self.ends)
        ends = np.sort(drawn)
        count = -(-self.ends // ENDS_A_PASS)
        return [tuple(ends[index::count].tolist()) for index in range(count)]
