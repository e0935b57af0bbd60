"""TensorRT-RTX compiles kernels for a GPU when an engine is first loaded; they are kept beside it."""

import re
import warnings
from pathlib import Path
from typing import Any

from .. import machine
from ..files import write_whole
from ..versions import dots
from .trt_library import TensorRTLibrary


class KernelCache:
    """The runtime cache (trt.IRuntimeCache) of one engine on this GPU and driver.

    Kept in a file that no other GPU or driver reads; without a folder to write in it is made anew every time.
    """

    def __init__(self, library: TensorRTLibrary, engine: Any, path: Path):
        self._library = library
        self._engine = engine
        self._file = path.with_name(f"{path.stem}.{_machine_name()}.kernels")
        self._cache = engine.create_runtime_config().create_runtime_cache()
        self._stored = self._file.read_bytes() if self._file.is_file() else b""
        if self._stored and not self._cache.deserialize(self._stored):
            self._stored = b""  # of another version: it is made anew

    def runtime_config(self, strategy: Any, steps: bool) -> Any:
        """The configuration (trt.IRuntimeConfig) of a new execution context.

        steps: its runs repeat with the same arrays, as decode steps do. TensorRT-RTX makes the CUDA graph of
            them: it knows when the kernels for their shapes are compiled, which it does beside the first runs
        """
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        if steps:
            config.cuda_graph_strategy = self._library.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if not config.set_runtime_cache(self._cache):
            errors = self._library.logger.take_errors()
            raise RuntimeError(f"{self._library.product} refused its runtime cache{errors}")
        return config

    def save(self) -> None:
        """Write what was compiled since it was read; a warning where it cannot be kept."""
        compiled = bytes(memoryview(self._cache.serialize()))
        if compiled == self._stored:
            return
        self._stored = compiled
        try:
            write_whole(self._file, compiled)
        except OSError as error:  # a full disk or a read-only bundle; the session is worth more
            warnings.warn(
                f"compiled kernels are not kept, so the next load compiles them again: {error}",
                RuntimeWarning,
                stacklevel=3,
            )


def _machine_name() -> str:
    """This GPU and driver, or the driver's CUDA where its version is not told, as part of a file name."""
    here = machine.Machine()
    gpu = machine.find_gpu(here)
    if gpu is None:
        return "gpu"
    driver = machine.driver_version(here) or f"cuda {dots(gpu.cuda)}"
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{gpu.name} {driver}").strip("-").lower()
