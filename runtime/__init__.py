"""The runtime's public names, each loaded when it is first used: importing this package loads nothing.

from ltbm.runtime import Session

with Session.open("bundle") as session:
    print(session.generate("clip.wav", "What do you hear?", level="keep25").text)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .answer import Answer, AnswerStream
    from .bundle import Bundle
    from .conversation import Conversation
    from .levels import Budget, Level
    from .pipeline import Pipeline
    from .sampling import Sampling
    from .session import Session
    from .stages.audio import load_audio

_MODULES = {
    "Answer": "answer",
    "AnswerStream": "answer",
    "Budget": "levels",
    "Bundle": "bundle",
    "Conversation": "conversation",
    "Level": "levels",
    "Pipeline": "pipeline",
    "Sampling": "sampling",
    "Session": "session",
    "load_audio": "stages.audio",
}

__all__ = [
    "Answer",
    "AnswerStream",
    "Budget",
    "Bundle",
    "Conversation",
    "Level",
    "Pipeline",
    "Sampling",
    "Session",
    "load_audio",
]


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
