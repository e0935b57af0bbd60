"""Thousands of requests on one session, by hand: memory stays flat, answers are those of a fresh session.

    python tests/soak.py --requests 2000 --seed 1

Requests over changing clips, levels, questions, chats, streams left early and errors, on the demo model.
Every hundredth answer is asked of a fresh session too: the tokens must be equal. Resident memory is read
after every request; the first quarter of them warms up. The medians of BLOCKS equal blocks of the others are
fitted with a line: memory is flat if its slope is below twice its standard error, or below LEAST_SLOPE.
"""

import argparse
import random
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, for tests.support

import numpy as np
import soundfile

from ltbm.demo.bundle import demo_bundle
from ltbm.runtime.sampling import Sampling
from ltbm.runtime.session import Session

COMPARED = 100  # one of so many answers is asked of a fresh session too
WARM_UP = 1 / 4  # of the requests
BLOCKS = 12
LEAST_SLOPE = 20  # bytes a request: 40 KB in 2,000
LEVELS = ("full", "keep75", "keep50", "keep33", "keep25", "keep12", 0.3)
QUESTIONS = ("What do you hear ?", "How often ?", "Is it loud ?", "What comes last ?")
CLIPS = Path(__file__).parents[1] / "examples/demo/clips"
RATE = 16_000


@dataclass(frozen=True)
class Growth:
    """What became of the memory.

    slope, error: bytes a request, and the slope's standard error
    first, last: bytes, medians of the first and the last block
    """

    slope: float
    error: float
    first: float
    last: float

    @property
    def is_flat(self) -> bool:
        return self.slope < max(2 * self.error, LEAST_SLOPE)

    def __str__(self) -> str:
        mib = f"{self.first / 2**20:.1f} -> {self.last / 2**20:.1f} MiB"
        return f"resident memory {mib}, {self.slope:.0f} +- {self.error:.0f} bytes a request"


def growth(resident: list[int]) -> Growth:
    """Of resident bytes after each request."""
    kept = resident[int(len(resident) * WARM_UP) :]
    size = len(kept) // BLOCKS
    medians = [float(np.median(kept[index * size : (index + 1) * size])) for index in range(BLOCKS)]
    places = np.arange(BLOCKS) * size
    (slope, start), residuals, *_ = np.polyfit(places, medians, 1, full=True)
    spread = np.sqrt(float(residuals[0]) / (BLOCKS - 2)) if len(residuals) else 0.0
    error = spread / np.sqrt(((places - places.mean()) ** 2).sum())
    return Growth(float(slope), float(error), medians[0], medians[-1])


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) << 10


class Caller:
    """Requests of all kinds on one session."""

    def __init__(self, bundle: Path, chance: random.Random):
        self.bundle = bundle
        self.chance = chance
        self.session = Session.open(bundle, threads=1)
        self.clips = [soundfile.read(path, dtype="float32")[0] for path in sorted(CLIPS.glob("*.flac"))]
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def call(self, compares: bool) -> None:
        kinds = (self.ask, self.ask, self.ask, self.chat, self.leave, self.sample, self.err)
        kind = self.ask if compares else self.chance.choice(kinds)
        self.counts[kind.__name__] += 1
        kind(**({"compares": True} if compares else {}))

    def clip(self) -> np.ndarray:
        """A stretch of a clip, the same one often."""
        clip = self.chance.choice(self.clips)
        return clip[: RATE * self.chance.choice((1, 2, 3, 100))]

    def ask(self, compares: bool = False) -> None:
        clip = self.clip()
        question = self.chance.choice(QUESTIONS)
        level = self.chance.choice(LEVELS)
        answer = self.session.generate(clip, question, level, max_new_tokens=24)
        if not compares:
            return
        self.counts["compared"] += 1
        with Session.open(self.bundle, threads=1) as fresh:
            expected = fresh.generate(clip, question, level, max_new_tokens=24)
        if (answer.token_ids, answer.text) != (expected.token_ids, expected.text):
            self.wrong.append(f"{question} at {level}: {answer.text!r}, fresh {expected.text!r}")

    def chat(self) -> None:
        conversation = self.session.converse(self.chance.choice(LEVELS))
        conversation.ask(QUESTIONS[0], self.clip(), max_new_tokens=16)
        for question in QUESTIONS[1 : self.chance.randint(2, 4)]:
            audio = self.clip() if self.chance.random() < 0.3 else None
            conversation.ask(question, audio, max_new_tokens=16)

    def leave(self) -> None:
        """A stream left after some pieces."""
        with self.session.stream(self.clip(), QUESTIONS[0], self.chance.choice(LEVELS)) as stream:
            for _ in range(self.chance.randint(1, 5)):
                next(stream, None)

    def sample(self) -> None:
        sampling = Sampling(temperature=1.0, top_k=20, seed=self.chance.randrange(1000))
        self.session.generate(self.clip(), QUESTIONS[0], sampling=sampling, max_new_tokens=16)

    def err(self) -> None:
        """What is refused, which must leave no trace."""
        request = self.chance.choice(
            (
                (b"RIFF\0\0\0\0WAVE" + self.chance.randbytes(5000), QUESTIONS[0], "full"),
                (np.full(RATE, np.nan, np.float32), QUESTIONS[0], "full"),
                (np.zeros(RATE * 100, np.float32), QUESTIONS[0], "full"),
                (self.clip(), "what is <|AUDIO|> ?", "full"),
                (self.clip(), "hm " * 50_000, "full"),
                (self.clip(), QUESTIONS[0], "keep99x"),
            )
        )
        try:
            self.session.generate(*request, max_new_tokens=4)
        except ValueError:
            return
        self.wrong.append(f"not refused: {str(request)[:80]}")


def soak(bundle: Path, requests: int, seed: int) -> tuple[Caller, list[int]]:
    """All requests, and resident bytes after each."""
    caller = Caller(bundle, random.Random(seed))
    resident = []
    with caller.session:
        for number in range(1, requests + 1):
            caller.call(compares=number % COMPARED == 0)
            resident.append(resident_bytes())
    return caller, resident


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=2000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with demo_bundle() as bundle:
        caller, resident = soak(bundle, args.requests, args.seed)
    result = growth(resident)
    print(", ".join(f"{count} {kind}" for kind, count in sorted(caller.counts.items())))
    print(f"{len(caller.wrong)} wrong; {result}: {'flat' if result.is_flat else 'GROWS'}")
    print("\n".join(caller.wrong[:5]))
    return 0 if result.is_flat and not caller.wrong else 1


if __name__ == "__main__":
    sys.exit(main())
