"""Numbers from users: every flag of every command, and the Python API; one line that names what is wrong."""

import argparse

import pytest

from ltbm.runtime.arguments import UsageError
from ltbm.runtime.backends.backend import EngineOptions
from ltbm.runtime.cli import build_parser, main
from ltbm.runtime.numbers import check_finite, check_whole, most_threads
from ltbm.runtime.request import Request
from ltbm.runtime.sampling import Sampling
from ltbm.runtime.sound.limits import Limit

NO_NUMBERS = ("nan", "inf", "x", "1e400", "-1000000", "", "9" * 400)
MOST = {"--threads": most_threads(), "--port": 65535, "--max-new-tokens": 2**31 - 1, "--clips": 10}


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Every subcommand at any depth by what is typed to call it."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                found |= {child.prog: child} | commands(child)
    return found


def is_number(action: argparse.Action) -> bool:
    """Whether a flag takes numbers: its parser makes one, or it has one as its default."""
    if action.nargs == 0 or action.choices is not None or not action.option_strings:
        return False
    if isinstance(action.default, (int, float)):
        return True
    try:
        return isinstance(action.type("12"), (int, float))
    except (TypeError, argparse.ArgumentTypeError):
        return getattr(action.type, "__qualname__", "").startswith(("whole", "finite"))


FLAGS = [
    (name, parser, action)
    for name, parser in commands(build_parser()).items()
    for action in filter(is_number, parser._actions)
]


def test_the_flags_that_take_numbers_are_seen():
    seen = {f"{name} {action.option_strings[0]}" for name, _, action in FLAGS}
    assert len(seen) > 75
    assert {"ltbm run --threads", "ltbm serve --port", "ltbm bench op --tokens", "ltbm demo --clips"} <= seen


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_no_flag_takes_what_is_no_number(value):
    """Asked of the parser of each flag, as if everything else on the line were right."""
    for name, parser, action in FLAGS:
        with pytest.raises(argparse.ArgumentError) as error:
            parser._get_values(action, [value])
        assert action.option_strings[0] in str(error.value), name


def test_bounds_are_inclusive():
    for name, parser, action in FLAGS:
        most = MOST.get(action.option_strings[0])
        if most is not None:
            assert parser._get_values(action, [str(most)]) in (most, [most]), name
            with pytest.raises(argparse.ArgumentError):
                parser._get_values(action, [str(most + 1)])


def test_thousands_of_threads_are_refused_before_anything_is_opened(capsys):
    assert main(["run", "no-bundle", "no.wav", "--prompt", "?", "--threads", "9999"]) == 2
    error = capsys.readouterr().err
    assert (
        error.startswith("ltbm: --threads: 9999 is not a whole number from 1 to ") and error.count("\n") == 1
    )


def test_an_error_of_the_parser_is_one_for_callers_too():
    with pytest.raises(UsageError, match="--seed: -1 is not a whole number from 0"):
        build_parser().parse_args(["run", "b", "a.wav", "--seed", "-1"])


@pytest.mark.parametrize(
    "make,words",
    [
        (lambda: Sampling(temperature=float("nan")), "temperature nan is not a number of at least 0"),
        (lambda: Sampling(temperature=float("inf")), "temperature inf"),
        (lambda: Sampling(temperature=1e-50), "neither 0 .greedy. nor at least 0.001"),
        (lambda: Sampling(temperature="hot"), "temperature 'hot'"),
        (lambda: Sampling(top_k=1.5), "top_k 1.5 is not a whole number"),
        (lambda: Sampling(top_p=float("nan")), "top_p nan"),
        (lambda: Sampling(repetition_penalty=float("nan")), "repetition_penalty nan"),
        (lambda: Sampling(repetition_penalty=1e-30), "repetition_penalty 1e-30"),
        (lambda: Sampling(seed=-1), "seed -1"),
        (lambda: Sampling(seed=True), "seed True"),
        (lambda: Request([], [], None, max_new_tokens=2.5), "max_new_tokens 2.5"),
        (lambda: EngineOptions("cpu", threads=-3), "threads -3"),
        (lambda: EngineOptions("cpu", threads=9999), "threads 9999"),
        (lambda: Limit(float("nan"), 16_000), "max_seconds nan"),
    ],
)
def test_the_python_api_names_the_argument(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_numbers_of_numpy_are_numbers():
    np = pytest.importorskip("numpy")
    assert check_whole("n", np.int64(3)) == 3 and check_finite("x", np.float32(0.5)) == 0.5
