"""A request as it reaches a session: the conversation so far with its audios, and how to answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from .levels import Budget, Level
from .numbers import check_whole
from .prompt import Turn
from .sampling import GREEDY, Sampling
from .stages.segments import Audio

DEFAULT_MAX_NEW_TOKENS = 128
DEFAULT_PROMPT = "What do you hear?"
"""Of commands that need some question; `ltbm run` wants one."""


@dataclass(frozen=True, eq=False)  # two equal requests are still two
class Request:
    """What to answer.

    turns: the conversation, the question last; audios: those of all turns, in order
    max_new_tokens: tokens of the longest answer
    stop: strings before the first of which the answer ends
    """

    turns: Sequence[Turn]
    audios: Sequence[Audio]
    level: Level | Budget
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    sampling: Sampling = GREEDY
    stop: tuple[str, ...] = ()

    def __post_init__(self):
        check_whole("max_new_tokens", self.max_new_tokens)
