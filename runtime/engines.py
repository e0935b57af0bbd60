"""A bundle's three engines: all loaded at once, or, on small devices, hearing and the LLM in turn."""

from collections.abc import Callable

from ltbm.runtime.bundle import Bundle
from ltbm.runtime.engine import Engine, decoder_flavour, open_engine

HEARING, THINKING = ("encoder", "merge"), ("decoder",)


class Engines:
    """Opens the engine of a stage when it is asked for and keeps it.

    low_memory: encoder and merge are closed before the LLM is loaded, and the LLM before them; `on_close` hears the
        stage that goes, so that what was made with its engine goes too
    """

    def __init__(self, bundle: Bundle, backend: str, device: str, threads: int | None, low_memory: bool,
                 on_close: Callable[[str], None]):
        self.flavour = decoder_flavour(backend, device)
        self._files = {"encoder": "encoder.onnx", "merge": "merge.onnx", "decoder": f"decoder.{self.flavour}.onnx"}
        self._bundle, self._where = bundle, (backend, device, threads)
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
            self._open[stage] = open_engine(self._bundle.file(self._files[stage]), *self._where)
        return self._open[stage]

    def close(self) -> None:
        self._close(HEARING + THINKING)

    def _close(self, stages: tuple[str, ...]) -> None:
        for stage in stages:
            if stage in self._open:
                self._on_close(stage)
                self._open.pop(stage).close()
