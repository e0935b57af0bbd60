"""The fake TensorRT's parser and builder: a plan names its graph and holds its optimisation profiles."""

import base64
import json
import types
from pathlib import Path

from tests.support.fake_tensorrt_graph import Graph, HostMemory, ILogger, Registry

NO_PLUGIN = "Plugin not found, are the plugin name, version, and namespace correct?"
NO_IMPORTER = "No importer registered for op: Attention"
DYNAMIC_CACHE = "TensorScatter: The KV cache tensor must have a static sequence length dimension."
DISAGREEING = "Profile kMAX values are not self-consistent"
STEPS = 20  # of a build's one phase


class OnnxParser:
    def __init__(self, trt, network, logger):
        self.trt = trt
        self.network = network
        self.errors = []

    @property
    def num_errors(self):
        return len(self.errors)

    def get_error(self, index):
        return self.errors[index]

    def parse(self, model, path):
        if Path(path).name == "merge.trt.onnx":
            assert not self.trt.is_rtx, "TensorRT-RTX ends the process at a plugin's node"
            if not self.network.registry.libraries:
                self.errors.append(ParserError("LTBM_0", "LTBM", NO_PLUGIN))
        if "parse" in self.trt.fail:
            self.errors.append(ParserError("Attention_7", "Attention", NO_IMPORTER))
        graph = Graph(Path(path), model)
        if graph.has_dynamic_cache():
            self.errors.append(ParserError("TensorScatter_0", "TensorScatter", DYNAMIC_CACHE))
        self.network.graph = graph
        return not self.errors


class ParserError:
    def __init__(self, node, operator, text):
        self.node_name = lambda: node
        self.node_operator = lambda: operator
        self.desc = lambda: text


class OptimizationProfile:
    def __init__(self):
        self.shapes = {}
        self.values = {}

    def set_shape(self, name, least, usual, most):
        self.shapes[name] = [list(least), list(usual), list(most)]

    def set_shape_input(self, name, least, usual, most):
        self.values[name] = [list(least), list(usual), list(most)]

    def check(self, varying):
        """AssertionError unless it has a range in order for each of these inputs, and for no other."""
        lacking = varying - set(self.shapes)
        assert set(self.shapes) == varying, (
            f"profile lacks {lacking}, has too much {set(self.shapes) - varying}"
        )
        for least, usual, most in self.shapes.values():
            in_order = all(low <= n <= high for low, n, high in zip(least, usual, most))
            assert in_order, "a profile's opt is not between min and max"

    def disagrees(self):
        """Whether the largest cached and new tokens are more than the largest keys."""
        cached = self.shapes.get("past.0.key")
        if cached is None or "past_len" in self.shapes:
            return False
        _, _, most = cached
        return most[2] + self.shapes["inputs_embeds"][2][1] > self.shapes["key_bias"][2][1]


class TimingCache:
    def __init__(self, data):
        self.data = data

    def serialize(self):
        return HostMemory(b"timings")


class BuilderConfig:
    progress_monitor = None

    def __init__(self, trt):
        self.trt = trt
        self.profiles = []
        self.num_compute_capabilities = 0
        self.capabilities = {}

    def set_memory_pool_limit(self, pool, size):
        self.workspace = size

    def set_compute_capability(self, capability, index):
        assert self.trt.is_rtx and index < self.num_compute_capabilities
        self.capabilities[index] = capability.name
        return "set_compute_capability" not in self.trt.fail

    def add_optimization_profile(self, profile):
        if "add_optimization_profile" in self.trt.fail:
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, data):
        assert not self.trt.is_rtx, "a timing cache makes TensorRT-RTX look for a GPU"
        assert bytes(data) in (b"", b"timings", b"foreign")
        return TimingCache(bytes(data))

    def set_timing_cache(self, cache, ignore_mismatch):
        return cache.data != b"foreign"


class Builder:
    def __init__(self, trt, logger):
        self.trt = trt
        self.logger = logger
        self.registry = Registry()

    def get_plugin_registry(self):
        return self.registry

    def create_network(self, flags):
        assert flags == 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return types.SimpleNamespace(graph=None, registry=self.registry, num_layers=0)

    def create_builder_config(self):
        return BuilderConfig(self.trt)

    def create_optimization_profile(self):
        return OptimizationProfile()

    def build_serialized_network(self, network, config):
        graph = network.graph
        for profile in config.profiles:
            profile.check(graph.varying_inputs())
            if profile.disagrees():
                self.logger.log(ILogger.WARNING, DISAGREEING)
        assert len(config.capabilities) == config.num_compute_capabilities
        assert bool(config.capabilities) == self.trt.is_rtx
        report_steps(config.progress_monitor)
        if "build_serialized_network" in self.trt.fail:
            self.logger.log(ILogger.ERROR, "out of memory in tactic selection")
            return None
        self.trt.built.append(graph.path.name)
        profiles = [{"shapes": profile.shapes, "values": profile.values} for profile in config.profiles]
        facts = {
            "graph": str(graph.path),
            "model": base64.b64encode(graph.model).decode(),
            "profiles": profiles,
            "version": self.trt.__version__,
            "capabilities": list(config.capabilities.values()),
        }
        return HostMemory(json.dumps(facts).encode())


def report_steps(monitor):
    monitor.phase_start("Build", None, STEPS)
    for step in range(STEPS):
        assert monitor.step_complete("Build", step)
    monitor.phase_finish("Build")
