"""What a probe gets, and what it gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ..machine import Gpu, Jetson, Machine, Memory, find_gpu, find_jetson, find_memory, find_tensorrt

OK, WARNING, PROBLEM = "ok", "warning", "problem"


Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Finding:
    """status: ok, warning (something slower or missing that only some need)
    or problem (what is there is broken, or nothing runs)."""

    subject: str
    status: str
    text: str


@dataclass(frozen=True)
class Facts:
    """What several probes need to know; a fault is the reason why what is there does not answer."""

    machine: Machine
    gpu: Gpu | None
    gpu_fault: str
    tensorrt: str | None  # the version of the Python module
    tensorrt_fault: str
    jetson: Jetson | None
    memory: Memory | None

    @classmethod
    def gather(cls, machine: Machine) -> "Facts":
        gpu, gpu_fault = _answer(find_gpu, machine)
        tensorrt, tensorrt_fault = _answer(find_tensorrt, machine)
        return cls(
            machine, gpu, gpu_fault, tensorrt, tensorrt_fault, find_jetson(machine), find_memory(machine)
        )

    def lacks(self, subject: str, use: str, advice: str) -> Finding:
        """Something absent that only some uses of a GPU need: a warning with advice where there is one."""
        if self.gpu:
            return Finding(subject, WARNING, f"none, {use}: {advice}")
        return Finding(subject, OK, f"none, {use}")


def _answer(find: Callable[[Machine], Answer | None], machine: Machine) -> tuple[Answer | None, str]:
    """What `find` gives, or None and why it does not answer."""
    try:
        return find(machine), ""
    except (RuntimeError, AttributeError) as error:  # AttributeError: a library without its usual functions
        return None, str(error)


def dots(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
