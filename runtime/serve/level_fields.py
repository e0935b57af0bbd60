"""The level that a request asks for: the words of the command line as fields."""

import argparse
import re
from typing import Any

from ..arguments import UsageError, level_from
from ..levels import MOST_AUDIO_TOKENS, NAMED_RATIOS, SMALLEST_SHARE, STRONGEST_BIAS, Budget, Level
from .errors import ApiError, invalid
from .fields import Fields
from .settings import Settings

HOW_MANY = ("level", "keep_ratio", "audio_tokens", "task")  # one of them says how many tokens are kept
LEVEL_FIELDS = (*HOW_MANY, "window", "positions", "attention")
UNSET = {
    "level": None,
    "keep_ratio": None,
    "audio_tokens": None,
    "task": None,
    "window": "auto",
    "positions": "original",
    "attention": "proportional",
}
SHARE = re.compile(r"[0-9./]{1,12}")
"""A share as text, without an exponent."""


def read_level(fields: Fields, settings: Settings, task: str | None = None) -> Level | Budget:
    """The level of a request: its fields, or its model's alias, or the server's flags.

    task: takes the place of the server's level where the request names none
    """
    given = fields.given(LEVEL_FIELDS) | _alias(fields, settings)
    chosen = [name for name in HOW_MANY if name in given]
    if len(chosen) > 1:
        raise invalid(
            fields.param(chosen[1]), f"{chosen[0]} and {chosen[1]} both say how much is kept: give one"
        )
    _check_types(fields, given)
    default = settings.default_level
    for name, value in given.items():
        _settle({**UNSET, name: value}, default, fields.param(name))
    flags = UNSET | settings.level_flags
    if chosen or task is not None:
        flags |= dict.fromkeys(HOW_MANY)
    if not chosen and task is not None:
        flags["task"] = task
    return _settle({**flags, **given}, default, fields.param("level"))


def read_model(fields: Fields, settings: Settings) -> str:
    """The model's name; 404 where this server has no such model."""
    fields.required("model")
    name = fields.text("model")
    if name not in settings.models:
        known = ", ".join(settings.models)
        raise ApiError(404, f"no model {name[:80]!r} here; there are {known}", "model", "model_not_found")
    return name


def _alias(fields: Fields, settings: Settings) -> dict[str, Any]:
    """The level in the model's name, as in `ltbm:keep25`."""
    name = read_model(fields, settings)
    if name == settings.model:
        return {}
    if also := fields.given(HOW_MANY):
        raise invalid(fields.param(next(iter(also))), f"model {name!r} names the level already")
    return {"level": name.removeprefix(f"{settings.model}:")}


def _check_types(fields: Fields, given: dict[str, Any]) -> None:
    fields.integer("audio_tokens", 1, MOST_AUDIO_TOKENS)
    for name in ("positions", "task"):
        fields.text(name)
    if not isinstance(given.get("attention"), str):
        fields.number("attention", 0, STRONGEST_BIAS)
    for name in ("level", "keep_ratio"):
        value = given.get(name)
        if value is not None and not (value in tuple(NAMED_RATIOS) or _is_share(value)):
            raise fields.wrong(name, f"one of {', '.join(NAMED_RATIOS)}, or a share such as 0.3")
    if given.get("window") not in (None, "auto", "global"):
        _check_window(fields, given["window"])


def _check_window(fields: Fields, window: Any) -> None:
    if isinstance(window, str) and re.fullmatch(r"[0-9]{1,6}", window):
        return
    if isinstance(window, str):
        raise fields.wrong("window", "auto, global or a number of encoder tokens")
    fields.integer("window", 0, MOST_AUDIO_TOKENS)


def _is_share(value: Any) -> bool:
    if isinstance(value, str):
        return bool(SHARE.fullmatch(value))
    return isinstance(value, (int, float)) and not isinstance(value, bool) and SMALLEST_SHARE <= value <= 1


def _settle(flags: dict[str, Any], default: str, param: str) -> Level | Budget:
    """What the command line makes of the same words."""
    try:
        level = level_from(argparse.Namespace(**flags), default)
    except UsageError as error:
        raise invalid(param, str(error)) from None
    if isinstance(level, Level) and level.ratio < SMALLEST_SHARE:
        raise invalid(param, f"a share of {float(level.ratio):g} is below {SMALLEST_SHARE:g}")
    return level
