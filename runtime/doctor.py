"""What this machine has and lacks for ltbm: one finding a line, with what to do."""

import importlib.util
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ltbm.plugins import library

EXPORT_PACKAGES = ("torch", "transformers", "onnx", "optimum", "safetensors")


@dataclass(frozen=True)
class Finding:
    """status: ok, warning (something slower or missing that only some need) or problem (nothing runs)."""

    subject: str
    status: str
    text: str


def examine(bundle: str | None = None) -> list[Finding]:
    """Every finding about this machine, and about a bundle if one is named."""
    findings = [Finding("python", "ok", f"{platform.python_version()} on {platform.machine()} {sys.platform}")]
    findings += [_onnxruntime(), _merge_op(), _audio(), _export()]
    if bundle is not None:
        findings.append(_bundle(bundle))
    return findings


def _onnxruntime() -> Finding:
    if importlib.util.find_spec("onnxruntime") is None:
        return Finding("onnxruntime", "problem", "not installed: pip install 'ltbm[cpu]', or 'ltbm[gpu]' for CUDA")
    import onnxruntime

    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
    return Finding("onnxruntime", "ok", f"{onnxruntime.__version__} with {providers}")


def _merge_op() -> Finding:
    path = library.native_library()
    if path is not None:
        return Finding("merge op", "ok", f"native CPU op, {path}")
    return Finding("merge op", "warning", "the ONNX function body (same bits, slower): install a C++ compiler, then install ltbm again")


def _audio() -> Finding:
    try:
        import soundfile
    except (ImportError, OSError) as error:
        return Finding("audio files", "problem", f"soundfile does not load ({error}): pip install soundfile")
    formats = soundfile.available_formats()
    missing = [name for name in ("WAV", "FLAC", "OGG", "MP3") if name not in formats]
    if missing:
        return Finding("audio files", "warning", f"libsndfile {soundfile.__libsndfile_version__} reads no {', '.join(missing)}: upgrade soundfile")
    return Finding("audio files", "ok", f"libsndfile {soundfile.__libsndfile_version__}: WAV, FLAC, OGG, MP3")


def _export() -> Finding:
    found, missing = [], []
    for name in EXPORT_PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("export", "warning", f"no {', '.join(missing)}: `ltbm export` needs pip install 'ltbm[export]', running bundles does not")
    return Finding("export", "ok", ", ".join(found))


def _bundle(path: str) -> Finding:
    from ltbm.runtime.bundle import Bundle

    try:
        manifest = Bundle.open(Path(path), verify=True).manifest
    except (OSError, ValueError) as error:
        return Finding("bundle", "problem", str(error))
    return Finding("bundle", "ok", f"{manifest.family}, {manifest.precision}, every file as its manifest says")
