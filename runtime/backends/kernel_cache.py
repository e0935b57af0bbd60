"""TensorRT-RTX compiles kernels for a GPU when an engine is first loaded; they are kept beside it."""

import re
from pathlib import Path

from .. import machine
from ..files import write_whole


class KernelCache:
    """The runtime cache (trt.IRuntimeCache) of one engine on this GPU and driver.

    Kept in a file that no other GPU or driver reads; without a folder to write in it is made anew every time.
    """

    def __init__(self, trt, engine, path: Path):
        self._config = engine.create_runtime_config()
        self._cache = self._config.create_runtime_cache()
        self._file = path.with_name(f"{path.stem}.{_machine_name()}.kernels")
        self._loaded = b""
        if self._file.is_file():
            self._loaded = self._file.read_bytes()
            if not self._cache.deserialize(self._loaded):
                self._loaded = b""  # of another version: it is made anew
        self._config.set_runtime_cache(self._cache)

    def runtime_config(self, strategy):
        """The configuration (trt.IRuntimeConfig) of a new execution context."""
        self._config.set_execution_context_allocation_strategy(strategy)
        return self._config

    def save(self) -> None:
        """Write what was compiled since it was read."""
        compiled = bytes(memoryview(self._cache.serialize()))
        if compiled == self._loaded:
            return
        try:
            write_whole(self._file, compiled)
        except OSError:
            return  # a read-only bundle: the next load compiles again


def _machine_name() -> str:
    """This GPU and driver as part of a file name."""
    here = machine.Machine()
    gpu = machine.find_gpu(here)
    name = gpu.name if gpu else "gpu"
    driver = machine.driver_version(here)
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{name} {driver or 'driver'}").strip("-").lower()
