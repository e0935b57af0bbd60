"""What a backend gives: an engine runs one stage's graph on named arrays, checked by name, type and shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

BFLOAT16 = np.dtype([("bfloat16", "<u2")])
"""numpy has no bfloat16: its bits, under a type of their own."""


class Array(Protocol):
    """Memory on an engine's device: the part of numpy's interface that the stages use.

    Slices along the first axis and reshapes are views, assignment to a slice copies (from the host or the
    device), and numpy.asarray gives the values on the host, waiting for the device.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def nbytes(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...

    def __setitem__(self, key: Any, value: Any, /) -> None: ...

    def __len__(self) -> int: ...

    def __array__(self, dtype: Any = None, /) -> np.ndarray: ...

    def reshape(self, *shape: int) -> Any: ...


class DeviceArray(Array, Protocol):
    """Memory that is not the host's."""

    @property
    def pointer(self) -> int:
        """The device address of its first byte."""
        ...

    @property
    def contiguous(self) -> bool:
        """Whether its values follow one another without a gap."""
        ...


@dataclass(frozen=True)
class TensorSpec:
    """A graph input or output; None stands for a dimension that varies."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]

    @property
    def width(self) -> int:
        """The last dimension, which is fixed in all our graphs."""
        width = self.shape[-1]
        assert width is not None, f"{self.name} has no fixed last dimension"
        return width

    def check(self, array: Array) -> None:
        """ValueError unless the array has this type and shape."""
        if array.dtype != self.dtype or not self._fits(array.shape):
            expected = "x".join("?" if n is None else str(n) for n in self.shape)
            got = "x".join(map(str, array.shape))
            raise ValueError(
                f"engine tensor {self.name} is {array.dtype} {got}, expected {self.dtype} {expected}"
            )

    def _fits(self, shape: tuple[int, ...]) -> bool:
        if len(shape) != len(self.shape):
            return False
        return all(expected in (None, n) for expected, n in zip(self.shape, shape))


class Binding(Protocol):
    """An engine whose inputs and outputs are fixed to arrays."""

    def run(self) -> None:
        """Read the inputs as they are now, write the outputs; on a device, in the order of its stream."""
        ...


class Engine(Protocol):
    """One stage's graph, loaded on a device."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name, on the host; ValueError for inputs that do not fit by name, type or shape."""
        ...

    def zeros(self, shape: tuple[int, ...], dtype) -> Array:
        """An array of zeros on the engine's device."""
        ...

    def bind(self, arrays: Mapping[str, Array], once: bool = False) -> Binding:
        """Fix every input and output to an array; host arrays among the inputs are read when they are bound.

        One array under the names of an input and an output is updated in place.
        once: for one run over many tokens; what it takes beside the arrays may be given back after it
        """
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


def address_of(array: Array) -> int:
    """Of the array's first byte, on the host or on the device."""
    if isinstance(array, np.ndarray):
        return array.ctypes.data
    return cast(DeviceArray, array).pointer


def is_contiguous(array: Array) -> bool:
    """Whether the array's values follow one another without a gap, on the host or on the device."""
    if isinstance(array, np.ndarray):
        return array.flags.c_contiguous
    return cast(DeviceArray, array).contiguous


def check_arrays(specs: Mapping[str, TensorSpec], arrays: Mapping[str, Array]) -> None:
    """ValueError unless `arrays` are those of `specs`, by name, type and shape."""
    missing = sorted(specs.keys() - arrays.keys())
    unknown = sorted(arrays.keys() - specs.keys())
    if missing or unknown:
        raise ValueError(
            f"engine tensors do not match: missing {missing or 'none'}, unknown {unknown or 'none'}"
        )
    for name, array in arrays.items():
        specs[name].check(array)
