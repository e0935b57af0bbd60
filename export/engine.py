"""A bundle's graphs become TensorRT engines: on the GPU they will run on, or for RTX GPUs anywhere.

Needs the TensorRT of the backend, and nothing else of `ltbm.export`.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from ..runtime.backends.engine_folders import FOLDER
from ..runtime.backends.engine_store import (
    ENGINES_OF,
    EngineFolder,
    Key,
    Target,
    differences,
    graph_file,
    remove_stale,
    store,
    stored,
    this_target,
    weights_file,
)
from ..runtime.backends.flavours import FIXED_CAPACITY
from ..runtime.backends.shape_ranges import Limits, optimisation_profiles
from ..runtime.backends.trt_library import TENSORRT, TENSORRT_RTX, TensorRTLibrary, load_library
from ..runtime.bundle import Bundle
from ..runtime.machine import Machine, find_gpu, find_memory, free_disk
from .newer_tensorrt import dotted, undotted
from .progress import Progress, to_stderr
from .tensorrt_builder import FOR_TENSORRT, BuildJob, build_plan

HOST_TIMES_WEIGHTS = 3.6
"""What a build has been seen to take of host memory: TensorRT-RTX, 2 to 8 layers (docs/evidence.md)."""
WORKSPACE_GIB = 1.0
MERGE_PARTS = {
    TENSORRT: "its merge engine holds op and projector",
    TENSORRT_RTX: "it has no plugins: the op runs outside of it, before the projector",
}
COMPILED_ON_LOAD = (
    "the first load on a GPU compiles the engines' kernels for it, which takes a while; they are kept beside "
    "the engines for the next"
)


def build_engines(
    bundle: Bundle,
    stages: Sequence[str] | None = None,
    max_audio_segments: int | None = None,
    max_context: int | None = None,
    workspace_gib: float = WORKSPACE_GIB,
    refresh: bool = False,
    progress: Progress = to_stderr,
    backend: str = TENSORRT,
    capabilities: Sequence[str] | None = None,
) -> EngineFolder:
    """Build what is not there yet, or, to `refresh`, everything anew and delete what this machine can no
    longer load.

    stages: of those that are engines of the backend; all of them when left out
    workspace_gib: the most scratch memory that a layer may take while kernels are chosen
    backend: tensorrt, for this machine's GPU, or tensorrt-rtx
    capabilities: such as sm89, that TensorRT-RTX builds for; all that it knows when left out
    Raises ValueError, MemoryError or RuntimeError with the node and what to do,
    before or while a stage is built.
    """
    library = load_library(backend)
    target = _target(library, capabilities)
    stages = _check_stages(stages, target)
    _check_precision(bundle, library)
    limits = Limits.of(bundle.manifest, max_audio_segments, max_context)
    key = Key.of(bundle, target, limits)
    _explain_others(bundle, target, progress)
    library.logger.report = progress
    try:
        folder = _build_stages(bundle, library, key, stages, refresh, workspace_gib, progress)
    finally:
        library.logger.report = None
    if refresh:
        for name in remove_stale(bundle, target):
            progress(f"removed the stale engines {name}")
    if library.is_rtx:
        progress(COMPILED_ON_LOAD)
    return folder


def _check_precision(bundle: Bundle, library: TensorRTLibrary) -> None:
    """ValueError, with what to export instead, for types that no TensorRT takes."""
    precision = bundle.manifest.precision
    if obstacle := precision.obstacle("cuda"):
        raise ValueError(
            f"{library.product} does not take {bundle.path} ({precision}): {obstacle}; "
            "export with --encoder-precision float16"
        )
    if precision.for_onnxruntime:
        raise ValueError(
            f"{library.product} does not take the weights of {bundle.path}, {precision}: {FOR_TENSORRT}"
        )


def _build_stages(
    bundle: Bundle,
    library: TensorRTLibrary,
    key: Key,
    stages: Sequence[str],
    refresh: bool,
    workspace_gib: float,
    progress: Progress,
) -> EngineFolder:
    """Those of `stages` that are not there whole, or, to `refresh`, all of them."""
    folder = next((one for one in stored(bundle) if one.key == key), None)
    for stage in stages:
        if not refresh and folder and stage in folder.stages and not _damaged(folder, stage):
            progress(f"{stage}: is there ({folder.path.name}); --refresh builds it again")
            continue
        check_disk(bundle, stage)
        check_memory(bundle, stage, workspace_gib, on_gpu=not library.is_rtx)
        folder = _build_stage(bundle, library, key, stage, workspace_gib, progress)
    assert folder is not None, "there is a stage, and it was built or found whole"
    return folder


def _check_stages(stages: Sequence[str] | None, target: Target) -> Sequence[str]:
    if stages is None:
        return target.stages
    of_others = [name for names in ENGINES_OF.values() for name in names]
    unknown = [stage for stage in stages if stage not in of_others]
    if unknown or not stages:
        raise ValueError(f"stages {', '.join(unknown) or 'none'}: give some of {', '.join(target.stages)}")
    missing = [stage for stage in stages if stage not in target.stages]
    if missing:
        raise ValueError(
            f"{target.backend} builds no {missing[0]} engine ({MERGE_PARTS[target.backend]}): "
            f"give some of {', '.join(target.stages)}"
        )
    return stages


def _target(library: TensorRTLibrary, capabilities: Sequence[str] | None) -> Target:
    """What is built for: this machine, or the compute capabilities that were asked for."""
    if not library.is_rtx:
        if capabilities:
            raise ValueError(
                "TensorRT builds on the GPU that runs the engine: --gpu is for --backend tensorrt-rtx"
            )
        return this_target()
    known = library.capabilities
    wanted = [name.upper() for name in capabilities or known]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(
            f"TensorRT-RTX {library.version} does not know {', '.join(unknown).lower()}; it builds for "
            f"{', '.join(known).lower()} (compute capability 8.6 is sm86)"
        )
    ordered = sorted(set(wanted), key=known.index)
    return Target(library.version, ", ".join(map(dotted, ordered)), "", "", library.name)


def _damaged(folder: EngineFolder, stage: str) -> bool:
    return any(line.startswith(f"{stage}.engine") for line in folder.damage())


def _explain_others(bundle: Bundle, target: Target, progress: Progress) -> None:
    for folder in stored(bundle):
        why = differences(folder, bundle, target)
        if why and folder.key.target.backend == target.backend:
            progress(f"engines {folder.path.name} are not for this machine and bundle: {', '.join(why)}")


def check_disk(bundle: Bundle, stage: str) -> None:
    """OSError, before the build, if the engine would not fit beside the bundle."""
    needed = bundle.manifest.files[weights_file(stage)].size
    free = free_disk(bundle.path)
    if needed > free:
        raise OSError(
            f"the {stage} engine takes about {needed / 2**20:,.0f} MiB, {free / 2**20:,.0f} MiB are free "
            f"under {bundle.path}: free some, or copy the bundle to a larger disk"
        )


def check_memory(
    bundle: Bundle, stage: str, workspace_gib: float, machine: Machine | None = None, on_gpu: bool = True
) -> None:
    """MemoryError, before the build, if it would not fit."""
    machine = machine or Machine()
    weights = bundle.manifest.files[weights_file(stage)].size
    workspace = int(workspace_gib * 2**30)
    host = int(HOST_TIMES_WEIGHTS * weights)
    device = weights + workspace
    memory = find_memory(machine)
    free_host = memory.available + memory.swap if memory else None
    needs = [("host memory", host, free_host)]
    if on_gpu:
        from ..runtime.backends.cuda import free_memory  # here, so that what TensorRT lacks is said first

        gpu = find_gpu(machine)
        free_device = free_memory()
        if gpu and gpu.integrated:
            needs = [("memory", host + device, free_host if free_host is not None else free_device)]
        else:
            needs.append(("GPU memory", device, free_device))
    for name, needed, free in needs:
        if free is not None and needed > free:
            raise MemoryError(
                f"the build of {stage} takes about {needed / 2**30:.1f} GiB of {name}, {free / 2**30:.1f} "
                "GiB are free: end other "
                "programs, add swap, lower --workspace, build one of --stages at a time, or export with "
                "smaller weights"
            )


def _build_stage(
    bundle: Bundle, library: TensorRTLibrary, key: Key, stage: str, workspace_gib: float, progress: Progress
) -> EngineFolder:
    begun = time.perf_counter()
    target = key.target
    progress(f"{stage}: building for {library.product} {target.tensorrt} on {_on(target)}")
    profiles = optimisation_profiles(bundle.manifest, stage, key.flavour, key.limits)
    fixed = stage == "decoder" and key.flavour == FIXED_CAPACITY
    job = BuildJob(
        stage,
        bundle.file(graph_file(stage, key.flavour)),
        profiles,
        capacity=key.limits.max_context if fixed else None,
        workspace_bytes=int(workspace_gib * 2**30),
        capabilities=undotted(target.compute_capability) if library.is_rtx else (),
        timings=None if library.is_rtx else _timings(bundle, target),
    )
    plan = build_plan(library, job, progress)
    seconds = time.perf_counter() - begun
    folder = store(bundle, key, stage, plan, seconds, profiles)
    progress(f"{stage}: {plan.nbytes / 2**20:,.0f} MiB in {seconds:.0f} s")
    if fixed:
        progress(f"{stage}: {_cache_words(bundle, key.limits)}")
    return folder


def _on(target: Target) -> str:
    if target.backend == TENSORRT_RTX:
        return f"compute capability {target.compute_capability}"
    return target.gpu


def _cache_words(bundle: Bundle, limits: Limits) -> str:
    manifest = bundle.manifest
    nbytes = manifest.decoder.kv_bytes(limits.max_context, manifest.precision.kv_itemsize)
    return (
        f"its KV cache holds {limits.max_context} tokens, {nbytes / 2**20:,.0f} MiB, whatever a request "
        "takes; --max-context or --level make it smaller"
    )


def _timings(bundle: Bundle, target: Target) -> Path:
    return bundle.path / FOLDER / f"timing-{target.tensorrt}-{target.compute_capability}.cache"
