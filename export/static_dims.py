"""A symbolic dimension of an ONNX graph's inputs and outputs made a number, on the file's bytes.

Machines that build engines have no onnx package. What is not about the dimension is copied as it is.
"""

from collections.abc import Callable, Iterator

# Field numbers of onnx.proto.
MODEL_GRAPH = 7
GRAPH_INPUT, GRAPH_OUTPUT = 11, 12
VALUE_TYPE = 2
TYPE_TENSOR = 1
TENSOR_SHAPE = 2
SHAPE_DIM = 1
DIM_VALUE, DIM_PARAM = 1, 2

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
PATH_TO_DIM = (VALUE_TYPE, TYPE_TENSOR, TENSOR_SHAPE, SHAPE_DIM)  # from an input or output


def with_static_dim(model: bytes, name: str, size: int) -> bytes:
    """The model whose inputs and outputs have `size` where they had the symbolic dimension `name`.

    ValueError if none has it, or if the bytes are not an ONNX model.
    """
    changed = 0

    def set_dim(dim: bytes) -> bytes:
        nonlocal changed
        if _field(DIM_PARAM, name.encode()) not in dim:
            return dim
        changed += 1
        return _key(DIM_VALUE, VARINT) + _varint(size)

    def in_graph(graph: bytes) -> bytes:
        for kind in (GRAPH_INPUT, GRAPH_OUTPUT):
            graph = _rewritten(graph, (kind, *PATH_TO_DIM), set_dim)
        return graph

    rewritten = _rewritten(model, (MODEL_GRAPH,), in_graph)
    if not changed:
        raise ValueError(f"the graph has no dimension {name} in its inputs and outputs")
    return rewritten


def _rewritten(message: bytes, path: tuple[int, ...], change: Callable[[bytes], bytes]) -> bytes:
    """The message with `change` made to every submessage at `path`, a field number for each level."""
    number, *rest = path
    out = []
    for field, content, raw in _fields(message):
        if field != number or content is None:
            out.append(raw)
        elif rest:
            out.append(_field(number, _rewritten(content, tuple(rest), change)))
        else:
            out.append(_field(number, change(content)))
    return b"".join(out)


def _fields(message: bytes) -> Iterator[tuple[int, bytes | None, bytes]]:
    """(number, content where it has a length, bytes as they stand) of every field."""
    at = 0
    while at < len(message):
        begin = at
        key, at = _read_varint(message, at)
        wire = key & 7
        content = None
        if wire == VARINT:
            _, at = _read_varint(message, at)
        elif wire == BYTES:
            size, at = _read_varint(message, at)
            content = message[at : at + size]
            at += size
        elif wire in FIXED_BYTES:
            at += FIXED_BYTES[wire]
        else:
            raise ValueError(f"not an ONNX model: a field of wire type {wire}")
        if at > len(message):
            raise ValueError("not an ONNX model: it ends within a field")
        yield key >> 3, content, message[begin:at]


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where the next thing begins."""
    value = 0
    shift = 0
    while at < len(data):
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("not an ONNX model: it ends within a number")


def _field(number: int, content: bytes) -> bytes:
    return _key(number, BYTES) + _varint(len(content)) + content


def _key(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
