"""Records as JSON has them, and back."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def plain(value: Any) -> Any:
    """Records as dicts and tuples as lists, all the way down."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def read_record(record: type[Any], data: Mapping[str, Any], **converted: Any) -> Any:
    """A record of the fields that `data` has, with the `converted` ones in their place.

    TypeError where a field without a default is missing.
    """
    known = {field.name: data[field.name] for field in fields(record) if field.name in data}
    return record(**(known | converted))
