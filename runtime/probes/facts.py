"""What a probe gets, and what it gives."""

from collections.abc import Callable
from dataclasses import dataclass

from ..machine import Gpu, Jetson, Machine, Memory, find_gpu, find_jetson, find_memory, find_tensorrt

OK, WARNING, PROBLEM = "ok", "warning", "problem"


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
        return cls(
            machine,
            *_answer(find_gpu, machine),
            *_answer(find_tensorrt, machine),
            find_jetson(machine),
            find_memory(machine),
        )

    def lacks(self, subject: str, use: str, advice: str) -> Finding:
        """Something absent that only some uses of a GPU need: a warning with advice where there is one."""
        return (
            Finding(subject, WARNING, f"none, {use}: {advice}")
            if self.gpu
            else Finding(subject, OK, f"none, {use}")
        )


def _answer(find: Callable, machine: Machine) -> tuple:
    try:
        return find(machine), ""
    except (
        RuntimeError,
        AttributeError,
    ) as error:  # AttributeError: a library without the functions that every one has
        return None, str(error)


def dots(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
