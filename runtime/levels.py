"""Compression levels: how many audio tokens are kept, and how the LLM sees the merged ones (all chosen per request)."""

from dataclasses import dataclass, replace
from fractions import Fraction

GLOBAL_WINDOW = -1
NAMED_RATIOS = {
    "full": Fraction(1),
    "keep75": Fraction(3, 4),
    "keep50": Fraction(1, 2),
    "keep25": Fraction(1, 4),
    "keep12": Fraction(1, 8),
    "keep6": Fraction(1, 16),
}
DEFAULT_LEVEL = "keep50"
POSITIONS = ("original", "compact")
ATTENTION = ("proportional", "plain")


@dataclass(frozen=True)
class Level:
    """One request's compression.

    ratio: share of the audio tokens kept, an exact fraction in (0, 1]; None when `audio_tokens` sets it per clip
    window: largest distance between the anchors of a merge, in encoder tokens; -1 is Global Merge, None is auto
    positions: `original` leaves each merged token at its place on the time axis, `compact` closes the gaps
    attention: `proportional` adds log(size) to the logits of a merged token's key, `plain` adds nothing
    audio_tokens: a budget of kept tokens for the whole prompt
    """

    name: str
    ratio: Fraction | None
    window: int | None = None
    positions: str = "original"
    attention: str = "proportional"
    audio_tokens: int | None = None

    def __post_init__(self):
        if (self.ratio is None) == (self.audio_tokens is None):
            raise ValueError(f"level {self.name!r} needs either a keep ratio or a token budget")
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise ValueError(
                f"keep ratio {self.ratio} is outside (0, 1]; 0.25 keeps a quarter of the audio tokens"
            )
        if self.audio_tokens is not None and self.audio_tokens < 1:
            raise ValueError(f"audio token budget {self.audio_tokens} is below 1")
        if self.window is not None and self.window < GLOBAL_WINDOW:
            raise ValueError(
                f"window {self.window} is below -1; give auto, global or a number of encoder tokens"
            )
        if self.positions not in POSITIONS:
            raise ValueError(f"positions {self.positions!r} is none of {', '.join(POSITIONS)}")
        if self.attention not in ATTENTION:
            raise ValueError(f"attention {self.attention!r} is none of {', '.join(ATTENTION)}")

    def for_clip(self, tokens_in: int) -> "Level":
        """The level with its ratio settled for a prompt of `tokens_in` audio tokens."""
        if self.ratio is not None:
            return self
        return replace(
            self, ratio=min(Fraction(self.audio_tokens, tokens_in), Fraction(1)), audio_tokens=None
        )

    def target(self, length: int) -> int:
        """Tokens kept of a row of `length` valid tokens: ceil(length * ratio), 0 for an empty row."""
        return -(-length * self.ratio.numerator // self.ratio.denominator)

    @property
    def merge_window(self) -> int:
        """The window as the op takes it; auto is max(8, 2 * ceil(1 / ratio))."""
        if self.window is not None:
            return self.window
        return max(8, 2 * -(-self.ratio.denominator // self.ratio.numerator))


def parse_level(
    level=DEFAULT_LEVEL,
    keep_ratio=None,
    audio_tokens=None,
    window="auto",
    positions="original",
    attention="proportional",
) -> Level:
    """A Level from what a user writes.

    `keep_ratio` ("0.3", "3/10" or a number) or `audio_tokens` (a budget) take the place of the named `level`.
    """
    if isinstance(level, Level):
        if (keep_ratio, audio_tokens, window, positions, attention) != (
            None,
            None,
            "auto",
            "original",
            "proportional",
        ):
            raise ValueError(
                f"level {level.name!r} is complete: change it with dataclasses.replace, not by further options"
            )
        return level
    if keep_ratio is not None and audio_tokens is not None:
        raise ValueError("give a keep ratio or a budget of audio tokens, not both")
    options = dict(window=parse_window(window), positions=positions, attention=attention)
    if audio_tokens is not None:
        return Level(f"tokens{audio_tokens}", None, audio_tokens=int(audio_tokens), **options)
    if keep_ratio is not None:
        ratio = parse_ratio(keep_ratio)
        return Level(f"ratio{ratio.numerator}/{ratio.denominator}", ratio, **options)
    if level not in NAMED_RATIOS:
        raise ValueError(
            f"unknown level {level!r}; levels are {', '.join(NAMED_RATIOS)}, or give a keep ratio such as 0.3"
        )
    return Level(level, NAMED_RATIOS[level], **options)


def parse_ratio(value) -> Fraction:
    try:
        return Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"keep ratio {value!r} is no number; write 0.3 or 3/10") from None


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
