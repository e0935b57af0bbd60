"""What a backend gives: an engine runs one stage's graph on named arrays, checked by name, type and shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

BFLOAT16 = np.dtype([("bfloat16", "<u2")])
"""numpy has no bfloat16: its bits, under a type of their own."""


class Array(Protocol):
    """Memory on an engine's device with the part of numpy's interface that the stages use; on the CPU a numpy array.

    Slices along the first axis and reshapes are views, assignment to a slice copies (from the host or the device), and
    numpy.asarray gives the values on the host, waiting for the device.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    nbytes: int

    def __getitem__(self, key) -> "Array": ...

    def __setitem__(self, key, value) -> None: ...

    def reshape(self, *shape: int) -> "Array": ...


@dataclass(frozen=True)
class TensorSpec:
    """A graph input or output; None stands for a dimension that varies."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]

    def check(self, array: Array) -> None:
        fits = len(array.shape) == len(self.shape) and all(
            d in (None, n) for d, n in zip(self.shape, array.shape)
        )
        if array.dtype != self.dtype or not fits:
            wanted = "x".join("?" if d is None else str(d) for d in self.shape)
            got = "x".join(map(str, array.shape))
            raise ValueError(
                f"engine tensor {self.name} is {array.dtype} {got}, expected {self.dtype} {wanted}"
            )


class Binding(Protocol):
    """An engine whose inputs and outputs are fixed to arrays."""

    def run(self) -> None:
        """Read the input arrays as they are now, write the output arrays; on a device, in the order of its stream."""


class Engine(Protocol):
    """One stage's graph, loaded on a device."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name, on the host. ValueError if an input is missing, unknown, or of the wrong type or shape."""

    def zeros(self, shape: tuple[int, ...], dtype) -> Array:
        """An array of zeros on the engine's device."""

    def bind(self, arrays: Mapping[str, Array]) -> Binding:
        """Fix every input and output to an array; host arrays among the inputs are read at the time of binding.

        One array under the names of an input and an output is updated in place.
        """

    def close(self) -> None:
        """Free what the engine holds."""


def check_arrays(specs: Mapping[str, TensorSpec], arrays: Mapping[str, Array]) -> None:
    """ValueError unless `arrays` are those of `specs`, by name, type and shape."""
    missing, unknown = sorted(specs.keys() - arrays.keys()), sorted(arrays.keys() - specs.keys())
    if missing or unknown:
        raise ValueError(
            f"engine tensors do not match: missing {missing or 'none'}, unknown {unknown or 'none'}"
        )
    for name, array in arrays.items():
        specs[name].check(array)
