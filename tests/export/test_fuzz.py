"""A damaged file of a checkpoint or a bundle: export and run work, or end in one clear line.

A few examples of each file; tests/fuzz_files.py tries as many as one has time for.
tests/runtime/sound/test_fuzz.py has the sound files.
"""

import shutil

import pytest

from tests.support.damaged_folders import FAILED, FILES, outcome_of

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed: pip install '.[test]'")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

PAIRS = [(kind, name) for kind, files in FILES.items() for name in files]


@pytest.fixture(scope="module")
def whole(qwen, tmp_path_factory):
    """A folder with the tiny checkpoint and its bundle."""
    folder = tmp_path_factory.mktemp("whole")
    for source, kind in zip(qwen, FILES):
        shutil.copytree(source, folder / kind)
    return folder


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(chance=st.randoms(use_true_random=False))
@pytest.mark.parametrize("kind, name", PAIRS, ids=map("/".join, PAIRS))
def test_it_works_or_says_in_one_line_what_is_wrong(whole, kind, name, chance):
    path = whole / kind / name
    if not path.is_file():
        pytest.skip(f"this checkpoint has no {name}")
    data = FILES[kind][name](path.read_bytes(), chance)
    assert FAILED not in outcome_of(whole, kind, name, data)
