"""The TensorRT backend: an engine, its optimisation profiles, and arrays bound by their addresses."""

import mmap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...plugins import library
from ..engine import BFLOAT16, Array, TensorSpec, address_of, check_arrays, is_contiguous
from .cuda import CudaArray, Graph, Stream
from .kernel_cache import KernelCache
from .trt_library import TensorRTLibrary, build_command

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
ALIGNMENT = 256  # bytes; TensorRT reads and writes nothing that begins elsewhere

ShapeRange = list[tuple[int, ...]]  # smallest, most usual and largest shape of one input


@dataclass
class LoadedEngine:
    """What TensorRT holds of an engine from its loading to its close.

    runtime, engine: trt.Runtime and trt.ICudaEngine
    scratch: device memory that all contexts share, which never run side by side
    contexts: one trt.IExecutionContext per optimisation profile
    kernels: compiled for this GPU, of TensorRT-RTX
    """

    runtime: Any
    engine: Any
    scratch: CudaArray
    contexts: list[Any]
    kernels: KernelCache | None


class TensorRTEngine:
    """An engine that `ltbm build` wrote, on a GPU it was built for; all its work is on `stream`.

    on_host: the inputs whose values are shapes, which TensorRT reads on the host
    captures_graphs: TensorRT-RTX makes CUDA graphs itself
    """

    def __init__(self, path: Path, stream: Stream, tensorrt: TensorRTLibrary):
        self.stream = stream
        self.captures_graphs = tensorrt.is_rtx
        self._tensorrt = tensorrt
        trt = tensorrt.trt
        runtime = trt.Runtime(tensorrt.logger)
        if path.stem == "merge":
            library.load_tensorrt_plugin(runtime.get_plugin_registry())
        engine = self._deserialise(runtime, path)
        self.inputs = _tensor_specs(trt, engine, trt.TensorIOMode.INPUT)
        self.outputs = _tensor_specs(trt, engine, trt.TensorIOMode.OUTPUT)
        self.on_host = _host_inputs(trt, engine, self.inputs)
        self._aliases = _find_aliases(engine, self.outputs)
        scratch = stream.empty((max(engine.device_memory_size_v2, 1),), np.uint8)
        indices = range(engine.num_optimization_profiles)
        kernels = KernelCache(tensorrt, engine, path) if tensorrt.is_rtx else None
        contexts = [self._create_context(engine, kernels, scratch, index) for index in indices]
        self._loaded: LoadedEngine | None = LoadedEngine(runtime, engine, scratch, contexts, kernels)
        if kernels:
            kernels.save()
        ranges = [_shape_ranges(trt, engine, index) for index in indices]
        self._profile_contexts = [ProfileContext(self, index, ranges[index]) for index in indices]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        check_arrays(self.inputs, inputs)
        arrays = self._readable(inputs)  # copies: a cache updated in place leaves the caller's as it was
        shapes = self._profile_for(arrays).output_shapes(arrays)
        outputs: dict[str, Array] = {}
        for name, shape in shapes.items():
            if name in self._aliases:
                outputs[name] = arrays[self._aliases[name]]
            else:
                outputs[name] = self.zeros(shape, self.outputs[name].dtype)
        self.bind(arrays | outputs).run()
        return {name: np.asarray(array) for name, array in outputs.items()}

    def zeros(self, shape: tuple[int, ...], dtype) -> Array:
        return self.stream.zeros(shape, dtype)

    def bind(self, arrays: Mapping[str, Array], once: bool = False) -> "TensorRTBinding":
        check_arrays(self.inputs | self.outputs, arrays)
        self._check_outputs(arrays)
        return TensorRTBinding(self, self._profile_for(arrays), self._readable(arrays))

    def close(self) -> None:
        """Free all of it. Bindings that are still held raise RuntimeError when they run."""
        for profile_context in self._profile_contexts:
            profile_context.bound = None
        self._profile_contexts = []
        loaded = self._loaded
        self._loaded = None
        if loaded is not None:  # contexts go before the engine, and the engine before the runtime
            if loaded.kernels:
                loaded.kernels.save()  # with those for the shapes that came
            loaded.contexts.clear()
            del loaded.kernels
            del loaded.engine
            del loaded.runtime

    def context(self, index: int) -> Any:
        """The execution context of one optimisation profile; RuntimeError once the engine is closed."""
        return self._open().contexts[index]

    def failure(self, what: str) -> RuntimeError:
        """The error to raise, with what TensorRT logged."""
        return RuntimeError(f"{what}{self._tensorrt.logger.take_errors()}")

    def _open(self) -> LoadedEngine:
        if self._loaded is None:
            raise RuntimeError("this TensorRT engine is closed: open the session again")
        return self._loaded

    def _deserialise(self, runtime, path: Path):
        """Mapped, so that the file is not in memory twice; on Jetson that decides whether a model fits."""
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
            engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            command = f"{build_command(self._tensorrt.name)} --refresh"
            raise self.failure(f"{self._tensorrt.product} does not load {path}: run `{command}`")
        return engine

    def _create_context(self, engine, kernels: KernelCache | None, scratch: CudaArray, index: int):
        strategy = self._tensorrt.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        steps = index > 0  # the profile behind prefill's is that of decode
        how = kernels.runtime_config(strategy, steps) if kernels else strategy
        context = engine.create_execution_context(how)
        if context is None:
            raise self.failure("TensorRT made no execution context")
        context.set_device_memory(scratch.pointer, scratch.nbytes)
        if not context.set_optimization_profile_async(index, self.stream.handle):
            raise self.failure(f"TensorRT refused the optimisation profile {index}")
        return context

    def _check_outputs(self, arrays: Mapping[str, Array]) -> None:
        """ValueError for outputs on the host, and for two arrays where one tensor is updated in place."""
        host = [name for name in self.outputs if not isinstance(arrays[name], CudaArray)]
        if host:
            raise ValueError(
                f"engine tensors {', '.join(host)} are outputs on the host: bind arrays that `zeros` gave"
            )
        for present, past in self._aliases.items():
            if address_of(arrays[present]) != address_of(arrays[past]):
                raise ValueError(
                    f"engine tensors {past} and {present} are updated in place: bind one array to both"
                )

    def _profile_for(self, arrays: Mapping[str, Array]) -> "ProfileContext":
        """The last profile that takes the inputs: decode before prefill."""
        self._open()
        for profile_context in reversed(self._profile_contexts):
            if not profile_context.misfits(arrays):
                return profile_context
        raise ValueError(
            f"{'; '.join(self._profile_contexts[0].misfits(arrays))}: build engines for more with "
            f"`{build_command(self._tensorrt.name)} --max-context N`, or --max-audio-segments"
        )

    def _readable(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Each array where TensorRT reads it: shapes on the host, all else on the device."""
        readable: dict[str, Array] = {}
        for name, array in arrays.items():
            if name in self.on_host:
                array = np.array(array, order="C")
            elif not isinstance(array, CudaArray):
                array = self.stream.upload(np.asarray(array))
            elif not is_contiguous(array):
                raise ValueError(f"engine tensor {name} is not contiguous: bind a copy")
            readable[name] = array
        return readable


class ProfileContext:
    """One optimisation profile with its execution context.

    ranges: of every input with dimensions that vary
    bound: the key of the binding whose shapes and addresses the context has; None for no binding's
    """

    def __init__(self, owner: TensorRTEngine, index: int, ranges: Mapping[str, ShapeRange]):
        self.stream = owner.stream
        self.bound: object | None = None
        self._owner = owner
        self._index = index
        self._ranges = ranges

    def misfits(self, arrays: Mapping[str, Array]) -> list[str]:
        """The inputs outside the profile, in words."""
        words = []
        for name, (least, _, most) in self._ranges.items():
            shape = arrays[name].shape
            if not _within(least, shape, most):
                words.append(f"{name} is {_by(shape)}, the engine takes {_by(least)} to {_by(most)}")
        return words

    def output_shapes(self, arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
        """Of every output, given the inputs; the context then has no binding's shapes and addresses."""
        self.bound = None
        context = self._context()
        for name in self._owner.inputs:
            array = arrays[name]
            accepted = context.set_input_shape(name, tuple(array.shape))
            self._check(accepted, f"the shape of {name}, {_by(array.shape)}")
            self._check(context.set_tensor_address(name, address_of(array)), f"the address of {name}")
        unknown = context.infer_shapes()
        if unknown:
            raise self._owner.failure(f"TensorRT needs more inputs to know its shapes: {', '.join(unknown)}")
        return {name: tuple(context.get_tensor_shape(name)) for name in self._owner.outputs}

    def set_arrays(self, key: object, arrays: Mapping[str, Array]) -> None:
        """Give the context a binding's shapes and addresses.

        key: stands for the binding, whose arrays may be freed before the next binding is set
        """
        context = self._context()
        for name, shape in self.output_shapes(arrays).items():
            array = arrays[name]
            if tuple(array.shape) != shape:
                raise ValueError(
                    f"engine tensor {name} is {_by(array.shape)}, these inputs give {_by(shape)}"
                )
            self._check(context.set_tensor_address(name, address_of(array)), f"the address of {name}")
        self.bound = key

    def enqueue(self) -> None:
        """Put one run on the stream."""
        context = self._context()
        self._check(context.execute_async_v3(self.stream.handle), "the run")

    def _context(self):
        return self._owner.context(self._index)

    def _check(self, accepted: bool, what: str) -> None:
        if not accepted:
            self.bound = None
            raise self._owner.failure(f"TensorRT refused {what}")


class TensorRTBinding:
    """Arrays at fixed addresses. What runs again at once, as a decode step does, becomes a CUDA graph."""

    def __init__(self, owner: TensorRTEngine, profile_context: ProfileContext, arrays: Mapping[str, Array]):
        self._profile_context = profile_context
        self._arrays = dict(arrays)
        self._key = object()
        self._graph: Graph | None = None
        self._capturable = not owner.captures_graphs
        self._copies_before: list[tuple[Array, Array]] = []  # (to, from)
        self._copies_after: list[tuple[Array, Array]] = []
        for name, array in arrays.items():
            if name not in owner.on_host and address_of(array) % ALIGNMENT:
                self._align(name, array, is_input=name in owner.inputs)

    def _align(self, name: str, array: Array, is_input: bool) -> None:
        """Bind an aligned array in place of one that is not, and copy between the two."""
        aligned = self._profile_context.stream.empty(array.shape, array.dtype)
        self._arrays[name] = aligned
        if is_input:
            self._copies_before.append((aligned, array))
        else:
            self._copies_after.append((array, aligned))

    def run(self) -> None:
        for to, source in self._copies_before:
            to[:] = source
        self._enqueue()
        for to, source in self._copies_after:
            to[:] = source

    def _enqueue(self) -> None:
        if self._profile_context.bound is not self._key:
            self._graph = None  # it belongs to the shapes that the context had
            self._profile_context.set_arrays(self._key, self._arrays)
            self._profile_context.enqueue()
            return
        if self._graph is None and self._capturable:
            self._graph = self._capture()
        if self._graph is None:
            self._profile_context.enqueue()
        else:
            self._graph.launch()

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


def _tensor_specs(trt, engine, mode) -> dict[str, TensorSpec]:
    """The inputs or the outputs."""
    specs = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        if engine.get_tensor_mode(name) == mode:
            dtype = np.dtype(NUMPY_TYPES[engine.get_tensor_dtype(name).name])
            shape = tuple(None if n < 0 else n for n in engine.get_tensor_shape(name))
            specs[name] = TensorSpec(name, dtype, shape)
    return specs


def _host_inputs(trt, engine, names: Mapping[str, TensorSpec]) -> set[str]:
    return {name for name in names if engine.get_tensor_location(name) == trt.TensorLocation.HOST}


def _find_aliases(engine, outputs: Mapping[str, TensorSpec]) -> dict[str, str]:
    """Output -> the input whose memory it shares; TensorRT has none before 10.15."""
    aliased_input = getattr(engine, "get_aliased_input_tensor", None)
    if aliased_input is None:
        return {}
    aliases = {name: aliased_input(name) for name in outputs}
    return {output: past for output, past in aliases.items() if past}


def _shape_ranges(trt, engine, index: int) -> dict[str, ShapeRange]:
    """Of every input with dimensions that vary, in one optimisation profile."""
    ranges = {}
    for name, spec in _tensor_specs(trt, engine, trt.TensorIOMode.INPUT).items():
        if None in spec.shape:
            ranges[name] = [tuple(shape) for shape in engine.get_tensor_profile_shape(name, index)]
    return ranges


def _within(least: Sequence[int], shape: Sequence[int], most: Sequence[int]) -> bool:
    return all(low <= n <= high for low, n, high in zip(least, shape, most))


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
