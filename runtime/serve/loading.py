"""Work that would stall the event loop, in threads of its own: bodies parsed, audio fetched and decoded."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from ..pipeline import Pipeline
from ..stages.segments import Audio
from .audio import decode_audio
from .errors import invalid
from .media import AudioSource, read_source
from .settings import Settings

THREADS = 2
Result = TypeVar("Result")


class Loader:
    """Turns a request's audio sources into segments."""

    def __init__(self, pipeline: Pipeline, settings: Settings):
        self._pipeline = pipeline
        self._spec = pipeline.manifest.audio
        self._settings = settings
        self._pool = ThreadPoolExecutor(THREADS, "ltbm-load")

    async def run(self, work: Callable[..., Result], *arguments) -> Result:
        """The result of `work` in one of the threads; a request that goes leaves their queue."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def load(self, sources: Sequence[AudioSource]) -> tuple[list[list[Audio]], float]:
        """In one of the threads: the audios of each source, and the seconds of all of them."""
        audios: list[list[Audio]] = []
        left = self._settings.limits.audio_seconds
        for source in sources:
            data = read_source(source, self._settings.limits)
            waveform = decode_audio(data, self._spec.sampling_rate, left, source.param)
            left -= len(waveform) / self._spec.sampling_rate
            audios.append(self._cut(waveform, source.param))
        return audios, self._settings.limits.audio_seconds - left

    def _cut(self, waveform: np.ndarray, param: str) -> list[Audio]:
        seconds = len(waveform) / self._spec.sampling_rate
        longest = self._spec.segment_seconds * self._spec.max_segments
        if seconds > longest and self._settings.long_audio == "error":
            message = f"{seconds:.1f} s of audio; the model takes {longest:g} s"
            raise invalid(param, message, "audio_too_long")
        try:
            return self._pipeline.segments(waveform, "segments")
        except ValueError:
            message = f"{seconds:.3f} s of audio is too short for one audio token"
            raise invalid(param, message, "invalid_audio") from None
