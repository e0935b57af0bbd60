"""A conversation: questions with the audio and the answers before them in context."""

from collections.abc import Generator
from typing import Protocol

from .answer import Answer, AnswerStream, Clock
from .levels import Budget, Level
from .prompt import Turn
from .request import DEFAULT_MAX_NEW_TOKENS, Request
from .sampling import GREEDY, Sampling
from .stages.segments import Audio


class Responder(Protocol):
    """What a conversation needs of its session."""

    def beginning(self, language: str) -> list[Turn]: ...

    def load(self, audio, long_audio: str, sampling_rate: int | None, clock: Clock) -> list[Audio]: ...

    def respond(self, request: Request, clock: Clock) -> Generator[str, None, Answer]: ...


class Conversation:
    """Turns on one session at one level; what the session's KV cache holds of them is not read again."""

    def __init__(self, session: Responder, level: Level | Budget):
        self.level = level
        self.turns: list[Turn] = []
        self._session = session
        self._audios: list[Audio] = []

    def ask(self, prompt: str, audio=None, **options) -> Answer:
        """The answer to `prompt`, after new `audio` if there is any; see `stream` for the options."""
        return self.stream(prompt, audio, **options).finish()

    def stream(
        self,
        prompt: str,
        audio=None,
        *,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        sampling: Sampling = GREEDY,
        long_audio: str = "error",
        sampling_rate: int | None = None,
        language: str = "",
    ) -> AnswerStream:
        """The answer to `prompt` as it comes.

        audio: new audio as `Session.stream` takes it, or None; language: as it takes it
        A question whose answer fails or is left early is not remembered.
        """

        def pieces() -> Generator[str, None, Answer]:
            clock = Clock()
            new_audios = []
            if audio is not None:
                new_audios = self._session.load(audio, long_audio, sampling_rate, clock)
            turns = [*self.turns, Turn("user", prompt, len(new_audios))]
            audios = [*self._audios, *new_audios]
            asked = [*turns, *self._session.beginning(language)]
            request = Request(asked, audios, self.level, max_new_tokens, sampling)
            answer = yield from self._session.respond(request, clock)
            self.turns = [*turns, Turn("assistant", answer.text)]
            self._audios = audios
            return answer

        return AnswerStream(pieces())
