"""Tests of threads, again and again while every core is busy, by hand: what depends on luck shows.

    python tests/under_load.py --times 200 tests/runtime/listen/test_worker.py

Every test runs so often in one process, beside busy processes; prints how many runs passed.
"""

import argparse
import multiprocessing
import os
import sys
from contextlib import contextmanager

import pytest

REPEAT = "run"  # the name under which a test gets its number


class Repeated:
    """A pytest plugin: every test so many times, and a count of how they ended."""

    def __init__(self, times: int):
        self.times = times
        self.outcomes: dict[str, int] = {}

    def pytest_generate_tests(self, metafunc) -> None:
        metafunc.fixturenames.append(REPEAT)
        metafunc.parametrize(REPEAT, range(self.times))

    def pytest_runtest_logreport(self, report) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.outcome] = self.outcomes.get(report.outcome, 0) + 1


@contextmanager
def busy_cores(count: int):
    """So many processes that do nothing but compute."""
    processes = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _spin() -> None:
    while True:
        sum(range(100_000))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=200, metavar="N", help="of every test (default 200)")
    parser.add_argument(
        "--busy",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="processes beside them (default: a core each)",
    )
    parser.add_argument("tests", nargs="+", help="files or folders, and further flags of pytest after --")
    args = parser.parse_args()
    repeated = Repeated(args.times)
    with busy_cores(args.busy):
        status = pytest.main(["-q", "-p", "no:cacheprovider", *args.tests], plugins=[repeated])
    print(", ".join(f"{count} {outcome}" for outcome, count in repeated.outcomes.items()))
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
