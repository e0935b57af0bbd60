"""Kill export, build (over the fake TensorRT), calibrate, profile and eval at random moments, by hand.

    python tests/kill_moments.py --moments 10 --seed 1

After each the files are looked at and the command is run again: what is left is whole or absent, no process
goes on, and the command succeeds. Every second time its work had been done once before.
"""

import argparse
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, for tests.support

from tests.support.damaged_folders import make_whole
from tests.support.killed_commands import COMMANDS, prepare, write_clip
from tests.support.kills import kill_once, run_through

FAILED = "FAILED"
DONE_ONCE = ("eval",)  # has nothing to do a second time


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moments", type=int, default=10, metavar="N", help="of each command (default 10)")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    args = parser.parse_args()
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        make_whole(Path(scratch))
        prepared = Path(scratch) / "prepared"
        prepared.mkdir()
        prepare(prepared, Path(scratch) / "checkpoint", Path(scratch) / "bundle")
        for name in args.commands:
            outcomes += kill_often(name, prepared, args.moments, random.Random(f"{args.seed} {name}"))
    print(", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()))
    return 1 if outcomes[FAILED] else 0


def kill_often(name: str, prepared: Path, moments: int, chance: random.Random) -> Counter[str]:
    """How the moments went."""
    command = COMMANDS[name]
    done = shutil.copytree(prepared, prepared.with_name(name))
    states = [(prepared, run_through(command, done))]
    if name not in DONE_ONCE:
        write_clip(done, 5)  # what is written the next time differs
        states.append((done, run_through(command, done)))
    outcomes: Counter[str] = Counter()
    for moment in range(moments):
        folder, course = states[moment % len(states)]
        by_change = moment // len(states) % 2 == 0
        try:
            when, was_killed = kill_once(command, folder, course, chance, by_change)
            outcome = "killed" if was_killed else "ended before"
        except Exception:
            when, outcome = traceback.format_exc(), FAILED
        outcomes[outcome] += 1
        print(f"{name}: {outcome} {when}", flush=True)
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
