"""What a backend gives: an engine runs one stage's graph on named arrays, checked by name, type and shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

BACKENDS = {"onnxruntime": {"cpu": "gqa", "cuda": "std24", "tensorrt": "concat20"}, "tensorrt": {"cuda": "std24"}}
"""Backend -> device, the default first -> the decoder flavour that runs there.

ONNX Runtime's GroupQueryAttention refuses the key bias on CUDA. Its TensorRT provider knows no cache in place, nor does
TensorRT itself before 10.15, whose engines are then of concat20 (`engine_cache`).
"""
QUANTISED = {("onnxruntime", "cuda"): "ort24"}
"""The flavour instead where weights are int4 or int8 as ONNX Runtime's own product reads them."""
INT8_KV = {("onnxruntime", "cpu"): "gqa8"}
"""The flavour instead with an int8 KV cache, where `ltbm calibrate` has added it."""
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
        fits = len(array.shape) == len(self.shape) and all(d in (None, n) for d, n in zip(self.shape, array.shape))
        if array.dtype != self.dtype or not fits:
            wanted = "x".join("?" if d is None else str(d) for d in self.shape)
            got = "x".join(map(str, array.shape))
            raise ValueError(f"engine tensor {self.name} is {array.dtype} {got}, expected {self.dtype} {wanted}")


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
        raise ValueError(f"engine tensors do not match: missing {missing or 'none'}, unknown {unknown or 'none'}")
    for name, array in arrays.items():
        specs[name].check(array)


def open_engine(path: Path, backend: str, device: str, threads: int | None = None, stream=None, profile=None,
                stepping: bool = False) -> Engine:
    """Load the ONNX graph, or for the tensorrt backend the engine, at `path`; ImportError with the pip command for what is missing.

    stream: `ltbm.runtime.cuda.Stream` that orders the work on a GPU; profile: `shape_ranges.Profile` for ONNX Runtime's TensorRT
    stepping: each run follows the one before at once, as the LLM's do; ONNX Runtime's threads on the CPU stay awake for it
    """
    check_device(backend, device)
    stream = stream or open_stream(backend, device)
    if backend == "tensorrt":
        from ltbm.runtime.trt import TensorRTEngine

        return TensorRTEngine(path, stream)
    from ltbm.runtime.ort import OrtEngine

    return OrtEngine(path, device, threads, stream, profile, stepping)


def open_stream(backend: str, device: str):
    """The stream for all work on a GPU; None on the CPU. What the backend lacks is said before what CUDA lacks."""
    if device == "cpu":
        return None
    if backend == "onnxruntime":
        from ltbm.runtime.ort import check_provider

        check_provider(device)
    from ltbm.runtime.cuda import Stream

    return Stream()


def check_device(backend: str, device: str | None) -> str:
    """The device, or the backend's default for None; ValueError for a backend or device not known."""
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; backends are {', '.join(BACKENDS)}")
    devices = BACKENDS[backend]
    if device is not None and device not in devices:
        raise ValueError(f"unknown device {device!r}; devices of {backend} are {', '.join(devices)}")
    return device or next(iter(devices))


def decoder_flavour(backend: str, device: str, quantised: bool = False, kv_cache: str | None = None) -> str:
    """Which of a bundle's decoder graphs runs on `device`; ValueError for a backend, device or cache not known there.

    kv_cache: None, of the type of the activations, or int8
    """
    check_device(backend, device)
    if kv_cache is not None:
        if kv_cache != "int8" or (backend, device) not in INT8_KV:
            raise ValueError(f"a KV cache of {kv_cache} is not there on {backend} {device}; int8 is, on onnxruntime cpu")
        return INT8_KV[backend, device]
    flavour = QUANTISED.get((backend, device))
    return flavour if quantised and flavour else BACKENDS[backend][device]
