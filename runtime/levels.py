"""Compression levels, chosen per request: how many audio tokens are kept, and how the LLM sees them."""

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction

from .numbers import check_whole

GLOBAL_WINDOW = -1
SMALLEST_SHARE = 1e-6  # of the tokens kept
MOST_AUDIO_TOKENS = 1_000_000  # of a budget or a window: eleven hours
SHARE = re.compile(r"[+-]?(\d{1,20}/\d{1,20}|\d{0,20}(\.\d{0,20})?(e[+-]?\d{1,2})?)", re.IGNORECASE)
"""A share as text; the exact fraction of 1e999999999 would take minutes."""
SMALLEST_AUTO_WINDOW = 8  # encoder tokens
NAMED_RATIOS = {
    "full": Fraction(1),
    "keep75": Fraction(3, 4),
    "keep50": Fraction(1, 2),
    "keep33": Fraction(1, 3),
    "keep25": Fraction(1, 4),
    "keep12": Fraction(1, 8),
    "keep6": Fraction(1, 16),
}
DEFAULT_LEVEL = "keep50"
POSITIONS = ("original", "compact")
ATTENTION = {"proportional": 1.0, "plain": 0.0}
"""What log(size) is multiplied with before it is added to the attention logits of a merged token's key."""
STRONGEST_BIAS = 10.0  # times log(size); beyond it nothing but the largest token is seen


@dataclass(frozen=True)
class Level:
    """One request's compression, settled.

    ratio: share of the audio tokens kept, an exact fraction in (0, 1]
    window: largest distance between the anchors of a merge, in encoder tokens; -1: Global Merge, None: auto
    positions: `original` leaves each merged token at its anchor on the time axis, `compact` closes the gaps
    attention: `proportional` adds log(size) to the logits of a merged token's key, `plain` adds nothing,
    a number such as `1.5` adds so many times log(size)
    """

    name: str
    ratio: Fraction
    window: int | None = None
    positions: str = "original"
    attention: str = "proportional"

    def __post_init__(self):
        if not 0 < self.ratio <= 1:
            raise ValueError(
                f"keep ratio {self.ratio} is outside (0, 1]; 0.25 keeps a quarter of the audio tokens"
            )
        if self.ratio < SMALLEST_SHARE:
            raise ValueError(f"keep ratio {float(self.ratio):g} is below {SMALLEST_SHARE:g}")
        _check_options(self.window, self.positions, self.attention)

    def target(self, length: int) -> int:
        """Tokens kept of a row of `length` valid tokens: ceil(length * ratio), 0 for an empty row."""
        return -(-length * self.ratio.numerator // self.ratio.denominator)

    @property
    def bias_strength(self) -> float:
        """What log(size) is multiplied with."""
        return bias_strength(self.attention)

    @property
    def merge_window(self) -> int:
        """The window as the op takes it; auto is max(8, 2 * ceil(1 / ratio))."""
        if self.window is not None:
            return self.window
        return max(SMALLEST_AUTO_WINDOW, 2 * -(-self.ratio.denominator // self.ratio.numerator))


@dataclass(frozen=True)
class Budget:
    """At most so many audio tokens for the whole prompt, rounded up in every segment; else as `Level`."""

    tokens: int
    window: int | None = None
    positions: str = "original"
    attention: str = "proportional"

    def __post_init__(self):
        check_whole("audio token budget", self.tokens, 1, MOST_AUDIO_TOKENS)
        _check_options(self.window, self.positions, self.attention)

    @property
    def name(self) -> str:
        return f"tokens{self.tokens}"

    def for_clip(self, tokens_in: int) -> Level:
        """The level that keeps this budget of a prompt with `tokens_in` audio tokens."""
        ratio = min(Fraction(self.tokens, tokens_in), Fraction(1))
        return Level(self.name, ratio, self.window, self.positions, self.attention)


def _check_options(window: int | None, positions: str, attention: str) -> None:
    if window is not None and window != GLOBAL_WINDOW:
        check_whole("window", window, 0, MOST_AUDIO_TOKENS)
    if positions not in POSITIONS:
        raise ValueError(f"positions {positions!r} is none of {', '.join(POSITIONS)}")
    bias_strength(attention)


def bias_strength(attention: str) -> float:
    """What log(size) is multiplied with: 1 for proportional, 0 for plain, or the number that is written."""
    if attention in ATTENTION:
        return ATTENTION[attention]
    strength = math.nan
    with suppress(ValueError):
        strength = float(attention)
    if not 0 <= strength <= STRONGEST_BIAS:
        raise ValueError(
            f"attention {attention!r} is none of {', '.join(ATTENTION)}, and no number from 0 to "
            f"{STRONGEST_BIAS:g} such as 1.5, with which log(size) is multiplied"
        )
    return strength


def settle(level: Level | Budget, rows: Sequence[int]) -> tuple[Level, str]:
    """The level for a prompt whose segments have `rows` tokens, and why it changes nothing (or '')."""
    tokens_in = sum(rows)
    if not tokens_in:
        return Level(
            level.name, Fraction(1), level.window, level.positions, level.attention
        ), "the prompt has no audio"
    settled = level.for_clip(tokens_in) if isinstance(level, Budget) else level
    if isinstance(level, Budget) and settled.ratio == 1:
        return settled, f"the budget of {level.tokens} audio tokens is not below the clip's {tokens_in}"
    if settled.ratio == 1:
        return settled, f"level {level.name} keeps every token"
    if all(settled.target(row) == row for row in rows):
        return settled, f"keeping {settled.ratio} of {tokens_in} tokens, rounded up, is all of them"
    return settled, ""


def as_level(level: "str | float | Fraction | Level | Budget") -> Level | Budget:
    """What a caller gives as a level: a Level or a Budget as it is, else what `parse_level` reads."""
    return level if isinstance(level, (Level, Budget)) else parse_level(level)


def level_of_parts(
    level: str | float | Fraction = DEFAULT_LEVEL,
    keep_ratio: str | float | Fraction | None = None,
    audio_tokens: int | None = None,
    window: str | int | None = "auto",
    positions: str = "original",
    attention: str | float = "proportional",
) -> Level | Budget:
    """The level that a command's flags make together: a ratio or a budget takes the place of the name."""
    if keep_ratio is not None and audio_tokens is not None:
        raise ValueError("give a keep ratio or a budget of audio tokens, not both")
    if audio_tokens is not None:
        return Budget(audio_tokens, parse_window(window), positions, str(attention))
    if keep_ratio is not None:
        level = parse_ratio(keep_ratio)
    return parse_level(level, window, positions, attention)


def parse_level(
    level: str | float | Fraction = DEFAULT_LEVEL,
    window: str | int | None = "auto",
    positions: str = "original",
    attention: str | float = "proportional",
) -> Level:
    """A Level from what a user writes: one of NAMED_RATIOS, or a share of the tokens such as 0.3 or 3/10."""
    name = str(level)
    ratio = NAMED_RATIOS.get(str(level))
    if ratio is None:
        ratio = _share(level)
        name = f"ratio{ratio.numerator}/{ratio.denominator}"
    return Level(name, ratio, parse_window(window), positions, str(attention))


def _share(level) -> Fraction:
    try:
        return parse_ratio(level)
    except ValueError:
        levels = ", ".join(NAMED_RATIOS)
        raise ValueError(f"unknown level {level!r}; levels are {levels}, or a share such as 0.3") from None


def parse_ratio(value) -> Fraction:
    """An exact share from 0.3, "0.3" or "3/10"."""
    text = str(value).strip()
    try:
        if not SHARE.fullmatch(text):
            raise ValueError
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"keep ratio {value!r} is not a number; write 0.3 or 3/10") from None


def parse_window(value) -> int | None:
    """auto -> None, global -> -1, else a whole number of encoder tokens."""
    if value is None or value == "auto":
        return None
    if value == "global":
        return GLOBAL_WINDOW
    try:
        return int(str(value))
    except ValueError:
        raise ValueError(f"window {value!r} is neither auto, global nor a number of encoder tokens") from None
