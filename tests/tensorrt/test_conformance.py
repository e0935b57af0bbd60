"""Graphs that no real TensorRT judges here, against what its parser says it takes.

TensorRT before 10.15 and the merge, whose op is a plugin; `test_judge` builds all others with TensorRT-RTX.
"""

import onnx
import pytest
from onnx import TensorProto, helper

from ltbm.runtime.backends.engine_store import ENGINES_OF, Target, graph_file
from ltbm.runtime.backends.trt_library import TENSORRT
from tests.support import conformance

VERSIONS = list(conformance.TABLE["versions"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("family", ["qwen2_audio", "audioflamingo3"])
def test_graphs_are_taken(make_bundle, family, precision, version):
    bundle = make_bundle(family, precision)[1]
    flavour = Target(version, "8.7", "a GPU", "").flavour
    assert flavour == ("concat20" if version == "10.3" else "trt24")
    for stage in ENGINES_OF[TENSORRT] if version == "10.3" else ("merge",):
        assert conformance.findings(bundle / graph_file(stage, flavour), version) == [], stage


def test_int4_for_tensorrt_is_taken_and_other_int4_is_not(make_bundle, tmp_path, version="10.3"):
    from ltbm.export.writer import export_bundle

    flavour = Target(version, "8.7", "a GPU", "").flavour
    for target in (None, "tensorrt"):
        options = {"target": target} if target else {}
        path = export_bundle(
            make_bundle("qwen2_audio")[0],
            tmp_path / str(target),
            "int4",
            progress=lambda line: None,
            **options,
        )
        findings = conformance.findings(path / f"decoder.{flavour}.onnx", version)
        # blocks came with opset 21; the parser of 10.1, whose source can be read, does not look at how new an
        # opset is
        findings = [line for line in findings if line != "graph: opset 21, the parser takes 20"]
        assert bool(findings) == (target is None), findings


def test_the_older_tensorrt_does_not_take_the_cache_in_place(make_bundle):
    findings = conformance.findings(make_bundle("qwen2_audio")[1] / "decoder.std24.onnx", "10.3")
    assert any("opset 24" in line for line in findings) and any("TensorScatter" in line for line in findings)


def test_the_merge_with_its_body_is_not_for_tensorrt(make_bundle):
    findings = conformance.findings(make_bundle("qwen2_audio")[1] / "merge.onnx", "11.1")
    assert any("function LTBM" in line for line in findings) and any(
        "plugin_namespace" in line for line in findings
    )


def graph_of(tmp_path, nodes, inputs, outputs, initializers=(), opset=24):
    path = tmp_path / "graph.onnx"
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), path)
    return path


def value(name, kind, *shape):
    return helper.make_tensor_value_info(name, kind, shape)


FLOAT = TensorProto.FLOAT
DOUBLE = TensorProto.DOUBLE
INT64 = TensorProto.INT64
UINT8 = TensorProto.UINT8
SCALE = helper.make_tensor("s", FLOAT, [], [-0.1])
SIZE = helper.make_tensor("size", INT64, [1], [4000])
CASES = {
    "double": (
        [helper.make_node("Cast", ["x"], ["y"], "cast", to=DOUBLE)],
        [value("x", FLOAT, 4)],
        [value("y", DOUBLE, 4)],
        [],
        "cast: Cast gives y of type DOUBLE",
    ),
    "operator": (
        [helper.make_node("Det", ["x"], ["y"], "det")],
        [value("x", FLOAT, 4, 4)],
        [value("y", FLOAT)],
        [],
        "det: operator ai.onnx::Det",
    ),
    "types": (
        [helper.make_node("Log", ["x"], ["y"], "log")],
        [value("x", DOUBLE, 4)],
        [value("y", DOUBLE, 4)],
        [],
        "log: Log of x, which is DOUBLE, takes FLOAT",
    ),
    "large TopK": (
        [helper.make_node("TopK", ["x", "size"], ["y", "i"], "top")],
        [value("x", FLOAT, 9000)],
        [value("y", FLOAT, 4000), value("i", INT64, 4000)],
        [SIZE],
        "top: TopK of 3840",
    ),
    "data as a shape": (
        [helper.make_node("Reshape", ["x", "s"], ["y"], "reshape")],
        [value("x", FLOAT, 4), value("s", INT64, 2)],
        [value("y", FLOAT, "a", "b")],
        [],
        "reshape: Reshape's input 1 is not worked out from shapes",
    ),
    "axes of a run": (
        [helper.make_node("Unsqueeze", ["x", "a"], ["y"], "unsqueeze")],
        [value("x", FLOAT, 4), value("a", INT64, 1)],
        [value("y", FLOAT, "a", "b")],
        [],
        "unsqueeze: Unsqueeze's input 1 is not constant",
    ),
    "a cache in Attention": (
        [
            helper.make_node(
                "Attention", ["q", "k", "v", "", "pk", "pv"], ["y", "nk", "nv"], "attention", is_causal=1
            )
        ],
        [value(name, FLOAT, 1, 2, 3, 4) for name in ("q", "k", "v", "pk", "pv")],
        [value("y", FLOAT, 1, 2, 3, 4), value("nk", FLOAT, 1, 2, 6, 4), value("nv", FLOAT, 1, 2, 6, 4)],
        [],
        "attention: Attention with a cache of its own",
    ),
    "3D Attention": (
        [helper.make_node("Attention", ["q", "q", "q"], ["y"], "attention", q_num_heads=2, kv_num_heads=2)],
        [value("q", FLOAT, 1, 3, 8)],
        [value("y", FLOAT, 1, 3, 8)],
        [],
        "attention: Attention's q is not 4D",
    ),
    "zero points": (
        [helper.make_node("DequantizeLinear", ["x", "s", "z"], ["y"], "dequantize")],
        [value("x", UINT8, 4), value("z", UINT8)],
        [value("y", FLOAT, 4)],
        [SCALE],
        "dequantize: DequantizeLinear with a zero point",
    ),
    "negative scales": (
        [helper.make_node("DequantizeLinear", ["x", "s"], ["y"], "dequantize")],
        [value("x", TensorProto.INT8, 4)],
        [value("y", FLOAT, 4)],
        [SCALE],
        "dequantize: DequantizeLinear with scales that are not",
    ),
    "int8 in blocks": (
        [helper.make_node("DequantizeLinear", ["x", "s"], ["y"], "dequantize", block_size=2)],
        [value("x", TensorProto.INT8, 4)],
        [value("y", FLOAT, 4)],
        [SCALE],
        "dequantize: DequantizeLinear of INT8 in blocks",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_walk_finds(tmp_path, case):
    *graph, wanted = CASES[case]
    findings = conformance.findings(graph_of(tmp_path, *graph), "11.1")
    assert any(line.startswith(wanted) for line in findings), findings
