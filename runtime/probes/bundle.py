"""Probes of a bundle on this machine: its files, which decoder runs where, whether it fits,
its TensorRT engines."""

from pathlib import Path

from ...plugins import library
from ..backends.engine_store import IN_PLACE_SINCE, EngineFolder, Target, stored, unusable, version_tuple
from ..backends.opening import BACKENDS, decoder_flavour
from ..backends.shape_ranges import GROWING
from ..bundle import Bundle
from ..files import file_sha256
from ..machine import free_disk
from ..stages.features import token_length
from .facts import OK, PROBLEM, WARNING, Facts, Finding, dots

TEXT_TOKENS = 256  # of prompt and answer, counted into the cache


def bundle(facts: Facts, path: str) -> list[Finding]:
    try:
        opened = Bundle.open(Path(path), verify=True)
    except (OSError, ValueError) as error:
        return [Finding("bundle", PROBLEM, str(error))]
    manifest = opened.manifest
    whole = Finding("bundle", OK, f"{manifest.family}, {manifest.precision}, every file as its manifest says")
    return [whole, *_flavours(facts, opened), _fits(facts, opened), _disk(opened), *_engines(facts, opened)]


def _wanted_flavours(opened: Bundle) -> dict[tuple[str, str], str]:
    """(backend, device) -> the decoder flavour that runs there, where the bundle's precision does."""
    precision = opened.manifest.precision
    wanted = {}
    for backend in BACKENDS.values():
        for device in backend.devices:
            if not precision.obstacle(device):
                wanted[backend.name, device] = decoder_flavour(
                    backend.name, device, precision.for_onnxruntime
                )
    return wanted


def _flavours(facts: Facts, opened: Bundle) -> list[Finding]:
    wanted = _wanted_flavours(opened)
    if facts.tensorrt and version_tuple(facts.tensorrt) < IN_PLACE_SINCE:
        wanted["tensorrt", "cuda"] = GROWING
    runs = []
    missing = []
    for (backend, device), flavour in wanted.items():
        there = flavour in opened.manifest.flavours
        (runs if there else missing).append(f"{flavour} for {backend} on {device}")
    findings = []
    if runs:
        findings.append(Finding("decoder", OK, ", ".join(runs)))
    if missing:
        text = f"no {', no '.join(missing)}: run `ltbm export` again with this ltbm"
        findings.append(Finding("decoder", WARNING, text))
    return findings


def _fits(facts: Facts, opened: Bundle) -> Finding:
    """Weights and the cache of one full segment; activations come on top, embeddings stay on disk."""
    if facts.memory is None:
        return Finding("fits", WARNING, "unknown: this machine does not tell its memory")
    stages = opened.stage_bytes()
    audio = opened.manifest.audio
    weights = sum(stages.get(name, 0) for name in ("encoder", "merge", "decoder"))
    cache = opened.manifest.decoder.kv_bytes(
        token_length(audio.segment_frames) + TEXT_TOKENS, opened.manifest.precision.kv_itemsize
    )
    text = f"weights {_mib(weights)} and {_mib(cache)} of KV cache (one segment, level full)"
    total = facts.memory.total
    available = facts.memory.available
    if weights + cache > total:
        return Finding(
            "fits",
            PROBLEM,
            f"{text} are more than this machine's {_mib(total)}: export with int8 or int4 weights",
        )
    if weights + cache > available:
        return Finding(
            "fits",
            WARNING,
            f"{text} are more than the {_mib(available)} available: end other programs, or export with int4 "
            "weights",
        )
    if facts.gpu and weights + cache > facts.gpu.memory:
        return Finding(
            "fits",
            WARNING,
            f"{text} are more than the GPU's {_mib(facts.gpu.memory)}: run on the CPU, or export with int4 "
            "weights",
        )
    return Finding("fits", OK, f"{text}, of {_mib(available)} available")


def _disk(opened: Bundle) -> Finding:
    """Engines hold the weights once more."""
    free = free_disk(opened.path)
    needed = sum(opened.stage_bytes().values())
    if free < needed:
        return Finding(
            "disk",
            WARNING,
            f"{_mib(free)} free under {opened.path}: TensorRT engines of this bundle take about "
            f"{_mib(needed)}",
        )
    return Finding("disk", OK, f"{_mib(free)} free under {opened.path}")


def _engines(facts: Facts, opened: Bundle) -> list[Finding]:
    """Those of `ltbm build`: which this machine loads, and why not the others."""
    build = f"`ltbm build {opened.path}`"
    folders = list(stored(opened))
    target = _target(facts)
    if not folders or target is None:
        there = (
            f"{len(folders)} built, which need a GPU, TensorRT and the plugin"
            if folders
            else "none, needed only for backend=tensorrt"
        )
        return [Finding("engines", WARNING, f"none: {build}") if target else Finding("engines", OK, there)]
    return [_engine(folder, unusable(folder, opened, target), build) for folder in folders]


def _engine(folder: EngineFolder, reasons: list[str], build: str) -> Finding:
    if reasons:
        return Finding(
            "engines",
            WARNING,
            f"{folder.path.name} will not be loaded: {', '.join(reasons)}: {build} --refresh",
        )
    return Finding("engines", OK, f"{folder.path.name} of {folder.built[:16]}, for this machine")


def _target(facts: Facts) -> Target | None:
    """This machine as engines are built for it; None where it can run none."""
    if facts.gpu is None or facts.tensorrt is None:
        return None
    plugin = library.tensorrt_library()
    if plugin is None:
        return None
    return Target(facts.tensorrt, dots(facts.gpu.capability), facts.gpu.name, file_sha256(plugin))


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


BUNDLE_PROBES = (bundle,)
