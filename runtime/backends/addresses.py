"""Where the values of an array lie: on the host for numpy's arrays, else on the GPU."""

from typing import Protocol, cast

import numpy as np

from ..engine import Array


class DeviceArray(Array, Protocol):
    """An array on the GPU, as `cuda.CudaArray` is; that module is not there on machines without CUDA."""

    @property
    def pointer(self) -> int: ...

    @property
    def contiguous(self) -> bool: ...


def address(array: Array) -> int:
    """The address of the first value."""
    if isinstance(array, np.ndarray):
        return array.ctypes.data
    return cast(DeviceArray, array).pointer


def is_contiguous(array: Array) -> bool:
    """Whether the values lie one after the other, in the order of their indices."""
    if isinstance(array, np.ndarray):
        return array.flags.c_contiguous
    return cast(DeviceArray, array).contiguous
