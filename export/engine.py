"""A bundle's graphs become TensorRT engines on the GPU they will run on. Needs tensorrt,
and nothing else of `ltbm.export`."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..plugins import library
from ..runtime.backends.engine_store import (
    FOLDER,
    STAGES,
    EngineFolder,
    Key,
    Target,
    differences,
    graph_file,
    remove_stale,
    store,
    stored,
    this_target,
)
from ..runtime.backends.shape_ranges import Limits, OptimisationProfile, optimisation_profiles
from ..runtime.backends.trt_library import Logger, process_logger, trt
from ..runtime.bundle import Bundle
from ..runtime.files import write_whole
from ..runtime.machine import Machine, find_gpu, find_memory

HOST_TIMES_WEIGHTS = (
    3  # what a build has been seen to take of a graph's weights in host memory, and then the plan
)
WORKSPACE_GIB = 1.0
FOR_TENSORRT = (
    "quantised weights must be signed, without zero points: export with --target tensorrt, or with float16"
)
ADVICE = {  # what a parser error's text holds -> what to do
    "plugin": f"the op's plugin was not found; {library.BUILD_TENSORRT}",
    "no importer": "this TensorRT does not know the operator: `ltbm build` takes decoder.concat20 before "
    "10.15; export the bundle again",
    "zero point": FOR_TENSORRT,
    "opset": "the graph is newer than this TensorRT: update TensorRT",
}


def build_engines(
    bundle: Bundle,
    stages: Sequence[str] = STAGES,
    max_audio_segments: int | None = None,
    max_context: int | None = None,
    workspace_gib: float = WORKSPACE_GIB,
    refresh: bool = False,
    progress: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> EngineFolder:
    """Build what is not there yet, or, to `refresh`, everything anew and delete what this machine can no
    longer load.

    workspace_gib: the most scratch memory that a layer may take while kernels are chosen
    Raises ValueError, MemoryError or RuntimeError with the node and what to do,
    before or while a stage is built.
    """
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown or not stages:
        raise ValueError(f"stages {', '.join(unknown) or 'none'}: give some of {', '.join(STAGES)}")
    precision = bundle.manifest.precision
    if precision.for_onnxruntime:
        raise ValueError(f"TensorRT does not take the weights of {bundle.path}, {precision}: {FOR_TENSORRT}")
    target = this_target()
    limits = Limits.of(bundle.manifest, max_audio_segments, max_context)
    key = Key.of(bundle, target, limits)
    _explain_others(bundle, target, progress)
    folder = next((one for one in stored(bundle) if one.key == key), None)
    process_logger().report = progress
    try:
        for stage in stages:
            if not refresh and folder and stage in folder.stages and not _damaged(folder, stage):
                progress(f"{stage}: is there ({folder.path.name}); --refresh builds it again")
                continue
            check_memory(bundle, stage, workspace_gib)
            folder = _build_stage(bundle, key, stage, workspace_gib, progress)
    finally:
        process_logger().report = None
    if refresh:
        for name in remove_stale(bundle, target):
            progress(f"removed the stale engines {name}")
    assert folder is not None, "there is a stage, and it was built or found whole"
    return folder


def _damaged(folder: EngineFolder, stage: str) -> bool:
    return any(line.startswith(f"{stage}.engine") for line in folder.damage())


def _explain_others(bundle: Bundle, target: Target, progress) -> None:
    for folder in stored(bundle):
        why = differences(folder, bundle, target)
        if why:
            progress(f"engines {folder.path.name} are not for this machine and bundle: {', '.join(why)}")


def check_memory(bundle: Bundle, stage: str, workspace_gib: float, machine: Machine | None = None) -> None:
    """MemoryError, before the build, if it would not fit."""
    from ..runtime.backends.cuda import free_memory  # here, so that what TensorRT lacks is said first

    machine = machine or Machine()
    weights = bundle.manifest.files[f"{stage}.weights"].size
    workspace = int(workspace_gib * 2**30)
    host = HOST_TIMES_WEIGHTS * weights
    device = weights + workspace
    gpu = find_gpu(machine)
    memory = find_memory(machine)
    free_device = free_memory()
    free_host = memory.available + memory.swap if memory else None
    if gpu and gpu.integrated:
        needs = [("memory", host + device, free_host if free_host is not None else free_device)]
    else:
        needs = [("host memory", host, free_host), ("GPU memory", device, free_device)]
    for name, needed, free in needs:
        if free is not None and needed > free:
            raise MemoryError(
                f"the build of {stage} takes about {needed / 2**30:.1f} GiB of {name}, {free / 2**30:.1f} "
                "GiB are free: end other "
                "programs, add swap, lower --workspace, build one of --stages at a time, or export with "
                "smaller weights"
            )


def _build_stage(bundle: Bundle, key: Key, stage: str, workspace_gib: float, progress) -> EngineFolder:
    begun = time.perf_counter()
    logger = process_logger()
    progress(f"{stage}: building for TensorRT {key.target.tensorrt} on {key.target.gpu}")
    builder = trt.Builder(logger)
    if stage == "merge":
        library.load_tensorrt_plugin(builder.get_plugin_registry())
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(network, logger, bundle.file(graph_file(stage, key.flavour)))
    profiles = optimisation_profiles(bundle.manifest, stage, key.flavour, key.limits)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(workspace_gib * 2**30))
    monitor = Monitor(stage, progress)
    config.progress_monitor = monitor
    for profile in profiles:
        _add_profile(builder, config, profile, logger)
    with _timing_cache(
        config,
        bundle.path / FOLDER / f"timing-{key.target.tensorrt}-{key.target.compute_capability}.cache",
        progress,
    ):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError(f"TensorRT built no {stage} engine{logger.take_errors()}")
    seconds = time.perf_counter() - begun
    folder = store(bundle, key, stage, plan, seconds, profiles)
    progress(f"{stage}: {plan.nbytes / 2**20:,.0f} MiB in {seconds:.0f} s")
    return folder


def _parse(network, logger: Logger, path: Path) -> None:
    """From the file, so that the parser finds the weights beside it."""
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        raise ValueError(
            f"TensorRT does not take {path.name}: "
            + "; ".join(_parser_error(parser.get_error(index)) for index in range(parser.num_errors))
            + logger.take_errors()
        )


def _parser_error(error) -> str:
    """One error with its node, and the advice that fits."""
    text = f"node {error.node_name() or '(none)'} ({error.node_operator() or 'graph'}): {error.desc()}"
    advice = next((advice for part, advice in ADVICE.items() if part in error.desc().lower()), None)
    return f"{text} [{advice}]" if advice else text


def _add_profile(builder, config, description: OptimisationProfile, logger: Logger) -> None:
    profile = builder.create_optimization_profile()
    for name, (least, usual, most) in description.shapes.items():
        profile.set_shape(name, least, usual, most)
    for name, (least, usual, most) in description.values.items():
        profile.set_shape_input(name, least, usual, most)
    if config.add_optimization_profile(profile) < 0:
        raise RuntimeError(
            f"TensorRT refused the optimisation profile {description.name}{logger.take_errors()}"
        )


@contextmanager
def _timing_cache(config, path: Path, progress):
    """Kernel timings of former builds, so that the next one is faster; kept when the build is done."""
    former = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(former)
    if cache is None or not config.set_timing_cache(cache, False):
        progress(f"the timing cache {path.name} was not taken: a new one is begun")
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    yield
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, memoryview(cache.serialize()))
    except OSError as error:  # the engines are worth more than the timings
        progress(f"the timing cache was not kept: {error}")


class Monitor(trt.IProgressMonitor):
    """Says which phase of a build begins and how far it is, about every tenth."""

    def __init__(self, stage: str, progress: Callable[[str], None]):
        trt.IProgressMonitor.__init__(self)
        self._stage = stage
        self._progress = progress
        self._steps = {}

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        self._steps[phase_name] = num_steps
        if not parent_phase:
            self._progress(f"{self._stage}: {phase_name}, {num_steps} steps")

    def step_complete(self, phase_name: str, step: int) -> bool:
        steps = self._steps.get(phase_name, 0)
        if steps >= 10 and step % (steps // 10) == 0:
            self._progress(f"{self._stage}: {phase_name} {step} of {steps}")
        return True  # go on; Ctrl-C ends the process

    def phase_finish(self, phase_name: str) -> None:
        self._steps.pop(phase_name, None)
