"""A bundle's three engines: all loaded at once, or, on small devices, those for audio and the LLM in turn."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..bundle import Bundle, Manifest
from ..engine import Engine
from .backend import EngineFiles, EngineOptions
from .opening import HALF, check_device, find_backend, open_stream
from .packed_store import find_packed, this_host
from .shape_ranges import Limits, OptimisationProfile, optimisation_profiles

if TYPE_CHECKING:
    from .cuda import Stream

AUDIO_STAGES = ("encoder", "merge")
LLM_STAGES = ("decoder",)


@runtime_checkable
class Interruptible(Protocol):
    """An engine whose runs another thread can end."""

    def interrupt(self, now: bool) -> None: ...


class Engines:
    """Opens the engine of a stage when it is first needed and keeps it.

    open_stage: opens a stage's engine from its file
    in_turn: the engines for audio are closed before the LLM is loaded, and the LLM before them; what was made
        with a closed engine, such as the KV cache, must not be used any more
    """

    def __init__(self, files: EngineFiles, open_stage: Callable[[str, Path], Engine], in_turn: bool):
        self.flavour = files.flavour
        self.in_turn = in_turn
        self._files = files.stages
        self._open_stage = open_stage
        self._engines: dict[str, Engine] = {}

    def open_all(self) -> None:
        """Load every stage now."""
        for stage in self._files:
            self.get(stage)

    def get(self, stage: str) -> Engine:
        """The engine of `encoder`, `merge` or `decoder`."""
        if stage not in self._engines:
            if self.in_turn:
                self._close(AUDIO_STAGES if stage in LLM_STAGES else LLM_STAGES)
            self._engines[stage] = self._open_stage(stage, self._files[stage])
        return self._engines[stage]

    def interrupt(self, now: bool) -> None:
        """Let every run fail from now on, also one that another thread is in, until called with False.

        An engine that cannot stop within a run (TensorRT's) ends it.
        """
        for engine in list(self._engines.values()):
            if isinstance(engine, Interruptible):
                engine.interrupt(now)

    def close(self) -> None:
        self._close(AUDIO_STAGES + LLM_STAGES)

    def _close(self, stages: tuple[str, ...]) -> None:
        for stage in stages:
            if stage in self._engines:
                self._engines.pop(stage).close()


def open_engines(
    bundle: Bundle,
    backend: str = "onnxruntime",
    device: str | None = None,
    threads: int | None = None,
    in_turn: bool = False,
    kv_cache: str | None = None,
    packed: bool = True,
    native_products: bool = True,
) -> Engines:
    """The engines of a bundle on one device, loaded unless in turn; `Session.open` lists the errors."""
    device = check_device(backend, device)
    chosen = find_backend(backend)
    files = chosen.files(bundle, device, kv_cache)
    stream = open_stream(chosen, device)  # one for all engines: what one stage wrote the next reads, in order
    packed_graphs = find_packed(bundle, files.stages, this_host()) if packed and device == "cpu" else {}

    def open_stage(stage: str, path: Path) -> Engine:
        profile = _provider_profile(bundle.manifest, device, stage, files.flavour)
        kept = packed_graphs.get(stage)
        stepping = stage in LLM_STAGES
        options = EngineOptions(
            device,
            threads,
            stream,
            profile,
            stepping=stepping,
            packed=kept.graph if kept else None,
            half_cache=stepping and kv_cache == HALF,
            native_products=native_products,
        )
        engine = chosen.open(path, options)
        if stage == "merge" and files.cuda_op and stream:
            return _with_cuda_op(files.cuda_op, engine, stream, bundle.manifest.merge_step)
        return engine

    engines = Engines(files, open_stage, in_turn)
    if not in_turn:
        engines.open_all()
    return engines


def _with_cuda_op(library: Path, projector: Engine, stream: "Stream", step: tuple[int, int]) -> Engine:
    from ...plugins.cuda_op import CudaOp
    from .cuda_merge import CudaMergeEngine

    return CudaMergeEngine(CudaOp(library), projector, stream, step)


def _provider_profile(
    manifest: Manifest, device: str, stage: str, flavour: str
) -> OptimisationProfile | None:
    """Shapes for which ONNX Runtime's TensorRT builds once, so that no request does; merge stays on CUDA."""
    if device != "tensorrt" or stage == "merge":
        return None
    return optimisation_profiles(manifest, stage, flavour, Limits.of(manifest))[0]
