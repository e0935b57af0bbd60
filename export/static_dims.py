"""A symbolic dimension of an ONNX graph's inputs and outputs made a number, on the file's bytes.

What is not about the dimension is copied as it is.
"""

from ..runtime.onnx_bytes import (
    GRAPH_INPUT,
    GRAPH_OUTPUT,
    MODEL_GRAPH,
    TYPE_TENSOR,
    VALUE_TYPE,
    bytes_field,
    number_field,
    rewritten,
)

# Field numbers of onnx.proto.
TENSOR_SHAPE = 2
SHAPE_DIM = 1
DIM_VALUE, DIM_PARAM = 1, 2

PATH_TO_DIM = (VALUE_TYPE, TYPE_TENSOR, TENSOR_SHAPE, SHAPE_DIM)  # from an input or output


def with_static_dim(model: bytes, name: str, size: int) -> bytes:
    """The model whose inputs and outputs have `size` where they had the symbolic dimension `name`.

    ValueError if none has it, or if the bytes are not an ONNX model.
    """
    changed = 0

    def set_dim(dim: bytes) -> bytes:
        nonlocal changed
        if bytes_field(DIM_PARAM, name.encode()) not in dim:
            return dim
        changed += 1
        return number_field(DIM_VALUE, size)

    def in_graph(graph: bytes) -> bytes:
        for kind in (GRAPH_INPUT, GRAPH_OUTPUT):
            graph = rewritten(graph, (kind, *PATH_TO_DIM), set_dim)
        return graph

    changed_model = rewritten(model, (MODEL_GRAPH,), in_graph)
    if not changed:
        raise ValueError(f"the graph has no dimension {name} in its inputs and outputs")
    return changed_model
