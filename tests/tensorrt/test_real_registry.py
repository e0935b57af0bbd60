"""The plugin in the real registry: TensorRT-RTX lists and creates plugins, though its networks take none."""

import json
import subprocess
import sys

import pytest

from ltbm.export.merge import PLUGIN_ATTRIBUTES
from ltbm.plugins.onnx_function import DOMAIN, OP

pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX: pip install 'ltbm[rtx]' (Linux x86-64, aarch64)")
pytestmark = pytest.mark.compiler

ASK = """
import json, sys
import numpy as np, tensorrt_rtx as trt

class Logger(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.errors = []
    def log(self, severity, message):
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.errors.append(message)

path, name, version, namespace, fields = sys.argv[1:]
logger = Logger()
registry = trt.Builder(logger).get_plugin_registry()
loaded = registry.load_library(path) is not None
creator = registry.get_creator(name, version, namespace)
given = []
for field, value in json.loads(fields).items():
    given.append(trt.PluginField(field, np.array([value], np.int64), trt.PluginFieldType.INT64))
plugin = creator.create_plugin("node", trt.PluginFieldCollection(given), trt.TensorRTPhase.BUILD)
facts = {"loaded": loaded, "fields": [field.name for field in creator.field_names], "errors": logger.errors}
if plugin is not None:
    build = plugin.get_capability_interface(trt.PluginCapabilityType.BUILD)
    facts |= {"outputs": build.num_outputs, "timing": build.timing_cache_id}
    core = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
    facts["core"] = [core.plugin_name, core.plugin_version, core.plugin_namespace]
print(json.dumps(facts))
"""


@pytest.fixture
def ask(emulated_plugin):
    """In a process of its own, whose end would not be that of the tests."""

    def ask_registry(**fields: int) -> dict:
        identity = [OP, PLUGIN_ATTRIBUTES["plugin_version"], DOMAIN]
        arguments = [sys.executable, "-c", ASK, emulated_plugin, *identity, json.dumps(fields)]
        done = subprocess.run(arguments, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        return facts | {"said": " ".join([*facts["errors"], done.stderr])}

    return ask_registry


def node_fields(bundle) -> dict[str, int]:
    """The fields of the bundle's op, less those by which the parser finds the plugin."""
    import onnx

    (node,) = [node for node in onnx.load(bundle / "merge.trt.onnx").graph.node if node.op_type == OP]
    given = {field.name: onnx.helper.get_attribute_value(field) for field in node.attribute}
    return {name: value for name, value in given.items() if name not in PLUGIN_ATTRIBUTES}


def test_the_registry_finds_the_creator_and_creates_the_plugin_of_the_node(ask, qwen):
    fields = node_fields(qwen[1])
    facts = ask(**fields)
    assert facts["loaded"] and facts["errors"] == []
    assert facts["fields"] == ["step_num", "step_den"]
    assert facts["core"] == ["LTBM", "1", "ai.ltbm"]
    assert (facts["outputs"], facts["timing"]) == (4, "LTBM 1, step 2/5")
    assert ask(**dict.fromkeys(fields, 3))["timing"] == "LTBM 1, step 3/3"  # 2/5 is the plugin's own default


def test_fields_that_are_no_step_are_refused_with_a_reason(ask):
    facts = ask(step_num=0, step_den=5)
    # to the logger, or to stderr where the library has headers of another TensorRT than the registry
    assert "LTBM: step_num and step_den must be positive whole numbers" in facts["said"]
    assert "outputs" not in facts
