"""An export that is killed leaves a whole bundle or none; tests/kill_moments.py kills more commands."""

import random

import pytest

from tests.support.killed_commands import COMMANDS, prepare
from tests.support.kills import kill_once, run_through


@pytest.mark.slow
def test_what_a_killed_export_leaves(qwen, tmp_path):
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    prepare(prepared, *qwen)
    course = run_through(COMMANDS["export"], prepared)
    assert course.changes > 10
    chance = random.Random(0)
    for by_change in (True, False):
        kill_once(COMMANDS["export"], prepared, course, chance, by_change)
