"""A transcription request: a form with a file, asked of the model as one question about it."""

import re
from dataclasses import dataclass
from typing import Any

from ..levels import Budget, Level
from ..prompt import Turn
from ..sampling import Sampling
from ..transcript import answer_beginning
from .bodies import Form
from .errors import invalid
from .fields import Fields
from .level_fields import LEVEL_FIELDS, read_level, read_model
from .media import AudioSource
from .sampling_fields import SAMPLING_FIELDS, read_sampling, read_stop
from .settings import Settings

RESPONSE_FORMATS = ("json", "text", "verbose_json")
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})?")
MOST_TOKENS = 10_000_000
KNOWN = (
    "model",
    "file",
    "language",
    "prompt",
    "response_format",
    "stream",
    "max_tokens",
    *SAMPLING_FIELDS,
    *LEVEL_FIELDS,
)


@dataclass(frozen=True)
class TranscriptionRequest:
    """What a client asks of one file; turns: the one question, and how the answer is to begin."""

    model: str
    turns: tuple[Turn, ...]
    audio: AudioSource
    language: str
    response_format: str
    level: Level | Budget
    sampling: Sampling
    stop: tuple[str, ...]
    max_new_tokens: int
    stream: bool


def read_transcription(form: Form, settings: Settings) -> TranscriptionRequest:
    """The request in a form, its level `full` unless it says more; ApiError names the field that is wrong."""
    fields = Fields(form.fields)
    model = read_model(fields, settings)
    fields.only(KNOWN)
    for name in form.files:
        if name != "file":
            raise invalid(name[:40], "the form has one file, named file", "unknown_parameter")
    if "file" not in form.files:
        raise invalid("file", "the form has no file named file", "missing_required_parameter")
    language = _read_language(fields)
    stream = fields.flag("stream")
    response_format = fields.choice("response_format", RESPONSE_FORMATS, "json")
    if stream and response_format != "json":
        raise invalid("response_format", "a stream has the response_format json")
    return TranscriptionRequest(
        model=model,
        turns=_turns(fields.text("prompt") or settings.transcription_question, language, fields, settings),
        audio=AudioSource("file", data=form.files["file"]),
        language=language,
        response_format=response_format,
        level=read_level(fields, settings, task="transcribe"),
        sampling=read_sampling(fields, settings.sampling),
        stop=read_stop(fields),
        max_new_tokens=fields.integer("max_tokens", 1, MOST_TOKENS) or settings.max_new_tokens,
        stream=stream,
    )


def _read_language(fields: Fields) -> str:
    language = fields.text("language")
    if language and not LANGUAGE.fullmatch(language):
        raise fields.wrong("language", "a language's code, such as en")
    return language


def _turns(prompt: str, language: str, fields: Fields, settings: Settings) -> tuple[Turn, ...]:
    """A language is asked for in words; one that only transcribes has its answer begun in it."""
    if not language:
        return (Turn("user", prompt, 1),)
    if settings.transcript is None:
        return (Turn("user", f"{prompt} The language is {language}.", 1),)
    try:
        beginning = answer_beginning(settings.transcript, language)
    except ValueError as error:
        raise invalid(fields.param("language"), str(error)) from None
    return Turn("user", prompt, 1), Turn("assistant", beginning)


def verbose(text: str, seconds: float, language: str) -> dict[str, Any]:
    """`verbose_json` with what is known: no segments; a language where the model or the request says it."""
    known = {"task": "transcribe", "duration": round(seconds, 3), "text": text}
    return known | ({"language": language} if language else {})
