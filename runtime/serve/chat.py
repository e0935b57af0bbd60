"""A chat completion request: its fields checked, its messages as turns with audio."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..levels import Budget, Level
from ..prompt import Turn
from ..sampling import Sampling
from .errors import invalid
from .fields import Fields
from .level_fields import LEVEL_FIELDS, read_level, read_model
from .media import AudioSource, read_audio_url, read_input_audio
from .sampling_fields import SAMPLING_FIELDS, read_sampling, read_stop
from .settings import Settings

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MOST_TOKENS = 10_000_000  # of an answer; what the model has positions for is less
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
"""Fields of the API that this server does not have, each with the values that ask nothing of it."""
LABELS = ("user", "metadata", "safety_identifier", "prompt_cache_key")
"""Fields that say who asks; they change no answer."""
KNOWN = (
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    *SAMPLING_FIELDS,
    *LEVEL_FIELDS,
    *NEUTRAL,
    *LABELS,
)


@dataclass(frozen=True)
class ChatRequest:
    """What a client asks.

    turns: the conversation, the question last; audios: those of all turns, in order, not yet read
    include_usage: a stream ends with a chunk of token counts
    """

    model: str
    turns: tuple[Turn, ...]
    audios: tuple[AudioSource, ...]
    level: Level | Budget
    sampling: Sampling
    stop: tuple[str, ...]
    max_new_tokens: int
    stream: bool
    include_usage: bool


def read_chat(body: Mapping[str, Any], settings: Settings) -> ChatRequest:
    """The request in a JSON object; ApiError names the field that is wrong."""
    fields = Fields(body)
    model = read_model(fields, settings)
    check_neutral(fields, NEUTRAL)
    fields.only(KNOWN)
    turns, audios = read_messages(fields, settings)
    stream = fields.flag("stream")
    return ChatRequest(
        model=model,
        turns=turns,
        audios=audios,
        level=read_level(fields, settings),
        sampling=read_sampling(fields, settings.sampling),
        stop=read_stop(fields),
        max_new_tokens=_read_max_tokens(fields, settings.max_new_tokens),
        stream=stream,
        include_usage=_read_include_usage(fields, stream),
    )


def check_neutral(fields: Fields, neutral: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse what this server does not have, unless the value asks nothing of it."""
    for name, value in fields.given(neutral).items():
        same_kind = [
            choice for choice in neutral[name] if isinstance(value, bool) == isinstance(choice, bool)
        ]
        if value not in same_kind:
            raise invalid(
                name, f"{name} is not supported by this server: leave it out", "unsupported_parameter"
            )


def read_messages(fields: Fields, settings: Settings) -> tuple[tuple[Turn, ...], tuple[AudioSource, ...]]:
    """All messages as turns, and their audios in order."""
    turns: list[Turn] = []
    audios: list[AudioSource] = []
    for message in fields.objects("messages"):
        turn, its_audios = _read_message(message, settings)
        turns.append(turn)
        audios += its_audios
    if turns[-1].role != "user":
        raise invalid("messages", "the last message is to be the user's")
    if len(audios) > settings.limits.audios:
        raise invalid(
            "messages", f"{len(audios)} audios, at most {settings.limits.audios} are taken", "too_many_audios"
        )
    return tuple(turns), tuple(audios)


def _read_message(message: Fields, settings: Settings) -> tuple[Turn, list[AudioSource]]:
    message.only(("role", "content"))
    message.required("role")
    role = ROLES[message.choice("role", ROLES, "user")]
    content = message.required("content")
    if isinstance(content, str):
        return Turn(role, message.text("content")), []
    texts: list[str] = []
    audios: list[AudioSource] = []
    for part in message.objects("content"):
        kind = part.choice("type", ("text", "input_audio", "audio_url"), "")
        part.only(("type", kind))
        part.required(kind)
        if kind == "text":
            texts.append(part.text("text"))
        elif role != "user":
            raise invalid(part.param("type"), f"audio in a message of the {role}; only the user's has audio")
        else:
            audios.append(_read_audio(part, kind, settings))
    return Turn(role, "\n".join(texts), len(audios)), audios


def _read_audio(part: Fields, kind: str, settings: Settings) -> AudioSource:
    inner = part.object(kind)
    assert inner is not None, "required above"
    return read_input_audio(inner) if kind == "input_audio" else read_audio_url(inner, settings.media)


def _read_max_tokens(fields: Fields, default: int) -> int:
    former = fields.integer("max_tokens", 1, MOST_TOKENS)
    newer = fields.integer("max_completion_tokens", 1, MOST_TOKENS)
    if former is not None and newer is not None and former != newer:
        raise invalid("max_tokens", "max_tokens and max_completion_tokens differ: give one of them")
    return former or newer or default


def _read_include_usage(fields: Fields, stream: bool) -> bool:
    options = fields.object("stream_options")
    if options is None:
        return False
    if not stream:
        raise invalid("stream_options", "stream_options without stream")
    options.only(("include_usage", "include_obfuscation"))
    if options.flag("include_obfuscation"):
        raise invalid("stream_options.include_obfuscation", "include_obfuscation is not supported")
    return options.flag("include_usage")
