"""A conversation: questions that follow one another, each with the audio and the answers before it in context."""

from collections.abc import Callable, Iterator

from .answer import Answer, Clock
from .levels import Level
from .prompt import Turn


class Conversation:
    """Turns on one session at one level. What the session's KV cache still holds of them is not read again."""

    def __init__(self, session, level: Level):
        self.level, self.turns = level, []
        self._session, self._audios = session, []

    def ask(
        self, prompt: str, audio=None, *, on_text: Callable[[str], None] | None = None, **options
    ) -> Answer:
        """The answer to `prompt`, after new `audio` if there is any; see `stream`."""
        from .session import drain

        return drain(self.stream(prompt, audio, **options), on_text)

    def stream(
        self,
        prompt: str,
        audio=None,
        *,
        long_audio: str = "error",
        sampling_rate: int | None = None,
        **options,
    ) -> Iterator[str]:
        """The answer's text, piece by piece; the generator returns the whole `Answer`.

        audio: as `Session.stream` takes it, or None; options: max_new_tokens and sampling
        A question whose answer fails or is left early is not remembered.
        """
        from .session import Asked

        clock = Clock()
        audios = [] if audio is None else self._session.features(audio, long_audio, sampling_rate, clock)
        turns, heard = self.turns + [Turn("user", prompt, len(audios))], self._audios + audios
        answer = yield from self._session.respond(Asked(turns, heard, self.level, **options), clock)
        self.turns, self._audios = turns + [Turn("assistant", answer.text)], heard
        return answer
