"""Memory on a CUDA GPU behind the Array interface, one stream for all of it,
and graphs of what the stream did."""

import ctypes
import weakref
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

try:
    from cuda.bindings import runtime as cudart  # pyright: ignore[reportMissingImports]  # of an extra
except ImportError as error:
    raise ImportError(
        f"arrays on the GPU need cuda-bindings ({error}): pip install 'cuda-bindings==12.*' under CUDA 12 "
        "(JetPack 6 too), 'cuda-bindings>=13' under CUDA 13"
    ) from None

STAGING_BYTES = 4 * 2**20  # pinned host memory through which copies to the device go
RETIRED_BYTES = 64 * 2**20  # of device memory that may wait to be freed


def check(result: tuple) -> Any:
    """The values of a CUDA call (none, one, or a tuple); MemoryError or RuntimeError if it failed."""
    error, *values = result
    if error != cudart.cudaError_t.cudaSuccess:
        _, text = cudart.cudaGetErrorString(error)
        text = text.decode() if isinstance(text, bytes) else text
        if error == cudart.cudaError_t.cudaErrorMemoryAllocation:
            raise MemoryError(
                f"the GPU has no memory left ({text}): end other programs, keep fewer audio tokens, or open "
                "with low_memory"
            )
        raise RuntimeError(f"CUDA call failed: {text}; `ltbm doctor` says what this machine lacks")
    return values[0] if len(values) == 1 else tuple(values) or None


def free_memory() -> int:
    """Bytes free on the device."""
    return check(cudart.cudaMemGetInfo())[0]


class Stream:
    """The order in which everything on the GPU happens, and the source of its memory.

    Copies from the host pass through pinned memory of its own,
    so the caller may change or free the source at once.
    Memory that nobody holds any more is used again, or freed when someone waits anyhow:
    cudaFree would wait for all work.
    """

    def __init__(self):
        self.handle = int(check(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking)))
        weakref.finalize(self, cudart.cudaStreamDestroy, self.handle)
        pointer = int(check(cudart.cudaHostAlloc(STAGING_BYTES, cudart.cudaHostAllocDefault)))
        weakref.finalize(self, cudart.cudaFreeHost, pointer)
        self._staging = np.ctypeslib.as_array((ctypes.c_uint8 * STAGING_BYTES).from_address(pointer))
        self._staged = 0  # bytes of it that copies still read
        self._retired: list[tuple[int, int]] = []  # (bytes, pointer)
        weakref.finalize(self, _free, self._retired)

    def synchronize(self) -> None:
        """Wait until all that was asked for is done."""
        check(cudart.cudaStreamSynchronize(self.handle))
        self._staged = 0
        _free(self._retired)

    def empty(self, shape: tuple[int, ...], dtype) -> "CudaArray":
        dtype = np.dtype(dtype)
        return CudaArray(self, Memory(self, prod(shape) * dtype.itemsize), 0, tuple(map(int, shape)), dtype)

    def zeros(self, shape: tuple[int, ...], dtype) -> "CudaArray":
        array = self.empty(shape, dtype)
        if array.nbytes:
            check(cudart.cudaMemsetAsync(array.pointer, 0, array.nbytes, self.handle))
        return array

    def allocate(self, nbytes: int) -> int:
        """The address of so many bytes: retired ones of that size, or new ones."""
        for index, (size, pointer) in enumerate(self._retired):
            if size == nbytes:
                del self._retired[index]
                return pointer
        try:
            return int(check(cudart.cudaMalloc(nbytes)))
        except MemoryError:
            if not self._retired:
                raise
        self.synchronize()
        return int(check(cudart.cudaMalloc(nbytes)))

    def retire(self, nbytes: int, pointer: int) -> None:
        """Work that was asked for may still use these bytes; what is asked for from now on comes after it."""
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
        for start in range(0, len(data), STAGING_BYTES):
            part = data[start : start + STAGING_BYTES]
            if self._staged + len(part) > STAGING_BYTES:
                self.synchronize()
            staged = self._staging[self._staged : self._staged + len(part)]
            staged[:] = part
            self._staged += len(part)
            check(
                cudart.cudaMemcpyAsync(
                    pointer + start,
                    staged.ctypes.data,
                    len(part),
                    cudart.cudaMemcpyKind.cudaMemcpyHostToDevice,
                    self.handle,
                )
            )

    def capture(self, work: Callable[[], None]) -> "Graph":
        """What `work` asks of the stream, as a graph, without doing it;
        RuntimeError if something in it cannot be captured."""
        check(
            cudart.cudaStreamBeginCapture(
                self.handle, cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
            )
        )
        try:
            work()
        finally:
            ended = cudart.cudaStreamEndCapture(self.handle)  # leaves capture mode, whatever happened
        return Graph(self, check(ended))


class Graph:
    """Work that was captured on a stream and runs with one call."""

    def __init__(self, stream: Stream, captured):
        self._stream = stream
        try:
            self._executable = check(cudart.cudaGraphInstantiate(captured, 0))
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

    Items along the first axis are contiguous and `pitch` bytes apart;
    everything happens in the order of the stream.
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
        self._memory = memory
        self._offset = offset
        self.shape = shape
        self.dtype = dtype
        self.item_bytes = prod(shape[1:]) * dtype.itemsize
        self.pitch = self.item_bytes if pitch is None else pitch

    @property
    def pointer(self) -> int:
        return self._memory.pointer + self._offset

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @property
    def contiguous(self) -> bool:
        return self.pitch == self.item_bytes or self.shape[0] <= 1

    def reshape(self, *shape: int) -> "CudaArray":
        if not self.contiguous:
            raise ValueError(
                f"an array of pitch {self.pitch} cannot be reshaped from {self.shape} to {shape}"
            )
        full = _full_shape(shape, prod(self.shape))
        if prod(full) != prod(self.shape):
            raise ValueError(f"{self.shape} has not as many values as {full}")
        return CudaArray(self.stream, self._memory, self._offset, full, self.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key) -> "CudaArray":
        """A view: an index or a slice along the first axis, or a slice of the first and one of the second."""
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, (int, np.integer)) and not rest:
            index = int(first)
            start, _ = _bounds(slice(index, index + 1 or None), self.shape[0])
            offset = self._offset + start * self.pitch
            return CudaArray(self.stream, self._memory, offset, self.shape[1:], self.dtype)
        start, count = _bounds(first, self.shape[0])
        offset = self._offset + start * self.pitch
        shape = (count, *self.shape[1:])
        for part in rest:
            start, count = _bounds(part, self.shape[1])
            offset += start * prod(self.shape[2:]) * self.dtype.itemsize
            shape = (shape[0], count, *shape[2:])
        return CudaArray(self.stream, self._memory, offset, shape, self.dtype, self.pitch)

    def __setitem__(self, key, value) -> None:
        """Copy from the device or the host, whose values are cast as numpy casts them."""
        target = self[key]
        if not isinstance(value, CudaArray) or value.dtype != target.dtype:  # the device has no casting copy
            host = np.broadcast_to(np.asarray(value), target.shape)
            target._write(host.astype(target.dtype, casting="same_kind", copy=False))
        elif value.shape != target.shape:
            raise ValueError(f"an array of {value.shape} does not fit into one of {target.shape}")
        else:
            kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice
            _copy(target.pointer, target, value.pointer, value, kind)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """The values on the host, once the device has computed them."""
        host = np.empty(self.shape, self.dtype)
        _copy(host.ctypes.data, None, self.pointer, self, cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost)
        self.stream.synchronize()
        return host if dtype is None else host.astype(dtype, copy=False)

    def _write(self, source: np.ndarray) -> None:
        if self.contiguous:
            return self.stream.write(self.pointer, source)
        for row, values in enumerate(source):
            self[row]._write(values)


def _full_shape(shape: tuple[int, ...], total: int) -> tuple[int, ...]:
    """`shape` with -1 replaced by what is left of `total` values."""
    known = prod(n for n in shape if n != -1)
    left = total // known if known else 0
    return tuple(left if n == -1 else int(n) for n in shape)


def _copy(to: int, target: CudaArray | None, source: int, array: CudaArray, kind) -> None:
    """Copy `array` from the address `source` to `to`, laid out as `target`, or without gaps for None."""
    if not array.nbytes:
        return
    handle = array.stream.handle
    without_gaps = target is None or target.contiguous
    if without_gaps and array.contiguous:
        check(cudart.cudaMemcpyAsync(to, source, array.nbytes, kind, handle))
        return
    pitched = array if target is None or not array.contiguous else target
    width = pitched.item_bytes
    target_pitch = width if target is None or target.contiguous else target.pitch
    source_pitch = width if array.contiguous else array.pitch
    rows = pitched.shape[0]
    check(cudart.cudaMemcpy2DAsync(to, target_pitch, source, source_pitch, width, rows, kind, handle))


def _bounds(part: Any, length: int) -> tuple[int, int]:
    """(start, count) of a slice; IndexError for what numpy would not take or would cut silently."""
    if not isinstance(part, slice) or part.step not in (None, 1):
        raise IndexError(f"{part!r}: arrays on the device take slices of step 1 along the first two axes")
    start = 0 if part.start is None else part.start + length * (part.start < 0)
    stop = length if part.stop is None else part.stop + length * (part.stop < 0)
    if not 0 <= start <= stop <= length:
        raise IndexError(f"{part.start}:{part.stop} is outside 0 to {length}")
    return int(start), int(stop - start)


def _free(retired: list[tuple[int, int]]) -> None:
    """Give all of it back. What cudaFree returns is not looked at: it repeats errors of earlier calls,
    and nobody could be told."""
    while retired:
        cudart.cudaFree(retired.pop()[1])
