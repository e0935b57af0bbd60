"""What a backend gives: an engine runs one stage's graph on named arrays, checked by name, type and shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

BACKENDS = {"onnxruntime": {"cpu": "gqa", "cuda": "std24"}}
"""Backend -> device -> the decoder flavour that runs there. ONNX Runtime's GroupQueryAttention refuses the key bias on CUDA."""


@dataclass(frozen=True)
class TensorSpec:
    """A graph input or output; None stands for a dimension that varies."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]

    def check(self, array: np.ndarray) -> None:
        fits = len(array.shape) == len(self.shape) and all(d in (None, n) for d, n in zip(self.shape, array.shape))
        if array.dtype != self.dtype or not fits:
            wanted = "x".join("?" if d is None else str(d) for d in self.shape)
            got = "x".join(map(str, array.shape))
            raise ValueError(f"engine input {self.name} is {array.dtype} {got}, expected {self.dtype} {wanted}")


class Binding(Protocol):
    """An engine with some inputs and outputs fixed to device buffers."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run with the remaining inputs; the remaining outputs by name, valid until the next run."""


class Engine(Protocol):
    """One stage's graph, loaded on a device."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name. ValueError if an input is missing, unknown, or of the wrong type or shape."""

    def zeros(self, shape: tuple[int, ...], dtype) -> object:
        """A buffer of zeros on the engine's device, to fix in a binding."""

    def bind(self, fixed: Mapping[str, object]) -> Binding:
        """Fix inputs and outputs to buffers; one buffer under an input's and an output's name is updated in place."""

    def close(self) -> None:
        """Free what the engine holds."""


def check_inputs(specs: Mapping[str, TensorSpec], inputs: Mapping[str, np.ndarray]) -> None:
    missing, unknown = sorted(specs.keys() - inputs.keys()), sorted(inputs.keys() - specs.keys())
    if missing or unknown:
        raise ValueError(f"engine inputs do not match: missing {missing or 'none'}, unknown {unknown or 'none'}")
    for name, array in inputs.items():
        specs[name].check(array)


def open_engine(path: Path, backend: str, device: str, threads: int | None = None) -> Engine:
    """Load the ONNX graph at `path`; ImportError with the pip command if the backend is not installed."""
    check_backend(backend)
    from ltbm.runtime.ort import OrtEngine

    return OrtEngine(path, device, threads)


def check_backend(backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; backends are {', '.join(BACKENDS)}")


def decoder_flavour(backend: str, device: str) -> str:
    """Which of a bundle's decoder graphs runs on `device`; ValueError for a backend or device not known."""
    check_backend(backend)
    if device not in BACKENDS[backend]:
        raise ValueError(f"unknown device {device!r}; devices of {backend} are {', '.join(BACKENDS[backend])}")
    return BACKENDS[backend][device]
