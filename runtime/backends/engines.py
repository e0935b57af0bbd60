"""A bundle's three engines: all loaded at once, or, on small devices, hearing and the LLM in turn."""

from collections.abc import Callable
from pathlib import Path

from ..bundle import Bundle
from ..engine import Engine
from .opening import decoder_flavour, open_engine, open_stream

HEARING, THINKING = ("encoder", "merge"), ("decoder",)


class Engines:
    """Opens the engine of a stage when it is asked for and keeps it.

    low_memory: encoder and merge are closed before the LLM is loaded, and the LLM before them; `on_close` hears the
        stage that goes, so that what was made with its engine goes too
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: str,
        device: str,
        threads: int | None,
        low_memory: bool,
        kv_cache: str | None,
        on_close: Callable[[str], None],
    ):
        self._backend, self._device, self._threads = backend, device, threads
        self.flavour, self._files = engine_files(bundle, backend, device, kv_cache)
        self._stream = open_stream(
            backend, device
        )  # one for all engines: what one stage wrote the next reads, in order
        self._bundle = bundle
        self._low_memory, self._on_close = low_memory, on_close
        self._open: dict[str, Engine] = {}
        if not low_memory:
            for stage in self._files:
                self.get(stage)

    def get(self, stage: str) -> Engine:
        """The engine of `encoder`, `merge` or `decoder`."""
        if stage not in self._open:
            if self._low_memory:
                self._close(HEARING if stage in THINKING else THINKING)
            self._open[stage] = open_engine(
                self._files[stage],
                self._backend,
                self._device,
                self._threads,
                self._stream,
                self._profile(stage),
                stage in THINKING,
            )
        return self._open[stage]

    def _profile(self, stage: str):
        """Shapes for which ONNX Runtime's TensorRT builds once, so that no request builds; the merge stays on CUDA."""
        if self._device != "tensorrt" or stage == "merge":
            return None
        from .shape_ranges import Limits, stage_profiles

        return stage_profiles(self._bundle.manifest, stage, self.flavour, Limits.of(self._bundle.manifest))[0]

    def close(self) -> None:
        self._close(HEARING + THINKING)

    def _close(self, stages: tuple[str, ...]) -> None:
        for stage in stages:
            if stage in self._open:
                self._on_close(stage)
                self._open.pop(stage).close()


def engine_files(
    bundle: Bundle, backend: str, device: str, kv_cache: str | None = None
) -> tuple[str, dict[str, Path]]:
    """The decoder's flavour, and the file of each stage; FileNotFoundError says how to make what is missing."""
    if backend == "tensorrt" and kv_cache is None:
        from .engine_store import STAGES, find_engines, this_target

        engines = find_engines(bundle, this_target())
        return engines.key.flavour, {stage: engines.file(stage) for stage in STAGES}
    precision = bundle.manifest.precision
    if reason := precision.unfit(device):
        raise ValueError(
            f"bundle {bundle.path} ({precision}) does not run on the {device.upper()}: {reason}; export one that does "
            "(ltbm export CHECKPOINT BUNDLE --precision int4), or give another --device or --backend"
        )
    flavour = decoder_flavour(backend, device, precision.for_onnxruntime, kv_cache)
    if kv_cache and flavour not in bundle.manifest.flavours:
        raise FileNotFoundError(
            f"bundle {bundle.path} has no decoder with an {kv_cache} KV cache; add it: "
            f"ltbm calibrate {bundle.path} --audio CLIPS"
        )
    if kv_cache:
        from .ort import check_int8_kv

        check_int8_kv()
    names = {"encoder": "encoder.onnx", "merge": "merge.onnx", "decoder": f"decoder.{flavour}.onnx"}
    return flavour, {stage: bundle.file(name) for stage, name in names.items()}
