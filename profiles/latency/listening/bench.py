"""Every approach to every end of speech, in processes that take turns."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np

from ....runtime.bundle import Bundle
from ....runtime.machine import installed_version
from ...json_records import plain, read_record
from ..job_records import ListenJob, MachineJob
from ..jobs import run_job
from ..profiler import PACKAGES, bundle_facts, clip_facts
from ..records import BundleFacts, Clip, MachineFacts
from .options import APPROACHES, Options
from .rows import ListenRow, make_row
from .runs import ListenRun

FORMAT = "ltbm-listen-1"


@dataclass(frozen=True, kw_only=True)
class ListenResult:
    """Everything that `ltbm bench listen` measured; complete: False while passes are still to come."""

    format: str = FORMAT
    complete: bool
    created: str  # ISO 8601
    options: Options
    versions: dict[str, str | None]  # by package
    bundle: BundleFacts
    segment_seconds: float
    clips: tuple[Clip, ...]
    machine: MachineFacts
    runs: tuple[ListenRun, ...]
    rows: tuple[ListenRow, ...]

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "ListenResult":
        options = {}
        for name, value in data["options"].items():
            options[name] = tuple(value) if isinstance(value, list) else value
        return read_record(
            ListenResult,
            data,
            options=read_record(Options, options),
            bundle=read_record(BundleFacts, data["bundle"]),
            clips=tuple(read_record(Clip, clip) for clip in data["clips"]),
            machine=MachineFacts.from_json(data["machine"]),
            runs=tuple(ListenRun.from_json(run) for run in data["runs"]),
            rows=tuple(ListenRow.from_json(row) for row in data["rows"]),
        )

    def to_json(self) -> dict[str, Any]:
        return plain(self)


def benchmark(
    path,
    options: Options,
    progress: Callable[[str], None] = lambda line: None,
    finished: Callable[[ListenResult], None] = lambda result: None,
) -> ListenResult:
    """All passes; `finished` gets what there is so far after each. RuntimeError where a process fails."""
    bundle = Bundle.open(path)
    result = _result_without_runs(bundle, options, progress)
    passes = options.passes()
    starts = _starts(options, sum(clip.seconds for clip in result.clips), len(passes))
    jobs = []
    for ends, start in zip(passes, starts):
        jobs += [_job(bundle, options, name, ends, start) for name in options.approaches]
    begun = time.monotonic()
    for done, job in enumerate(jobs):
        left = f", about {(time.monotonic() - begun) * (len(jobs) / done - 1):.0f} s left" if done else ""
        progress(f"{job.approach}, {len(job.ends)} ends: {done + 1} of {len(jobs)}{left}")
        run, peak = run_job(job, ListenRun)
        runs = (*result.runs, replace(run, peak_bytes=peak))
        rows = _rows(options, runs, result.segment_seconds)
        result = replace(result, runs=runs, rows=rows, complete=len(runs) == len(jobs))
        finished(result)
    return result


def _rows(options: Options, runs: tuple[ListenRun, ...], segment_seconds: float) -> tuple[ListenRow, ...]:
    measured = {run.approach for run in runs}
    names = [name for name in options.approaches if name in measured]
    return tuple(make_row(name, runs, segment_seconds) for name in names)


def _starts(options: Options, clips_seconds: float, passes: int) -> list[float]:
    """Where in the joined clips each pass begins, so that no segment of one is known from another."""
    draw = np.random.default_rng((options.seed, passes))
    return draw.uniform(0, clips_seconds, passes).tolist()


def _job(bundle: Bundle, options: Options, name: str, ends: tuple[float, ...], start: float) -> ListenJob:
    level = options.level_of(APPROACHES[name])
    return ListenJob(
        bundle=str(bundle.path.resolve()),
        clips=tuple(str(Path(clip).resolve()) for clip in options.clips),
        backend=options.backend,
        device=options.device,
        threads=options.threads,
        low_memory=False,
        kv_cache=options.kv_cache,
        packed=options.packed,
        native_products=options.native_products,
        long_audio="segments",
        approach=name,
        level=level.name.removeprefix("ratio"),
        window=level.window,
        positions=level.positions,
        attention=level.attention,
        prompt=options.prompt,
        max_new_tokens=options.max_new_tokens,
        start=start,
        ends=ends,
        real_time=options.real_time,
    )


def _result_without_runs(bundle: Bundle, options: Options, progress: Callable[[str], None]) -> ListenResult:
    clips = clip_facts(bundle, options.clips)
    progress("machine: memory bandwidth, matrix rate")
    threads = options.threads or len(os.sched_getaffinity(0))
    machine, _ = run_job(MachineJob(threads=threads), MachineFacts)
    return ListenResult(
        complete=False,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        options=options,
        versions={"python": python_version()} | {name: installed_version(name) for name in PACKAGES},
        bundle=bundle_facts(bundle),
        segment_seconds=bundle.manifest.audio.segment_seconds,
        clips=clips,
        machine=machine,
        runs=(),
        rows=(),
    )
