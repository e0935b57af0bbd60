"""What is compared: levels, methods and the modes in which the LLM sees merged tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...runtime.levels import ATTENTION, POSITIONS

METHODS = ("ltbm", "global", "pool", "stride", "prune", "prune-segment")
WEIGHTLESS = ("stride", "prune", "prune-segment")
"""Methods whose tokens all have size 1: proportional attention changes nothing for them."""
MODES = tuple((positions, attention) for positions in POSITIONS for attention in ATTENTION)
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
    return [
        Variant(level, method, *mode)
        for level in levels
        for method in (methods if level != "full" else ("ltbm",))
        for mode in (modes if level != "full" else modes[:1])
    ]


def same_prefix(variant: Variant) -> Variant:
    """The variant that stands for all with the same prefix."""
    return replace(variant, attention="plain") if variant.method in WEIGHTLESS else variant
