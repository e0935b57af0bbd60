"""TensorRT's Python module, full or for RTX, or what to install where it is missing, and its logger."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

TENSORRT = "tensorrt"
TENSORRT_RTX = "tensorrt-rtx"
MODULES = {TENSORRT: "tensorrt", TENSORRT_RTX: "tensorrt_rtx"}
"""Backend -> the Python module. Both have one API; what one of them lacks is asked of `TensorRTLibrary`."""
PRODUCTS = {TENSORRT: "TensorRT", TENSORRT_RTX: "TensorRT-RTX"}
RTX_INSTALL = "pip install 'ltbm[rtx]'"
MESSAGES_KEPT = 5


class Logger:
    """Keeps TensorRT's last errors, which its calls do not return; becomes an ILogger in `load_library`.

    report: takes warnings and errors as they come; None to drop them
    """

    def __init__(self, trt, product: str):
        trt.ILogger.__init__(self)
        self._product = product
        self._errors_of = (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)
        self._warning = trt.ILogger.WARNING
        self.errors: list[str] = []
        self.report: Callable[[str], None] | None = None

    def log(self, severity, message: str) -> None:
        is_error = severity in self._errors_of
        if is_error:
            self.errors = [*self.errors, message][-MESSAGES_KEPT:]
        if self.report and (is_error or severity == self._warning):
            self.report(f"{self._product}: {message}")

    def take_errors(self) -> str:
        """The errors since the last call, to be appended to a message."""
        errors = self.errors
        self.errors = []
        return f"; {self._product} says: " + " | ".join(errors) if errors else ""


@dataclass(frozen=True, eq=False)
class TensorRTLibrary:
    """A TensorRT in this process.

    name: of the backend, tensorrt or tensorrt-rtx
    trt: its Python module
    logger: the one of this process: TensorRT goes on using the first it was given, which must stay
    """

    name: str
    trt: Any
    logger: Logger

    @property
    def product(self) -> str:
        return PRODUCTS[self.name]

    @property
    def version(self) -> str:
        return self.trt.__version__

    @property
    def capabilities(self) -> list[str]:
        """SM75, SM80, ..., that this TensorRT-RTX builds for and runs on, the oldest first."""
        names = [name for name in self.trt.ComputeCapability.__members__ if name.startswith("SM")]
        return sorted(names, key=lambda name: int(name.removeprefix("SM")))

    @property
    def is_rtx(self) -> bool:
        """Whether engines are built for compute capabilities, without a GPU, plugins or kernel timings."""
        return self.name == TENSORRT_RTX


@cache
def load_library(name: str = TENSORRT) -> TensorRTLibrary:
    """The library of a backend; ImportError with what to install."""
    try:
        trt = importlib.import_module(MODULES[name])
    except (ImportError, OSError) as error:
        raise ImportError(f"the {name} backend needs {PRODUCTS[name]} ({error}): {_advice(name)}") from None
    logger_type = type("Logger", (Logger, trt.ILogger), {})
    return TensorRTLibrary(name, trt, logger_type(trt, PRODUCTS[name]))


def build_command(name: str, bundle: object = "BUNDLE") -> str:
    """`ltbm build` for a backend."""
    return f"ltbm build {bundle}" if name == TENSORRT else f"ltbm build {bundle} --backend {name}"


def _advice(name: str) -> str:
    from ..machine import Machine, tensorrt_advice

    if name == TENSORRT_RTX:
        return RTX_INSTALL
    return tensorrt_advice(Machine())
