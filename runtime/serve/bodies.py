"""Request bodies as fields: JSON, or a form with a file; to be called off the event loop."""

import json
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field as FormField
from python_multipart.multipart import File, FormParser, parse_options_header

from .errors import ApiError, invalid

MOST_FORM_FIELDS = 64
LONGEST_FORM_FIELD = 100_000  # bytes
NUMBERS = ("temperature", "top_p", "repetition_penalty")
WHOLE_NUMBERS = ("top_k", "seed", "audio_tokens", "max_tokens")
FLAGS = ("stream",)


def read_json(body: bytes, content_type: str) -> dict[str, Any]:
    """The JSON object in the body."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "the body is to be JSON, with content-type: application/json")
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {str(error)[:100]}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body is JSON, but not an object", code="invalid_json")
    return value


def _refuse_constant(name: str):
    raise ValueError(f"{name} is not a number of JSON")


@dataclass
class Form:
    """A form's fields, typed as JSON would have them, and its files by name."""

    fields: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def read_form(body: bytes, content_type: str) -> Form:
    """The multipart form in the body."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise ApiError(415, "the body is to be a form, with content-type: multipart/form-data")
    form = Form()

    def on_field(one: FormField) -> None:
        _add_field(form, _text(one.field_name or b""), one.value or b"")

    def on_file(one: File) -> None:
        one.file_object.seek(0)
        _add(form.files, _text(one.field_name or b""), one.file_object.read())

    config = {"MAX_MEMORY_FILE_SIZE": len(body) + 1}  # nothing on the disk
    parser = FormParser(
        "multipart/form-data", on_field, on_file, boundary=options[b"boundary"], config=config
    )
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise ApiError(400, f"the form cannot be read: {str(error)[:100]}", code="invalid_form") from None
    return form


def _add_field(form: Form, name: str, value: bytes) -> None:
    if len(value) > LONGEST_FORM_FIELD:
        raise invalid(name, f"{name} is longer than {LONGEST_FORM_FIELD} bytes")
    if len(form.fields) >= MOST_FORM_FIELDS:
        raise ApiError(400, f"the form has more than {MOST_FORM_FIELDS} fields", code="invalid_form")
    _add(form.fields, name, _typed(name, _text(value)))


def _add(values: dict[str, Any], name: str, value: Any) -> None:
    if name in values:
        raise invalid(name, f"{name} stands twice in the form")
    values[name] = value


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ApiError(400, "the form is not UTF-8", code="invalid_form") from None


def _typed(name: str, text: str) -> Any:
    """A number or a flag where the field is one; else the text as it is, to be refused."""
    try:
        if name in WHOLE_NUMBERS:
            return int(text)
        if name in NUMBERS:
            return float(text)
    except ValueError:
        return text
    if name in FLAGS:
        return {"true": True, "false": False}.get(text.lower(), text)
    return text
