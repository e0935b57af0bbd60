"""Products of quantised weights by our native ops in place of ONNX Runtime's own.

`ai.ltbm::MatMulNBits` takes the inputs of `com.microsoft::MatMulNBits` and rounds activations as that does
at accuracy level 4. `ai.ltbm::DynamicQuantizeMatMul` does in one what an int8 encoder's product is made of
(`export/graph.py`). Both read the codes where they lie: opening packs nothing, the file that is mapped is the
only copy of the weights, and products are faster (docs/evidence.md). A graph is changed as it is opened:
bundles hold ONNX Runtime's ops, which run everywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...plugins import library
from ..onnx_bytes import (
    ATTRIBUTE_INT,
    ATTRIBUTE_NAME,
    GRAPH_INITIALIZER,
    GRAPH_NODE,
    GRAPH_OUTPUT,
    MODEL_GRAPH,
    MODEL_OPSET,
    NODE_ATTRIBUTE,
    NODE_DOMAIN,
    NODE_INPUT,
    NODE_OP_TYPE,
    NODE_OUTPUT,
    OPSET_DOMAIN,
    OPSET_VERSION,
    TENSOR_DIMS,
    TENSOR_NAME,
    TENSOR_TYPE,
    VALUE_NAME,
    bytes_field,
    fields,
    number_field,
    rewritten,
    submessages,
    texts,
    whole_numbers,
)

FLOAT, INT8 = 1, 3  # of TensorProto
VERSION = 1  # of our ops
THEIR_DOMAIN = "com.microsoft"
UNPACKED = 32  # values of K that our ops unpack at once, and columns at most: sizes are a multiple

BLOCKS = "MatMulNBits"
BLOCKS_CODES, BLOCKS_SCALES, BLOCKS_GROUP_INDEX = 1, 2, 4  # inputs
BLOCK_SIZES = (16, 32, 64, 128, 256)
ACCURACY_LEVEL = 4  # whose rounding ours is
HEAD = "lm_head"  # how the names of the LM head's weights begin

COLUMNS = "DynamicQuantizeMatMul"
COLUMNS_CHAIN = ("Abs", "ReduceMax", "Max", "Div", "QuantizeLinear", "MatMulIntegerToFloat", "Mul")
INTEGER_CODES, INTEGER_SCALES = 1, 3  # inputs of MatMulIntegerToFloat

NO_DOT_PRODUCTS = "avx2"
"""With these instructions products of 8 bits are faster than ONNX Runtime's for a single row only: those of
the LM head."""


@dataclass(frozen=True)
class Node:
    """One node of a graph: its place there and its message."""

    index: int
    message: bytes
    op: str
    domain: str
    inputs: list[str]
    outputs: list[str]


@dataclass(frozen=True)
class Tensor:
    """What is known of an initializer without its values."""

    data_type: int
    dims: list[int]


@dataclass(frozen=True)
class Graph:
    """Its nodes in order, with who makes and who reads each value."""

    nodes: Sequence[Node]
    makers: Mapping[str, Node]
    readers: Mapping[str, list[Node]]
    initializers: Mapping[str, Tensor]
    outputs: frozenset[str]


def with_native_products(model: bytes, instructions: str | None = None) -> bytes:
    """The model with every product that a native op takes; the same bytes where they take none.

    instructions: what the ops run with; this processor's if left out
    """
    instructions = instructions or library.product_instructions()
    if instructions is None:
        return model
    graph = _read_graph(model)
    changes: dict[int, bytes | None] = {}  # by a node's place
    for node in graph.nodes:
        if _takes_blocks(graph, node, instructions):
            changes[node.index] = _in_our_domain(node)
        elif chain := _columns_chain(graph, node, instructions):
            changes |= dict.fromkeys([link.index for link in chain])
            changes[chain[-1].index] = _columns_node(node, chain)
    if not changes:
        return model
    messages = iter([changes.get(node.index, node.message) for node in graph.nodes])
    return _with_domain(rewritten(model, (MODEL_GRAPH, GRAPH_NODE), lambda _: next(messages)))


def takes_columns(instructions: str | None = None) -> bool:
    """Whether products of int8 with a scale a column are ours; as in `with_native_products`."""
    instructions = instructions or library.product_instructions()
    return instructions not in (None, NO_DOT_PRODUCTS)


def _read_graph(model: bytes) -> Graph:
    nodes, makers, readers = [], {}, {}
    for index, message in enumerate(submessages(model, (MODEL_GRAPH, GRAPH_NODE))):
        (op,) = texts(message, NODE_OP_TYPE)
        domain = "".join(texts(message, NODE_DOMAIN))
        node = Node(index, message, op, domain, texts(message, NODE_INPUT), texts(message, NODE_OUTPUT))
        nodes.append(node)
        makers |= dict.fromkeys(node.outputs, node)
        for name in set(node.inputs):
            readers.setdefault(name, []).append(node)
    initializers = {}
    for tensor in submessages(model, (MODEL_GRAPH, GRAPH_INITIALIZER)):
        (name,) = texts(tensor, TENSOR_NAME)
        (data_type,) = whole_numbers(tensor, TENSOR_TYPE)
        initializers[name] = Tensor(data_type, whole_numbers(tensor, TENSOR_DIMS))
    outputs = [texts(value, VALUE_NAME)[0] for value in submessages(model, (MODEL_GRAPH, GRAPH_OUTPUT))]
    return Graph(nodes, makers, readers, initializers, frozenset(outputs))


# --- blocks ---


def _takes_blocks(graph: Graph, node: Node, instructions: str) -> bool:
    if (node.op, node.domain) != (BLOCKS, THEIR_DOMAIN):
        return False
    attributes = _whole_attributes(node)
    bits = attributes.get("bits", 4)
    block = attributes["block_size"]
    if bits == 8 and instructions == NO_DOT_PRODUCTS and not node.inputs[BLOCKS_CODES].startswith(HEAD):
        return False
    scales = graph.initializers.get(node.inputs[BLOCKS_SCALES])
    return (
        scales is not None
        and scales.data_type == FLOAT
        and not any(node.inputs[BLOCKS_GROUP_INDEX : BLOCKS_GROUP_INDEX + 1])
        and attributes.get("accuracy_level") == ACCURACY_LEVEL
        and bits in (4, 8)
        and block in BLOCK_SIZES
        and attributes["K"] % max(block, UNPACKED) == 0
    )


def _whole_attributes(node: Node) -> dict[str, int]:
    values = {}
    for attribute in submessages(node.message, (NODE_ATTRIBUTE,)):
        (name,) = texts(attribute, ATTRIBUTE_NAME)
        if numbers := whole_numbers(attribute, ATTRIBUTE_INT):
            (values[name],) = numbers
    return values


def _in_our_domain(node: Node) -> bytes:
    kept = [raw for number, _, raw in fields(node.message) if number != NODE_DOMAIN]
    return b"".join([*kept, bytes_field(NODE_DOMAIN, library.OP_DOMAIN.encode())])


# --- columns ---


def _columns_chain(graph: Graph, node: Node, instructions: str) -> list[Node] | None:
    """The nodes of one product in int8, in order, if `node` is its MatMulIntegerToFloat and ours takes it."""
    if node.op != COLUMNS_CHAIN[-2] or not takes_columns(instructions):
        return None
    codes = graph.initializers.get(node.inputs[INTEGER_CODES])
    scales = graph.initializers.get(node.inputs[INTEGER_SCALES])
    if not codes or not scales or (codes.data_type, scales.data_type) != (INT8, FLOAT):
        return None
    if len(codes.dims) != 2 or any(size % UNPACKED for size in codes.dims) or scales.dims != codes.dims[1:]:
        return None
    readers = graph.readers.get(node.outputs[0], [])
    chain = [node, *readers]
    for _ in COLUMNS_CHAIN[:-2]:  # back from the product to Abs; Div reads x first, then the largest
        maker = graph.makers.get(chain[0].inputs[1 if chain[0].op == "Div" else 0])
        if maker is None:
            return None
        chain.insert(0, maker)
    return chain if tuple(link.op for link in chain) == COLUMNS_CHAIN and _is_closed(graph, chain) else None


def _is_closed(graph: Graph, chain: list[Node]) -> bool:
    """Whether the chain is one of x and its largest magnitudes, and none but its end is read elsewhere."""
    magnitude, _, largest, quotient, _, _, product = chain
    if quotient.inputs[0] != magnitude.inputs[0] or product.inputs[1] != largest.outputs[0]:
        return False
    inside = {link.index for link in chain}
    made = [name for link in chain[:-1] for name in link.outputs]
    read = [reader.index for name in made for reader in graph.readers.get(name, [])]
    return inside.issuperset(read) and graph.outputs.isdisjoint(made)


def _columns_node(node: Node, chain: list[Node]) -> bytes:
    inputs = [chain[0].inputs[0], node.inputs[INTEGER_CODES], node.inputs[INTEGER_SCALES]]
    values = [(NODE_INPUT, name) for name in inputs]
    values += [(NODE_OUTPUT, name) for name in chain[-1].outputs]
    values += [(NODE_OP_TYPE, COLUMNS), (NODE_DOMAIN, library.OP_DOMAIN)]
    return b"".join(bytes_field(number, text.encode()) for number, text in values)


def _with_domain(model: bytes) -> bytes:
    """The model with our domain among those that it imports."""
    for opset in submessages(model, (MODEL_OPSET,)):
        if texts(opset, OPSET_DOMAIN) == [library.OP_DOMAIN]:
            return model
    opset = bytes_field(OPSET_DOMAIN, library.OP_DOMAIN.encode()) + number_field(OPSET_VERSION, VERSION)
    return model + bytes_field(MODEL_OPSET, opset)
