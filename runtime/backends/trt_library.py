"""TensorRT's Python module, or what to install where it is missing, and its logger."""

from collections.abc import Callable
from functools import cache

try:
    # Installed on machines with an NVIDIA GPU only.
    import tensorrt as trt  # pyright: ignore[reportMissingImports]
except (ImportError, OSError) as error:
    from ..machine import Machine, tensorrt_advice

    raise ImportError(
        f"the tensorrt backend needs TensorRT ({error}): {tensorrt_advice(Machine())}"
    ) from None

MESSAGES_KEPT = 5


class Logger(trt.ILogger):
    """Keeps TensorRT's last errors, which its calls do not return.

    report: takes warnings and errors as they come; None to drop them
    """

    def __init__(self):
        trt.ILogger.__init__(self)
        self.errors: list[str] = []
        self.report: Callable[[str], None] | None = None

    def log(self, severity, message: str) -> None:
        is_error = severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)
        if is_error:
            self.errors = [*self.errors, message][-MESSAGES_KEPT:]
        if self.report and (is_error or severity == trt.ILogger.WARNING):
            self.report(f"TensorRT: {message}")

    def take_errors(self) -> str:
        """The errors since the last call, to be appended to a message."""
        errors = self.errors
        self.errors = []
        return "; TensorRT says: " + " | ".join(errors) if errors else ""


@cache
def process_logger() -> Logger:
    """The one logger of this process: TensorRT goes on using the first it was given, which must stay."""
    return Logger()
