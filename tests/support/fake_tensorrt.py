"""The part of tensorrt that ltbm uses, over the fake device:
its engines are the bundle's graphs on ONNX Runtime's CPU.

Everything TensorRT would refuse, as far as its headers say, is an AssertionError here;
what it reports by its return value can be made to fail by name.
"""

import ctypes
import enum
import functools
import json
import types
from pathlib import Path

import numpy as np
import onnxruntime

from ltbm.plugins import library

SCRATCH = 4096  # bytes that every engine asks for
NUMPY = {
    "tensor(float)": ("FLOAT", np.float32),
    "tensor(float16)": ("HALF", np.float16),
    "tensor(int32)": ("INT32", np.int32),
    "tensor(int64)": ("INT64", np.int64),
}


class Plan(bytes):
    @property
    def nbytes(self):
        return len(self)


class Graph:
    """An ONNX file on ONNX Runtime; the merge with its function body or native op in place of the plugin."""

    def __init__(self, path: Path):
        self.path = path
        options = onnxruntime.SessionOptions()
        library.register(options)
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        real = path.with_name("merge.onnx") if path.name == "merge.trt.onnx" else path
        self.session = onnxruntime.InferenceSession(str(real), options, providers=["CPUExecutionProvider"])
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = {value.name: value for value in self.session.get_outputs()}
        self.tensors = self.inputs | self.outputs

    def output_shape(self, name: str, shapes: dict, keep: int | None) -> tuple[int, ...]:
        known = {"K": keep}
        for tensor, value in self.inputs.items():
            for dimension, n in zip(value.shape, shapes[tensor]):
                if isinstance(dimension, str):
                    assert known.setdefault(dimension, n) == n, f"{dimension} is {known[dimension]} and {n}"
        if "F" in known:
            known["T"] = known["F"] // 4
        if "P" in known:
            known["P + S"] = known["P"] + known["S"]
        return tuple(known[d] if isinstance(d, str) else d for d in self.outputs[name].shape)


def tensorrt_module(driver, version: str) -> types.ModuleType:
    """A `tensorrt` of `version`. Its `fail` holds names of methods that are to fail,
    `built` the names of built graphs."""
    trt = types.ModuleType("tensorrt")
    trt.__version__, trt.fail, trt.built, trt.alive = version, set(), [], {"engines": 0, "contexts": 0}
    trt.driver, trt.in_place = driver, tuple(map(int, version.split(".")[:2])) >= (10, 15)
    for name, members in {
        "TensorIOMode": "INPUT OUTPUT",
        "TensorLocation": "DEVICE HOST",
        "MemoryPoolType": "WORKSPACE",
        "ExecutionContextAllocationStrategy": "STATIC USER_MANAGED",
        "NetworkDefinitionCreationFlag": "EXPLICIT_BATCH STRONGLY_TYPED",
        "DataType": "FLOAT HALF BF16 INT32 INT64 INT8 UINT8 BOOL",
    }.items():
        setattr(trt, name, enum.IntEnum(name, members, start=0))

    trt.ILogger, trt.IProgressMonitor = ILogger, IProgressMonitor  # to be derived from
    for kind in (OnnxParser, Builder, Runtime):
        setattr(trt, kind.__name__, functools.partial(kind, trt))
    return trt


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self):
        pass


class IProgressMonitor:
    def __init__(self):
        pass


class Registry:
    def __init__(self):
        self.libraries = []

    def load_library(self, path):
        self.libraries.append(path)
        return object()


class OnnxParser:
    def __init__(self, trt, network, logger):
        self.trt, self.network, self.errors = trt, network, []

    @property
    def num_errors(self):
        return len(self.errors)

    def get_error(self, index):
        return self.errors[index]

    def parse_from_file(self, path):
        if Path(path).name == "merge.trt.onnx" and not self.network.registry.libraries:
            self.errors.append(
                ParserError(
                    "LTBM_0", "LTBM", "Plugin not found, are the plugin name, version, and namespace correct?"
                )
            )
        if "parse_from_file" in self.trt.fail:
            self.errors.append(
                ParserError("Attention_7", "Attention", "No importer registered for op: Attention")
            )
        self.network.graph = Graph(Path(path))
        return not self.errors


class ParserError:
    def __init__(self, name, operator, text):
        self.node_name, self.node_operator, self.desc = (lambda: name), (lambda: operator), (lambda: text)


class Profile:
    def __init__(self):
        self.shapes, self.values = {}, {}

    def set_shape(self, name, least, usual, most):
        self.shapes[name] = [list(least), list(usual), list(most)]

    def set_shape_input(self, name, least, usual, most):
        self.values[name] = [list(least), list(usual), list(most)]


class TimingCache:
    def __init__(self, data):
        self.data = data

    def serialize(self):
        return Plan(b"timings")


class Config:
    progress_monitor = None

    def __init__(self, trt):
        self.trt, self.profiles, self.cache = trt, [], None

    def set_memory_pool_limit(self, pool, size):
        self.workspace = size

    def add_optimization_profile(self, profile):
        if "add_optimization_profile" in self.trt.fail:
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, data):
        assert bytes(data) in (b"", b"timings", b"foreign")
        return TimingCache(bytes(data))

    def set_timing_cache(self, cache, ignore_mismatch):
        return cache.data != b"foreign"


class Builder:
    def __init__(self, trt, logger):
        self.trt, self.logger, self.registry = trt, logger, Registry()

    def get_plugin_registry(self):
        return self.registry

    def create_network(self, flags):
        assert flags == 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return types.SimpleNamespace(graph=None, registry=self.registry)

    def create_builder_config(self):
        return Config(self.trt)

    def create_optimization_profile(self):
        return Profile()

    def build_serialized_network(self, network, config):
        graph = network.graph
        varying = {
            name for name, value in graph.inputs.items() if any(not isinstance(d, int) for d in value.shape)
        }
        for profile in config.profiles:
            assert set(profile.shapes) == varying, (
                f"profile lacks {varying - set(profile.shapes)}, has too much {set(profile.shapes) - varying}"
            )
            for least, usual, most in profile.shapes.values():
                assert all(low <= n <= high for low, n, high in zip(least, usual, most)), (
                    "a profile's opt is not between min and max"
                )
        monitor = config.progress_monitor
        monitor.phase_start("Build", None, 20)
        assert all(monitor.step_complete("Build", step) for step in range(20))
        monitor.phase_finish("Build")
        if "build_serialized_network" in self.trt.fail:
            self.logger.log(ILogger.ERROR, "out of memory in tactic selection")
            return None
        self.trt.built.append(graph.path.name)
        facts = {
            "graph": str(graph.path),
            "profiles": [{"shapes": p.shapes, "values": p.values} for p in config.profiles],
            "version": self.trt.__version__,
        }
        return Plan(json.dumps(facts).encode())


class Runtime:
    def __init__(self, trt, logger):
        self.trt, self.logger, self.registry = trt, logger, Registry()

    def get_plugin_registry(self):
        return self.registry

    def deserialize_cuda_engine(self, plan):
        facts = json.loads(bytes(memoryview(plan)))
        assert facts["version"] == self.trt.__version__, "an engine of another TensorRT is loaded"
        if "deserialize_cuda_engine" in self.trt.fail:
            self.logger.log(ILogger.ERROR, "Serialization assertion failed")
            return None
        assert "merge" not in facts["graph"] or self.registry.libraries, "the plugin is not loaded"
        return (InPlaceEngine if self.trt.in_place else Engine)(self, facts)


class Engine:
    device_memory_size_v2 = SCRATCH

    def __init__(self, runtime, facts):
        self.trt, self.runtime, self.graph, self.profiles = (
            runtime.trt,
            runtime,
            Graph(Path(facts["graph"])),
            facts["profiles"],
        )
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
        return self.trt.DataType[NUMPY[self.graph.tensors[name].type][0]]

    def get_tensor_shape(self, name):
        return [d if isinstance(d, int) else -1 for d in self.graph.tensors[name].shape]

    def get_tensor_location(self, name):
        return self.trt.TensorLocation.HOST if name in self.shape_inputs else self.trt.TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name, index):
        return self.profiles[index]["shapes"][name]

    def create_execution_context(self, strategy):
        assert strategy == self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        return None if "create_execution_context" in self.trt.fail else Context(self)


class InPlaceEngine(Engine):
    """From TensorRT 10.15 on."""

    def get_aliased_input_tensor(self, name):
        return (
            name.replace("present.", "past.")
            if name.startswith("present.") and "past_len" in self.graph.inputs
            else None
        )


class Context:
    def __init__(self, engine):
        self.trt, self.engine, self.graph, self.profile, self.scratch = (
            engine.trt,
            engine,
            engine.graph,
            None,
            None,
        )
        self.shapes, self.addresses, self.ran = {}, {}, False
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
            assert all(low <= n <= high for low, n, high in zip(least, shape, most)), (
                f"{name} {shape} is outside the profile"
            )
        if self.shapes.get(name) != tuple(shape):
            self.ran = False
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name, pointer):
        assert name in self.engine.shape_inputs or pointer % 256 == 0, (
            f"{name} at {pointer:#x} does not begin at 256 bytes"
        )
        self.addresses[name] = pointer
        return "set_tensor_address" not in self.trt.fail

    def infer_shapes(self):
        return [name for name in self.graph.inputs if name not in self.shapes]

    def get_tensor_shape(self, name):
        return self.graph.output_shape(name, self.shapes, self._keep())

    def _keep(self):
        if not self.engine.shape_inputs:
            return None
        (name,) = self.engine.shape_inputs
        pointer = self.addresses[name]
        assert not any(
            start <= pointer < start + block.nbytes for start, block in self.trt.driver._device.items()
        ), f"{name} is read on the host"
        value = int(host_int64(pointer))
        least, _, most = self.profile["values"][name]
        assert least[0] <= value <= most[0]
        return value

    def execute_async_v3(self, stream):
        assert stream == 0xF00D and self.scratch and not self.infer_shapes()
        if "execute_async_v3" in self.trt.fail:
            self.engine.runtime.logger.log(ILogger.ERROR, "an illegal address")
            return False
        assert not self.trt.driver.capturing or self.ran, "captured before one plain run at these shapes"
        self.trt.driver.events.append(event(self.trt.driver, self))
        self.trt.driver.enqueue(self._work(dict(self.shapes), dict(self.addresses), self._keep()))
        self.ran = True
        return True

    def _work(self, shapes, addresses, keep):
        graph, engine, scratch = self.graph, self.engine, self.scratch

        def memory(name, shape):
            dtype = np.dtype(NUMPY[graph.tensors[name].type][1])
            return (
                self.trt.driver.view(addresses[name], int(np.prod(shape)) * dtype.itemsize)
                .view(dtype)
                .reshape(shape)
            )

        def work():
            self.trt.driver.view(scratch, SCRATCH).fill(0xCD)
            inputs = {
                name: np.array([keep], np.int64)
                if name in engine.shape_inputs
                else memory(name, shapes[name]).copy()
                for name in graph.inputs
            }
            for name, value in zip(graph.outputs, graph.session.run(list(graph.outputs), inputs)):
                memory(name, value.shape)[...] = value

        return work


def event(driver, context):
    kind = type(driver.events[0]) if driver.events else None
    facts = {
        "stage": context.graph.path.name,
        "profile": context.index,
        "addresses": dict(context.addresses),
        "captured": driver.capturing,
        "allocated": driver.allocated,
    }
    return kind("execute", facts)


def host_int64(pointer: int) -> np.int64:
    return np.int64(ctypes.c_int64.from_address(pointer).value)
