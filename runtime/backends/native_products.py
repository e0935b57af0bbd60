"""Products of quantised weights by our native op in place of ONNX Runtime's own.

`ai.ltbm::MatMulNBits` takes the inputs of `com.microsoft::MatMulNBits` and rounds activations as that does
at accuracy level 4. It reads the codes where they lie: opening packs nothing, the file that is mapped is the
only copy of the weights, and products are faster (docs/evidence.md). A graph is changed as it is opened:
bundles hold ONNX Runtime's op, which runs everywhere.
"""

from collections.abc import Collection

from ...plugins import library
from ..onnx_bytes import (
    ATTRIBUTE_INT,
    ATTRIBUTE_NAME,
    GRAPH_INITIALIZER,
    GRAPH_NODE,
    MODEL_GRAPH,
    MODEL_OPSET,
    NODE_ATTRIBUTE,
    NODE_DOMAIN,
    NODE_INPUT,
    NODE_OP_TYPE,
    OPSET_DOMAIN,
    OPSET_VERSION,
    TENSOR_NAME,
    TENSOR_TYPE,
    bytes_field,
    fields,
    number_field,
    rewritten,
    submessages,
    texts,
    whole_number,
)

OP = "MatMulNBits"
DOMAIN = "com.microsoft"
VERSION = 1
FLOAT = 1  # TensorProto.FLOAT
ACCURACY_LEVEL = 4  # whose rounding ours is
BLOCK_SIZES = (16, 32, 64, 128, 256)
UNPACKED = 32  # codes that are unpacked at once: rows are a multiple
CODES, SCALES, GROUP_INDEX = 1, 2, 4  # inputs of the op
HEAD = "lm_head"  # how the names of the LM head's weights begin
ONE_ROW_ONLY = {"avx2": 8}
"""Codes of so many bits are faster than ONNX Runtime's for a single row only: the LM head's."""


def with_native_products(model: bytes, instructions: str | None = None) -> bytes:
    """The model with every product that the native op takes; the same bytes where it takes none.

    instructions: what the op runs with; this processor's if left out
    """
    instructions = instructions or library.product_instructions()
    if instructions is None:
        return model
    float_names = _float_initializers(model)
    one_row_bits = ONE_ROW_ONLY.get(instructions)
    replaced = 0

    def replace(node: bytes) -> bytes:
        nonlocal replaced
        if not _is_taken(node, float_names, one_row_bits):
            return node
        replaced += 1
        kept = [raw for number, _, raw in fields(node) if number != NODE_DOMAIN]
        return b"".join([*kept, bytes_field(NODE_DOMAIN, library.OP_DOMAIN.encode())])

    changed = rewritten(model, (MODEL_GRAPH, GRAPH_NODE), replace)
    return _with_domain(changed) if replaced else model


def _is_taken(node: bytes, float_names: Collection[str], one_row_bits: int | None) -> bool:
    if texts(node, NODE_OP_TYPE) != [OP] or texts(node, NODE_DOMAIN) != [DOMAIN]:
        return False
    inputs = texts(node, NODE_INPUT)
    attributes = _attributes(node)
    bits = attributes.get("bits", 4)
    block = attributes["block_size"]
    if bits == one_row_bits and not inputs[CODES].startswith(HEAD):
        return False
    return (
        inputs[SCALES] in float_names
        and not any(inputs[GROUP_INDEX : GROUP_INDEX + 1])
        and attributes.get("accuracy_level") == ACCURACY_LEVEL
        and bits in (4, 8)
        and block in BLOCK_SIZES
        and attributes["K"] % max(block, UNPACKED) == 0
    )


def _attributes(node: bytes) -> dict[str, int]:
    """The whole numbers among a node's attributes."""
    values = {}
    for attribute in submessages(node, (NODE_ATTRIBUTE,)):
        (name,) = texts(attribute, ATTRIBUTE_NAME)
        values[name] = whole_number(attribute, ATTRIBUTE_INT)
    return values


def _float_initializers(model: bytes) -> set[str]:
    names = set()
    for tensor in submessages(model, (MODEL_GRAPH, GRAPH_INITIALIZER)):
        if whole_number(tensor, TENSOR_TYPE) == FLOAT:
            names.update(texts(tensor, TENSOR_NAME))
    return names


def _with_domain(model: bytes) -> bytes:
    """The model with our domain among those that it imports."""
    for opset in submessages(model, (MODEL_OPSET,)):
        if texts(opset, OPSET_DOMAIN) == [library.OP_DOMAIN]:
            return model
    opset = bytes_field(OPSET_DOMAIN, library.OP_DOMAIN.encode()) + number_field(OPSET_VERSION, VERSION)
    return model + bytes_field(MODEL_OPSET, opset)
