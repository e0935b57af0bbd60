"""What the endpoints share: the session's thread, the loader, settings and figures; and a request's way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..prompt import Turn
from ..request import Request
from ..session import Session
from ..stages.segments import Audio
from .chat import ChatRequest
from .engine_thread import EngineThread
from .job import Job
from .loading import Loader
from .media import AudioSource
from .metrics import Metrics
from .settings import Settings
from .transcriptions import TranscriptionRequest


@dataclass(frozen=True)
class Server:
    """One session behind HTTP."""

    settings: Settings
    engine: EngineThread
    loader: Loader
    metrics: Metrics

    @classmethod
    def open(cls, open_session: Callable[[], Session], settings: Settings) -> "Server":
        """Open the session in its thread; raises what that raises."""
        metrics = Metrics()
        engine = EngineThread(open_session, settings.limits, metrics)
        session = engine.start()
        metrics.watch(engine)
        settings = settings.of_bundle(session.manifest)
        return cls(settings, engine, Loader(session.pipeline, settings), metrics)

    def close(self) -> None:
        """End every request, then the session."""
        self.loader.close()
        self.engine.close()

    def prepare(
        self, job: Job, wanted: ChatRequest | TranscriptionRequest, sources: Sequence[AudioSource]
    ) -> tuple[Request, float]:
        """The request with its audio read, and the seconds of that; to be called off the event loop."""
        with job.clock.stage("load"):
            audios, seconds = self.loader.load(sources)
        request = Request(
            turns=with_audios(wanted.turns, audios),
            audios=[audio for parts in audios for audio in parts],
            level=wanted.level,
            max_new_tokens=wanted.max_new_tokens,
            sampling=wanted.sampling,
            stop=wanted.stop,
        )
        return request, seconds


def with_audios(turns: Sequence[Turn], audios: Sequence[list[Audio]]) -> list[Turn]:
    """The turns with as many audios as their sources became: a long one may be several."""
    parts = iter(audios)
    counted = []
    for turn in turns:
        counts = [len(next(parts)) for _ in range(turn.audios)]
        counted.append(replace(turn, audios=sum(counts)))
    return counted
