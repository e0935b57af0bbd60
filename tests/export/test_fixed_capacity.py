"""What the decoder for TensorRT does with its cache: a step costs what its tokens cost, not the capacity."""

import onnx
import pytest


@pytest.fixture(scope="module")
def graph(qwen):
    return onnx.load(qwen[1] / "decoder.trt24.onnx", load_external_data=False).graph


def test_nothing_behind_the_update_of_the_cache_sees_its_capacity(graph):
    """Only Slice reads what TensorScatter gives, and it takes as many columns as key_bias has."""
    caches = {node.output[0] for node in graph.node if node.op_type == "TensorScatter"}
    readers = [node for node in graph.node if caches & set(node.input)]
    assert len(caches) == 4 and len(readers) == 4  # keys and values of two layers
    assert {node.op_type for node in readers} == {"Slice"}
    (used,) = {node.input[2] for node in readers}
    (shape,) = [node for node in graph.node if used in node.output]
    assert (shape.op_type, shape.input[0]) == ("Shape", "key_bias")
    assert {attribute.name: attribute.i for attribute in shape.attribute} == {"start": 1, "end": 2}


def test_attention_reads_the_slices(graph):
    sliced = {node.output[0] for node in graph.node if node.op_type == "Slice"}
    attentions = [node for node in graph.node if node.op_type == "Attention"]
    assert len(attentions) == 2
    for node in attentions:
        assert set(node.input[1:3]) <= sliced
