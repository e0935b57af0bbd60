"""Damage sound files at random and read them: only ValueError, no crash, no hang, no sound lost.

Outside the test suite, for as long as you like: python tests/fuzz_audio.py --inputs 20000 --seed 1
Each batch runs in a process of its own, so that a crash of a decoder is counted too. With ffmpeg installed a
share of what was read without a warning is compared with what ffmpeg reads.
"""

import argparse
import multiprocessing
import random
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, for tests.support

from ltbm.runtime.stages.audio import load_audio
from tests.support.damaged_sound import KINDS, RATE, Damage, whole_files

BATCH = 200
HANG_SECONDS = 10
MOST_SECONDS = 30
MOST_BYTES = 2 * 4 * MOST_SECONDS * RATE + (4 << 20)
COMPARED_SHARE = 0.1
LOST_SHARE = 0.1  # of ffmpeg's samples that may be missing, and
LOST_SAMPLES = 4000  # at least so many: at a damage every decoder drops frames of its own choice


class Hang(Exception):
    """Reading took longer than HANG_SECONDS."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=2000, metavar="N", help="damaged files to read")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    args = parser.parse_args()
    counts: Counter[str] = Counter()
    start = time.monotonic()
    for batch in range(-(-args.inputs // BATCH)):
        counts.update(run_batch(args.seed * 1_000_000 + batch))
    failures = sum(count for outcome, count in counts.items() if outcome.startswith("FAILED"))
    for outcome, count in sorted(counts.items()):
        print(f"{count:8} {outcome}")
    print(f"{sum(counts.values())} inputs, {failures} failures, {time.monotonic() - start:.0f} s")
    return 1 if failures else 0


def run_batch(seed: int) -> Counter[str]:
    """The outcomes of one batch; a crash of its process is a failure."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=read_batch, args=(seed, sender))
    process.start()
    sender.close()
    try:
        outcomes = receiver.recv()
    except EOFError:
        outcomes = Counter({f"FAILED: the decoder crashed, batch {seed}": 1})
    process.join()
    return outcomes


def read_batch(seed: int, sender) -> None:
    chance = random.Random(seed)
    files = whole_files()
    signal.signal(signal.SIGALRM, _hang)
    outcomes: Counter[str] = Counter()
    for index in range(BATCH):
        name = chance.choice(list(files))
        data = files[name]
        for _ in range(chance.randint(1, 4)):
            share = chance.random() ** chance.choice((1, 8))  # half of the damage in the header
            data = Damage(chance.choice(KINDS), share, chance.randrange(1 << 16)).apply(data)
        is_compared = chance.random() < COMPARED_SHARE
        outcome = read_one(data, is_compared)
        if outcome.startswith("FAILED"):
            outcome += f" ({name}, batch {seed}, input {index})"
        outcomes[outcome] += 1
    sender.send(outcomes)


def _hang(*_) -> None:
    raise Hang


def read_one(data: bytes, is_compared: bool) -> str:
    tracemalloc.start()
    signal.alarm(HANG_SECONDS)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            waveform = load_audio(data, RATE, max_seconds=MOST_SECONDS)
    except ValueError:
        return _within_memory("refused")
    except Hang:
        return "FAILED: hang"
    except Exception as error:
        return f"FAILED: {type(error).__name__} {error}"
    finally:
        signal.alarm(0)
        tracemalloc_peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    if tracemalloc_peak > MOST_BYTES:
        return f"FAILED: {tracemalloc_peak >> 20} MiB"
    if warned:
        return "read with a warning"
    if is_compared and shutil.which("ffmpeg"):
        return compare(data, len(waveform))
    return "read"


def _within_memory(outcome: str) -> str:
    peak = tracemalloc.get_traced_memory()[1]
    return outcome if peak <= MOST_BYTES else f"FAILED: {peak >> 20} MiB"


def compare(data: bytes, samples: int) -> str:
    """Whether ffmpeg reads as much sound."""
    command = ["ffmpeg", "-v", "quiet", "-i", "-", "-ar", str(RATE), "-ac", "1", "-f", "s16le", "-"]
    theirs = len(subprocess.run(command, input=data, capture_output=True).stdout) // 2
    lost = theirs - samples
    if lost > max(LOST_SAMPLES, LOST_SHARE * theirs):
        return f"FAILED: {samples} samples, ffmpeg reads {theirs}"
    return "read, no less than ffmpeg does"


if __name__ == "__main__":
    sys.exit(main())
