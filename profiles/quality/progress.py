"""How far an evaluation is, and how long the rest takes."""

import sys
import time

PROGRESS_SECONDS = 5.0  # between two lines


def progress_printer(what: str):
    """Prints what is done and how long the rest takes, not oftener than every PROGRESS_SECONDS."""
    begun = printed = time.perf_counter()

    def progress(done: int, total: int) -> None:
        nonlocal printed
        now = time.perf_counter()
        if done == total or now - printed >= PROGRESS_SECONDS:
            printed = now
            print(
                f"{done} of {total} {what}, {now - begun:.0f} s, about "
                f"{(now - begun) * (total / done - 1):.0f} s left",
                file=sys.stderr,
            )

    return progress
