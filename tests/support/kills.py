"""Commands of ltbm, killed at a random moment: what they leave is whole or absent, and then they succeed.

A moment is just before a change to a file, or any time between the first change and the end.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMMAND = [sys.executable, str(Path(__file__).with_name("killed_command.py"))]
IN_THE_MAKING = (".part", ".export-")  # in names of files and folders
LIMIT_SECONDS = 120  # of a command
END_SECONDS = 10  # in which the processes that a killed command had started end
POLL_SECONDS = 0.001


@dataclass(frozen=True)
class Killed:
    """A command and what it may leave.

    arguments: of `ltbm`, {0} for the folder that it works in
    check: raises for what is half there
    is_done: whether the command has done all its work
    """

    arguments: tuple[str, ...]
    check: Callable[[Path], object]
    is_done: Callable[[Path], bool]


@dataclass(frozen=True)
class Course:
    """How a command goes that is not killed: its changes to files, seconds from the first to its end."""

    changes: int
    seconds: float


def run_through(command: Killed, folder: Path) -> Course:
    """Run the command in `folder` to its end; AssertionError unless it succeeds and leaves nothing else."""
    process, report = _start(command, folder)
    _wait_for_first_change(process, report)
    begun = time.monotonic()
    errors = process.communicate(timeout=LIMIT_SECONDS)[1].decode()
    seconds = time.monotonic() - begun
    assert process.returncode == 0, errors
    command.check(folder)
    assert command.is_done(folder)
    left = [path.name for path in folder.rglob(".*") if any(mark in path.name for mark in IN_THE_MAKING)]
    assert left == []
    return Course(int(report.read_text()), seconds)


def kill_once(
    command: Killed, prepared: Path, course: Course, chance: random.Random, by_change: bool
) -> tuple[str, bool]:
    """Kill the command in a copy of the folder `prepared`, look at what it leaves, and run it again.

    Returns when that was, and whether it had not ended by then.
    Raises AssertionError, or what reading raises, for what is not whole.
    """
    with _copy(prepared) as folder:
        if by_change:
            last = chance.randint(1, course.changes)
            process, _ = _start(command, folder, last)
            moment = f"before change {last} of {course.changes}"
        else:
            seconds = chance.uniform(0, course.seconds)
            process, report = _start(command, folder)
            _wait_for_first_change(process, report)
            time.sleep(seconds)
            process.kill()
            moment = f"{seconds:.3f} of {course.seconds:.3f} s after the first change"
        process.communicate(timeout=LIMIT_SECONDS)
        _wait_for_its_processes(process.pid)
        command.check(folder)
        run_through(command, folder)
    return moment, process.returncode == -signal.SIGKILL


def _start(command: Killed, folder: Path, last: int = 0) -> tuple[subprocess.Popen, Path]:
    """The process, and the file with its count of changes; it ends before the change `last`, 0 for none."""
    report = folder.with_name(folder.name + ".changes")
    report.write_bytes(b"")
    arguments = [argument.format(folder) for argument in command.arguments]
    process = subprocess.Popen(
        [*COMMAND, str(folder), str(last), str(report), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    return process, report


def _wait_for_first_change(process: subprocess.Popen, report: Path) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not report.stat().st_size and process.poll() is None:
        assert time.monotonic() < deadline, "nothing was changed"
        time.sleep(POLL_SECONDS)


def _wait_for_its_processes(group: int) -> None:
    """Workers of a killed command notice and end."""
    deadline = time.monotonic() + END_SECONDS
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < deadline, "a process of the killed command goes on"
        time.sleep(POLL_SECONDS)


@contextmanager
def _copy(prepared: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        yield shutil.copytree(prepared, Path(scratch) / "work")
