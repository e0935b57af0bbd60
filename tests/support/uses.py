"""Finds, in our own source, everything that it uses of tensorrt and of cuda-bindings.

Names say what a value is: a variable or attribute called `engine` in these files is an ICudaEngine,
    and so on. What a
call on such a value gives must be held under the name of its class too, so a new use cannot hide.
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
HOLDS_ERRORS = "export/engine.py"  # elsewhere `error` is an exception


@dataclass
class Uses:
    """names: dotted, from the module; methods: (class, attribute, arguments of a call or None,
    the class its result is held as or None)"""

    trt: set[str] = field(default_factory=set)
    cudart: set[tuple[str, int | None]] = field(default_factory=set)
    methods: set[tuple[str, str, int | None, str | None]] = field(default_factory=set)
    optional: set[tuple[str, str]] = field(default_factory=set)
    subclasses: dict[str, list[str]] = field(default_factory=dict)
    unnamed: set[tuple[str, str, str]] = field(default_factory=set)


def find_uses() -> Uses:
    uses = Uses()
    for name in FILES:
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            for child in ast.iter_child_nodes(node):
                child.parent = node
        for node in ast.walk(tree):
            _visit(uses, node, name)
    return uses


def _visit(uses: Uses, node: ast.AST, file: str) -> None:
    if isinstance(node, ast.ClassDef):
        for base in node.bases:
            chain = _chain(base)
            if chain and chain[0] == "trt":
                uses.subclasses[".".join(chain[1:])] = [
                    part.name for part in node.body if isinstance(part, ast.FunctionDef)
                ]
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "getattr"
        and isinstance(node.args[1], ast.Constant)
    ):
        kind = _class_of(node.args[0], file)
        if kind:
            uses.optional.add((kind, node.args[1].value))
    if not isinstance(node, ast.Attribute) or isinstance(node.parent, ast.Attribute) and _chain(node.parent):
        return _method(uses, node, file) if isinstance(node, ast.Attribute) else None
    chain = _chain(node)
    if chain and chain[0] == "trt":
        uses.trt.add(".".join(chain[1:]))
    elif chain and chain[0] == "cudart":
        uses.cudart.add((".".join(chain[1:]), _arguments(node)))
    _method(uses, node, file)


def _method(uses: Uses, node: ast.Attribute, file: str) -> None:
    kind = _class_of(node.value, file)
    if not kind:
        return
    held = None
    call = node.parent if isinstance(node.parent, ast.Call) and node.parent.func is node else None
    if call is not None and isinstance(call.parent, ast.Assign) and len(call.parent.targets) == 1:
        name = _last(call.parent.targets[0])
        held = CLASSES.get(name)
        if not held:
            uses.unnamed.add((kind, node.attr, name or "several"))
    uses.methods.add((kind, node.attr, _arguments(node), held))


def _arguments(node: ast.Attribute) -> int | None:
    """How many a call gives; keywords would need their names checked, so there are none."""
    if not (isinstance(node.parent, ast.Call) and node.parent.func is node):
        return None
    assert not node.parent.keywords, f"{node.attr} is called with keywords: give the arguments in order"
    return len(node.parent.args)


def _class_of(value: ast.AST, file: str) -> str | None:
    name = _last(value)
    return None if name == "error" and file != HOLDS_ERRORS else CLASSES.get(name)


def _last(value: ast.AST) -> str | None:
    """`x` of x, self._x and owner._x."""
    name = (
        value.id if isinstance(value, ast.Name) else value.attr if isinstance(value, ast.Attribute) else None
    )
    return name.lstrip("_") if name else None


def _chain(node: ast.AST) -> list[str] | None:
    """["trt", "A", "B"] of trt.A.B."""
    if isinstance(node, ast.Name):
        return [node.id]
    inner = _chain(node.value) if isinstance(node, ast.Attribute) else None
    return [*inner, node.attr] if inner else None
