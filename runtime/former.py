"""What the version before called otherwise: accepted with a warning for one version, then this file goes."""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

from .levels import Budget, Level, level_of_parts
from .presets import choose

LEVEL_OPTIONS = ("keep_ratio", "audio_tokens", "window", "positions", "attention")

Method = TypeVar("Method", bound=Callable[..., Any])


def warn(old: str, new: str) -> None:
    """Say that `old` is `new` now."""
    warnings.warn(f"{old} is now {new}; the former goes with the next version", FutureWarning, stacklevel=3)


def takes_former_level_options(method: Method) -> Method:
    """Let a method take its level in parts, as it did (LEVEL_OPTIONS)."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def with_former(*arguments, **options):
        parts = {name: options.pop(name) for name in LEVEL_OPTIONS if name in options}
        if not parts:
            return method(*arguments, **options)
        warn(f"{', '.join(parts)} as an option of its own", "part of the level: a share, a Level or a Budget")
        given = signature.bind_partial(*arguments, **options)
        default = given.arguments["self"].manifest.default_level
        level = choose(given.arguments.get("level"), given.arguments.get("task"), default)
        given.arguments["level"] = _with_parts(level, parts)
        return method(*given.args, **given.kwargs)

    return cast(Method, with_former)


def _with_parts(level: Any, parts: dict[str, Any]) -> Level | Budget:
    if isinstance(level, (Level, Budget)):
        raise ValueError(
            f"level {level.name!r} is complete: change it with dataclasses.replace, not by further options"
        )
    return level_of_parts(level, **parts)
