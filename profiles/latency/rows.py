"""A row of a profile: one level's time, memory and distance from the floor, from what its processes measured.

A *round* answers every clip once; its value is the mean over the clips. Percentiles and spread are over
rounds; those of `step`, every single token after the first, are over all that was measured.
"""

from collections.abc import Sequence

import numpy as np

from ...runtime.answer import STAGES as TTFT_STAGES
from ..budgets.model import Model
from ..measure import summarise
from .floors import floors
from .records import FailedRow, Figure, MemorySplit, Profile, Row
from .runs import ClipAnswer, FailedRun, LevelRun, RequestTimes

STAGES = (*TTFT_STAGES, "decode")
OTHER = "other"
"""What is left of a request's total beside its stages: text, sampling, bookkeeping."""
FIGURES = (*STAGES, OTHER, "ttft", "tpot", "step", "total", "rtf")
"""In milliseconds, but for rtf; tpot and step are missing where every answer is one token."""
Round = Sequence[RequestTimes]  # a request for every clip


def make_row(
    level: str, method: str, results: Sequence[LevelRun | FailedRun], profile: Profile, model: Model
) -> Row | FailedRow:
    """One level's figures from its processes so far; `profile` holds the clips, machine and options."""
    if failed := [run for run in results if isinstance(run, FailedRun)]:
        return FailedRow(level, method, tuple(results), failed[0].error)
    runs = [run for run in results if isinstance(run, LevelRun)]
    clips = runs[-1].clips
    rounds = [requests for run in runs for requests in run.rounds]
    seconds = [clip.seconds for clip in profile.clips]
    machine = profile.machine
    on_cpu = profile.options.device == "cpu"
    return Row(
        level=level,
        method=method,
        runs=tuple(runs),
        tokens_in=sum(clip.tokens_in for clip in clips),
        tokens_out=sum(clip.tokens_out for clip in clips),
        prompt_tokens=sum(clip.prompt_tokens for clip in clips),
        answer_tokens=sum(clip.answer_tokens for clip in clips),
        applied=any(clip.applied for clip in clips),
        reason=clips[0].reason,
        figures=round_figures(rounds, seconds) | _step_figure(rounds),
        memory=memory_split(runs, clips),
        kv_bytes=max(clip.kv_bytes for clip in clips),
        floors=floors(model, machine.bandwidth, machine.matrix_rate, clips, seconds) if on_cpu else {},
        load_average=max(run.state.load_average for run in runs),
        open_ms=float(np.median([run.open_ms for run in runs])),
    )


def _step_figure(rounds: Sequence[Round]) -> dict[str, Figure]:
    """`step` over every single token, or nothing where every answer is one token."""
    steps: list[float] = []
    for requests in rounds:
        for request in requests:
            steps += request.step_ms
    return {"step": Figure(**summarise(steps))} if steps else {}


def round_figures(rounds: Sequence[Round], seconds: Sequence[float]) -> dict[str, Figure]:
    """Percentiles and spread of every stage, of ttft, tpot and total (ms) and of rtf,
    over the rounds' means."""
    means = [
        _mean([_request_figures(request, length) for request, length in zip(requests, seconds)])
        for requests in rounds
    ]
    return {name: Figure(**summarise([values[name] for values in means])) for name in means[0]}


def _request_figures(request: RequestTimes, seconds: float) -> dict[str, float]:
    timings, steps = request.timings, request.step_ms
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


def memory_split(runs: Sequence[LevelRun], clips: Sequence[ClipAnswer]) -> MemorySplit:
    """Memory of the process with the highest peak (VmHWM)."""
    run = max(runs, key=lambda run: run.memory.end.peak)
    before, opened, end = run.memory.before, run.memory.opened, run.memory.end
    mapped = run.memory.weights_mapped
    kv_cache = max(clip.kv_allocated_bytes for clip in clips)
    weights = opened.allocated - before.allocated + mapped
    libraries = before.allocated + end.mapped - mapped
    return MemorySplit(
        metric="VmHWM, the peak resident set of the process",
        peak=end.peak,
        peak_outside=run.peak_outside,
        peak_while="running" if end.peak > opened.peak else "opening",
        libraries=libraries,
        weights=weights,
        weights_mapped=mapped,
        kv_cache=kv_cache,
        rest=end.peak - libraries - weights - kv_cache,
    )
