"""One graph becomes one TensorRT plan: parsed, given its optimisation profiles, built."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..plugins import library as plugins
from ..runtime.backends.shape_ranges import OptimisationProfile
from ..runtime.backends.trt_library import TensorRTLibrary
from ..runtime.files import write_whole
from .newer_tensorrt import allow_decomposed_attention, set_capabilities
from .progress import Progress
from .static_dims import with_static_dim

CAPACITY_DIM = "CAP"  # of the KV cache in a decoder's graph
FOR_TENSORRT = (
    "quantised weights must be signed, without zero points: export with --target tensorrt, or with float16"
)
ADVICE = {  # what a parser error's text holds -> what to do
    "plugin": f"the op's plugin was not found; {plugins.BUILD_TENSORRT}",
    "no importer": "this TensorRT does not know the operator: `ltbm build` takes decoder.concat20 before "
    "10.15; export the bundle again",
    "zero point": FOR_TENSORRT,
    "opset": "the graph is newer than this TensorRT: update TensorRT",
}
REPORTED_STEPS = 10  # of a phase, about every tenth is told


@dataclass(frozen=True)
class BuildJob:
    """What is built.

    stage: for messages
    graph: the ONNX file, its weights beside it
    profiles: at least one
    capacity: of the KV cache, in tokens, for a graph that takes it as a number; None for others
    workspace_bytes: the most scratch memory that a layer may take while kernels are chosen
    capabilities: compute capabilities such as SM89 that a TensorRT-RTX engine is for
    timings: file with the kernel timings of former builds; None to keep none
    """

    stage: str
    graph: Path
    profiles: Sequence[OptimisationProfile]
    capacity: int | None = None
    workspace_bytes: int = 2**30
    capabilities: Sequence[str] = ()
    timings: Path | None = None


def build_plan(library: TensorRTLibrary, job: BuildJob, progress: Progress) -> Any:
    """The engine's bytes (trt.IHostMemory).

    Raises ValueError for a graph that TensorRT does not take, RuntimeError where it builds none.
    """
    trt = library.trt
    builder = trt.Builder(library.logger)
    if library.is_rtx:
        _refuse_plugin_ops(job.graph)
    elif job.stage == "merge":
        plugins.load_tensorrt_plugin(builder.get_plugin_registry())
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(library, network, job)
    allow_decomposed_attention(trt, network)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job.workspace_bytes)
    config.progress_monitor = monitor(trt, job.stage, progress)
    set_capabilities(trt, config, job.capabilities)
    for profile in job.profiles:
        _add_profile(library, builder, config, profile)
    with _timing_cache(config, job.timings, progress):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError(f"{library.product} built no {job.stage} engine{library.logger.take_errors()}")
    return plan


def _refuse_plugin_ops(graph: Path) -> None:
    """TensorRT-RTX has no plugin layers: a node that needs one ends the process."""
    if plugins.OP_DOMAIN.encode() in graph.read_bytes():
        raise ValueError(
            f"{graph.name} holds the op {plugins.OP_DOMAIN}::LTBM, for which TensorRT-RTX has no plugins: "
            "there the merge runs outside of it"
        )


def _parse(library: TensorRTLibrary, network, job: BuildJob) -> None:
    """The weights are read from beside the file, by its path."""
    parser = library.trt.OnnxParser(network, library.logger)
    model = job.graph.read_bytes()
    if job.capacity is not None:
        model = with_static_dim(model, CAPACITY_DIM, job.capacity)
    if parser.parse(model, str(job.graph)):
        return
    errors = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
    raise ValueError(
        f"{library.product} does not take {job.graph.name}: {'; '.join(errors)}{library.logger.take_errors()}"
    )


def _parser_error(error) -> str:
    """One error with its node, and the advice that fits."""
    text = f"node {error.node_name() or '(none)'} ({error.node_operator() or 'graph'}): {error.desc()}"
    for part, advice in ADVICE.items():
        if part in error.desc().lower():
            return f"{text} [{advice}]"
    return text


def _add_profile(library: TensorRTLibrary, builder, config, description: OptimisationProfile) -> None:
    profile = builder.create_optimization_profile()
    for name, (least, usual, most) in description.shapes.items():
        profile.set_shape(name, least, usual, most)
    for name, (least, usual, most) in description.values.items():
        profile.set_shape_input(name, least, usual, most)
    if config.add_optimization_profile(profile) < 0:
        raise RuntimeError(
            f"{library.product} refused the optimisation profile {description.name}"
            f"{library.logger.take_errors()}"
        )


@contextmanager
def _timing_cache(config, path: Path | None, progress: Progress) -> Iterator[None]:
    """Kernel timings of former builds, so that the next one is faster; kept when the build is done."""
    if path is None:
        yield
        return
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


def monitor(trt, stage: str, progress: Progress):
    """An IProgressMonitor that tells of a build."""
    return type("Monitor", (Monitor, trt.IProgressMonitor), {})(trt, stage, progress)


class Monitor:
    """Says which phase of a build begins and how far it is, about every tenth."""

    def __init__(self, trt, stage: str, progress: Progress):
        trt.IProgressMonitor.__init__(self)
        self._stage = stage
        self._progress = progress
        self._steps: dict[str, int] = {}

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        self._steps[phase_name] = num_steps
        if not parent_phase:
            self._progress(f"{self._stage}: {phase_name}, {num_steps} steps")

    def step_complete(self, phase_name: str, step: int) -> bool:
        steps = self._steps.get(phase_name, 0)
        if steps >= REPORTED_STEPS and step % (steps // REPORTED_STEPS) == 0:
            self._progress(f"{self._stage}: {phase_name} {step} of {steps}")
        return True  # go on; Ctrl-C ends the process

    def phase_finish(self, phase_name: str) -> None:
        self._steps.pop(phase_name, None)
