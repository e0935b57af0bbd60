"""A decoder whose KV cache is float16 while it computes in float32: ONNX Runtime's CPU attention takes it."""

from ..onnx_bytes import (
    GRAPH_INPUT,
    GRAPH_OUTPUT,
    MODEL_GRAPH,
    TYPE_TENSOR,
    VALUE_NAME,
    VALUE_TYPE,
    fields,
    number_field,
    rewritten,
)

TENSOR_ELEMENT_TYPE = 1  # field number of onnx.proto
FLOAT16 = 10  # TensorProto.FLOAT16
CACHE_NAMES = (b"past.", b"present.")


def with_half_cache(model: bytes) -> bytes:
    """The decoder's graph with inputs and outputs of its KV cache in float16; all else is as it was."""
    for kind in (GRAPH_INPUT, GRAPH_OUTPUT):
        model = rewritten(model, (MODEL_GRAPH, kind), _half_if_cache)
    return model


def _half_if_cache(value: bytes) -> bytes:
    """Of a ValueInfoProto."""
    (name,) = [content or b"" for number, content, _ in fields(value) if number == VALUE_NAME]
    if not name.startswith(CACHE_NAMES):
        return value
    return rewritten(value, (VALUE_TYPE, TYPE_TENSOR), _half)


def _half(tensor: bytes) -> bytes:
    """Of a TypeProto.Tensor."""
    kept = [raw for number, _, raw in fields(tensor) if number != TENSOR_ELEMENT_TYPE]
    return b"".join([number_field(TENSOR_ELEMENT_TYPE, FLOAT16), *kept])
