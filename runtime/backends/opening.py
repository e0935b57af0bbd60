"""Which backends there are, one record each, and how an engine of each is opened."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...plugins import library
from ..bundle import Bundle
from ..engine import Engine
from .backend import Backend, DecoderFlavours, EngineFiles, EngineOptions
from .engine_store import PROJECTOR_FILE, find_engines, this_target
from .flavours import FIXED_CAPACITY, GQA, GQA_INT8_KV, GROWING, STANDARD, STANDARD_QUANTISED, takes_gqa
from .trt_library import TENSORRT, TENSORRT_RTX, load_library

if TYPE_CHECKING:
    from .cuda import Stream

HALF = "float16"  # a KV cache of its own type, which needs no other graph
ONNX_FILES = {"encoder": "encoder.onnx", "merge": "merge.onnx"}  # the decoder's is named by its flavour


def open_engine(
    path: Path,
    backend: str = "onnxruntime",
    device: str | None = None,
    threads: int | None = None,
    stepping: bool = False,
) -> Engine:
    """One engine from its file, apart from any bundle; see `EngineOptions`."""
    device = check_device(backend, device)
    chosen = find_backend(backend)
    return chosen.open(path, EngineOptions(device, threads, open_stream(chosen, device), stepping=stepping))


def open_stream(backend: Backend, device: str) -> "Stream | None":
    """The stream for all work on a GPU, None on the CPU; what the backend lacks is checked before CUDA."""
    if device == "cpu":
        return None
    backend.require(device)
    from .cuda import Stream

    return Stream()


def find_backend(name: str) -> Backend:
    """The backend `name`; ValueError names those there are."""
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; backends are {', '.join(BACKENDS)}")
    return BACKENDS[name]


def check_device(backend: str, device: str | None) -> str:
    """The device, or the backend's default for None; ValueError for a backend or device not known."""
    devices = find_backend(backend).devices
    if device is not None and device not in devices:
        raise ValueError(f"unknown device {device!r}; devices of {backend} are {', '.join(devices)}")
    return device or next(iter(devices))


def decoder_flavour(backend: str, device: str, quantised: bool = False, kv_cache: str | None = None) -> str:
    """Which decoder graph of a bundle runs on `device`; ValueError for an unknown backend, device or cache.

    kv_cache: None, of the type of the activations, or one of KV_CACHES
    """
    flavours = find_backend(backend).devices[check_device(backend, device)]
    if kv_cache is not None:
        if kv_cache not in flavours.kv_caches:
            raise ValueError(
                f"a KV cache of {kv_cache} is not available on {backend} {device}; "
                f"{' and '.join(KV_CACHES)} are available on onnxruntime cpu"
            )
        return flavours.kv_caches[kv_cache]
    return flavours.quantised if quantised and flavours.quantised else flavours.float


def bundle_flavour(bundle: Bundle, backend: str, device: str, kv_cache: str | None = None) -> str:
    """The same of one bundle: where ONNX Runtime's own attention does not take the model's head size, its CPU
    runs the standard decoder that is for GPUs."""
    quantised = bundle.manifest.precision.for_onnxruntime
    flavour = decoder_flavour(backend, device, quantised, kv_cache)
    if flavour == GQA and not takes_gqa(bundle.manifest.decoder.head_dim):
        return decoder_flavour(backend, "cuda", quantised)
    return flavour


def _require_onnxruntime(device: str) -> None:
    from .ort import check_provider

    check_provider(device)


def _open_onnxruntime(path: Path, options: EngineOptions) -> Engine:
    from .ort import OrtEngine

    return OrtEngine(path, options)


def _onnx_files(bundle: Bundle, device: str, kv_cache: str | None) -> EngineFiles:
    precision = bundle.manifest.precision
    if reason := precision.obstacle(device):
        raise ValueError(
            f"bundle {bundle.path} ({precision}) does not run on the {device.upper()}: {reason}; "
            "export one that does (ltbm export CHECKPOINT BUNDLE --precision int4), "
            "or give another --device or --backend"
        )
    flavour = bundle_flavour(bundle, "onnxruntime", device, kv_cache)
    if kv_cache:
        _require_kv_cache(bundle, kv_cache, flavour)
    names = ONNX_FILES | {"decoder": f"decoder.{flavour}.onnx"}
    cuda_op = None if device == "cpu" else find_cuda_op(bundle, "as a graph of standard operators")
    if cuda_op:
        names["merge"] = PROJECTOR_FILE
    return EngineFiles(flavour, {stage: bundle.file(name) for stage, name in names.items()}, cuda_op)


def find_cuda_op(bundle: Bundle, otherwise: str) -> Path | None:
    """libltbm_cuda.so for the merge stage; None, with a warning that says why, where the stage has to run
    `otherwise`."""
    path = library.cuda_library()
    if path and PROJECTOR_FILE in bundle.manifest.files:
        return path
    if path:
        reason = f"bundle {bundle.path} has no {PROJECTOR_FILE}: run `ltbm export` again"
    else:
        reason = f"there is no {library.CUDA_NAME}: {library.BUILD_CUDA}"
    warnings.warn(
        f"the merge runs {otherwise}, slower and with the same result: {reason}", RuntimeWarning, stacklevel=5
    )
    return None


def _require_kv_cache(bundle: Bundle, kv_cache: str, flavour: str) -> None:
    from .ort import check_kv_cache

    if kv_cache == HALF and flavour != GQA:
        raise ValueError(
            f"{bundle.path} runs {flavour}, whose KV cache has the type of the activations (ONNX Runtime's "
            f"attention takes no heads of {bundle.manifest.decoder.head_dim} values): leave --kv-cache out"
        )
    if flavour not in bundle.manifest.flavours:
        raise FileNotFoundError(
            f"bundle {bundle.path} has no decoder with an int8 KV cache; add it: "
            f"ltbm calibrate {bundle.path} --audio CLIPS"
        )
    check_kv_cache(kv_cache)


def _require_tensorrt(device: str) -> None:
    load_library(TENSORRT)


def _require_tensorrt_rtx(device: str) -> None:
    load_library(TENSORRT_RTX)


def _open_tensorrt(path: Path, options: EngineOptions) -> Engine:
    from .trt import TensorRTEngine

    assert options.stream is not None, "TensorRT runs on a GPU, where there is a stream"
    return TensorRTEngine(path, options.stream, load_library(TENSORRT))


def _open_tensorrt_rtx(path: Path, options: EngineOptions) -> Engine:
    """An engine on the GPU; the merge, where its op cannot be called there, on the CPU."""
    from .host_engine import HostEngine
    from .trt import TensorRTEngine

    assert options.stream is not None, "TensorRT runs on a GPU, where there is a stream"
    if path.suffix != ".onnx":
        return TensorRTEngine(path, options.stream, load_library(TENSORRT_RTX))
    on_host = replace(options, device="cpu", stream=None)
    return HostEngine(_open_onnxruntime(path, on_host), options.stream)


def _tensorrt_files(bundle: Bundle, device: str, kv_cache: str | None) -> EngineFiles:
    return _engine_files(TENSORRT, bundle, device, kv_cache)


def _tensorrt_rtx_files(bundle: Bundle, device: str, kv_cache: str | None) -> EngineFiles:
    return _engine_files(TENSORRT_RTX, bundle, device, kv_cache)


def _engine_files(backend: str, bundle: Bundle, device: str, kv_cache: str | None) -> EngineFiles:
    """The engines that `ltbm build` made.

    Without plugins the merge is the CUDA op and an engine, or a graph on the CPU.
    """
    if kv_cache is not None:
        decoder_flavour(backend, device, kv_cache=kv_cache)  # says that there is none
    engines = find_engines(bundle, this_target(backend))
    files = {name: engines.file(name) for name in engines.key.target.stages}
    cuda_op = None
    if backend == TENSORRT_RTX:
        projector = files.pop("projector")
        cuda_op = find_cuda_op(bundle, "on the CPU")
        files["merge"] = projector if cuda_op else bundle.file(ONNX_FILES["merge"])
    return EngineFiles(engines.key.flavour, files, cuda_op)


_ONNXRUNTIME = Backend(
    "onnxruntime",
    {
        "cpu": DecoderFlavours(GQA, kv_caches={"int8": GQA_INT8_KV, HALF: GQA}),
        # GroupQueryAttention takes no key bias there
        "cuda": DecoderFlavours(STANDARD, quantised=STANDARD_QUANTISED),
        # this provider updates no cache in place
        "tensorrt": DecoderFlavours(GROWING),
    },
    _require_onnxruntime,
    _onnx_files,
    _open_onnxruntime,
)
_TENSORRT = Backend(
    TENSORRT,
    # of TensorRT from 10.15 on: engines record theirs (`tensorrt_flavour`)
    {"cuda": DecoderFlavours(FIXED_CAPACITY)},
    _require_tensorrt,
    _tensorrt_files,
    _open_tensorrt,
)
_TENSORRT_RTX = Backend(
    TENSORRT_RTX,
    {"cuda": DecoderFlavours(FIXED_CAPACITY)},
    _require_tensorrt_rtx,
    _tensorrt_rtx_files,
    _open_tensorrt_rtx,
)
KV_CACHES = tuple(_ONNXRUNTIME.devices["cpu"].kv_caches)
BACKENDS = {backend.name: backend for backend in (_ONNXRUNTIME, _TENSORRT, _TENSORRT_RTX)}
