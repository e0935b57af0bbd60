"""Files of a checkpoint or a bundle, damaged: JSON with other values in it, hostile templates, bytes as disks
damage them."""

import json
import random
import re

from tests.support.damaged_sound import KINDS, Damage

ODD_VALUES = (
    None, True, -1, 0, 1, 3, 7, 2**31, 2**63, 10**40, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "x", "nan", "\ud800", "x" * 5000, [], {}, [[]], [None], {"a": 1}, [0, -1], ["x"] * 50,
)  # fmt: skip
TAG = re.compile(r"(\{[%{].*?[%}]\})", re.DOTALL)
# What templates may hold: loops without end, large values, ways out of the sandbox, wrong statements.
HOSTILE = (
    "{% for i in range(9999) %}{% for j in range(9999) %}{{ j }}{% endfor %}{% endfor %}",
    "{% for message in messages %}",
    "{% endfor %}",
    "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{{ 'x' * 10 ** 9 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ '%999999999d' % 1 }}",
    "{{ range(10 ** 12) | list | length }}",
    "{{ messages | tojson(indent=10 ** 9) }}",
    "{{ strftime_now('%Y' * 99999) }}",
    "{{ messages.__class__.__mro__ }}",
    "{{ ''.__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{{ messages.append(messages) }}",
    "{{ self._TemplateReference__context }}",
    "{{ raise_exception('no') }}",
    "{{ messages[99].content }}",
    "{{ bos_token + eos_token + 1 }}",
    "{% include 'chat_template.jinja' %}",
    "{% set messages = 3 %}",
    "{% set add_generation_prompt = messages %}",
    "{{ messages }}",
    "<|AUDIO|>",
    "{#",
)


def damage_json(data: bytes, chance: random.Random) -> bytes:
    """One to three values exchanged, lost or doubled; or the bytes damaged."""
    if chance.random() < 0.25:
        return damage_bytes(data, chance)
    value = json.loads(data)
    for _ in range(chance.randint(1, 3)):
        value = _change(value, chance)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def damage_bytes(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 3)):
        share = chance.random() ** chance.choice((1, 8))
        data = Damage(chance.choice(KINDS), share, chance.randrange(1 << 16)).apply(data)
    return data


def damage_template(data: bytes, chance: random.Random) -> bytes:
    """A chat template with one to three statements of HOSTILE in it, tags lost or doubled; or any bytes."""
    if chance.random() < 0.25:
        return damage_bytes(data, chance)
    parts = TAG.split(data.decode())
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(parts))
        kind = chance.random()
        if kind < 0.6:
            parts.insert(at, chance.choice(HOSTILE))
        elif kind < 0.8:
            del parts[at]
        else:
            parts.insert(at, parts[at])
    return "".join(parts).encode()


def damage_header(data: bytes, chance: random.Random) -> bytes:
    """A safetensors file: its header's JSON, its length, or any bytes."""
    length = int.from_bytes(data[:8], "little")
    if chance.random() < 0.2:
        return damage_bytes(data, chance)
    header = damage_json(data[8 : 8 + length], chance)
    size = len(header) if chance.random() < 0.9 else chance.choice((0, 2**31, 2**63, len(header) + 1))
    return size.to_bytes(8, "little") + header + data[8 + length :]


def _change(value, chance: random.Random):
    """The value with one thing in it changed, deep inside more often than at the top."""
    if isinstance(value, dict) and value and chance.random() < 0.95:
        key = chance.choice(list(value))
        if chance.random() < 0.2:
            return {name: part for name, part in value.items() if name != key}
        if chance.random() < 0.1:
            return value | {key + "2": value[key]}
        return value | {key: _change(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        kind = chance.random()
        changed = [] if kind < 0.1 else [_change(value[at], chance)]
        return value[:at] + changed * (2 if kind > 0.95 else 1) + value[at + 1 :]
    if isinstance(value, int) and not isinstance(value, bool) and chance.random() < 0.4:
        return value + chance.choice((-1, 1, value, -2 * value))
    return chance.choice(ODD_VALUES)
