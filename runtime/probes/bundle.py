"""Probes of a bundle on this machine: its files, its decoders, whether it fits, and its TensorRT engines."""

from pathlib import Path

from ...plugins import library
from ..backends.engine_store import EngineFolder, Target, stored, unreadable, unusable
from ..backends.flavours import tensorrt_flavour
from ..backends.opening import BACKENDS, decoder_flavour
from ..bundle import Bundle
from ..files import file_sha256
from ..machine import free_disk
from ..stages.features import token_length
from .facts import OK, PROBLEM, WARNING, Facts, Finding, mib

SHORT_TEXT_TOKENS = 256  # of a short prompt and answer, counted into the cache


def bundle(facts: Facts, path: str) -> list[Finding]:
    try:
        opened = Bundle.open(Path(path), verify=True)
    except (OSError, ValueError) as error:
        return [Finding("bundle", PROBLEM, str(error))]
    manifest = opened.manifest
    whole = Finding("bundle", OK, f"{manifest.family}, {manifest.precision}, every file as its manifest says")
    return [whole, *_flavours(facts, opened), _fits(facts, opened), _disk(opened), *_engines(facts, opened)]


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
            flavour = decoder_flavour(backend.name, device, precision.for_onnxruntime)
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
    text = f"weights {mib(weights)} and {mib(cache)} of KV cache (one segment, level full)"
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
    tokens = token_length(manifest.audio.segment_frames) + SHORT_TEXT_TOKENS
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
    target = _target(facts)
    if target is None:
        built = len(folders) + len(lost)
        need = f"{built} built, which need a GPU, TensorRT and the plugin"
        return [Finding("engines", OK, need if built else "none, needed only for backend=tensorrt")]
    build = f"`ltbm build {opened.path}`"
    if not folders and not lost:
        return [Finding("engines", WARNING, f"none: {build}")]
    findings = [_engine(folder, unusable(folder, opened, target), build) for folder in folders]
    for path, reason in lost.items():
        findings.append(Finding("engines", WARNING, f"{path.name} will not be loaded: {reason}, and {build}"))
    return findings


def _engine(folder: EngineFolder, reasons: list[str], build: str) -> Finding:
    name = folder.path.name
    if reasons:
        text = f"{name} will not be loaded: {', '.join(reasons)}: {build} --refresh"
        return Finding("engines", WARNING, text)
    return Finding("engines", OK, f"{name} of {folder.built[:16]}, for this machine")


def _target(facts: Facts) -> Target | None:
    """This machine as engines are built for it; None where it can run none."""
    if facts.gpu is None or facts.tensorrt is None:
        return None
    plugin = library.tensorrt_library()
    if plugin is None:
        return None
    return Target(facts.tensorrt, facts.gpu.compute_capability, facts.gpu.name, file_sha256(plugin))


BUNDLE_PROBES = (bundle,)
