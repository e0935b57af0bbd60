"""Where an ONNX graph's weights lie outside of it, read and changed on the file's bytes.

ONNX Runtime adds to the entries of the format (location, offset, length) one `prepacked_N` for each form in
which its kernels read the weight: `key|offset;length;checksum|...`, a part for each buffer in the same file.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ..runtime.onnx_bytes import MODEL_GRAPH, bytes_field, fields, rewritten, submessages

# Field numbers of onnx.proto.
GRAPH_INITIALIZER = 5
TENSOR_NAME, TENSOR_EXTERNAL_DATA = 8, 13
ENTRY_KEY, ENTRY_VALUE = 1, 2

INITIALIZERS = (MODEL_GRAPH, GRAPH_INITIALIZER)
PREPACKED = "prepacked_"
CHECKSUM = "0"  # ONNX Runtime writes none


@dataclass(frozen=True)
class Extent:
    """Bytes of a file."""

    offset: int
    length: int


@dataclass(frozen=True)
class PackedWeight:
    """A weight in a form in which kernels read it: ONNX Runtime's key of it, and its buffers."""

    key: str
    buffers: tuple[Extent, ...]

    @classmethod
    def parse(cls, entry: str) -> "PackedWeight":
        """Of a `prepacked_N` entry."""
        key, *parts = entry.split("|")
        buffers = []
        for part in parts:
            offset, length, _ = part.split(";")
            buffers.append(Extent(int(offset), int(length)))
        return cls(key, tuple(buffers))

    def entry(self) -> str:
        parts = [f"{buffer.offset};{buffer.length};{CHECKSUM}" for buffer in self.buffers]
        return "|".join([self.key, *parts])


@dataclass(frozen=True)
class ExternalTensor:
    """An initializer whose values are in a file beside the graph."""

    name: str
    entries: Mapping[str, str]

    @property
    def extent(self) -> Extent:
        return Extent(int(self.entries.get("offset", 0)), int(self.entries["length"]))

    @property
    def packed(self) -> list[PackedWeight]:
        return [PackedWeight.parse(text) for key, text in self.entries.items() if key.startswith(PREPACKED)]


def external_tensors(model: bytes) -> dict[str, ExternalTensor]:
    """Name -> every initializer of the graph that is external."""
    tensors = {}
    for content in submessages(model, INITIALIZERS):
        tensor = _external_tensor(content)
        if tensor.entries:
            tensors[tensor.name] = tensor
    return tensors


def with_entries(model: bytes, name: str, entries: Mapping[str, str]) -> bytes:
    """The model with these entries for the external initializer `name`."""

    def change(content: bytes) -> bytes:
        if _external_tensor(content).name != name:
            return content
        kept = [raw for number, _, raw in fields(content) if number != TENSOR_EXTERNAL_DATA]
        return b"".join(kept + [_entry(key, value) for key, value in entries.items()])

    return rewritten(model, INITIALIZERS, change)


def _external_tensor(content: bytes) -> ExternalTensor:
    name = ""
    entries = {}
    for number, value, _ in fields(content):
        if number == TENSOR_NAME and value is not None:
            name = value.decode()
        elif number == TENSOR_EXTERNAL_DATA and value is not None:
            parts = {part: text.decode() for part, text, _ in fields(value) if text is not None}
            entries[parts[ENTRY_KEY]] = parts.get(ENTRY_VALUE, "")
    return ExternalTensor(name, entries)


def _entry(key: str, value: str) -> bytes:
    pair = bytes_field(ENTRY_KEY, key.encode()) + bytes_field(ENTRY_VALUE, value.encode())
    return bytes_field(TENSOR_EXTERNAL_DATA, pair)
