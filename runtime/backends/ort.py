"""The ONNX Runtime backend: one InferenceSession a stage, bound to arrays by their addresses."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..machine import Machine, onnxruntime_advice, onnxruntime_gpu_advice

try:
    import onnxruntime
except ImportError:
    raise ImportError(f"the onnxruntime backend needs onnxruntime: {onnxruntime_advice(Machine())}") from None

from ...plugins import library
from ..engine import BFLOAT16, Array, TensorSpec, address_of, check_arrays, is_contiguous
from ..versions import dots, version_tuple
from .backend import EngineOptions
from .engine_store import FOLDER, weights_file
from .half_cache import with_half_cache
from .native_products import with_native_products
from .shape_ranges import OptimisationProfile

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bfloat16)": BFLOAT16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
ONNX_BFLOAT16 = 16  # TensorProto.BFLOAT16
STEPPING_SPIN_US = 1000
"""How long threads of a stepping engine stay awake after a run, four times the host's share of a step."""
RELEASE_ABOVE = 2**28
"""Bytes of weights above which an engine gives its activations back after a run over many tokens.

They are 0.45 to 1 GB in the encoder after 30 s of sound, 0.2 GB in the LLM after 780 tokens, which the next
stage can use. Taking them anew costs 0.4 % of a run of 32 layers, 1280 wide, but a sixth of the demo's (30 s,
one thread)."""
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
KV_CACHES_SINCE = (1, 27)  # onnxruntime 1.24 refuses types of their own, 1.26 crashes with int8


class OrtEngine:
    """A graph on ONNX Runtime, on `cpu`, `cuda` or `tensorrt`; on a GPU its work is on the given stream."""

    def __init__(self, path: Path, options: EngineOptions):
        self.device = options.device
        self._stream = options.stream
        session = _open_session(path, options)
        self._session: onnxruntime.InferenceSession | None = session
        self._run_options = onnxruntime.RunOptions()
        self._releasing_options = onnxruntime.RunOptions()
        for run_options in (self._run_options, self._releasing_options):
            if self._stream:  # the next stage follows on the stream: the host need not wait
                run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if _releases(path, options):
            self._releasing_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self.inputs = {value.name: _tensor_spec(value) for value in session.get_inputs()}
        self.outputs = {value.name: _tensor_spec(value) for value in session.get_outputs()}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        check_arrays(self.inputs, inputs)
        values = self._open().run(list(self.outputs), dict(inputs))
        return {name: np.asarray(value) for name, value in zip(self.outputs, values)}

    def zeros(self, shape: tuple[int, ...], dtype) -> Array:
        return self._stream.zeros(shape, dtype) if self._stream else np.zeros(shape, dtype)

    def bind(self, arrays: Mapping[str, Array], once: bool = False) -> "OrtBinding":
        check_arrays(self.inputs | self.outputs, arrays)
        run_options = self._releasing_options if once else self._run_options
        return OrtBinding(self._open(), run_options, self.inputs, arrays)

    def interrupt(self, now: bool) -> None:
        """Let a run that another thread is in fail at its next node, and every one after it, until False."""
        for run_options in (self._run_options, self._releasing_options):
            run_options.terminate = now

    def close(self) -> None:
        self._session = None

    def _open(self) -> onnxruntime.InferenceSession:
        """The session; RuntimeError once the engine is closed."""
        if self._session is None:
            raise RuntimeError("this ONNX Runtime engine is closed: open the session again")
        return self._session


class OrtBinding:
    """An OrtEngine with every input and output at a fixed address; holds the arrays, so that they stay."""

    def __init__(self, session, run_options, inputs: Mapping[str, TensorSpec], arrays: Mapping[str, Array]):
        self._session = session
        self._run_options = run_options
        self._arrays = arrays
        self._io = session.io_binding()
        for name, array in arrays.items():
            if not is_contiguous(array):
                raise ValueError(f"engine tensor {name} is not contiguous: bind a copy")
            bind = self._io.bind_input if name in inputs else self._io.bind_output
            bind(name, _device_of(array), 0, _element_type(array.dtype), array.shape, address_of(array))

    def run(self) -> None:
        self._session.run_with_iobinding(self._io, self._run_options)


def _device_of(array: Array) -> str:
    """ONNX Runtime's name of where an array is; sessions on a GPU read arrays of the host when bound."""
    return "cpu" if isinstance(array, np.ndarray) else "cuda"


def _element_type(dtype: np.dtype):
    return ONNX_BFLOAT16 if dtype == BFLOAT16 else dtype.type


def _open_session(path: Path, options: EngineOptions) -> onnxruntime.InferenceSession:
    """RuntimeError where the first provider did not start and onnxruntime took another."""
    if options.packed:
        try:
            return _start(path, options)
        except Exception as error:  # onnxruntime's own classes have nothing else in common
            warnings.warn(
                f"the packed weights of {path} are not mapped ({error}): "
                f"run `ltbm pack {path.parent} --refresh`",
                RuntimeWarning,
                stacklevel=6,
            )
    return _start(path, replace(options, packed=None))


def _start(path: Path, options: EngineOptions) -> onnxruntime.InferenceSession:
    providers = _providers(path, options)
    names = [name for name, _ in providers]
    session_options = _session_options(options)
    model = _changed_model(path, options)
    if model is not None:  # opened from bytes: its weights are named from the bundle's folder
        session_options.add_session_config_entry(WEIGHTS_FOLDER, str(path.parent))
    session = onnxruntime.InferenceSession(
        str(path) if model is None else model,
        session_options,
        providers=names,
        provider_options=[provider_options for _, provider_options in providers],
    )
    started = session.get_providers()[0]
    if started != names[0]:
        raise RuntimeError(
            f"onnxruntime could not start {names[0]} and fell back to {started}; "
            "`ltbm doctor` says which library is missing"
        )
    return session


def _changed_model(path: Path, options: EngineOptions) -> bytes | None:
    """The graph where it is not the file's, else None.

    A graph whose products are ours is not one whose weights were packed: there is nothing to pack.
    """
    if options.device != "cpu":
        return None
    stored = path.read_bytes()
    model = with_native_products(stored) if options.native_products else stored
    if options.packed and model is stored:
        model = options.packed.read_bytes()
    if options.half_cache:
        model = with_half_cache(model)
    return None if model is stored else model


def _releases(path: Path, options: EngineOptions) -> bool:
    """Whether the engine gives its activations back after a run over many tokens."""
    weights = path.with_name(weights_file(path.name.split(".")[0]))
    return options.device == "cpu" and weights.is_file() and weights.stat().st_size > RELEASE_ABOVE


def _session_options(engine: EngineOptions) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    if engine.device == "cpu":  # elsewhere the function body keeps the tokens on the device
        library.register(options)
    if engine.stepping:  # waking a thread takes 0.05 ms
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(STEPPING_SPIN_US))
    else:  # threads that spin take the cores from the next stage: a fifth to half of TTFT on 2 cores
        options.add_session_config_entry("session.force_spinning_stop", "1")
    options.enable_mem_pattern = False  # every clip has its own shapes: patterns would keep activations twice
    options.log_severity_level = 3  # errors only: a user can do nothing about unused initializers
    if engine.threads is not None:
        options.intra_op_num_threads = engine.threads
    return options


def save_packed(path: Path, saved: Path, weights: str, threads: int | None) -> None:
    """Write a graph as ONNX Runtime runs it on the CPU to `saved`, and beside it, to the file `weights`, its
    weights both as they are and packed.

    RuntimeError says what went wrong.
    """
    options = _session_options(EngineOptions("cpu", threads))
    options.optimized_model_filepath = str(saved)
    for name, value in (
        ("session.optimized_model_external_initializers_file_name", weights),
        ("session.optimized_model_external_initializers_min_size_in_bytes", "0"),
        ("session.save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(name, value)
    try:
        onnxruntime.InferenceSession(str(path), options, providers=[PROVIDERS["cpu"]])
    except Exception as error:  # onnxruntime's own classes have nothing else in common
        raise RuntimeError(str(error)) from None


def _providers(path: Path, options: EngineOptions) -> list[tuple[str, dict]]:
    """Execution providers with their options, the first first."""
    check_provider(options.device)
    if options.stream is None:
        return [(PROVIDERS["cpu"], {})]
    on_stream = {"user_compute_stream": str(options.stream.handle)}
    on_cuda = on_stream | {"arena_extend_strategy": "kSameAsRequested"}
    providers: list[tuple[str, dict]] = [(PROVIDERS["cuda"], on_cuda), (PROVIDERS["cpu"], {})]
    if options.profile is not None:
        providers.insert(0, (PROVIDERS["tensorrt"], on_stream | tensorrt_options(path, options.profile)))
    return providers


def check_kv_cache(kv_cache: str) -> None:
    """RuntimeError if this onnxruntime takes no KV cache of another type than the activations."""
    if version_tuple(onnxruntime.__version__) < KV_CACHES_SINCE:
        raise RuntimeError(
            f"a KV cache of {kv_cache} needs onnxruntime {dots(KV_CACHES_SINCE)} or newer, this is "
            f"{onnxruntime.__version__}: pip install --upgrade onnxruntime"
        )


def check_provider(device: str) -> None:
    """ValueError for an unknown device, RuntimeError where this onnxruntime was built without it."""
    if device not in PROVIDERS:
        raise ValueError(f"unknown device {device!r}; devices are {', '.join(PROVIDERS)}")
    if PROVIDERS[device] not in onnxruntime.get_available_providers():
        raise RuntimeError(
            f"this onnxruntime has no {PROVIDERS[device]}: {onnxruntime_gpu_advice(Machine())}"
        )


def tensorrt_options(path: Path, profile: OptimisationProfile) -> dict[str, str]:
    """For ONNX Runtime's TensorRT provider.

    The bundle keeps its engines, and the shapes are fixed, so that only the first opening builds.
    """
    cache = path.parent / FOLDER / f"onnxruntime-{onnxruntime.__version__}"
    cache.mkdir(parents=True, exist_ok=True)  # ONNX Runtime makes the last folder only
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache),
        "trt_engine_cache_prefix": path.stem,
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(cache),
        "trt_profile_min_shapes": _shapes_text(profile, 0),
        "trt_profile_opt_shapes": _shapes_text(profile, 1),
        "trt_profile_max_shapes": _shapes_text(profile, 2),
    }


def _shapes_text(profile: OptimisationProfile, index: int) -> str:
    """One shape of every range, as `input:1x128x4,...`."""
    texts = []
    for name, shapes in profile.shapes.items():
        texts.append(f"{name}:{'x'.join(map(str, shapes[index]))}")
    return ",".join(texts)


def _tensor_spec(value) -> TensorSpec:
    shape = tuple(n if isinstance(n, int) else None for n in value.shape)
    return TensorSpec(value.name, np.dtype(NUMPY_TYPES[value.type]), shape)
