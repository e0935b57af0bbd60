"""A small writer of ONNX function bodies, so that a body reads like the numpy it stands for.

Operators are methods (`g.Gather(x, index, axis=1)`), whole-number arithmetic is written with Python's signs,
and subgraphs are plain Python functions handed to `loop` and `branch`. It knows ONNX only, no runtime.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Value:
    """A tensor of the body, by name; + - * // on it add nodes."""

    def __init__(self, body, name):
        self.body = body
        self.name = name

    def __add__(self, other):
        return self.body.Add(self, other)

    def __sub__(self, other):
        return self.body.Sub(self, other)

    def __mul__(self, other):
        return self.body.Mul(self, other)

    def __floordiv__(self, other):
        return self.body.Div(self, other)  # of int64: ONNX truncates, so keep both sides positive


class Body:
    """Collects nodes. A Python int stands for an int64 tensor [1], a list for one [n],
    a numpy array for itself."""

    def __init__(self):
        self.scopes = [[]]  # nodes of each open graph, outermost first
        self.constants = {}  # (type, shape, bytes) -> Value; all constants live in the outermost graph
        self.constant_nodes = []
        self.made = {}  # name -> depth of the scope that made it
        self.numbers = itertools.count()

    def __getattr__(self, op) -> Callable[..., Any]:
        if not op[0].isupper():
            raise AttributeError(op)
        return lambda *inputs, **attributes: self.node(op, *inputs, **attributes)

    def node(self, op, *inputs, outputs=1, results=None, name=None, **attributes) -> Any:
        """Add a node; returns its output, or a tuple of them,
        named `results` or else anew in the whole body."""
        values = tuple(map(self.value, results or [f"{op}_{next(self.numbers)}" for _ in range(outputs)]))
        names = [self.constant(i).name if i is not None else "" for i in inputs]
        self.scopes[-1].append(helper.make_node(op, names, [v.name for v in values], name, **attributes))
        return values if len(values) > 1 else next(iter(values))

    def nodes(self):
        """The nodes of the outermost graph, which hold all others; constants come first."""
        return [*self.constant_nodes, *self.scopes[0]]

    def value(self, name):
        self.made[name] = len(self.scopes)
        return Value(self, name)

    def attribute(self, name):
        """The int64 scalar of an attribute of the function."""
        value = self.value(name)
        node = helper.make_node("Constant", [], [name])
        reference = helper.make_attribute_ref("value_int", onnx.AttributeProto.INT)
        reference.ref_attr_name = name
        node.attribute.append(reference)
        self.constant_nodes.append(node)
        return value

    def constant(self, literal):
        """The Value of a literal; Values pass through."""
        if isinstance(literal, Value):
            return literal
        array = np.asarray(literal)
        if isinstance(literal, (int, list)):
            array = np.atleast_1d(array.astype(np.int64))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            value = Value(self, f"constant_{len(self.constants)}")
            self.made[value.name] = 1
            node = helper.make_node("Constant", [], [value.name], value=numpy_helper.from_array(array))
            self.constant_nodes.append(node)
            self.constants[key] = value
        return self.constants[key]

    def scalar(self, x):
        """A tensor [1] as a scalar, its rank known to shape inference."""
        return self.Squeeze(x, 0)

    def range(self, count):
        """0, 1 .. count - 1 of an int64 tensor [1]."""
        return self.Range(np.int64(0), self.scalar(count), np.int64(1))

    def filled(self, value, shape):
        """An int64 tensor of one value."""
        return self.ConstantOfShape(
            shape, value=helper.make_tensor("value", onnx.TensorProto.INT64, [1], [value])
        )

    def cast(self, x, dtype):
        return self.Cast(x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def loop(self, step, count=None, condition=np.True_, state=()):
        """step(iteration, *state) -> (go_on or None, *state, *scans);
        returns the last state and the stacked scans."""

        def body():
            iteration, going, *carried = (
                self.value(f"in_{next(self.numbers)}") for _ in range(2 + len(state))
            )
            go_on, *results = step(iteration, *carried)
            return [iteration, going, *carried], [self.Identity(going) if go_on is None else go_on, *results]

        graph = self.subgraph(body)
        for value, element in zip(graph.input, (onnx.TensorProto.INT64, onnx.TensorProto.BOOL)):
            # ONNX Runtime wants these two to be known scalars, and infers it only where count and condition
            # are.
            value.CopyFrom(helper.make_tensor_value_info(value.name, element, []))
        return self.node("Loop", count, condition, *state, outputs=len(graph.output) - 1, body=graph)

    def branch(self, condition, then, otherwise):
        """What `then()` or `otherwise()` returns, one Value or a list of them."""
        graphs = [self.subgraph(lambda function=function: ([], function())) for function in (then, otherwise)]
        return self.node(
            "If", condition, outputs=len(graphs[0].output), then_branch=graphs[0], else_branch=graphs[1]
        )

    def subgraph(self, function) -> onnx.GraphProto:
        self.scopes.append([])
        inputs, outputs = function()
        outputs = [outputs] if isinstance(outputs, Value) else outputs
        own = [self._made_here(value) for value in outputs]
        takes = [helper.make_empty_tensor_value_info(value.name) for value in inputs]
        gives = [helper.make_empty_tensor_value_info(value.name) for value in own]
        return helper.make_graph(self.scopes.pop(), f"graph_{next(self.numbers)}", takes, gives)

    def _made_here(self, value):
        """The value, or a copy of one from outside: a graph may return only what it made itself."""
        return value if self.made[value.name] == len(self.scopes) else self.Identity(value)
