"""The OpenAPI document of what this server takes and gives."""

from typing import Any

from ..levels import ATTENTION, NAMED_RATIOS, POSITIONS, STRONGEST_BIAS
from ..presets import TASKS
from .media import FORMATS
from .settings import Settings
from .transcriptions import RESPONSE_FORMATS

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 1}
ANY_OBJECT: Schema = {"type": "object"}
LEVEL: Schema = {
    "level": {"oneOf": [{"enum": list(NAMED_RATIOS)}, {"type": "number", "minimum": 1e-6, "maximum": 1}]},
    "keep_ratio": {"type": "number", "minimum": 1e-6, "maximum": 1},
    "audio_tokens": {"type": "integer", "minimum": 1, "maximum": 1_000_000},
    "window": {
        "oneOf": [{"enum": ["auto", "global"]}, {"type": "integer", "minimum": 0, "maximum": 1_000_000}]
    },
    "positions": {"enum": list(POSITIONS)},
    "attention": {
        "oneOf": [{"enum": list(ATTENTION)}, {"type": "number", "minimum": 0, "maximum": STRONGEST_BIAS}]
    },
    "task": {"enum": list(TASKS)},
}
SAMPLING: Schema = {
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_k": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "repetition_penalty": {"type": "number", "minimum": 0.01, "maximum": 100},
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
}
STOP: Schema = {"oneOf": [TEXT, {"type": "array", "items": TEXT, "maxItems": 4}]}


def document(settings: Settings) -> Schema:
    """OpenAPI 3.1, for the names and limits of this server."""
    chat = _operation("Answer about text and audio", "application/json", _chat(settings))
    chat["responses"]["200"]["content"]["text/event-stream"] = {"schema": TEXT}
    transcription = _operation("Write down what is said", "multipart/form-data", _transcription(settings))
    transcription["responses"]["200"]["content"] |= {
        "text/plain": {"schema": TEXT},
        "text/event-stream": {"schema": TEXT},
    }
    paths = {
        "/v1/chat/completions": {"post": chat},
        "/v1/audio/transcriptions": {"post": transcription},
        "/v1/models": {"get": _operation("Names of the model, one for each level")},
        "/v1/models/{model}": {"get": _operation("One of them") | {"parameters": [_path_parameter("model")]}},
        "/health": {"get": _operation("The process answers")},
        "/health/ready": {"get": _operation("Requests are taken")},
        "/metrics": {"get": _operation("Figures for Prometheus", answer="text/plain")},
    }
    key = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "ltbm serve", "version": "1"},
        "paths": paths,
        "components": {"securitySchemes": {"key": key}, "schemas": {"Error": _error()}},
        "security": [{"key": []}, {}],
    }


def _operation(
    summary: str, body: str | None = None, schema: Schema | None = None, answer: str = "application/json"
) -> Schema:
    content = {answer: {"schema": TEXT if answer == "text/plain" else ANY_OBJECT}}
    error = {"schema": {"$ref": "#/components/schemas/Error"}}
    responses = {
        "200": {"description": "the answer", "content": content},
        "default": {"description": "an error", "content": {"application/json": error}},
    }
    operation: Schema = {"summary": summary, "responses": responses}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {body: {"schema": schema}}}
    return operation


def _path_parameter(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": TEXT}


def _error() -> Schema:
    text_or_null = {"type": ["string", "null"]}
    fields = {"message": TEXT, "type": TEXT, "param": text_or_null, "code": text_or_null}
    error = {"type": "object", "properties": fields, "required": list(fields)}
    return {"type": "object", "properties": {"error": error}, "required": ["error"]}


def _object(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _chat(settings: Settings) -> Schema:
    properties = {
        "model": {"enum": settings.models},
        "messages": {"type": "array", "minItems": 1, "items": _message()},
        "stream": FLAG,
        "stream_options": _object({"include_usage": FLAG}, []),
        "max_tokens": COUNT,
        "max_completion_tokens": COUNT,
        "stop": STOP,
        **SAMPLING,
        **LEVEL,
    }
    return _object(properties, ["model", "messages"])


def _message() -> Schema:
    audio = _object({"data": TEXT, "format": {"enum": list(FORMATS)}}, ["data"])
    parts = [
        _object({"type": {"const": "text"}, "text": TEXT}, ["type", "text"]),
        _object({"type": {"const": "input_audio"}, "input_audio": audio}, ["type", "input_audio"]),
        _object(
            {"type": {"const": "audio_url"}, "audio_url": _object({"url": TEXT}, ["url"])},
            ["type", "audio_url"],
        ),
    ]
    content = {"oneOf": [TEXT, {"type": "array", "minItems": 1, "items": {"oneOf": parts}}]}
    roles = {"enum": ["system", "developer", "user", "assistant"]}
    return _object({"role": roles, "content": content}, ["role", "content"])


def _transcription(settings: Settings) -> Schema:
    properties = {
        "model": {"enum": settings.models},
        "file": {"type": "string", "format": "binary"},
        "language": TEXT,
        "prompt": TEXT,
        "response_format": {"enum": list(RESPONSE_FORMATS)},
        "stream": FLAG,
        "max_tokens": COUNT,
        **SAMPLING,
        **LEVEL,
    }
    return _object(properties, ["model", "file"])
