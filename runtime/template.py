"""A checkpoint's chat template, rendered as transformers renders it: sandboxed, bounded in time and size.

A template is a program from somebody else. Its loops are timed as they run, and whatever could make a large
value in one step (repetition, powers, padding, joining) is refused before it is made; what is nested counts
as often as it is there.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MOST_CHARACTERS = 1 << 20  # of a prompt, a value, the template itself: a quarter of a million tokens
MOST_SECONDS = 2.0  # of this thread's work; chat templates take a thousandth
ITEM_WEIGHT = 16  # of an entry of a list or mapping, in characters
MOST_NUMBER = 10_000  # given to a method or filter, as a width or a count
MOST_BITS = 256  # of a number that a product or a power makes
LARGE_WIDTH = re.compile(r"\d{5}|\*|\{[^{}]*\{")  # in a format
FILE = "<template>"  # as Jinja names compiled templates to Python
FORMATS = ("format", "format_map", "_strftime_now")
WITHOUT = ("urlize", "wordwrap", "pprint")  # filters slow on long texts, of no use in prompts
Render = Callable[..., str]


def compile_template(source: str, name: str) -> Render:
    """render(**variables) -> the text; both raise ValueError for a template that fails, or takes too much."""
    if len(source) > MOST_CHARACTERS:
        raise ValueError(f"{name} has {len(source)} characters, more than any chat template")
    with _Failures(f"{name} is no chat template"):
        template = _Environment().from_string(source)

    def render(**variables) -> str:
        with _Failures("the chat template refuses this conversation, or fails"), _Timed():
            return _joined(template.generate(**variables))

    return render


class TemplateRefusal(ValueError):
    """What a template says of a conversation that it does not take, or what was refused to it."""


class _Failures:
    """Turns whatever a template raises into a ValueError of one line."""

    def __init__(self, what: str):
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, Exception):
            text = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{self._what}: {text[:300]}") from None


class _Timed:
    """Looks at the time before each line of the template that this thread runs; other code is not traced."""

    def __enter__(self) -> None:
        self._end = time.thread_time() + MOST_SECONDS
        self._former = sys.gettrace()
        sys.settrace(self._of_call)

    def __exit__(self, *_) -> None:
        sys.settrace(self._former)

    def _of_call(self, frame, event, arg):
        return self._of_line if frame.f_code.co_filename == FILE else None

    def _of_line(self, frame, event, arg):
        if time.thread_time() > self._end:
            raise TemplateRefusal(f"it takes more than {MOST_SECONDS:g} s")
        return self._of_line


class _Code(CodeGenerator):
    """Joins with `~` and makes lists and mappings through the environment, which looks at their size."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concat(map(str, environment.sized([")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("])))")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._sized(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self._sized(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        if node.ctx == "load":
            self._sized(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def _sized(self, visit: Callable, node, frame: Frame) -> None:
        self.write("environment.sized(")
        visit(node, frame)
        self.write(")")


class _Generation(Extension):
    """The tag with which templates mark what an assistant says, for training; here its body as it is."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, and no step that makes more than MOST_CHARACTERS."""

    code_generator_class = _Code
    intercepted_binops = frozenset(("*", "**", "+", "%"))

    def __init__(self):
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
        self.globals |= {"raise_exception": _refuse, "strftime_now": _strftime_now}
        self.filters["tojson"] = _tojson
        del self.globals["lipsum"]
        for name in WITHOUT:
            del self.filters[name]
        self.filters = {name: _bounded(name, filter) for name, filter in self.filters.items()}

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        return _joined(parts)

    def call_binop(self, context, operator: str, left, right):
        _check_operands(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context, function, /, *args, **options):
        arguments = (*args, *options.values())
        owner = getattr(function, "__self__", None)
        name = getattr(function, "__name__", "")
        if isinstance(owner, (str, list, tuple, dict)):
            arguments = (owner, *arguments)
        if not isinstance(function, Macro):
            _check_arguments(name, arguments)
        return self.sized(super().call(context, function, *args, **options))

    @staticmethod
    def sized(value):
        """The value, if with all that is nested in it it is no larger than a prompt."""
        _weight(value)
        return value

    def wrap_str_format(self, value):
        """The text's own method `format`, which takes widths from the text."""
        owner = getattr(value, "__self__", None)
        if isinstance(owner, str) and getattr(value, "__name__", "") in FORMATS:
            _check_format(owner)
        return super().wrap_str_format(value)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    """As transformers has it: Jinja's own escapes for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str):
    raise TemplateRefusal(message)


def _joined(parts: Iterable[str]) -> str:
    """The parts as one text, counted before they are joined."""
    return "".join(_counted(parts))


def _counted(parts: Iterable[str]) -> Iterator[str]:
    length = 0
    for part in parts:
        length += len(part)
        _check_size(length)
        yield part


def _bounded(name: str, function: Callable) -> Callable:
    """A filter whose arguments are looked at first."""

    @wraps(function)  # with Jinja's mark of what it takes first
    def bounded(*args, **options):
        _check_arguments(name, (*args, *options.values()))
        return _Environment.sized(function(*args, **options))

    return bounded


def _check_operands(operator: str, left, right) -> None:
    if operator == "%" and isinstance(left, str):
        _check_format(left)
    elif isinstance(left, int) and isinstance(right, int):
        power = abs(right) if operator == "**" else 1
        if power > MOST_BITS or left.bit_length() * power + right.bit_length() > MOST_BITS:
            raise TemplateRefusal(f"it makes a number of more than {MOST_BITS} bits")
    elif operator == "*":
        _check_size(max(_weight(left), _weight(right)) * max(_count(left), _count(right)))
    elif operator == "+":
        _check_size(_weight(left) + _weight(right))


def _check_arguments(name: str, arguments: tuple) -> None:
    """What a method or filter makes is at most the product of what it is given."""
    product = 1
    for argument in arguments:
        if _count(argument) > MOST_NUMBER:
            raise TemplateRefusal(f"it calls {name} with {argument}, more than {MOST_NUMBER}")
        if name in FORMATS and isinstance(argument, str):
            _check_format(argument)
        product *= max(1, _weight(argument), _count(argument))
    if product > 4 * MOST_CHARACTERS:
        raise TemplateRefusal(f"it calls {name} with values too large")
    if name == "sum" and len([one for one in arguments if isinstance(one, (list, tuple))]) > 1:
        raise TemplateRefusal("it sums lists")


def _check_format(text: str) -> None:
    if LARGE_WIDTH.search(text):
        raise TemplateRefusal(f"it formats with {text[:40]!r}, whose width has no bound")


def _check_size(size: int) -> None:
    if size > MOST_CHARACTERS:
        raise TemplateRefusal(f"it makes more than {MOST_CHARACTERS} characters")


def _weight(value: Any) -> int:
    """Characters of a text; of lists and mappings what is nested in them, however often it is."""
    if isinstance(value, (str, bytes)):
        return len(value)
    weight = 0
    waiting = [value]
    while waiting:
        one = waiting.pop()
        weight += ITEM_WEIGHT + (len(one) if isinstance(one, (str, bytes)) else 0)
        if isinstance(one, Namespace):
            one = one._Namespace__attrs
        if isinstance(one, Mapping):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple, set, frozenset)):
            waiting += one
        _check_size(weight + ITEM_WEIGHT * len(waiting))
    return weight


def _count(value: Any) -> int:
    return abs(value) if isinstance(value, int) else 0
