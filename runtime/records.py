"""Records read from JSON, whose fields may hold anything."""

from dataclasses import fields


def check_types(record) -> None:
    """TypeError for a field of a record that is not of its plain type: JSON holds anything."""
    for field in fields(record):
        value = getattr(record, field.name)
        if field.type in (int, str, bool) and type(value) is not field.type:
            raise TypeError(f"{field.name} is {value!r}, not {field.type.__name__}")
