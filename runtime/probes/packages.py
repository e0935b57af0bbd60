"""Probes of what Python has: onnxruntime and its providers, the native op, sound files,
what `ltbm export` needs."""

import re
import sys

from ...plugins import library
from ..backends.engine_store import version_tuple
from ..machine import CommandResult, ask_module
from .facts import OK, PROBLEM, WARNING, Facts, Finding, dots

EXPORT_PACKAGES = ("torch", "transformers", "onnx", "optimum", "ml-dtypes")
ONNXRUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
OLDEST_ONNXRUNTIME = (1, 24)  # as in pyproject.toml
GPU_PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
JETSON_WHEELS = (
    "PyPI has onnxruntime-gpu for no Jetson; take NVIDIA's wheel for your JetPack (Jetson AI "
    "Lab) or build it for your GPU"
)
LISTED = "onnxruntime.__version__, *onnxruntime.get_available_providers()"
MISSING_LIBRARY = re.compile(r"(lib[\w.+-]+\.so[.\d]*): cannot open shared object file")
REASON = re.compile(r"(?:with error: |CUDA failure )(.+)")


def onnxruntime(facts: Facts) -> list[Finding]:
    """One line for the package, one for each GPU provider that it lists."""
    installed = facts.machine.versions(ONNXRUNTIMES)
    if len(installed) > 1:
        return [
            Finding(
                "onnxruntime",
                PROBLEM,
                f"{' and '.join(installed)} are installed over each other: pip uninstall both, install one",
            )
        ]
    try:
        result = ask_module(facts.machine, "onnxruntime", LISTED)
    except RuntimeError as error:
        return [
            Finding(
                "onnxruntime",
                PROBLEM,
                f"does not load ({error}): pip install --force-reinstall "
                f"{next(iter(installed), 'onnxruntime')}",
            )
        ]
    if result is None:
        return [_no_onnxruntime(facts)]
    version, *providers = result.split()
    listed = [_provider(facts, name) for name in GPU_PROVIDERS if name in providers]
    text = f"{version} with {', '.join(map(_short, providers))}"
    if version_tuple(version) < OLDEST_ONNXRUNTIME:
        return [
            Finding("onnxruntime", WARNING, f"{text} is older than {dots(OLDEST_ONNXRUNTIME)}: {_install()}"),
            *listed,
        ]
    if facts.gpu and "CUDAExecutionProvider" not in providers:
        advice = JETSON_WHEELS if facts.jetson else "pip uninstall onnxruntime && pip install 'ltbm[gpu]'"
        return [Finding("onnxruntime", WARNING, f"{text}, so not on the GPU: {advice}"), *listed]
    return [Finding("onnxruntime", OK, text), *listed]


def _no_onnxruntime(facts: Facts) -> Finding:
    """Nothing runs, unless TensorRT does. onnxruntime has had no wheel for Python 3.10, JetPack 6's own,
    since 1.24."""
    if facts.tensorrt:
        return Finding("onnxruntime", OK, "not installed, not needed with backend=tensorrt")
    return Finding("onnxruntime", PROBLEM, f"not installed: {_install()}")


def _install() -> str:
    return (
        "pip install 'ltbm[cpu]', or 'ltbm[gpu]' for CUDA"
        if sys.version_info >= (3, 11)
        else "it needs Python 3.11 or newer"
    )


def _provider(facts: Facts, name: str) -> Finding:
    """Listed is not loadable, and loadable is not built for this GPU: only a node that ran there says so."""
    subject = f"{_short(name)} provider"
    if facts.gpu is None:
        return Finding(subject, OK, "listed, not tried: there is no GPU")
    result = facts.machine.run([sys.executable, "-m", "ltbm.runtime.probes.provider_check", name])
    if result.status == 0:
        return Finding(subject, OK, "ran a node on the GPU")
    status = (
        PROBLEM if name == "CUDAExecutionProvider" else WARNING
    )  # every GPU wheel lists TensorRT, few have it
    return Finding(subject, status, f"listed, and does not run: {_provider_advice(result, facts)}")


def _provider_advice(result: CommandResult, facts: Facts) -> str:
    err = result.err
    missing = MISSING_LIBRARY.search(err)
    if missing and "nvinfer" in missing[1]:
        return f"no {missing[1]}: pip install 'ltbm[tensorrt]', of the version that onnxruntime names"
    if missing:
        return (
            f"no {missing[1]}: pip install 'onnxruntime-gpu[cuda,cudnn]', or the CUDA version that this "
            "onnxruntime was built for"
        )
    if "no kernel image" in err and facts.gpu:
        return f"this onnxruntime was not built for architecture {facts.gpu.architecture}: {JETSON_WHEELS}"
    reason = REASON.search(err)
    return (
        reason[1] if reason else err.strip().splitlines()[-1] if err.strip() else f"exit code {result.status}"
    )


def merge_op(facts: Facts) -> Finding:
    path = library.native_library()
    if path is None:
        return Finding(
            "merge op",
            WARNING,
            "the ONNX function body (same bits, slower): install a C++ compiler, then install ltbm again",
        )
    try:
        facts.machine.load(str(path))
    except OSError as error:
        return Finding(
            "merge op",
            PROBLEM,
            f"{path} does not load ({error}): pip install --force-reinstall ltbm on this machine",
        )
    return Finding("merge op", OK, f"native CPU op, {path}")


def audio_files(facts: Facts) -> Finding:
    try:
        import soundfile
    except (ImportError, OSError) as error:
        return Finding("audio files", PROBLEM, f"soundfile does not load ({error}): pip install soundfile")
    formats = soundfile.available_formats()
    missing = [name for name in ("WAV", "FLAC", "OGG", "MP3") if name not in formats]
    if missing:
        return Finding(
            "audio files",
            WARNING,
            f"libsndfile {soundfile.__libsndfile_version__} reads no {', '.join(missing)}: upgrade soundfile",
        )
    return Finding("audio files", OK, f"libsndfile {soundfile.__libsndfile_version__}: WAV, FLAC, OGG, MP3")


def export(facts: Facts) -> Finding:
    found = facts.machine.versions(EXPORT_PACKAGES)
    missing = [name for name in EXPORT_PACKAGES if name not in found]
    if missing:
        return Finding(
            "export",
            OK if facts.jetson else WARNING,
            f"no {', '.join(missing)}: `ltbm export` needs pip install 'ltbm[export]', running bundles does "
            "not",
        )
    return Finding("export", OK, ", ".join(f"{name} {number}" for name, number in found.items()))


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")


PACKAGE_PROBES = (onnxruntime, merge_op, audio_files, export)
