"""How long work says what it does."""

import sys
import time
from collections.abc import Callable

Progress = Callable[[str], None]
"""Takes lines for whoever waits."""
REPORT_BYTES = 10**9


def to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


class ByteCount:
    """Says after every gigabyte how much is done and how long the rest will take.

    total: bytes of all the work
    """

    def __init__(self, total: int, report: Progress):
        self.report = report
        self._total = total
        self._done = 0
        self._started = time.monotonic()

    def __call__(self, count: int, what: str) -> None:
        """So many more bytes are done, of `what`."""
        before = self._done
        self._done += count
        if self._done // REPORT_BYTES > before // REPORT_BYTES:
            elapsed = time.monotonic() - self._started
            left = elapsed * max(0, self._total - self._done) / self._done
            self.report(
                f"  {self._done / 1e9:,.1f} of {self._total / 1e9:,.1f} GB, at {what}; {elapsed:,.0f} s, "
                f"about {left:,.0f} s left"
            )
