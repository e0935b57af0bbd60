"""What the flags of `ltbm serve` settle: names, defaults of requests, and limits."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..bundle import Manifest, TranscriptSpec
from ..levels import DEFAULT_LEVEL, NAMED_RATIOS
from ..request import DEFAULT_MAX_NEW_TOKENS
from ..sampling import GREEDY, Sampling

MIB = 2**20  # bytes
TRANSCRIPTION_PROMPT = "Transcribe the speech word for word."


@dataclass(frozen=True)
class Limits:
    """What a request may take.

    body_bytes: of the whole request as it is sent
    audio_seconds: of all its audio, decoded
    audios: of all its messages
    prompt_tokens: None is what the model has positions for
    queued: requests that wait, beside the one that runs
    queue_seconds: that a request waits for its turn
    body_seconds: that a request takes to be sent
    fetch_seconds: that a remote audio takes to come
    shutdown_seconds: that requests have left when the server ends
    """

    body_bytes: int = 32 * MIB
    audio_seconds: float = 600.0
    audios: int = 8
    prompt_tokens: int | None = None
    queued: int = 16
    queue_seconds: float = 60.0
    body_seconds: float = 120.0
    fetch_seconds: float = 10.0
    shutdown_seconds: float = 10.0


@dataclass(frozen=True)
class Media:
    """Where audio may come from beside the request itself.

    hosts: of http and https addresses
    folder: of file addresses
    """

    hosts: frozenset[str] = frozenset()
    folder: Path | None = None


@dataclass(frozen=True)
class Settings:
    """One server's.

    level_flags: of `add_level_flags` and --task, as they were given; a request's own fields come before them
    transcription_prompt: what a transcription asks that brings none; None: as the model is asked
    api_key: that requests must bring, or None
    default_level, transcript: of the bundle
    """

    model: str = "ltbm"
    level_flags: dict[str, Any] = field(default_factory=dict)
    sampling: Sampling = GREEDY
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    long_audio: str = "error"
    transcription_prompt: str | None = None
    api_key: str | None = field(default=None, repr=False)
    limits: Limits = field(default_factory=Limits)
    media: Media = field(default_factory=Media)
    default_level: str = DEFAULT_LEVEL
    transcript: TranscriptSpec | None = None

    def of_bundle(self, manifest: Manifest) -> "Settings":
        """With what the bundle says of itself."""
        return replace(self, default_level=manifest.default_level, transcript=manifest.prompt.transcript)

    @property
    def transcription_question(self) -> str:
        """What a transcription asks that brings no prompt; to a model that only transcribes, nothing."""
        if self.transcription_prompt is not None:
            return self.transcription_prompt
        return "" if self.transcript else TRANSCRIPTION_PROMPT

    @property
    def models(self) -> list[str]:
        """The model, and an alias for each named level: for clients that can send no further field."""
        return [self.model, *(f"{self.model}:{level}" for level in NAMED_RATIOS)]
