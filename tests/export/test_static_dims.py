"""A symbolic dimension made a number, held against the onnx package."""

import onnx
import pytest

from ltbm.export.static_dims import with_static_dim


def dims(values, name):
    (value,) = [one for one in values if one.name == name]
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.fixture(scope="module")
def decoder(qwen):
    return (qwen[1] / "decoder.trt24.onnx").read_bytes()


def test_inputs_and_outputs_have_the_number(decoder):
    graph = onnx.load_model_from_string(with_static_dim(decoder, "CAP", 1792)).graph
    assert dims(graph.input, "past.1.value") == ["B", 2, 1792, 16]
    assert dims(graph.output, "present.1.value") == ["B", 2, 1792, 16]
    assert dims(graph.input, "key_bias") == ["B", "USED"]


def test_nothing_else_changes(decoder):
    """Made a number and then given its name again, it is the model that it was."""
    model = onnx.load_model_from_string(with_static_dim(decoder, "CAP", 1792))
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value == 1792:
                dim.dim_param = "CAP"
    assert model == onnx.load_model_from_string(decoder)


def test_a_dimension_that_is_not_there(decoder):
    with pytest.raises(ValueError, match="no dimension CAPACITY"):
        with_static_dim(decoder, "CAPACITY", 64)


@pytest.mark.parametrize("cut", (1, 2, 5, 40))
def test_what_is_cut_is_refused(decoder, cut):
    with pytest.raises(ValueError, match="not an ONNX model"):
        with_static_dim(decoder[:-cut], "CAP", 64)


def test_what_is_no_model_is_refused():
    with pytest.raises(ValueError, match="not an ONNX model"):
        with_static_dim(b"\x07 no model", "CAP", 64)
