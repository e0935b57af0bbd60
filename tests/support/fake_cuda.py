"""cuda-bindings' runtime on the host: memory that is checked,
and a stream that does nothing until someone waits.

What real streams may do late is here done as late as it can be,
so code that is wrong on some devices is wrong here.
"""

import ctypes
import enum
import types
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ALIGNMENT = 256  # bytes, of what cudaMalloc gives
STREAM = 0xF00D  # the handle of every stream
GARBAGE = 0x7F  # what fresh memory holds: huge floats


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureUnsupported = 900


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


@dataclass
class Event:
    """One call, for tests to look at."""

    call: str
    facts: dict


class Driver:
    """The device's memory and its stream. `fail` names a call that is to fail, `capacity` is in bytes."""

    def __init__(self, capacity: int = 2**30):
        self.capacity = capacity
        self.fail: dict[str, cudaError_t] = {}
        self.events: list[Event] = []
        self._device: dict[int, np.ndarray] = {}  # address -> bytes
        self._host: dict[int, np.ndarray] = {}  # pinned memory
        self._queue: list[Callable[[], None]] = []
        self._captured: list[Callable[[], None]] | None = None  # while a graph is captured

    # --- what tests and the fake TensorRT use ---

    @property
    def allocated(self) -> int:
        return sum(block.nbytes for block in self._device.values())

    def named(self, call: str) -> list[dict]:
        return [event.facts for event in self.events if event.call == call]

    def view(self, pointer: int, nbytes: int) -> np.ndarray:
        """Bytes of device memory; an access outside what is allocated is an error of the code under test."""
        for start, block in self._device.items():
            if start <= pointer and pointer + nbytes <= start + block.nbytes:
                return block[pointer - start : pointer - start + nbytes]
        raise AssertionError(f"{nbytes} bytes at {pointer:#x} are no memory of the device, or freed")

    def owns(self, pointer: int) -> bool:
        """Whether it is an address of the device."""
        return any(start <= pointer < start + block.nbytes for start, block in self._device.items())

    def enqueue(self, work) -> None:
        (self._queue if self._captured is None else self._captured).append(work)

    @property
    def capturing(self) -> bool:
        return self._captured is not None

    def flush(self) -> None:
        queue = self._queue
        self._queue = []
        for work in queue:
            work()

    # --- the calls ---

    def cudaStreamCreateWithFlags(self, flags):
        return STREAM

    def cudaStreamDestroy(self, stream):
        self.flush()

    def cudaStreamSynchronize(self, stream):
        assert not self.capturing, "waiting for a stream that is captured"
        self.flush()

    def cudaHostAlloc(self, size, flags):
        block = np.full(size, GARBAGE, np.uint8)
        self._host[block.ctypes.data] = block
        return block.ctypes.data

    def cudaFreeHost(self, pointer):
        self.flush()
        del self._host[pointer]

    def cudaMalloc(self, size):
        if self.allocated + size > self.capacity:
            return cudaError_t.cudaErrorMemoryAllocation
        block = np.full(size + ALIGNMENT, GARBAGE, np.uint8)
        skip = -block.ctypes.data % ALIGNMENT
        block = block[skip : skip + size]
        self._device[block.ctypes.data] = block
        return block.ctypes.data

    def cudaFree(self, pointer):
        self.flush()
        self._device.pop(pointer).fill(GARBAGE)

    def cudaMemGetInfo(self):
        return self.capacity - self.allocated, self.capacity

    def cudaMemsetAsync(self, pointer, value, count, stream):
        self.enqueue(lambda: self.view(pointer, count).fill(value))

    def cudaMemcpyAsync(self, to, source, count, kind, stream):
        self.cudaMemcpy2DAsync(to, count, source, count, count, 1, kind, stream)

    def cudaMemcpy2DAsync(self, to, to_pitch, source, source_pitch, width, rows, kind, stream):
        assert 0 < width <= min(to_pitch, source_pitch) and rows > 0
        self.events.append(
            Event("copy", {"kind": kind.name.removeprefix("cudaMemcpy"), "bytes": width * rows})
        )

        def work():
            for row in range(rows):
                self._read(source + row * source_pitch, width, kind, to + row * to_pitch)

        self.enqueue(work)

    def _read(self, source, width, kind, to):
        if kind == cudaMemcpyKind.cudaMemcpyHostToDevice:
            assert self._is_pinned(source, width), "source is not pinned"
            self.view(to, width)[:] = host(source, width)
        elif kind == cudaMemcpyKind.cudaMemcpyDeviceToHost:
            host(to, width)[:] = self.view(source, width)
        else:
            self.view(to, width)[:] = self.view(source, width)

    def _is_pinned(self, pointer, nbytes):
        for start, block in self._host.items():
            if start <= pointer and pointer + nbytes <= start + block.nbytes:
                return True
        return False

    def cudaStreamBeginCapture(self, stream, mode):
        self._captured = []

    def cudaStreamEndCapture(self, stream):
        captured = self._captured
        self._captured = None
        return captured if captured else cudaError_t.cudaErrorStreamCaptureUnsupported

    def cudaGraphInstantiate(self, graph, flags):
        return graph

    def cudaGraphDestroy(self, graph):
        pass

    def cudaGraphExecDestroy(self, graph):
        pass

    def cudaGraphLaunch(self, graph, stream):
        for work in graph:
            self.enqueue(work)


def host(pointer: int, nbytes: int) -> np.ndarray:
    return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(pointer), np.uint8)


def runtime_module(driver: Driver) -> types.ModuleType:
    """`cuda.bindings.runtime` over `driver`: calls give (error, *values)."""
    module = types.ModuleType("cuda.bindings.runtime")
    for kind in (cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode):
        setattr(module, kind.__name__, kind)
    vars(module).update(cudaStreamNonBlocking=1, cudaHostAllocDefault=0, cudaGetErrorString=_error_text)
    for name in dir(Driver):
        if name.startswith("cuda"):
            setattr(module, name, _call(driver, name))
    return module


def _error_text(error: cudaError_t) -> tuple[cudaError_t, bytes]:
    return cudaError_t.cudaSuccess, error.name.encode()


def _call(driver: Driver, name: str):
    def call(*arguments):
        driver.events.append(Event(name, {}))
        if name in driver.fail:
            if name == "cudaStreamSynchronize":
                # what a broken device still owes is never done, nor written where nobody waits for it
                driver._queue.clear()
            if name == "cudaStreamEndCapture":
                driver.cudaStreamEndCapture(*arguments)
            return driver.fail[name], None
        result = getattr(driver, name)(*arguments)
        if isinstance(result, cudaError_t):
            return result, None
        if result is None:
            return (cudaError_t.cudaSuccess,)
        values = result if isinstance(result, tuple) else (result,)
        return cudaError_t.cudaSuccess, *values

    return call
