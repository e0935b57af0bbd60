"""Sound on its way into a listener, and what it gives cause to ask."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .listener import Listener
from .resampling import StreamResampler
from .silence import VAD_RATE, Change, EndOfSpeech, VoiceActivity
from .worker import Moment


@dataclass(frozen=True)
class Ask:
    """A question to put to the listener; `until` as `Listener.ask` takes it."""

    prompt: str
    until: Moment | None = None


class SpeechEnds:
    """Asks `prompt` whenever speech has ended; the open segment is read ahead when a pause begins.

    source_rate: of the samples, in Hz
    """

    def __init__(self, prompt: str, detector: VoiceActivity, silence_seconds: float, source_rate: int):
        self._prompt = prompt
        self._end_of_speech = EndOfSpeech(detector, silence_seconds)
        self._resampler = StreamResampler(source_rate, VAD_RATE)
        self._moment: Moment | None = None

    def take(self, samples: np.ndarray, listener: Listener) -> list[Ask]:
        """What samples [n] float32, which the listener has taken, give cause to ask."""
        asks = []
        for change in self._end_of_speech.push(self._resampler.push(samples)):
            if change is Change.PAUSE:
                self._moment = listener.prepare()
            elif change is Change.RESUMED:
                self._moment = None
            else:
                asks.append(Ask(self._prompt, self._moment))
        return asks


class Feed:
    """Pushes sound into a listener.

    tell: takes every Ask, an exception that ended the sound, and what `take_all` is given for the end
    """

    def __init__(
        self,
        listener: Listener,
        tell: Callable[[Ask | Exception | None], object],
        speech_ends: SpeechEnds | None = None,
    ):
        self._listener = listener
        self._tell = tell
        self._speech_ends = speech_ends

    def take(self, samples: np.ndarray, block: bool = False) -> None:
        """Samples [n, channels] as they come; what the listener refuses it reports itself."""
        try:
            self._take(samples, block)
        except Exception as error:
            self._tell(error)

    def take_all(self, pieces: Iterable[np.ndarray], at_end: Sequence[Ask | None]) -> None:
        """All pieces of a sound that can wait, then what is to be told at its end."""
        try:
            for samples in pieces:
                self._take(samples, block=True)
        except Exception as error:
            self._tell(error)
            return
        for last in at_end:
            self._tell(last)

    def _take(self, samples: np.ndarray, block: bool) -> None:
        taken = self._listener.push(samples, block=block)
        if taken and self._speech_ends is not None:
            for ask in self._speech_ends.take(mono(samples), self._listener):
                self._tell(ask)


def mono(samples: np.ndarray) -> np.ndarray:
    """[n, channels] floating point or integer PCM -> [n] float32 within 1."""
    full_scale = -float(np.iinfo(samples.dtype).min) if samples.dtype.kind == "i" else 1.0
    return (samples.mean(axis=1) / full_scale).astype(np.float32)
