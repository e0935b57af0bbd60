"""The fake TensorRT's runtime, engines and execution contexts over the memory of the fake device."""

import base64
import ctypes
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support.fake_cuda import STREAM, Event
from tests.support.fake_tensorrt_graph import NUMPY_TYPES, Graph, HostMemory, ILogger, Registry

SCRATCH = 4096  # bytes that every engine asks for
ALIGNMENT = 256  # bytes
GARBAGE = 0xCD  # what a run leaves in scratch memory
KERNELS = b"kernels"  # what a runtime cache holds in the end


class Runtime:
    def __init__(self, trt, logger):
        self.trt = trt
        self.logger = logger
        self.registry = Registry()

    def get_plugin_registry(self):
        return self.registry

    def deserialize_cuda_engine(self, plan):
        facts = json.loads(bytes(memoryview(plan)))
        assert facts["version"] == self.trt.__version__, "an engine of another TensorRT is loaded"
        if "deserialize_cuda_engine" in self.trt.fail:
            self.logger.log(ILogger.ERROR, "Serialization assertion failed")
            return None
        needs_plugin = Path(facts["graph"]).name == "merge.trt.onnx"
        assert self.registry.libraries or not needs_plugin, "the plugin is not loaded"
        return (InPlaceEngine if self.trt.in_place else Engine)(self, facts)


class Engine:
    device_memory_size_v2 = SCRATCH

    def __init__(self, runtime, facts):
        self.trt = runtime.trt
        self.runtime = runtime
        self.graph = Graph(Path(facts["graph"]), base64.b64decode(facts["model"]))
        self.profiles = facts["profiles"]
        self.shape_inputs = set(self.profiles[0]["values"])
        self.trt.alive["engines"] += 1

    def __del__(self):
        self.trt.alive["engines"] -= 1

    num_io_tensors = property(lambda self: len(self.graph.tensors))
    num_optimization_profiles = property(lambda self: len(self.profiles))

    def get_tensor_name(self, index):
        return list(self.graph.tensors)[index]

    def get_tensor_mode(self, name):
        return self.trt.TensorIOMode.INPUT if name in self.graph.inputs else self.trt.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        trt_name, _ = NUMPY_TYPES[self.graph.tensors[name].type]
        return self.trt.DataType[trt_name]

    def get_tensor_shape(self, name):
        return [d if isinstance(d, int) else -1 for d in self.graph.tensors[name].shape]

    def get_tensor_location(self, name):
        return self.trt.TensorLocation.HOST if name in self.shape_inputs else self.trt.TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name, index):
        return self.profiles[index]["shapes"][name]

    def create_execution_context(self, strategy):
        if self.trt.is_rtx:
            return self._create_rtx_context(strategy)
        assert strategy == self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        return None if "create_execution_context" in self.trt.fail else Context(self)

    def _create_rtx_context(self, config):
        assert isinstance(config, RuntimeConfig), "kernels would be compiled in every process"
        assert config.strategy == self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        config.cache.compile()
        context = Context(self)
        context.graphs = config.cuda_graph_strategy.name
        return context

    def create_runtime_config(self):
        assert self.trt.is_rtx
        return RuntimeConfig(self.trt)


class RuntimeCache:
    """Of kernels that were compiled; all are, once a context is made with it."""

    def __init__(self, trt):
        self.trt = trt
        self.kernels = b""
        self.in_use = False

    def compile(self):
        if not self.in_use:
            self.trt.compiled.append(self.kernels != KERNELS)
        self.kernels = KERNELS
        self.in_use = True

    def deserialize(self, data):
        self.kernels = bytes(data)
        return self.kernels == KERNELS

    def serialize(self):
        return HostMemory(self.kernels)


class RuntimeConfig:
    def __init__(self, trt):
        self.trt = trt
        self.strategy = None
        self.cache = None
        self.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED

    def create_runtime_cache(self):
        return RuntimeCache(self.trt)

    def set_runtime_cache(self, cache):
        self.cache = cache
        return "set_runtime_cache" not in self.trt.fail

    def set_execution_context_allocation_strategy(self, strategy):
        self.strategy = strategy


class InPlaceEngine(Engine):
    """From TensorRT 10.15 on."""

    def get_aliased_input_tensor(self, name):
        if name.startswith("present.") and "past_len" in self.graph.inputs:
            return name.replace("present.", "past.")
        return None


class Context:
    """Shapes and addresses of the inputs and outputs; `ran` after one run at these shapes."""

    def __init__(self, engine: Engine):
        self.trt = engine.trt
        self.engine = engine
        self.graph = engine.graph
        self.profile: dict[str, dict] = {}
        self.index = -1  # of the profile
        self.scratch = 0  # its address
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.ran = False
        self.graphs = "DISABLED"  # whether TensorRT-RTX makes CUDA graphs
        self.trt.alive["contexts"] += 1

    def __del__(self):
        self.trt.alive["contexts"] -= 1

    def set_device_memory(self, pointer, size):
        assert size >= SCRATCH
        self.trt.driver.view(pointer, size)
        self.scratch = pointer

    def set_optimization_profile_async(self, index, stream):
        self.profile = self.engine.profiles[index]
        self.index = index
        return "set_optimization_profile_async" not in self.trt.fail

    def set_input_shape(self, name, shape):
        if "set_input_shape" in self.trt.fail:
            return False
        if name in self.profile["shapes"]:
            least, _, most = self.profile["shapes"][name]
            within = all(low <= n <= high for low, n, high in zip(least, shape, most))
            assert within, f"{name} {shape} is outside the profile"
        if self.shapes.get(name) != tuple(shape):
            self.ran = False
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name, pointer):
        aligned = name in self.engine.shape_inputs or pointer % ALIGNMENT == 0
        assert aligned, f"{name} at {pointer:#x} does not begin at {ALIGNMENT} bytes"
        self.addresses[name] = pointer
        return "set_tensor_address" not in self.trt.fail

    def infer_shapes(self):
        return [name for name in self.graph.inputs if name not in self.shapes]

    def get_tensor_shape(self, name):
        return self.graph.output_shape(name, self.shapes, self._keep())

    def execute_async_v3(self, stream):
        assert stream == STREAM and self.scratch and not self.infer_shapes()
        driver = self.trt.driver
        if "execute_async_v3" in self.trt.fail:
            self.engine.runtime.logger.log(ILogger.ERROR, "an illegal address")
            return False
        assert not driver.capturing or self.ran, "captured before one plain run at these shapes"
        assert not (driver.capturing and self.trt.is_rtx), "captured while kernels may still be compiled"
        driver.events.append(self._event())
        driver.enqueue(self._work())
        self.ran = True
        return True

    def _keep(self) -> int | None:
        """The value of the merge's shape input, read on the host as TensorRT does."""
        if not self.engine.shape_inputs:
            return None
        (name,) = self.engine.shape_inputs
        pointer = self.addresses[name]
        assert not self.trt.driver.owns(pointer), f"{name} is read on the host"
        keep = ctypes.c_int64.from_address(pointer).value
        least, _, most = self.profile["values"][name]
        assert least[0] <= keep <= most[0]
        return keep

    def _work(self) -> Callable[[], None]:
        """One run with the shapes and addresses of now, for whenever the stream comes to it."""
        shapes = dict(self.shapes)
        addresses = dict(self.addresses)
        keep = self._keep()
        graph = self.graph
        driver = self.trt.driver
        scratch = self.scratch
        shape_inputs = self.engine.shape_inputs

        def memory(name: str, shape: tuple[int, ...]) -> np.ndarray:
            dtype = np.dtype(NUMPY_TYPES[graph.tensors[name].type][1])
            values = driver.view(addresses[name], int(np.prod(shape)) * dtype.itemsize)
            return values.view(dtype).reshape(shape)

        def work() -> None:
            driver.view(scratch, SCRATCH).fill(GARBAGE)
            inputs = {}
            for name in graph.inputs:
                if name in shape_inputs:
                    inputs[name] = np.array([keep], np.int64)
                else:
                    inputs[name] = memory(name, shapes[name]).copy()
            for name, value in zip(graph.outputs, graph.session.run(list(graph.outputs), inputs)):
                memory(name, value.shape)[...] = value

        return work

    def _event(self) -> Event:
        driver = self.trt.driver
        facts = {
            "stage": self.graph.path.name,
            "profile": self.index,
            "addresses": dict(self.addresses),
            "captured": driver.capturing,
            "graphs": self.graphs,
            "allocated": driver.allocated,
        }
        return Event("execute", facts)
