"""As much of ONNX's file format as a chain of matrix products needs:
what runs bundles has no onnx package."""

from dataclasses import dataclass

from ...runtime.onnx_bytes import MODEL_GRAPH, bytes_field, number_field

# Field numbers of onnx.proto.
MODEL_IR, MODEL_OPSETS = 1, 8
GRAPH_NODES, GRAPH_NAME, GRAPH_INITIALIZERS, GRAPH_INPUTS, GRAPH_OUTPUTS = 1, 2, 5, 11, 12
NODE_INPUTS, NODE_OUTPUTS, NODE_TYPE, NODE_ATTRIBUTES, NODE_DOMAIN = 1, 2, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_INT, ATTRIBUTE_KIND, KIND_INT = 1, 3, 20, 2
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_EXTERNAL, TENSOR_LOCATION, EXTERNAL = 1, 2, 8, 13, 14, 1
FLOAT, UINT8, INT8, FLOAT16 = 1, 2, 3, 10
IR_VERSION, OPSET = 10, 20
CONTRIB = "com.microsoft"  # the domain of ONNX Runtime's own ops


@dataclass(frozen=True)
class Stored:
    """An initializer whose bytes begin at `offset` of the file `location`."""

    name: str
    data_type: int
    shape: tuple[int, ...]
    location: str
    offset: int
    size: int  # bytes


@dataclass(frozen=True)
class Product:
    """y = x @ W: MatMul over one initializer, or MatMulNBits or DynamicQuantizeMatMul of another domain
    over codes and scales with its attributes."""

    op: str
    weights: tuple[Stored, ...]
    attributes: dict[str, int]
    domain: str = ""


def chain_model(products: list[Product], data_type: int, width: int) -> bytes:
    """A model x [M, width] -> y [M, width] that applies the products one after the other."""
    graph = [_field(GRAPH_NAME, b"chain"), _field(GRAPH_INPUTS, _value_info("x", data_type, width))]
    name = "x"
    for place, product in enumerate(products):
        out = "y" if place == len(products) - 1 else f"v{place}"
        graph.append(_field(GRAPH_NODES, _node(product, name, out)))
        graph += [_field(GRAPH_INITIALIZERS, _tensor(weight)) for weight in product.weights]
        name = out
    graph.append(_field(GRAPH_OUTPUTS, _value_info("y", data_type, width)))
    versions = {"": OPSET} | {product.domain: 1 for product in products if product.domain}
    opsets = b"".join(
        _field(MODEL_OPSETS, _field(1, domain.encode()) + _field(2, version))
        for domain, version in versions.items()
    )
    return _field(MODEL_IR, IR_VERSION) + opsets + _field(MODEL_GRAPH, b"".join(graph))


def _value_info(name: str, data_type: int, width: int) -> bytes:
    """name [M, width]."""
    shape = _field(1, _field(2, b"M")) + _field(1, _field(1, width))
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, data_type) + _field(2, shape)))


def _node(product: Product, x: str, y: str) -> bytes:
    inputs = b"".join(
        _field(NODE_INPUTS, name.encode()) for name in (x, *(weight.name for weight in product.weights))
    )
    attributes = b"".join(
        _field(NODE_ATTRIBUTES, _attribute(name, value)) for name, value in product.attributes.items()
    )
    return (
        inputs
        + _field(NODE_OUTPUTS, y.encode())
        + _field(NODE_TYPE, product.op.encode())
        + attributes
        + _field(NODE_DOMAIN, product.domain.encode())
    )


def _attribute(name: str, value: int) -> bytes:
    return (
        _field(ATTRIBUTE_NAME, name.encode())
        + _field(ATTRIBUTE_INT, value)
        + _field(ATTRIBUTE_KIND, KIND_INT)
    )


def _tensor(stored: Stored) -> bytes:
    pairs = (("location", stored.location), ("offset", stored.offset), ("length", stored.size))
    external = b"".join(
        _field(TENSOR_EXTERNAL, _field(1, key.encode()) + _field(2, str(value).encode()))
        for key, value in pairs
    )
    dims = b"".join(_field(TENSOR_DIMS, size) for size in stored.shape)
    return (
        dims
        + _field(TENSOR_TYPE, stored.data_type)
        + _field(TENSOR_NAME, stored.name.encode())
        + external
        + _field(TENSOR_LOCATION, EXTERNAL)
    )


def _field(number: int, value: int | bytes) -> bytes:
    return number_field(number, value) if isinstance(value, int) else bytes_field(number, value)
