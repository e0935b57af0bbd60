"""What is compared: levels, methods and the modes in which the LLM sees merged tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from ...runtime.levels import ATTENTION, POSITIONS

METHODS = ("ltbm", "global", "pool", "stride", "prune", "prune-segment")
WEIGHTLESS = ("stride", "prune", "prune-segment")
"""Methods whose tokens all have size 1: proportional attention changes nothing for them."""
MODES = tuple(product(POSITIONS, ATTENTION))
DEFAULT_MODE = ("original", "proportional")


@dataclass(frozen=True)
class Variant:
    """What is compared: what is kept, and how the LLM sees it."""

    level: str
    method: str
    positions: str
    attention: str


def variants(
    levels: Sequence[str], methods: Sequence[str], modes: Sequence[tuple[str, str]] = MODES
) -> list[Variant]:
    """Every level with every method in every mode (pairs of positions and attention); full once."""
    variants = []
    for level in levels:
        if level == "full":
            variants.append(Variant(level, "ltbm", *modes[0]))
            continue
        for method, mode in product(methods, modes):
            variants.append(Variant(level, method, *mode))
    return variants


def same_prefix(variant: Variant) -> Variant:
    """The variant that stands for all with the same prefix."""
    return replace(variant, attention="plain") if variant.method in WEIGHTLESS else variant
