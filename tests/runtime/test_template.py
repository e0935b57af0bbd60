"""Chat templates: rendered as transformers renders them, and bounded whatever they are."""

import resource
import time

import pytest

from ltbm.runtime.template import MOST_CHARACTERS, MOST_SECONDS, compile_template
from tests.support.tiny import FLAMINGO_TEMPLATE, QWEN_TEMPLATE

MESSAGES = [
    {"role": "user", "content": [{"type": "audio", "audio_url": "a"}, {"type": "text", "text": "what ?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "a dog\n<|im_end|>"}]},
    {"role": "user", "content": [{"type": "text", "text": "é"}]},
]
PUBLISHED = [
    QWEN_TEMPLATE,
    FLAMINGO_TEMPLATE,
    "{%- for m in messages %}\n  {%- if loop.index0 is odd %}{% continue %}{% endif %}\n{{ m.role|upper }}\n"
    "{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ ns.n ~ m['role'] }}"
    "{% endfor %}",
    "{% macro say(m) %}[{{ m.role }}]{% endmacro %}{% for m in messages %}{{ say(m) }}{% endfor %}",
    "{{ messages | tojson }}{{ ', '.join(['a', 'b']) }}{{ '%s %d' % ('a', 3) }}{{ 'ab' * 3 }}",
    "{{ messages | map(attribute='role') | unique | list }}{{ 'a-b'.split('-') | join('+') }}"
    "{{ (1, {'a': 1}) }}",
    "{% generation %}{{ messages[::-1][0].role }}{% endgeneration %}{{ messages | length }}",
    "{{ strftime_now('%Y') }}{{ {'b': '<é>'} | tojson(indent=2) }}"
    "{{ messages[0].content | selectattr('text') | list }}",
]
GROWING = (
    "{%% set ns = namespace(x=['a']) %%}{%% for i in range(60) %%}{%% set ns.x = %s %%}{%% endfor %%}{{ %s }}"
)
UNBOUNDED = [
    "{% for i in range(9999) %}{% for j in range(9999) %}{% set x = 1 %}{% endfor %}{% endfor %}",
    "{% for i in range(9999) %}{{ 'a' * 1000 }}{% endfor %}",
    "{% set x %}{% for i in range(9999) %}{{ 'a' * 1000 }}{% endfor %}{% endset %}",
    "{{ 'a' * 10**10 }}",
    "{{ 9**9**9 }}",
    "{{ 'a'.ljust(10**10) }}",
    "{{ 'a'|center(10**10) }}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{{ strftime_now('%9999999999d') }}",
    "{{ '{:{w}}'.format(1, w='9999999999') }}",
    "{{ ('\t' * 999999).expandtabs(9999) }}",
    "{% set x = 'a' * 100000 %}{{ x.replace('a', x) }}",
    "{% set x = 'a' * 1000000 %}{{ [x, x] * 10000 | join }}",
    "{{ ('a' * 1000000)|list|sort }}",
    GROWING % ("ns.x ~ ns.x", "ns.x"),
    GROWING % ("ns.x + ns.x", "ns.x"),
    GROWING % ("[ns.x, ns.x]", "ns.x"),
    GROWING % ("{1: ns.x, 2: ns.x}", "ns.x | tojson"),
    GROWING % ("namespace(a=ns.x, b=ns.x)", "ns.x"),
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
]
REFUSED = [
    ("{{ messages.__class__.__mro__ }}", "unsafe"),
    ("{{ cycler.__init__.__globals__ }}", "unsafe"),
    ("{{ messages.append(1) }}", "unsafe"),
    ("{{ nothing.x }}", "undefined"),
    ("{{ 1 / 0 }}", "division by zero"),
    ("{% include 'x' %}", "no loader"),
    ("{% if %}", "is no chat template"),
    ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
    ("x" * (MOST_CHARACTERS + 1), "more than any chat template"),
]


def render(source: str) -> str:
    return compile_template(source, "the template")(messages=MESSAGES, add_generation_prompt=True)


@pytest.mark.parametrize("source", PUBLISHED)
def test_as_transformers_renders_it(source):
    from transformers.utils.chat_template_utils import render_jinja_template

    (theirs,), _ = render_jinja_template([MESSAGES], chat_template=source, add_generation_prompt=True)
    assert render(source) == theirs


@pytest.mark.parametrize("source", UNBOUNDED)
def test_one_without_bound_is_refused_in_seconds_and_little_memory(source):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, of this process ever
    begun = time.thread_time()
    with pytest.raises(ValueError) as error:
        render(source)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert time.thread_time() - begun < MOST_SECONDS + 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


@pytest.mark.parametrize("source, words", REFUSED)
def test_what_fails_is_one_line(source, words):
    with pytest.raises(ValueError, match=words) as error:
        render(source)
    assert "\n" not in str(error.value)


def test_a_debugger_s_trace_is_left_as_it_was():
    import sys

    former = sys.gettrace()
    render("{{ messages | length }}")
    assert sys.gettrace() is former
