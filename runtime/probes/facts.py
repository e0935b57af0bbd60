"""What a probe gets, and what it gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ..machine import (
    Gpu,
    Jetson,
    Machine,
    Memory,
    RtxModule,
    find_gpu,
    find_jetson,
    find_memory,
    find_tensorrt,
    find_tensorrt_rtx,
)

OK = "ok"
WARNING = "warning"
PROBLEM = "problem"
CUDA_USE = "needed only for device=cuda and the backends tensorrt and tensorrt-rtx"

T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    status: ok, warning (slower, or missing and needed by some uses only) or problem (broken, or nothing runs)
    text: what is there, and what to do
    """

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
    rtx: RtxModule | None
    rtx_fault: str
    jetson: Jetson | None
    memory: Memory | None

    @classmethod
    def gather(cls, machine: Machine) -> "Facts":
        gpu, gpu_fault = _try(find_gpu, machine)
        tensorrt, tensorrt_fault = _try(find_tensorrt, machine)
        rtx, rtx_fault = _try(find_tensorrt_rtx, machine)
        return cls(
            machine,
            gpu,
            gpu_fault,
            tensorrt,
            tensorrt_fault,
            rtx,
            rtx_fault,
            find_jetson(machine),
            find_memory(machine),
        )

    def lacks(self, subject: str, use: str, advice: str) -> Finding:
        """Something absent that only some uses of a GPU need: a warning with advice where there is a GPU."""
        if self.gpu:
            return Finding(subject, WARNING, f"none, {use}: {advice}")
        return Finding(subject, OK, f"none, {use}")


def _try(find: Callable[[Machine], T | None], machine: Machine) -> tuple[T | None, str]:
    """(what is there, the fault)."""
    try:
        return find(machine), ""
    except (RuntimeError, AttributeError) as error:  # AttributeError: a library lacks a function
        return None, str(error)


def gib(nbytes: int) -> str:
    return f"{nbytes / 2**30:.1f} GiB"


def mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.0f} MiB"
