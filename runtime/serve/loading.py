"""Work that would stall the event loop, in threads of its own: bodies parsed, audio fetched and decoded."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from ..answer import Clock
from ..bundle import AudioSpec
from ..stages.segments import Audio, cut_segments, split_long
from .audio import decode_audio
from .errors import ApiError, invalid
from .media import AudioSource, read_source
from .settings import Settings

THREADS = 2
Result = TypeVar("Result")


class Loader:
    """Turns a request's audio sources into segments."""

    def __init__(self, spec: AudioSpec, settings: Settings):
        self._spec = spec
        self._settings = settings
        self._pool = ThreadPoolExecutor(THREADS, "ltbm-load")

    async def run(self, work: Callable[..., Result], *arguments) -> Result:
        """The result of `work` in one of the threads; a request that goes leaves their queue."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def load(self, sources: Sequence[AudioSource], clock: Clock) -> tuple[list[list[Audio]], float]:
        """The audios of each source, and the seconds of all of them."""
        with clock.stage("load"):
            return await self.run(self._load, sources)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _load(self, sources: Sequence[AudioSource]) -> tuple[list[list[Audio]], float]:
        audios: list[list[Audio]] = []
        left = self._settings.limits.audio_seconds
        for source in sources:
            data = read_source(source, self._settings.limits)
            waveform = decode_audio(data, self._spec.sampling_rate, left, source.param)
            left -= len(waveform) / self._spec.sampling_rate
            audios.append(self._cut(waveform, source.param))
        return audios, self._settings.limits.audio_seconds - left

    def _cut(self, waveform: np.ndarray, param: str) -> list[Audio]:
        spec = self._spec
        segments = cut_segments(waveform, spec)
        try:
            return split_long(
                segments, spec.max_segments, self._settings.long_audio, waveform, spec.segment_seconds
            )
        except ValueError:
            raise self._unfit(len(waveform) / spec.sampling_rate, param) from None

    def _unfit(self, seconds: float, param: str) -> ApiError:
        longest = self._spec.segment_seconds * self._spec.max_segments
        if seconds > longest:
            return invalid(
                param, f"{seconds:.1f} s of audio, the model takes {longest:g} s", "audio_too_long"
            )
        return invalid(param, f"{seconds:.3f} s of audio is too short for one audio token", "invalid_audio")
