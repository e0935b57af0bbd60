"""The TensorRT backend: a serialised engine, its optimisation profiles,
and bindings to arrays by their addresses."""

import mmap
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

try:
    import tensorrt as trt  # pyright: ignore[reportMissingImports]  # of JetPack or an extra
except (ImportError, OSError) as error:
    from ..machine import Machine, find_jetson

    how = (
        "it comes with JetPack: sudo apt install python3-libnvinfer, and make the virtual environment with "
        "--system-site-packages"
        if find_jetson(Machine())
        else "pip install 'ltbm[tensorrt]'"
    )
    raise ImportError(f"the tensorrt backend needs TensorRT ({error}): {how}") from None

from ...plugins import library
from ..engine import BFLOAT16, Array, TensorSpec, address_of, check_arrays
from .cuda import CudaArray, Graph, Stream

NUMPY_TYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "BF16": BFLOAT16,
    "INT32": np.int32,
    "INT64": np.int64,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}
MESSAGES_KEPT = 5
ALIGNMENT = 256  # bytes; TensorRT reads and writes nothing that begins elsewhere


class Logger(trt.ILogger):
    """Keeps TensorRT's last errors, which its calls do not return; warnings and errors go on to `report`,
    if there is one."""

    def __init__(self):
        trt.ILogger.__init__(self)
        self.errors: list[str] = []
        self.report: Callable[[str], None] | None = None

    def log(self, severity, message: str) -> None:
        error = severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)
        if error:
            self.errors = [*self.errors, message][-MESSAGES_KEPT:]
        if self.report and (error or severity == trt.ILogger.WARNING):
            self.report(f"TensorRT: {message}")

    def take_errors(self) -> str:
        """The errors since the last call, for the end of a message."""
        errors = self.errors
        self.errors = []
        return "; TensorRT says: " + " | ".join(errors) if errors else ""


@cache
def process_logger() -> Logger:
    """The one logger of this process: TensorRT goes on using the first it was given,
    which must therefore stay."""
    return Logger()


class TensorRTEngine:
    """An engine that `ltbm build` wrote, on the GPU it was built on; all its work is on `stream`."""

    def __init__(self, path: Path, stream: Stream):
        self.stream = stream
        self._logger = process_logger()
        self._runtime: Any = trt.Runtime(self._logger)
        if path.stem == "merge":
            library.load_tensorrt_plugin(self._runtime.get_plugin_registry())
        self._engine: Any = self._deserialise(path)
        self.inputs = self._specs(trt.TensorIOMode.INPUT)
        self.outputs = self._specs(trt.TensorIOMode.OUTPUT)
        engine = self._engine
        self.on_host = {
            name for name in self.inputs if engine.get_tensor_location(name) == trt.TensorLocation.HOST
        }
        self._aliases = self._find_aliases()
        scratch_bytes = max(engine.device_memory_size_v2, 1)
        self._scratch = stream.empty(
            (scratch_bytes,), np.uint8
        )  # one for all: contexts never run side by side
        self._profile_contexts = [
            ProfileContext(self, index, self._scratch) for index in range(engine.num_optimization_profiles)
        ]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        check_arrays(self.inputs, inputs)
        uploaded = self._uploaded(inputs)  # copies: a cache updated in place leaves the caller's as it was
        outputs: dict[str, Array] = {}
        for name, shape in self._context_for(uploaded).output_shapes(uploaded).items():
            if name in self._aliases:
                outputs[name] = uploaded[self._aliases[name]]
            else:
                outputs[name] = self.zeros(shape, self.outputs[name].dtype)
        self.bind(uploaded | outputs).run()
        return {name: np.asarray(array) for name, array in outputs.items()}

    def zeros(self, shape: tuple[int, ...], dtype) -> Array:
        return self.stream.zeros(shape, dtype)

    def bind(self, arrays: Mapping[str, Array]) -> "TensorRTBinding":
        check_arrays(self.inputs | self.outputs, arrays)
        if host := [name for name in self.outputs if not isinstance(arrays[name], CudaArray)]:
            raise ValueError(
                f"engine tensors {', '.join(host)} are outputs on the host: bind arrays that `zeros` gave"
            )
        for present, past in self._aliases.items():
            if address_of(arrays[present]) != address_of(arrays[past]):
                raise ValueError(
                    f"engine tensors {past} and {present} are updated in place: bind one array to both"
                )
        return TensorRTBinding(self, self._context_for(arrays), self._uploaded(arrays))

    def close(self) -> None:
        """Contexts go before the engine and the engine before the runtime;
        bindings that are still held do not run any more."""
        for profile_context in self._profile_contexts:
            profile_context.close()
        self._profile_contexts.clear()
        del self._scratch
        self._engine = None
        self._runtime = None

    def failure(self, what: str) -> RuntimeError:
        return RuntimeError(f"{what}{self._logger.take_errors()}")

    def _deserialise(self, path: Path):
        """Mapped, so that the file is not in memory twice; on Jetson that decides whether a model fits."""
        runtime = self._runtime
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as plan:
            engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self.failure(f"TensorRT does not load {path}: run `ltbm build --refresh` on this machine")
        return engine

    def _specs(self, mode) -> dict[str, TensorSpec]:
        engine = self._engine
        specs = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            if engine.get_tensor_mode(name) == mode:
                dtype = np.dtype(NUMPY_TYPES[engine.get_tensor_dtype(name).name])
                shape = tuple(None if n < 0 else n for n in engine.get_tensor_shape(name))
                specs[name] = TensorSpec(name, dtype, shape)
        return specs

    def _find_aliases(self) -> dict[str, str]:
        """Output -> the input whose memory it shares; TensorRT has none before 10.15."""
        aliased_input = getattr(self._engine, "get_aliased_input_tensor", None)
        if aliased_input is None:
            return {}
        inputs = {name: aliased_input(name) for name in self.outputs}
        return {output: name for output, name in inputs.items() if name}

    def _context_for(self, arrays: Mapping[str, Array]) -> "ProfileContext":
        """The last optimisation profile that the inputs fit: decode before prefill."""
        for profile_context in reversed(self._profile_contexts):
            if not profile_context.misfits(arrays):
                return profile_context
        misfits = "; ".join(self._profile_contexts[0].misfits(arrays))
        raise ValueError(
            f"{misfits}: build engines for more with `ltbm build --max-context`, or --max-audio-segments"
        )

    def _uploaded(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Each array where TensorRT reads it: shapes on the host, all else on the device, without gaps."""
        uploaded: dict[str, Array] = {}
        for name, array in arrays.items():
            if name in self.on_host:
                uploaded[name] = np.array(array, order="C")
            elif not isinstance(array, CudaArray):
                uploaded[name] = self.stream.upload(np.asarray(array))
            elif not array.contiguous:
                raise ValueError(f"engine tensor {name} is not contiguous: bind a copy")
            else:
                uploaded[name] = array
        return uploaded


class ProfileContext:
    """One optimisation profile with the execution context that keeps to it.

    holder: the mark of the binding whose shapes and addresses the context has; None for nobody's
    """

    def __init__(self, owner: TensorRTEngine, index: int, scratch: CudaArray):
        self._owner = owner
        self.stream = owner.stream
        engine = owner._engine
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise owner.failure("TensorRT made no execution context")
        context.set_device_memory(scratch.pointer, scratch.nbytes)
        if not context.set_optimization_profile_async(index, self.stream.handle):
            raise owner.failure(f"TensorRT took no optimisation profile {index}")
        varying = [name for name, spec in owner.inputs.items() if None in spec.shape]
        self._ranges = {}
        for name in varying:
            least, _, most = engine.get_tensor_profile_shape(name, index)
            self._ranges[name] = (tuple(least), tuple(most))
        self._context: Any = context
        self.holder: object = None

    def misfits(self, arrays: Mapping[str, Array]) -> list[str]:
        """The inputs outside the profile, in words."""
        misfits = []
        for name, (least, most) in self._ranges.items():
            shape = arrays[name].shape
            if not all(low <= n <= high for low, n, high in zip(least, shape, most)):
                misfits.append(f"{name} is {_by(shape)}, the engine takes {_by(least)} to {_by(most)}")
        return misfits

    def output_shapes(self, arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
        """Of every output, given the inputs; takes the context."""
        context = self._context
        self.holder = None
        for name in self._owner.inputs:
            shape = tuple(arrays[name].shape)
            self._check(context.set_input_shape(name, shape), f"the shape of {name}, {_by(shape)}")
            address = address_of(arrays[name])
            self._check(context.set_tensor_address(name, address), f"the address of {name}")
        unknown = context.infer_shapes()
        if unknown:
            raise self._owner.failure(f"TensorRT needs more inputs to know its shapes: {', '.join(unknown)}")
        return {name: tuple(context.get_tensor_shape(name)) for name in self._owner.outputs}

    def take(self, mark: object, arrays: Mapping[str, Array]) -> None:
        """Give the context a binding's shapes and addresses. The mark stands for the binding,
        whose arrays may go before the next takes it."""
        context = self._context
        for name, shape in self.output_shapes(arrays).items():
            array = arrays[name]
            if tuple(array.shape) != shape:
                raise ValueError(
                    f"engine tensor {name} is {_by(array.shape)}, these inputs give {_by(shape)}"
                )
            self._check(context.set_tensor_address(name, address_of(array)), f"the address of {name}")
        self.holder = mark

    def enqueue(self) -> None:
        context = self._context
        self._check(context.execute_async_v3(self.stream.handle), "the run")

    def close(self) -> None:
        self._context = self.holder = None

    def _check(self, accepted: bool, what: str) -> None:
        if not accepted:
            self.holder = None
            raise self._owner.failure(f"TensorRT refused {what}")


class TensorRTBinding:
    """Arrays at fixed addresses. What runs again at once, as a decode step does, becomes a CUDA graph."""

    def __init__(self, owner: TensorRTEngine, profile_context: ProfileContext, arrays: Mapping[str, Array]):
        self._profile_context = profile_context
        self._arrays = dict(arrays)
        self._graph: Graph | None = None
        self._capturable = True
        self._mark = object()
        self._copies_before: list[tuple[Array, Array]] = []  # (to, source), around a run
        self._copies_after: list[tuple[Array, Array]] = []
        for name, array in arrays.items():
            if address_of(array) % ALIGNMENT and name not in owner.on_host:
                self._copy_aligned(name, array, owner)

    def _copy_aligned(self, name: str, array: Array, owner: TensorRTEngine) -> None:
        """Give TensorRT a copy of `array` at an address that it takes."""
        aligned = self._profile_context.stream.empty(array.shape, array.dtype)
        self._arrays[name] = aligned
        if name in owner.inputs:
            self._copies_before.append((aligned, array))
        if name in owner.outputs:
            self._copies_after.append((array, aligned))

    def run(self) -> None:
        for to, source in self._copies_before:
            to[:] = source
        self._run()
        for to, source in self._copies_after:
            to[:] = source

    def _run(self) -> None:
        if self._profile_context.holder is not self._mark:
            self._graph = None  # it belongs to the shapes that the context had
            self._profile_context.take(self._mark, self._arrays)
            return self._profile_context.enqueue()
        if self._graph is None and self._capturable:
            self._graph = self._capture()
        return self._graph.launch() if self._graph else self._profile_context.enqueue()

    def _capture(self) -> Graph | None:
        try:
            return self._profile_context.stream.capture(self._profile_context.enqueue)
        except RuntimeError as error:
            warnings.warn(
                f"no CUDA graph of the decode step, which costs some time per token: {error}",
                RuntimeWarning,
                stacklevel=3,
            )
            self._capturable = False
            return None


def _by(shape) -> str:
    return "x".join(map(str, shape)) or "a scalar"
