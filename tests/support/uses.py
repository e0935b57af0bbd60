"""Finds, in our own source, everything that it uses of tensorrt and of cuda-bindings.

Names say what a value is: a variable or attribute called `engine` in these files is an ICudaEngine.
What a call on such a value gives must be held under the name of its class too, so a new use cannot hide.
"""

import ast
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = [
    "runtime/backends/trt.py",
    "runtime/backends/trt_library.py",
    "runtime/backends/cuda.py",
    "runtime/backends/engine_store.py",
    "export/engine.py",
    "export/tensorrt_builder.py",
    "plugins/library.py",
]
CLASSES = {
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "plan": "IHostMemory",
    "cache": "ITimingCache",
    "registry": "IPluginRegistry",
}
HOLDS_ERRORS = "export/tensorrt_builder.py"  # elsewhere `error` is an exception


@dataclass
class Uses:
    """Everything that the files use.

    trt: dotted names in tensorrt
    cudart: (dotted name, arguments of a call or None)
    methods: (class, attribute, arguments of a call or None, class its result is held as or None)
    optional: (class, attribute) read with getattr
    subclasses: class of tensorrt -> the methods that ours define
    unnamed: (class, method, variable that its result is held as)
    """

    trt: set[str] = field(default_factory=set)
    cudart: set[tuple[str, int | None]] = field(default_factory=set)
    methods: set[tuple[str, str, int | None, str | None]] = field(default_factory=set)
    optional: set[tuple[str, str]] = field(default_factory=set)
    subclasses: dict[str, list[str]] = field(default_factory=dict)
    unnamed: set[tuple[str, str, str]] = field(default_factory=set)


def find_uses() -> Uses:
    uses = Uses()
    for name in FILES:
        _File(name, uses).read()
    return uses


class _File:
    """Walks one file and adds what it uses."""

    def __init__(self, name: str, uses: Uses):
        self._name = name
        self._uses = uses
        self._tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        self._parents: dict[ast.AST, ast.AST] = {}
        for node in ast.walk(self._tree):
            for child in ast.iter_child_nodes(node):
                self._parents[child] = node

    def read(self) -> None:
        for node in ast.walk(self._tree):
            if isinstance(node, ast.ClassDef):
                self._class(node)
            elif isinstance(node, ast.Call):
                self._getattr(node)
                self._made_class(node)
            elif isinstance(node, ast.Attribute):
                self._module(node)
                self._method(node)

    def _class(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            chain = _chain(base)
            if chain[:1] == ["trt"]:
                methods = [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
                self._uses.subclasses[".".join(chain[1:])] = methods

    def _made_class(self, node: ast.Call) -> None:
        """type("Name", (Ours, trt.Theirs), {}): a class of theirs with the methods of ours."""
        if not (isinstance(node.func, ast.Name) and node.func.id == "type" and len(node.args) == 3):
            return
        bases = node.args[1]
        assert isinstance(bases, ast.Tuple)
        ours, theirs = bases.elts
        self._uses.subclasses[".".join(_chain(theirs)[1:])] = self._methods_of(_last(ours))

    def _methods_of(self, name: str | None) -> list[str]:
        for node in self._tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
        raise AssertionError(f"no class {name} in {self._name}")

    def _getattr(self, node: ast.Call) -> None:
        if not (isinstance(node.func, ast.Name) and node.func.id == "getattr"):
            return
        kind = self._class_of(node.args[0])
        name = node.args[1]
        if kind and isinstance(name, ast.Constant):
            self._uses.optional.add((kind, str(name.value)))

    def _module(self, node: ast.Attribute) -> None:
        """The whole of a dotted name, not its beginnings."""
        parent = self._parents[node]
        chain = _chain(node)
        if not chain or isinstance(parent, ast.Attribute):
            return
        if "trt" in chain[:-1]:
            self._uses.trt.add(".".join(chain[chain.index("trt") + 1 :]))
        elif chain[0] == "cudart":
            self._uses.cudart.add((".".join(chain[1:]), self._arguments(node)))

    def _method(self, node: ast.Attribute) -> None:
        kind = self._class_of(node.value)
        if kind is None:
            return
        held_as = None
        variable = self._variable(node)
        if variable is not None:
            held_as = CLASSES.get(variable)
            if held_as is None:
                self._uses.unnamed.add((kind, node.attr, variable or "several"))
        self._uses.methods.add((kind, node.attr, self._arguments(node), held_as))

    def _variable(self, node: ast.Attribute) -> str | None:
        """Which variable the result of a call is assigned to; empty for several, None where it is not."""
        call = self._call(node)
        assignment = self._parents[call] if call else None
        if not isinstance(assignment, ast.Assign) or len(assignment.targets) != 1:
            return None
        return _last(assignment.targets[0]) or ""

    def _arguments(self, node: ast.Attribute) -> int | None:
        """How many a call gives; keywords would need their names checked, so there are none."""
        call = self._call(node)
        if call is None:
            return None
        assert not call.keywords, f"{node.attr} is called with keywords: give the arguments in order"
        return len(call.args)

    def _call(self, node: ast.Attribute) -> ast.Call | None:
        """The call of this very attribute."""
        parent = self._parents[node]
        return parent if isinstance(parent, ast.Call) and parent.func is node else None

    def _class_of(self, value: ast.AST) -> str | None:
        name = _last(value)
        if name is None or (name == "error" and self._name != HOLDS_ERRORS):
            return None
        return CLASSES.get(name)


def _last(value: ast.AST) -> str | None:
    """`x` of x, self._x and owner._x."""
    if isinstance(value, ast.Name):
        return value.id.lstrip("_")
    if isinstance(value, ast.Attribute):
        return value.attr.lstrip("_")
    return None


def _chain(node: ast.AST) -> list[str]:
    """["trt", "A", "B"] of trt.A.B; empty for what is not a dotted name."""
    if isinstance(node, ast.Name):
        return [node.id]
    inner = _chain(node.value) if isinstance(node, ast.Attribute) else []
    return [*inner, node.attr] if isinstance(node, ast.Attribute) and inner else []
