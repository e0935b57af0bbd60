"""Run in a process of its own beside real bindings: prints what of our uses (JSON on stdin) they lack."""

import json
import re
import sys

METHOD_TYPES = ("instancemethod", "function", "builtin_function_or_method", "method_descriptor", "nb_method")


def main() -> None:
    uses = json.load(sys.stdin)
    if uses["module"] == "cudart":
        from cuda.bindings import runtime as module  # pyright: ignore[reportMissingImports]  # unpacked by the test

        result = {"problems": list(cudart_problems(module, uses))}
    else:
        import tensorrt_bindings as module  # pyright: ignore[reportMissingImports]  # unpacked by the test

        result = {"problems": list(tensorrt_problems(module, uses)), "version": module.__version__}
    print(json.dumps(result))


def cudart_problems(module, uses):
    for name, arguments in uses["cudart"]:
        found = lookup(module, name)
        if found is None:
            yield f"cudart.{name} is not there"
        elif arguments is not None:
            signature = (found.__doc__ or "").split("\n")[0]
            given = len(split_arguments(signature)) if "(" in signature else arguments
            if given != arguments:
                yield f"cudart.{name} is called with {arguments} arguments: {signature}"


def tensorrt_problems(module, uses):
    for name in uses["trt"]:
        if lookup(module, name) is None:
            yield f"trt.{name} is not there"
    for base, defined in uses["subclasses"].items():
        wanted = public_methods(getattr(module, base))
        if not wanted or set(wanted) - set(defined):
            yield f"a subclass of trt.{base} defines {defined}, it takes {wanted}"
    for kind, name, arguments, held in uses["methods"]:
        found = getattr(getattr(module, kind), name, None)
        if found is None:
            yield f"{kind}.{name} is not there"
        elif arguments is not None:
            yield from call_problems(kind, name, found.__doc__ or "", arguments, held)
    for kind, name in uses["optional"]:
        if uses["newest"] and not hasattr(getattr(module, kind), name):
            yield f"{kind}.{name}, which older versions lack, is not there either"
    for kind, name, variable in uses["unnamed"]:
        gives = returned(getattr(getattr(module, kind), name).__doc__ or "")
        if "tensorrt." in gives and "Dims" not in gives and "Tensor" not in gives:
            yield f"{kind}.{name} gives {gives}, held as {variable}: give it a name of uses.CLASSES"


def public_methods(kind):
    methods = []
    for name, value in vars(kind).items():
        if not name.startswith("_") and type(value).__name__ in METHOD_TYPES:
            methods.append(name)
    return methods


def call_problems(kind, name, text, arguments, held):
    signatures = [line for line in text.split("\n") if re.match(rf"(\d+\. )?{name}\(self", line)]
    counts = [split_arguments(line)[1:] for line in signatures]
    if not any(sum("=" not in one for one in names) <= arguments <= len(names) for names in counts):
        yield f"{kind}.{name} is called with {arguments} arguments: {signatures}"
    if held and not returned(text).endswith(held):
        yield f"{kind}.{name} gives {returned(text)}, we hold it as {held}"


def returned(text):
    found = re.search(r"\) -> ([\w.:]+)", text)
    return found.group(1).replace("nvonnxparser::IParserError", "ParserError") if found else ""


def split_arguments(signature):
    """The arguments between the outer brackets."""
    depth = 0
    parts = [""]
    for letter in signature[signature.index("(") + 1 :]:
        if letter == ")" and depth == 0:
            break
        depth += (letter in "([<") - (letter in ")]>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def lookup(module, dotted):
    for part in dotted.split("."):
        module = getattr(module, part, None)
    return module


if __name__ == "__main__":
    main()
