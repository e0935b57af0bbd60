"""Numbers that users give, as a flag, an argument or a field: whole or finite and within bounds, or named."""

import math
import operator
import os
from contextlib import suppress

MOST = 2**31 - 1  # of what is counted: an engine's tensors have 32-bit lengths
LARGEST_SEED = 2**63 - 1
THREADS_PER_PROCESSOR = 4  # more only wait for each other, and thousands stop the machine


def check_whole(name: str, value, low: int = 1, high: int = MOST) -> int:
    """`value` as an int from `low` to `high`; ValueError that names it if it is none."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not low <= number <= high:
        raise ValueError(f"{name} {value!r} is not {whole_words(low, high)}")
    return number


def check_finite(name: str, value, low: float = 0.0, high: float = math.inf, *, above: bool = False) -> float:
    """`value` as a finite float from `low` to `high`; above: `low` itself is refused."""
    number = math.nan
    if not isinstance(value, (bool, str, bytes)):
        with suppress(TypeError, ValueError, OverflowError):
            number = float(value)
    if not (math.isfinite(number) and low <= number <= high) or (above and number == low):
        raise ValueError(f"{name} {value!r} is not {finite_words(low, high, above)}")
    return number


def check_threads(name: str, value) -> int | None:
    """A number of CPU threads that this machine can run; None, the library's choice, as it is."""
    return None if value is None else check_whole(name, value, 1, most_threads())


def most_threads() -> int:
    return THREADS_PER_PROCESSOR * (os.cpu_count() or 1)


def whole_words(low: int, high: int) -> str:
    return f"a whole number from {low} to {high}"


def finite_words(low: float, high: float, above: bool) -> str:
    start = f"above {low:g}" if above else f"of at least {low:g}"
    return f"a number {start}" + (f" and at most {high:g}" if high < math.inf else "")
