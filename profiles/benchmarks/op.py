"""Time of the bodies of the LTBM op on the CPU, beside the least that any body needs.

Bodies of a case take turns within one run, each turn warmed by a run that is not measured,
so that what else the machine does falls on all of them alike. Timed is a whole call from Python;
opening the model is not. The floor is the time to read x and write the outputs once at the bandwidth that so
many threads reach, measured beside each case.
"""

import argparse
import itertools
import json
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np

from ...plugins import library, merge
from ...runtime.levels import Level, parse_ratio, parse_window
from ..measure import memory_bandwidth
from .op_flags import BODIES

PERCENTILES = (10, 50, 90)
RUNS_PER_TURN = 3


@dataclass(frozen=True)
class Case:
    """One row of tokens to merge."""

    tokens: int  # T
    dim: int  # D
    keep: int  # K
    window: int  # in encoder tokens, -1 for Global Merge
    dtype: str = "float32"


@dataclass(frozen=True)
class Timing:
    """What one body took for a case."""

    case: Case
    body: str
    runs: int
    fastest_ms: float
    percentiles_ms: dict  # percentile -> ms
    floor_ms: float  # to move the bytes once
    moved_bytes: int  # of x and the outputs
    bandwidth: float  # bytes a second, in this process
    products: int  # integer multiply-adds of the similarity, D for every pair of candidates in every pass


def benchmark(cases, bodies=None, rounds=10, threads=1, seed=0, progress=lambda line: None) -> list[Timing]:
    """Time `bodies` (default: all that are installed) on every case, `rounds` turns of 3 runs each."""
    timings = []
    for case in cases:
        progress(f"T={case.tokens} D={case.dim} K={case.keep} window={case.window} {case.dtype}")
        inputs = inputs_of(case, seed)
        calls = {body: call_of(body, case, inputs, threads) for body in bodies or installed_bodies()}
        seconds = take_turns(calls, rounds)
        moved = sum(array.nbytes for array in inputs.values()) + output_bytes(case)
        bandwidth = memory_bandwidth(threads)
        products = candidate_pairs(inputs["x"][0], case) * case.dim
        for body, runs in seconds.items():
            ms = np.array(runs) * 1e3
            timings.append(
                Timing(
                    case,
                    body,
                    len(runs),
                    float(ms.min()),
                    {p: float(np.percentile(ms, p)) for p in PERCENTILES},
                    moved / bandwidth * 1e3,
                    moved,
                    bandwidth,
                    products,
                )
            )
    return timings


def installed_bodies() -> list[str]:
    return [body for body in BODIES if body != "native" or library.native_library()]


def inputs_of(case, seed) -> dict:
    """Tokens that change slowly, as an encoder's do."""
    x = np.random.default_rng(seed).standard_normal((1, case.tokens, case.dim), np.float32)
    for i in range(1, case.tokens):
        x[0, i] = 0.9 * x[0, i - 1] + 0.4 * x[0, i]
    return {
        "x": x.astype(case.dtype),
        "lengths": np.array([case.tokens], np.int32),
        "targets": np.array([case.keep], np.int32),
        "keep": np.array([case.keep], np.int64),
        "window": np.array([case.window], np.int32),
    }


def call_of(body, case, inputs, threads):
    """A function without arguments that runs the op once."""
    if body == "numpy":
        return lambda: merge.merge_rows(
            inputs["x"], inputs["lengths"], inputs["targets"], case.keep, case.window
        )
    if body not in BODIES:
        raise ValueError(f"unknown body {body!r}, expected some of {', '.join(BODIES)}")
    import onnxruntime

    from ...plugins.onnx_function import op_model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if body == "native" and not library.register(options):
        raise RuntimeError("the native op is not built: install a C++ compiler, then pip install ltbm again")
    session = onnxruntime.InferenceSession(
        op_model(case.dim, case.dtype).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, inputs)


def take_turns(calls, rounds) -> dict:
    """Seconds of every measured run of each body."""
    seconds = {body: [] for body in calls}
    for _ in range(rounds):
        for body, call in calls.items():
            call()
            seconds[body] += [seconds_of(call) for _ in range(RUNS_PER_TURN)]
    return seconds


def seconds_of(call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


# --- the floor ---


def output_bytes(case) -> int:
    """Of y, sizes, anchors and source_map."""
    return case.keep * (case.dim * np.dtype(case.dtype).itemsize + 4 + 4) + case.tokens * 4


def candidate_pairs(x, case) -> int:
    """How many pairs of tokens all passes have to compare."""
    grid = merge.similarity_grid(x).astype(np.float64)
    anchors = np.arange(case.tokens)
    pairs = 0
    while len(anchors) > case.keep:
        pairs += pairs_of_pass(anchors, case.window)
        partner, value = merge.best_partners(grid, anchors, case.window)
        merged = np.argsort(-value, kind="stable")[: merge.merge_count(len(anchors), case.keep)]
        grid, anchors, _ = merge.merge_pairs(grid, anchors, 2 * merged, 2 * partner[merged] + 1)
    return pairs


def pairs_of_pass(anchors, window) -> int:
    """Pairs of A and B inside the window, and neighbours outside it."""
    a = anchors[0::2]
    b = anchors[1::2]
    if window < 0:
        return len(a) * len(b)
    index = np.arange(len(a))
    first = np.minimum(np.searchsorted(b, a - window), np.maximum(index - 1, 0))
    end = np.maximum(np.searchsorted(b, a + window, side="right"), np.minimum(index + 1, len(b)))
    return int((end - first).sum())


# --- the command ---


def table(timings) -> str:
    """Markdown, one line a timing."""
    head = [
        "T",
        "D",
        "K",
        "window",
        "type",
        "body",
        "fastest",
        *(f"p{p}" for p in PERCENTILES),
        "floor",
        "times floor",
        "M products",
    ]
    rows = [head, ["---:" if name not in ("type", "body") else "---" for name in head]]
    for t in timings:
        window = "global" if t.case.window < 0 else str(t.case.window)
        times = [t.fastest_ms, *t.percentiles_ms.values(), t.floor_ms]
        rows.append(
            [
                str(t.case.tokens),
                str(t.case.dim),
                str(t.case.keep),
                window,
                t.case.dtype,
                t.body,
                *(f"{ms:.3f}" for ms in times),
                f"{t.fastest_ms / t.floor_ms:.1f}",
                f"{t.products / 1e6:.1f}",
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n\nTimes in ms."


def cases_of(tokens, dims, ratios, windows, dtypes) -> list[Case]:
    """Every combination; ratios and windows as a user writes them."""
    cases = []
    for ratio in map(parse_ratio, ratios):
        for window in map(parse_window, windows):
            level = Level("benchmark", ratio, window)
            for t, dim, dtype in itertools.product(tokens, dims, dtypes):
                cases.append(Case(t, dim, level.target(t), level.merge_window, dtype))
    return list(dict.fromkeys(cases))


def run(args: argparse.Namespace) -> None:
    """Time what the flags of `op_flags` ask for and print it."""
    cases = cases_of(args.tokens, args.dim, args.keep_ratio, args.window, args.dtype)
    timings = benchmark(
        cases, args.bodies, args.rounds, args.threads, progress=lambda line: print(line, file=sys.stderr)
    )
    print(json.dumps([asdict(timing) for timing in timings]) if args.json else table(timings))
