"""Which backends there are, and how an engine of each is opened."""

from pathlib import Path

from ..engine import Engine

BACKENDS = {
    "onnxruntime": {"cpu": "gqa", "cuda": "std24", "tensorrt": "concat20"},
    "tensorrt": {"cuda": "std24"},
}
"""Backend -> device, the default first -> the decoder flavour that runs there.

ONNX Runtime's GroupQueryAttention refuses the key bias on CUDA. Its TensorRT provider knows no cache in place, nor does
TensorRT itself before 10.15, whose engines are then of concat20 (`engine_cache`).
"""
QUANTISED = {("onnxruntime", "cuda"): "ort24"}
"""The flavour instead where weights are int4 or int8 as ONNX Runtime's own product reads them."""
INT8_KV = {("onnxruntime", "cpu"): "gqa8"}
"""The flavour instead with an int8 KV cache, where `ltbm calibrate` has added it."""


def open_engine(
    path: Path,
    backend: str,
    device: str,
    threads: int | None = None,
    stream=None,
    profile=None,
    stepping: bool = False,
) -> Engine:
    """Load the ONNX graph, or for the tensorrt backend the engine, at `path`; ImportError with the pip command for what is missing.

    stream: `ltbm.runtime.backends.cuda.Stream` that orders the work on a GPU; profile: `shape_ranges.Profile` for ONNX Runtime's TensorRT
    stepping: each run follows the one before at once, as the LLM's do; ONNX Runtime's threads on the CPU stay awake for it
    """
    check_device(backend, device)
    stream = stream or open_stream(backend, device)
    if backend == "tensorrt":
        from .trt import TensorRTEngine

        return TensorRTEngine(path, stream)
    from .ort import OrtEngine

    return OrtEngine(path, device, threads, stream, profile, stepping)


def open_stream(backend: str, device: str):
    """The stream for all work on a GPU; None on the CPU. What the backend lacks is said before what CUDA lacks."""
    if device == "cpu":
        return None
    if backend == "onnxruntime":
        from .ort import check_provider

        check_provider(device)
    from .cuda import Stream

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
            raise ValueError(
                f"a KV cache of {kv_cache} is not there on {backend} {device}; int8 is, on onnxruntime cpu"
            )
        return INT8_KV[backend, device]
    flavour = QUANTISED.get((backend, device))
    return flavour if quantised and flavour else BACKENDS[backend][device]
