"""Arrays on a CUDA GPU, the stream on which all work is done in order, and graphs of that work."""

import ctypes
import weakref
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

try:
    # Installed on machines with an NVIDIA GPU only.
    from cuda.bindings import runtime as cudart  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
except ImportError as error:
    raise ImportError(
        f"arrays on the GPU need cuda-bindings ({error}): pip install 'cuda-bindings==12.*' under CUDA 12 "
        "(JetPack 6 too), 'cuda-bindings>=13' under CUDA 13"
    ) from None

STAGING_BYTES = 4 * 2**20  # pinned host memory through which copies to the device go
RETIRED_BYTES = 64 * 2**20  # of device memory that may wait to be freed


def check(result: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of a CUDA call; MemoryError or RuntimeError if it failed."""
    error, *values = result
    if error == cudart.cudaError_t.cudaSuccess:
        return tuple(values)
    text = _error_text(error)
    if error == cudart.cudaError_t.cudaErrorMemoryAllocation:
        raise MemoryError(
            f"the GPU has no memory left ({text}): end other programs, keep fewer audio tokens, "
            "or open with low_memory"
        )
    raise RuntimeError(f"CUDA call failed: {text}; `ltbm doctor` says what this machine lacks")


def check_value(result: tuple[Any, ...]) -> Any:
    """The value of a CUDA call that gives one: an address, a handle or an object."""
    (value,) = check(result)
    return value


def _error_text(error) -> str:
    _, text = cudart.cudaGetErrorString(error)
    return text.decode() if isinstance(text, bytes) else str(text)


def free_memory() -> int:
    """Bytes free on the device."""
    free, _ = check(cudart.cudaMemGetInfo())
    return free


class Stream:
    """The order in which everything on the GPU happens, and the source of its memory.

    Copies from the host pass through pinned memory of its own, so the caller may change or free the source
    at once. Memory without a holder is used again, or freed when the host waits:
    cudaFree waits for all work.
    """

    def __init__(self):
        self.handle = int(check_value(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking)))
        weakref.finalize(self, cudart.cudaStreamDestroy, self.handle)
        pinned = int(check_value(cudart.cudaHostAlloc(STAGING_BYTES, cudart.cudaHostAllocDefault)))
        weakref.finalize(self, cudart.cudaFreeHost, pinned)
        self._staging = np.ctypeslib.as_array((ctypes.c_uint8 * STAGING_BYTES).from_address(pinned))
        self._staged = 0  # bytes of it that copies not yet done may still read
        self._retired: list[tuple[int, int]] = []  # (bytes, pointer)
        weakref.finalize(self, _free, self._retired)

    def synchronize(self) -> None:
        """Wait until all work on the stream is done."""
        check(cudart.cudaStreamSynchronize(self.handle))
        self._staged = 0
        _free(self._retired)

    def empty(self, shape: tuple[int, ...], dtype) -> "CudaArray":
        """An array whose values are not set."""
        dtype = np.dtype(dtype)
        memory = Memory(self, prod(shape) * dtype.itemsize)
        return CudaArray(self, memory, 0, tuple(map(int, shape)), dtype)

    def zeros(self, shape: tuple[int, ...], dtype) -> "CudaArray":
        array = self.empty(shape, dtype)
        if array.nbytes:
            check(cudart.cudaMemsetAsync(array.pointer, 0, array.nbytes, self.handle))
        return array

    def allocate(self, nbytes: int) -> int:
        """The address of `nbytes` bytes: retired ones of that size, or new ones."""
        for index, (size, pointer) in enumerate(self._retired):
            if size == nbytes:
                del self._retired[index]
                return pointer
        try:
            return int(check_value(cudart.cudaMalloc(nbytes)))
        except MemoryError:
            if not self._retired:
                raise
        self.synchronize()
        return int(check_value(cudart.cudaMalloc(nbytes)))

    def retire(self, nbytes: int, pointer: int) -> None:
        """Keep bytes for later: work on the stream may still use them, and new work comes after it."""
        self._retired.append((nbytes, pointer))
        if sum(size for size, _ in self._retired) > RETIRED_BYTES:
            _free(self._retired)

    def upload(self, source: np.ndarray) -> "CudaArray":
        """A copy of a host array on the device."""
        array = self.empty(source.shape, source.dtype)
        self.write(array.pointer, source)
        return array

    def write(self, pointer: int, source: np.ndarray) -> None:
        """Copy a host array to a device address."""
        data = np.ascontiguousarray(source).reshape(-1).view(np.uint8)
        to_device = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        for start in range(0, len(data), STAGING_BYTES):
            part = self._stage(data[start : start + STAGING_BYTES])
            to = pointer + start
            check(cudart.cudaMemcpyAsync(to, part.ctypes.data, len(part), to_device, self.handle))

    def _stage(self, data: np.ndarray) -> np.ndarray:
        """A copy of bytes in pinned memory, waiting for room there."""
        if self._staged + len(data) > STAGING_BYTES:
            self.synchronize()
        staged = self._staging[self._staged : self._staged + len(data)]
        staged[:] = data
        self._staged += len(data)
        return staged

    def capture(self, work: Callable[[], None]) -> "Graph":
        """What `work` puts on the stream, as a graph, without doing it; RuntimeError where that fails."""
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(cudart.cudaStreamBeginCapture(self.handle, mode))
        try:
            work()
        finally:
            result = cudart.cudaStreamEndCapture(self.handle)  # leaves capture mode, whatever happened
        return Graph(self, check_value(result))


class Graph:
    """Work that was captured on a stream and runs with one call."""

    def __init__(self, stream: Stream, captured):
        self._stream = stream
        try:
            self._executable = check_value(cudart.cudaGraphInstantiate(captured, 0))
        finally:
            check(cudart.cudaGraphDestroy(captured))
        weakref.finalize(self, cudart.cudaGraphExecDestroy, self._executable)

    def launch(self) -> None:
        check(cudart.cudaGraphLaunch(self._executable, self._stream.handle))


class Memory:
    """Bytes on the device, retired with the last array in them."""

    def __init__(self, stream: Stream, nbytes: int):
        nbytes = max(nbytes, 1)  # TensorRT wants an address for empty tensors too
        self.pointer = stream.allocate(nbytes)
        weakref.finalize(self, stream.retire, nbytes, self.pointer)


class CudaArray:
    """An array on the device: what the stages use of numpy's interface (`ltbm.runtime.engine.Array`).

    Items along the first axis are contiguous and `pitch` bytes apart. All work is in the order of the stream.
    """

    def __init__(
        self,
        stream: Stream,
        memory: Memory,
        offset: int,
        shape: tuple[int, ...],
        dtype: np.dtype,
        pitch: int | None = None,
    ):
        self.stream = stream
        self.shape = shape
        self.dtype = dtype
        self.item_bytes = prod(shape[1:]) * dtype.itemsize
        self.pitch = self.item_bytes if pitch is None else pitch
        self._memory = memory
        self._offset = offset  # bytes

    @property
    def pointer(self) -> int:
        return self._memory.pointer + self._offset

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @property
    def contiguous(self) -> bool:
        return self.pitch == self.item_bytes or self.shape[0] <= 1

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, *shape: int) -> "CudaArray":
        if not self.contiguous:
            raise ValueError(
                f"an array of pitch {self.pitch} cannot be reshaped from {self.shape} to {shape}"
            )
        total = prod(self.shape)
        known = prod(n for n in shape if n != -1)
        rest = total // known if known else 0
        shape = tuple(rest if n == -1 else int(n) for n in shape)
        if prod(shape) != total:
            raise ValueError(f"{self.shape} has not as many values as {shape}")
        return CudaArray(self.stream, self._memory, self._offset, shape, self.dtype)

    def __getitem__(self, key) -> "CudaArray":
        """A view: an index or a slice along the first axis, or a slice of the first and one of the second."""
        if isinstance(key, (int, np.integer)):
            start, _ = _bounds(slice(key, key + 1 or None), self.shape[0])
            offset = self._offset + start * self.pitch
            return CudaArray(self.stream, self._memory, offset, self.shape[1:], self.dtype)
        slices = list(key) if isinstance(key, tuple) else [key]
        if len(slices) not in (1, 2):
            raise IndexError(f"{key!r}: arrays on the device take slices along the first two axes")
        start, count = _bounds(slices[0], self.shape[0])
        offset = self._offset + start * self.pitch
        shape = (count, *self.shape[1:])
        if len(slices) == 2:
            start, count = _bounds(slices[1], self.shape[1])
            offset += start * prod(self.shape[2:]) * self.dtype.itemsize
            shape = (shape[0], count, *shape[2:])
        return CudaArray(self.stream, self._memory, offset, shape, self.dtype, self.pitch)

    def __setitem__(self, key, value) -> None:
        """Copy from the device or the host, whose values are cast as numpy casts them."""
        view = self[key]
        if not isinstance(value, CudaArray) or value.dtype != view.dtype:  # the device has no casting copy
            values = np.broadcast_to(np.asarray(value), view.shape)
            view._write(values.astype(view.dtype, casting="same_kind", copy=False))
        elif value.shape != view.shape:
            raise ValueError(f"an array of {value.shape} does not fit into one of {view.shape}")
        else:
            to_device = cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice
            _copy(view.pointer, view.pitch, value, to_device)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """The values on the host, once the device has computed them."""
        host = np.empty(self.shape, self.dtype)
        _copy(host.ctypes.data, self.item_bytes, self, cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost)
        self.stream.synchronize()
        return host if dtype is None else host.astype(dtype, copy=False)

    def _write(self, source: np.ndarray) -> None:
        if self.contiguous:
            return self.stream.write(self.pointer, source)
        for index, values in enumerate(source):
            self[index]._write(values)


def _copy(to: int, to_pitch: int, source: CudaArray, kind) -> None:
    """Copy an array to the address `to`, where its items are to lie `to_pitch` bytes apart."""
    if not source.nbytes:
        return
    handle = source.stream.handle
    width = source.item_bytes
    rows = source.shape[0] if source.shape else 1
    if rows == 1 or source.pitch == to_pitch == width:
        check(cudart.cudaMemcpyAsync(to, source.pointer, source.nbytes, kind, handle))
    else:
        check(cudart.cudaMemcpy2DAsync(to, to_pitch, source.pointer, source.pitch, width, rows, kind, handle))


def _bounds(part, length: int) -> tuple[int, int]:
    """(start, count) of a slice; IndexError for what numpy would not take or would cut silently."""
    if not isinstance(part, slice) or part.step not in (None, 1):
        raise IndexError(f"{part!r}: arrays on the device take slices of step 1 along the first two axes")
    start = _from_start(part.start, length, default=0)
    stop = _from_start(part.stop, length, default=length)
    if not 0 <= start <= stop <= length:
        raise IndexError(f"{part.start}:{part.stop} is outside 0 to {length}")
    return start, stop - start


def _from_start(index: int | None, length: int, default: int) -> int:
    """An end of a slice counted from the start."""
    if index is None:
        return default
    return int(index + length if index < 0 else index)


def _free(retired: list[tuple[int, int]]) -> None:
    """Give all of it back.

    The results of cudaFree are not checked: it repeats errors of earlier calls, which were raised there.
    """
    while retired:
        _, pointer = retired.pop()
        cudart.cudaFree(pointer)
