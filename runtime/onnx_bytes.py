"""ONNX models as bytes: their fields read and changed.

Machines that run, build engines or pack weights have no onnx package.
"""

from collections.abc import Callable, Iterator

# Field numbers of onnx.proto.
MODEL_GRAPH, MODEL_OPSET = 7, 8
OPSET_DOMAIN, OPSET_VERSION = 1, 2
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
GRAPH_INPUT, GRAPH_OUTPUT = 11, 12
NODE_INPUT, NODE_OUTPUT, NODE_OP_TYPE, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_INT = 1, 3
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME = 1, 2, 8
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR = 1

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}


def rewritten(message: bytes, path: tuple[int, ...], change: Callable[[bytes], bytes | None]) -> bytes:
    """The message with `change` made to every submessage at `path`, a field number for each level; those for
    which it gives None are left out."""
    number, *rest = path
    out = []
    for field, content, raw in fields(message):
        if field != number or content is None:
            out.append(raw)
        elif rest:
            out.append(bytes_field(number, rewritten(content, tuple(rest), change)))
        elif (changed := change(content)) is not None:
            out.append(bytes_field(number, changed))
    return b"".join(out)


def submessages(message: bytes, path: tuple[int, ...]) -> Iterator[bytes]:
    """Every submessage at `path`, a field number for each level."""
    number, *rest = path
    for field, content, _ in fields(message):
        if field != number or content is None:
            continue
        if rest:
            yield from submessages(content, tuple(rest))
        else:
            yield content


def fields(message: bytes) -> Iterator[tuple[int, bytes | None, bytes]]:
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


def texts(message: bytes, number: int) -> list[str]:
    """Every text in the field `number`, in order."""
    return [(content or b"").decode() for field, content, _ in fields(message) if field == number]


def whole_numbers(message: bytes, number: int) -> list[int]:
    """Every whole number in the field `number`, in order, also packed ones."""
    found = []
    for field, content, raw in fields(message):
        if field != number:
            continue
        _, at = _read_varint(raw, 0)
        values, at = (raw, at) if content is None else (content, 0)
        while at < len(values):
            value, at = _read_varint(values, at)
            found.append(value)
    return found


def bytes_field(number: int, content: bytes) -> bytes:
    """A field whose content has a length: a submessage or text."""
    return _key(number, BYTES) + _varint(len(content)) + content


def number_field(number: int, value: int) -> bytes:
    return _key(number, VARINT) + _varint(value)


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


def _key(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
