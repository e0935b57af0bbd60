"""The benchmark of the op: its counts against plain ones, and its output; no time is judged here."""

import json

import numpy as np
import pytest

from ltbm.plugins.merge import merge_count
from ltbm.profiles.benchmarks import op
from ltbm.profiles.benchmarks.op import Case, candidate_pairs, cases_of, inputs_of, pairs_of_pass
from ltbm.runtime.cli import main

pytest.importorskip("onnxruntime", reason="runs the bodies: pip install 'ltbm[cpu]'")


@pytest.mark.parametrize("window", [-1, 0, 1, 3, 8, 100])
def test_pairs_are_counted_as_the_algorithm_meets_them(window):
    anchors = np.sort(np.random.default_rng(window + 1).choice(120, 41, replace=False))
    met = 0
    for a in range(0, 41, 2):
        for b in range(1, 41, 2):
            met += window < 0 or abs(anchors[a] - anchors[b]) <= window or abs(a - b) == 1
    assert pairs_of_pass(anchors, window) == met


def test_pairs_of_all_passes_are_added():
    case, pairs, n = Case(40, 4, 9, -1), 0, 40
    while n > 9:
        pairs += (n + 1) // 2 * (n // 2)
        n -= merge_count(n, 9)
    assert candidate_pairs(inputs_of(case, 0)["x"][0], case) == pairs


def test_cases_are_every_combination_of_a_level():
    assert cases_of([750], [64], ["1/4", "1/16"], ["auto", "global"], ["float16"]) == [
        Case(750, 64, 188, 8, "float16"),
        Case(750, 64, 188, -1, "float16"),
        Case(750, 64, 47, 32, "float16"),
        Case(750, 64, 47, -1, "float16"),
    ]


def test_the_command_prints_one_line_a_body(capsys):
    arguments = [
        "--tokens",
        "40",
        "--dim",
        "8",
        "--keep-ratio",
        "1/4",
        "--rounds",
        "2",
        "--bodies",
        "numpy",
        "function",
    ]
    assert main(["bench", "op", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[5] for line in lines if line.startswith("| 40 ")] == ["numpy", "function"]
    main(["bench", "op", *arguments, "--json"])
    timings = json.loads(capsys.readouterr().out)
    assert [t["body"] for t in timings] == ["numpy", "function"] and {t["runs"] for t in timings} == {6}
    assert timings[0]["case"] == {"tokens": 40, "dim": 8, "keep": 10, "window": 8, "dtype": "float32"}
    assert timings[0]["moved_bytes"] == 40 * 8 * 4 + 4 + 4 + 8 + 4 + 10 * (8 * 4 + 8) + 40 * 4
    assert all(0 < t["fastest_ms"] <= t["percentiles_ms"]["50"] for t in timings)


def test_what_makes_no_sense_is_refused(capsys):
    assert main(["bench", "op", "--tokens", "0"]) == 2
    assert "--tokens: 0 is not a whole number from 1" in capsys.readouterr().err
    with pytest.raises(ValueError, match="unknown body 'cuda', expected some of numpy, function, native"):
        op.benchmark([Case(4, 2, 2, 8)], ["cuda"])
