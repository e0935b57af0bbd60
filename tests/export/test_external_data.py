"""Where weights lie outside of a graph, held against the onnx package."""

import onnx
import pytest

from ltbm.export.external_data import Extent, PackedWeight, external_tensors, with_entries

ENTRY = "MatMul+123|4096;64;0|8192;12;0"
PLACES = {"location": "elsewhere/file", "offset": "64", "length": "128", "prepacked_0": ENTRY}


@pytest.fixture(scope="module")
def encoder(qwen):
    return (qwen[1] / "encoder.onnx").read_bytes()


def entries_of(model: bytes) -> dict[str, dict[str, str]]:
    """By the onnx package."""
    entries = {}
    for tensor in onnx.load_model_from_string(model).graph.initializer:
        if tensor.external_data:
            entries[tensor.name] = {entry.key: entry.value for entry in tensor.external_data}
    return entries


def test_every_external_weight_is_read(encoder):
    expected = entries_of(encoder)
    assert len(expected) > 10
    assert {name: dict(tensor.entries) for name, tensor in external_tensors(encoder).items()} == expected


def test_one_weight_gets_other_entries_and_nothing_else_changes(encoder):
    name = next(reversed(entries_of(encoder)))
    changed = with_entries(encoder, name, PLACES)
    assert entries_of(changed) == entries_of(encoder) | {name: PLACES}
    former = entries_of(encoder)[name]
    assert onnx.load_model_from_string(with_entries(changed, name, former)) == onnx.load_model_from_string(
        encoder
    )


def test_packed_weights_are_read_and_written(encoder):
    name = next(iter(entries_of(encoder)))
    tensor = external_tensors(with_entries(encoder, name, PLACES))[name]
    assert tensor.extent == Extent(64, 128)
    assert tensor.packed == [PackedWeight("MatMul+123", (Extent(4096, 64), Extent(8192, 12)))]
    assert tensor.packed[0].entry() == ENTRY
