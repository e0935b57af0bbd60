"""Probes of a bundle on this machine: its files, its decoders, whether it fits, and its TensorRT engines."""

from pathlib import Path

from ...plugins import library
from ..backends.engine_store import EngineFolder, Target, stored, unreadable, unusable
from ..backends.flavours import tensorrt_flavour
from ..backends.opening import BACKENDS, bundle_flavour
from ..backends.trt_library import TENSORRT, TENSORRT_RTX, build_command
from ..bundle import Bundle
from ..files import file_sha256
from ..machine import free_disk
from .facts import OK, PROBLEM, WARNING, Facts, Finding, mib
from .packed import mapped_bytes, packed_weights

SHORT_TEXT_TOKENS = 256  # of a short prompt and answer, counted into the cache


def bundle(facts: Facts, path: str) -> list[Finding]:
    try:
        opened = Bundle.open(Path(path), verify=True)
    except (OSError, ValueError) as error:
        return [Finding("bundle", PROBLEM, str(error))]
    manifest = opened.manifest
    whole = Finding("bundle", OK, f"{manifest.family}, {manifest.precision}, every file as its manifest says")
    return [
        whole,
        *_flavours(facts, opened),
        _fits(facts, opened),
        _disk(opened),
        *packed_weights(facts, opened),
        *_engines(facts, opened),
    ]


def _flavours(facts: Facts, opened: Bundle) -> list[Finding]:
    """Which decoder each backend runs, and which the bundle lacks."""
    runs = []
    missing = []
    for use, flavour in _flavours_by_use(facts, opened).items():
        words = runs if flavour in opened.manifest.flavours else missing
        words.append(f"{flavour} for {use}")
    findings = []
    if runs:
        findings.append(Finding("decoder", OK, ", ".join(runs)))
    if missing:
        text = f"no {', no '.join(missing)}: run `ltbm export` again with this ltbm"
        findings.append(Finding("decoder", WARNING, text))
    return findings


def _flavours_by_use(facts: Facts, opened: Bundle) -> dict[str, str]:
    """Backend and device, in words -> the decoder flavour, where the bundle's precision runs."""
    precision = opened.manifest.precision
    flavours = {}
    for backend in BACKENDS.values():
        for device in backend.devices:
            if precision.obstacle(device):
                continue
            flavour = bundle_flavour(opened, backend.name, device)
            if backend.name == "tensorrt" and facts.tensorrt:
                flavour = tensorrt_flavour(facts.tensorrt)
            flavours[f"{backend.name} on {device}"] = flavour
    return flavours


def _fits(facts: Facts, opened: Bundle) -> Finding:
    """Weights and the cache of one full segment; activations come on top, embeddings stay on disk."""
    if facts.memory is None:
        return Finding("fits", WARNING, "unknown: this machine does not tell its memory")
    weights = _weight_bytes(opened)
    cache = _cache_bytes(opened)
    needed = weights + cache
    mapped = mapped_bytes(facts, opened)
    text = f"weights {mib(weights)}{f' ({mib(mapped)} packed and mapped)' if mapped else ''}"
    text += f" and {mib(cache)} of KV cache (one segment, level full)"
    total = facts.memory.total
    available = facts.memory.available
    if needed > total:
        advice = "export with int8 or int4 weights"
        return Finding("fits", PROBLEM, f"{text} are more than this machine's {mib(total)}: {advice}")
    if needed > available:
        advice = "end other programs, or export with int4 weights"
        return Finding("fits", WARNING, f"{text} are more than the {mib(available)} available: {advice}")
    if facts.gpu and needed > facts.gpu.memory:
        advice = "run on the CPU, or export with int4 weights"
        return Finding("fits", WARNING, f"{text} are more than the GPU's {mib(facts.gpu.memory)}: {advice}")
    return Finding("fits", OK, f"{text}, of {mib(available)} available")


def _weight_bytes(opened: Bundle) -> int:
    stages = opened.stage_bytes()
    return sum(stages.get(stage, 0) for stage in ("encoder", "merge", "decoder"))


def _cache_bytes(opened: Bundle) -> int:
    manifest = opened.manifest
    tokens = manifest.audio.segment_tokens + SHORT_TEXT_TOKENS
    return manifest.decoder.kv_bytes(tokens, manifest.precision.kv_itemsize)


def _disk(opened: Bundle) -> Finding:
    """Engines hold the weights once more."""
    free = free_disk(opened.path)
    needed = sum(opened.stage_bytes().values())
    text = f"{mib(free)} free under {opened.path}"
    if free < needed:
        return Finding("disk", WARNING, f"{text}: TensorRT engines of this bundle take about {mib(needed)}")
    return Finding("disk", OK, text)


def _engines(facts: Facts, opened: Bundle) -> list[Finding]:
    """Those of `ltbm build`: which this machine loads, and why not the others."""
    folders = list(stored(opened))
    lost = unreadable(opened)
    targets = _targets(facts)
    if not targets:
        built = len(folders) + len(lost)
        need = f"{built} built, which need {_needs(folders)}"
        none = "none, needed only for the backends tensorrt and tensorrt-rtx"
        return [Finding("engines", OK, need if built else none)]
    build = f"`{build_command(next(iter(targets)), opened.path)}`"
    if not folders and not lost:
        return [Finding("engines", WARNING, f"none: {build}")]
    findings = [_engine(folder, opened, targets) for folder in folders]
    for path, reason in lost.items():
        findings.append(Finding("engines", WARNING, f"{path.name} will not be loaded: {reason}, and {build}"))
    return findings


def _needs(folders: list[EngineFolder]) -> str:
    """What running them takes."""
    backends = {folder.key.target.backend for folder in folders}
    if backends == {TENSORRT_RTX}:
        return "a GPU and TensorRT-RTX"
    return "a GPU, TensorRT and the plugin"


def _engine(folder: EngineFolder, opened: Bundle, targets: dict[str, Target]) -> Finding:
    name = folder.path.name
    built_for = folder.key.target
    target = targets.get(built_for.backend)
    if target is None:
        text = f"{name} is for backend={built_for.backend}, which this machine does not run"
        return Finding("engines", OK, text)
    reasons = unusable(folder, opened, target)
    if reasons:
        build = f"`{build_command(target.backend, opened.path)} --refresh`"
        return Finding("engines", WARNING, f"{name} will not be loaded: {', '.join(reasons)}: {build}")
    use = "for this machine"
    if built_for.backend == TENSORRT_RTX:
        use = f"for compute capabilities {built_for.compute_capability}, this machine's among them"
    return Finding("engines", OK, f"{name} of {folder.built[:16]}, {use}")


def _targets(facts: Facts) -> dict[str, Target]:
    """Backend -> this machine as its engines are built for it, of the backends that run here."""
    targets: dict[str, Target] = {}
    if facts.gpu is None:
        return targets
    gpu = facts.gpu
    capability = gpu.compute_capability
    plugin = library.tensorrt_library() if facts.tensorrt else None
    if facts.tensorrt and plugin:
        targets[TENSORRT] = Target(facts.tensorrt, capability, gpu.name, file_sha256(plugin))
    if facts.rtx:
        targets[TENSORRT_RTX] = Target(facts.rtx.version, capability, "", "", TENSORRT_RTX)
    return targets


BUNDLE_PROBES = (bundle,)
