"""Damage the files of a checkpoint and of a bundle at random, export and run: it works, or one clear line.

Outside the test suite, for as long as you like: python tests/fuzz_files.py --inputs 5000 --seed 1
What is allowed is in tests/support/damaged_folders.py. Each batch runs in a process of its own, so that a
crash is counted too.
"""

import argparse
import logging
import multiprocessing
import os
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, for tests.support

from tests.support.damaged_folders import (
    FAILED,
    FILES,
    damageable,
    export_checkpoint,
    make_whole,
    outcome_of,
    run_bundle,
)

BATCH = 100


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=1000, metavar="N", help="damaged folders to try")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--file", help="damage this file alone")
    parser.add_argument("--traceback", action="store_true", help="print that of every failure")
    args = parser.parse_args()
    counts: Counter[str] = Counter()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        _in_a_process(make_whole, Path(folder))
        for batch in range(-(-args.inputs // BATCH)):
            seed = args.seed * 1_000_000 + batch
            counts.update(run_batch(Path(folder), seed, args.file, args.traceback))
    failures = sum(count for outcome, count in counts.items() if FAILED in outcome)
    for outcome, count in sorted(counts.items()):
        print(f"{count:8} {outcome}")
    print(f"{sum(counts.values())} inputs, {failures} failures, {time.monotonic() - start:.0f} s")
    return 1 if failures else 0


def _in_a_process(function, *args) -> None:
    process = multiprocessing.Process(target=function, args=args)
    process.start()
    process.join()


def run_batch(folder: Path, seed: int, only: str | None, shows: bool) -> Counter[str]:
    """The outcomes of one batch; a crash of its process is a failure."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=try_batch, args=(folder, seed, only, shows, sender))
    process.start()
    sender.close()
    try:
        outcomes = receiver.recv()
    except EOFError:
        outcomes = Counter({f"{FAILED}: the process ended, batch {seed}": 1})
    process.join()
    return outcomes


def try_batch(whole: Path, seed: int, only: str | None, shows: bool, sender) -> None:
    chance = random.Random(seed)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    run_bundle(whole / "bundle")  # everything is loaded before memory is counted
    export_checkpoint(whole / "checkpoint", whole / f"out{seed}")
    files = [(kind, name) for kind, name in damageable(whole) if only in (None, name)]
    outcomes: Counter[str] = Counter()
    for index in range(BATCH):
        kind, name = chance.choice(files)
        data = FILES[kind][name]((whole / kind / name).read_bytes(), chance)
        outcome = outcome_of(whole, kind, name, data, shows)
        if FAILED in outcome:
            outcome += f" (batch {seed}, input {index})"
        outcomes[f"{kind}/{name}: {outcome}"] += 1
    sender.send(outcomes)


if __name__ == "__main__":
    sys.exit(main())
