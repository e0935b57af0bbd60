"""The TensorRT backend: a serialised engine, its optimisation profiles,
and bindings to arrays by their addresses."""

import mmap
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np

try:
    import tensorrt as trt
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
from ..engine import BFLOAT16, Array, TensorSpec, check_arrays
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

    def said(self) -> str:
        """The errors since the last call, for a message."""
        errors, self.errors = self.errors, []
        return "; TensorRT says: " + " | ".join(errors) if errors else ""


@cache
def process_logger() -> Logger:
    """The one logger of this process: TensorRT goes on using the first it was given,
    which must therefore stay."""
    return Logger()


class TensorRTEngine:
    """An engine that `ltbm build` wrote, on the GPU it was built on; all its work is on `stream`."""

    def __init__(self, path: Path, stream: Stream):
        self.stream, self._logger = stream, process_logger()
        self._runtime = trt.Runtime(self._logger)
        if path.stem == "merge":
            library.load_tensorrt_plugin(self._runtime.get_plugin_registry())
        self._engine = self._deserialise(path)
        self.inputs, self.outputs = self._specs(trt.TensorIOMode.INPUT), self._specs(trt.TensorIOMode.OUTPUT)
        engine = self._engine
        self.on_host = {
            name for name in self.inputs if engine.get_tensor_location(name) == trt.TensorLocation.HOST
        }
        self._aliases = self._find_aliases()
        self._scratch = stream.empty(
            (max(engine.device_memory_size_v2, 1),), np.uint8
        )  # contexts never run side by side
        self._lanes = [Lane(self, index) for index in range(engine.num_optimization_profiles)]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        check_arrays(self.inputs, inputs)
        placed = self._placed(inputs)  # copies: a cache updated in place leaves the caller's as it was
        shapes = self._lane(placed).output_shapes(placed)
        outputs = {
            name: placed[self._aliases[name]]
            if name in self._aliases
            else self.zeros(shape, self.outputs[name].dtype)
            for name, shape in shapes.items()
        }
        self.bind(placed | outputs).run()
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
            if arrays[present] is not arrays[past] and arrays[present].pointer != arrays[past].pointer:
                raise ValueError(
                    f"engine tensors {past} and {present} are updated in place: bind one array to both"
                )
        return TensorRTBinding(self, self._lane(arrays), self._placed(arrays))

    def close(self) -> None:
        """Contexts go before the engine and the engine before the runtime;
        bindings that are still held do not run any more."""
        for lane in self._lanes:
            lane.close()
        self._lanes, self._scratch = [], None
        self._engine = None
        self._runtime = None

    def failure(self, what: str) -> RuntimeError:
        return RuntimeError(f"{what}{self._logger.said()}")

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
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        return {
            name: TensorSpec(
                name,
                np.dtype(NUMPY_TYPES[engine.get_tensor_dtype(name).name]),
                tuple(None if n < 0 else n for n in engine.get_tensor_shape(name)),
            )
            for name in names
            if engine.get_tensor_mode(name) == mode
        }

    def _find_aliases(self) -> dict[str, str]:
        """Output -> the input whose memory it shares; TensorRT has none before 10.15."""
        aliased_input = getattr(self._engine, "get_aliased_input_tensor", None)
        found = {name: aliased_input(name) for name in self.outputs} if aliased_input else {}
        return {output: name for output, name in found.items() if name}

    def _lane(self, arrays: Mapping[str, Array]) -> "Lane":
        """The last profile that the inputs fit: decode before prefill."""
        for lane in reversed(self._lanes):
            if not lane.misfits(arrays):
                return lane
        raise ValueError(
            f"{'; '.join(self._lanes[0].misfits(arrays))}: build engines for more with `ltbm build "
            "--max-context`, "
            "or --max-audio-segments"
        )

    def _placed(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Each array where TensorRT reads it: shapes on the host, all else on the device, whole."""
        placed = {}
        for name, array in arrays.items():
            if name in self.on_host:
                array = np.array(array, order="C")
            elif not isinstance(array, CudaArray):
                array = self.stream.upload(np.asarray(array))
            elif not array.contiguous:
                raise ValueError(f"engine tensor {name} is not contiguous: bind a copy")
            placed[name] = array
        return placed


class Lane:
    """One optimisation profile with the execution context that keeps to it."""

    def __init__(self, owner: TensorRTEngine, index: int):
        self._owner, self.stream = owner, owner.stream
        engine = owner._engine
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise owner.failure("TensorRT made no execution context")
        context.set_device_memory(owner._scratch.pointer, owner._scratch.nbytes)
        if not context.set_optimization_profile_async(index, self.stream.handle):
            raise owner.failure(f"TensorRT took no optimisation profile {index}")
        varying = [name for name, spec in owner.inputs.items() if None in spec.shape]
        self._ranges = {
            name: [tuple(shape) for shape in engine.get_tensor_profile_shape(name, index)] for name in varying
        }
        self._context, self.holder = (
            context,
            None,
        )  # the mark of the binding whose shapes and addresses the context has

    def misfits(self, arrays: Mapping[str, Array]) -> list[str]:
        """The inputs outside the profile, in words."""
        return [
            f"{name} is {_by(arrays[name].shape)}, the engine takes {_by(least)} to {_by(most)}"
            for name, (least, _, most) in self._ranges.items()
            if not all(low <= n <= high for low, n, high in zip(least, arrays[name].shape, most))
        ]

    def output_shapes(self, placed: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
        """Of every output, given the inputs; takes the context."""
        context, self.holder = self._context, None
        for name, array in placed.items():
            if name in self._owner.inputs:
                self._check(
                    context.set_input_shape(name, tuple(array.shape)),
                    f"the shape of {name}, {_by(array.shape)}",
                )
                self._check(context.set_tensor_address(name, _address(array)), f"the address of {name}")
        unknown = context.infer_shapes()
        if unknown:
            raise self._owner.failure(f"TensorRT needs more inputs to know its shapes: {', '.join(unknown)}")
        return {name: tuple(context.get_tensor_shape(name)) for name in self._owner.outputs}

    def take(self, mark: object, placed: Mapping[str, Array]) -> None:
        """Give the context a binding's shapes and addresses. The mark stands for the binding,
        whose arrays may go before the next takes it."""
        context = self._context
        for name, shape in self.output_shapes(placed).items():
            if tuple(placed[name].shape) != shape:
                raise ValueError(
                    f"engine tensor {name} is {_by(placed[name].shape)}, these inputs give {_by(shape)}"
                )
            self._check(context.set_tensor_address(name, _address(placed[name])), f"the address of {name}")
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

    def __init__(self, owner: TensorRTEngine, lane: Lane, placed: Mapping[str, Array]):
        self._lane, self._placed = lane, dict(placed)
        self._graph: Graph | None = None
        self._capturable, self._mark = True, object()
        off = {
            name: array
            for name, array in placed.items()
            if _address(array) % ALIGNMENT and name not in owner.on_host
        }
        self._placed |= {name: lane.stream.empty(array.shape, array.dtype) for name, array in off.items()}
        self._before = [(self._placed[name], array) for name, array in off.items() if name in owner.inputs]
        self._after = [(array, self._placed[name]) for name, array in off.items() if name in owner.outputs]

    def run(self) -> None:
        for to, source in self._before:
            to[:] = source
        self._run()
        for to, source in self._after:
            to[:] = source

    def _run(self) -> None:
        if self._lane.holder is not self._mark:
            self._graph = None  # it belongs to the shapes that the context had
            self._lane.take(self._mark, self._placed)
            return self._lane.enqueue()
        if self._graph is None and self._capturable:
            self._graph = self._capture()
        return self._graph.launch() if self._graph else self._lane.enqueue()

    def _capture(self) -> Graph | None:
        try:
            return self._lane.stream.capture(self._lane.enqueue)
        except RuntimeError as error:
            warnings.warn(
                f"no CUDA graph of the decode step, which costs some time per token: {error}",
                RuntimeWarning,
                stacklevel=3,
            )
            self._capturable = False
            return None


def _address(array: Array) -> int:
    return array.pointer if isinstance(array, CudaArray) else array.ctypes.data


def _by(shape) -> str:
    return "x".join(map(str, shape)) or "a scalar"
