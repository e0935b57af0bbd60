"""A request's fields, read one at a time by type; a wrong one is a 400 that names it."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from ..files import is_unicode
from .errors import ApiError, invalid

LONGEST_SHOWN = 40  # characters of a wrong value that a message repeats


class Fields:
    """The values of a JSON object; null is the same as left out.

    path: where the object stands in the request, for messages: `messages[0].`
    """

    def __init__(self, values: Mapping[str, Any], path: str = ""):
        self._values = values
        self._path = path

    def param(self, name: str) -> str:
        return self._path + name

    def get(self, name: str) -> Any:
        return self._values.get(name)

    def given(self, names: Collection[str]) -> dict[str, Any]:
        """Those of `names` that have a value."""
        return {name: self._values[name] for name in names if self._values.get(name) is not None}

    def required(self, name: str) -> Any:
        if self.get(name) is None:
            raise invalid(self.param(name), f"{self.param(name)} is missing", "missing_required_parameter")
        return self.get(name)

    def text(self, name: str, default: str = "") -> str:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(name, "a string")
        if not value.isascii() and not is_unicode(value):
            raise invalid(self.param(name), f"{self.param(name)} holds half a surrogate pair")
        return value

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return bool(value)

    def integer(self, name: str, low: int, high: int) -> int | None:
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, f"a whole number from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        value = self.get(name)
        if value is None:
            return None
        number = not isinstance(value, bool) and isinstance(value, (int, float))
        if not number or not math.isfinite(value) or not low <= value <= high:
            raise self.wrong(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        value = self.text(name, default)
        if value not in choices:
            raise self.wrong(name, f"one of {', '.join(choices)}")
        return value

    def object(self, name: str) -> "Fields | None":
        """A field that holds an object, to be read in turn."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return Fields(value, f"{self.param(name)}.")

    def objects(self, name: str) -> list["Fields"]:
        """A field that holds a list of objects, not empty."""
        value = self.required(name)
        if not isinstance(value, list) or not value:
            raise self.wrong(name, "a list that is not empty")
        return [self._item(name, index, item) for index, item in enumerate(value)]

    def only(self, known: Collection[str]) -> None:
        """Refuse fields that are not `known`: none is ignored without a word."""
        for name, value in self._values.items():
            if value is not None and name not in known:
                param = self.param(name[:LONGEST_SHOWN])
                raise invalid(param, f"{param} is not a field of this server", "unknown_parameter")

    def wrong(self, name: str, expected: str) -> ApiError:
        """The error for a value that is not what was expected."""
        shown = repr(self.get(name))
        if len(shown) > LONGEST_SHOWN:
            shown = shown[:LONGEST_SHOWN] + "..."
        return invalid(self.param(name), f"{self.param(name)} is {shown}, expected {expected}")

    def _item(self, name: str, index: int, item: Any) -> "Fields":
        path = f"{self.param(name)}[{index}]"
        if not isinstance(item, dict):
            raise invalid(path, f"{path} is not an object")
        return Fields(item, f"{path}.")
