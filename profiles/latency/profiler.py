"""Profile a bundle: every level in fresh processes that take turns, a row of figures for each.

A row's rounds come from several processes (`turns`), so that its spread holds what differs from one process
to the next.
"""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from platform import python_version

from ...runtime.bundle import MANIFEST_NAME, Bundle
from ...runtime.files import file_sha256
from ...runtime.machine import installed_version
from ...runtime.stages.audio import load_audio
from ..budgets.model import model_of_bundle
from .job_records import BundleJob, FidelityJob, LevelJob, MachineJob
from .jobs import run_job
from .options import TIMED_METHODS, Options
from .records import BundleFacts, Clip, Fidelity, MachineFacts, Profile
from .rows import make_row
from .runs import FailedRun, LevelRun

PACKAGES = ("ltbm", "numpy", "onnxruntime", "onnxruntime-gpu", "tensorrt")


def profile(
    path,
    options: Options,
    progress: Callable[[str], None] = lambda line: None,
    finished: Callable[[Profile], None] = lambda profile: None,
) -> Profile:
    """The whole profile; `finished` gets what there is so far after every process.

    A level whose process dies (out of memory, say) becomes a FailedRow; the others go on.
    """
    options.check()
    bundle = Bundle.open(path)
    model, common = model_of_bundle(bundle), _bundle_job(bundle, options)
    result = _profile_without_rows(bundle, options, common, progress)
    runs: dict[tuple[str, str], list[LevelRun | FailedRun]] = {row: [] for row in options.timed_rows()}
    jobs = [row for _ in range(options.turns) for row in runs]
    start = time.monotonic()
    for done, (level, method) in enumerate(jobs):
        progress(f"{level} {method}: {done + 1} of {len(jobs)}{_time_left(done, len(jobs), start)}")
        runs[level, method].append(_measure(_level_job(common, options, level, method)))
        rows = [make_row(*row, results, result, model) for row, results in runs.items() if results]
        result = replace(result, rows=tuple(rows))
        finished(result)
    result = replace(result, complete=True)
    finished(result)
    return result


def _profile_without_rows(
    bundle: Bundle, options: Options, common: BundleJob, progress: Callable[[str], None]
) -> Profile:
    """Facts about everything that takes part, and the fidelity of every method."""
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    clips = clip_facts(bundle, options.clips)
    progress("machine: memory bandwidth, matrix rate")
    machine, _ = run_job(MachineJob(threads=options.threads or len(os.sched_getaffinity(0))), MachineFacts)
    progress("fidelity: every method on the clips' tokens")
    fidelity, _ = run_job(
        FidelityJob(**asdict(common), levels=options.levels, methods=options.methods, window="auto"), Fidelity
    )
    return Profile(
        complete=False,
        created=created,
        options=options,
        versions={"python": python_version()} | {name: installed_version(name) for name in PACKAGES},
        bundle=bundle_facts(bundle),
        clips=clips,
        machine=machine,
        rows=(),
        fidelity=fidelity,
    )


def _level_job(common: BundleJob, options: Options, level: str, method: str) -> LevelJob:
    return LevelJob(
        **asdict(common),
        level=level,
        window=TIMED_METHODS[method],
        positions=options.positions,
        attention=options.attention,
        prompt=options.prompt,
        max_new_tokens=options.max_new_tokens,
        repeats=options.repeats,
        warmup=options.warmup,
    )


def _bundle_job(bundle: Bundle, options: Options) -> BundleJob:
    return BundleJob(
        bundle=str(bundle.path.resolve()),
        clips=tuple(str(Path(clip).resolve()) for clip in options.clips),
        backend=options.backend,
        device=options.device,
        threads=options.threads,
        low_memory=options.low_memory,
        kv_cache=options.kv_cache,
        packed=options.packed,
        native_products=options.native_products,
        long_audio=options.long_audio,
    )


def _measure(job: LevelJob) -> LevelRun | FailedRun:
    """The result of one process of one row, or the error that ended it."""
    try:
        run, outside = run_job(job, LevelRun)
    except RuntimeError as error:
        return FailedRun(str(error))
    return replace(run, peak_outside=outside)


def _time_left(done: int, total: int, start: float) -> str:
    """From the time of what is done."""
    return f", about {(time.monotonic() - start) * (total / done - 1):.0f} s left" if done else ""


# --- facts ---


def bundle_facts(bundle: Bundle) -> BundleFacts:
    """The manifest holds the sha256 of every file, so its own hash stands for the whole bundle."""
    manifest = bundle.manifest
    return BundleFacts(
        path=str(bundle.path),
        name=bundle.path.resolve().name,
        sha256=file_sha256(bundle.path / MANIFEST_NAME),
        family=manifest.family,
        source=manifest.source,
        precision=str(manifest.precision),
        stage_bytes=bundle.stage_bytes(),
    )


def clip_facts(bundle: Bundle, clips: tuple[str, ...]) -> tuple[Clip, ...]:
    """Also the first look at every clip: what cannot be read is refused before anything is measured."""
    return tuple(_clip(Path(clip), bundle.manifest.audio.sampling_rate) for clip in clips)


def _clip(path: Path, rate: int) -> Clip:
    return Clip(name=path.name, sha256=file_sha256(path), seconds=len(load_audio(path, rate)) / rate)
