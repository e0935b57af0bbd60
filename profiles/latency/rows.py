"""A row of a profile: one level's time, memory and distance from the floor, from what its processes measured.

A *round* hears every clip once; its value is the mean over the clips. Percentiles and spread are over rounds;
`step`, every single token after the first, is the one figure whose percentiles are over all that was
measured.
"""

import numpy as np

from ...runtime.answer import STAGES as TTFT_STAGES
from ..budgets.model import Model
from ..measure import summarise
from .floors import floors

STAGES = (*TTFT_STAGES, "decode")
OTHER = "other"
"""What is left of a request's total beside its stages: text, sampling, bookkeeping."""
FIGURES = (*STAGES, OTHER, "ttft", "tpot", "step", "total", "rtf")
"""In milliseconds, but for rtf; tpot and step are missing where every answer is one token."""


def make_row(row: tuple[str, str], runs: list[dict], found: dict, model: Model) -> dict:
    """One level's figures from its processes so far."""
    level, method = row
    names = {"level": level, "method": method, "runs": runs}
    if errors := [run["error"] for run in runs if "error" in run]:
        return names | {"error": errors[0]}
    clips, rounds = runs[-1]["clips"], [requests for run in runs for requests in run["rounds"]]
    seconds = [clip["seconds"] for clip in found["clips"]]
    tokens = {
        name: sum(clip[name] for clip in clips)
        for name in ("tokens_in", "tokens_out", "prompt_tokens", "answer_tokens")
    }
    figures = round_figures(rounds, seconds)
    if steps := [ms for requests in rounds for request in requests for ms in request["step_ms"]]:
        figures["step"] = summarise(steps)
    return (
        names
        | tokens
        | {
            "applied": any(clip["applied"] for clip in clips),
            "reason": clips[0]["reason"],
            "figures": figures,
            "memory": memory_split(runs, clips),
            "kv_bytes": max(clip["kv_bytes"] for clip in clips),
            "floors": floors(model, found["machine"], clips, seconds)
            if found["options"]["device"] == "cpu"
            else {},
            "load_average": max(run["state"]["load_average"] for run in runs),
            "open_ms": float(np.median([run["open_ms"] for run in runs])),
        }
    )


def round_figures(rounds: list[list[dict]], seconds: list[float]) -> dict[str, dict]:
    """Percentiles and spread of every stage, of ttft, tpot and total (ms) and of rtf,
    over the rounds' means."""
    means = [
        _mean([_request_figures(request, length) for request, length in zip(requests, seconds)])
        for requests in rounds
    ]
    return {name: summarise([values[name] for values in means]) for name in means[0]}


def _request_figures(request: dict, seconds: float) -> dict[str, float]:
    timings, steps = request["timings"], request["step_ms"]
    stages = {name: timings[name] for name in STAGES}
    return (
        stages
        | {
            OTHER: timings["total"] - sum(stages.values()),
            "ttft": timings["ttft"],
            "total": timings["total"],
            "rtf": timings["total"] / 1e3 / seconds,
        }
        | ({"tpot": sum(steps) / len(steps)} if steps else {})
    )


def _mean(requests: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure over the requests that have it (an answer of one token has no tpot)."""
    names = dict.fromkeys(name for request in requests for name in request)
    return {
        name: float(np.mean([request[name] for request in requests if name in request])) for name in names
    }


def memory_split(runs: list[dict], clips: list[dict]) -> dict:
    """Bytes of the process with the highest peak (VmHWM), split into libraries, weights,
    KV cache and the rest.

    libraries: the interpreter and shared libraries; weights: what opening the engines allocated,
        and the bundle's mapped files
    rest: activations and arenas, or, where the peak was reached while opening (`peak_while`),
        what loading took for a moment
    """
    run = max(runs, key=lambda run: run["memory"]["end"]["peak"])
    before, opened, end = (run["memory"][name] for name in ("before", "opened", "end"))
    mapped, kv_cache = run["memory"]["weights_mapped"], max(clip["kv_allocated_bytes"] for clip in clips)
    weights = allocated(opened) - allocated(before) + mapped
    libraries = allocated(before) + end["mapped"] - mapped
    return {
        "metric": "VmHWM, the peak resident set of the process",
        "peak": end["peak"],
        "peak_outside": run["peak_outside"],
        "peak_while": "running" if end["peak"] > opened["peak"] else "opening",
        "libraries": libraries,
        "weights": weights,
        "weights_mapped": mapped,
        "kv_cache": kv_cache,
        "rest": end["peak"] - libraries - weights - kv_cache,
    }


def allocated(memory: dict) -> int:
    """Resident bytes that are no mapped files."""
    return memory["resident"] - memory["mapped"]
