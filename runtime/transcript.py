"""Answers of a model that only transcribes: `language English<asr_text>the words`, its language taken off."""

from .bundle import TranscriptSpec
from .stop_strings import StopStrings

LANGUAGE = "language "
NO_LANGUAGE = "none"  # what such a model says of a clip without speech


def language_name(spec: TranscriptSpec, language: str) -> str:
    """The model's name for a language, given by its code (`en`, `en-US`) or its name; ValueError names those
    that it knows."""
    wanted = language.lower()
    for code, name in spec.languages.items():
        if wanted in (code, name.lower()) or wanted.split("-")[0] == code:
            return name
    known = ", ".join(f"{code} ({name})" for code, name in spec.languages.items())
    raise ValueError(f"this model knows no language {language!r}; it knows {known}")


def answer_beginning(spec: TranscriptSpec, language: str) -> str:
    """What an answer in `language` begins with; before it the model needs no language of its own."""
    return f"{LANGUAGE}{language_name(spec, language)}{spec.mark}"


class Transcript:
    """An answer's text, piece by piece: what comes before the mark is held back and says the language.

    Without a spec, or once the mark has come, text passes as it comes, but for spaces at both ends of a
    transcript. An answer without a mark is all transcript, and is given out at its end.
    """

    def __init__(self, spec: TranscriptSpec | None, beginning: str = ""):
        self.language = ""
        self._spec = spec
        self._has_begun = False  # the mark has come
        self._has_words = False  # after it
        self._held = ""
        self.push(beginning)

    def push(self, piece: str) -> str:
        """What of the text so far can be given out now."""
        if self._spec is None:
            return piece
        self._held += piece
        if not self._has_begun and self._spec.mark in self._held:
            before, _, self._held = self._held.partition(self._spec.mark)
            self.language = _language(before)
            self._has_begun = True
        return self._take() if self._has_begun else ""

    def finish(self) -> str:
        """What was held back, once no more text comes."""
        self._has_begun = True  # without a mark all of it is transcript
        text = self._take()
        self._held = ""
        return text

    def _take(self) -> str:
        """What is held, but for spaces before its first word and those that may be its last."""
        text = self._held if self._has_words else self._held.lstrip()
        words = text.rstrip()
        self._has_words = self._has_words or bool(words)
        self._held = text[len(words) :]
        return words


def _language(before: str) -> str:
    """The language in the first line of what stands before the mark; empty where it names none."""
    lines = [line.strip() for line in before.splitlines() if line.strip()]
    if not lines:
        return ""
    first = lines[0]
    name = first[len(LANGUAGE) :].strip() if first.lower().startswith(LANGUAGE) else first
    return "" if name.lower() == NO_LANGUAGE else name


class AnswerText:
    """An answer's text on its way out: without its language, up to the first stop string."""

    def __init__(self, transcript: Transcript, stop: StopStrings):
        self._transcript = transcript
        self._stop = stop

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come."""
        return self._stop.met

    @property
    def text(self) -> str:
        """All that was given out."""
        return self._stop.text

    @property
    def language(self) -> str:
        return self._transcript.language

    def push(self, piece: str) -> str:
        """What of the text so far can be given out now."""
        return self._stop.push(self._transcript.push(piece))

    def finish(self) -> str:
        """What was held back, once no more text comes."""
        return self._stop.push(self._transcript.finish()) + self._stop.finish()
