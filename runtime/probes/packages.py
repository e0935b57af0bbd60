"""Probes of Python's packages: onnxruntime and its providers, the native op, sound files, `ltbm export`'s."""

import re
import sys

from ...plugins import library
from ..machine import (
    JETSON_WHEELS,
    ONNXRUNTIMES,
    CommandResult,
    onnxruntime_advice,
    onnxruntime_gpu_advice,
    query_module,
    tensorrt_advice,
)
from ..versions import dots, version_tuple
from .facts import OK, PROBLEM, WARNING, Facts, Finding

EXPORT_PACKAGES = ("onnx", "ml-dtypes")
OLDEST_ONNXRUNTIME = (1, 24)  # as in pyproject.toml
GPU_PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
VERSION_AND_PROVIDERS = "onnxruntime.__version__, *onnxruntime.get_available_providers()"
MISSING_LIBRARY = re.compile(r"(lib[\w.+-]+\.so[.\d]*): cannot open shared object file")
REASON = re.compile(r"(?:with error: |CUDA failure )(.+)")
SOUND_FORMATS = ("WAV", "FLAC", "OGG", "MP3")


def onnxruntime(facts: Facts) -> list[Finding]:
    """One line for the package, one for each GPU provider that it lists."""
    installed = facts.machine.versions(ONNXRUNTIMES)
    if len(installed) > 1:
        text = f"{' and '.join(installed)} are installed over each other: pip uninstall both, install one"
        return [Finding("onnxruntime", PROBLEM, text)]
    try:
        printed = query_module(facts.machine, "onnxruntime", VERSION_AND_PROVIDERS)
    except RuntimeError as error:
        package = next(iter(installed), "onnxruntime")
        text = f"does not load ({error}): pip install --force-reinstall {package}"
        return [Finding("onnxruntime", PROBLEM, text)]
    if printed is None:
        return [_no_onnxruntime(facts)]
    version, *providers = printed.split()
    findings = [_package(facts, version, providers)]
    for name in GPU_PROVIDERS:
        if name in providers:
            findings.append(_provider(facts, name))
    return findings


def _package(facts: Facts, version: str, providers: list[str]) -> Finding:
    text = f"{version} with {', '.join(map(_short, providers))}"
    if version_tuple(version) < OLDEST_ONNXRUNTIME:
        text = f"{text} is older than {dots(OLDEST_ONNXRUNTIME)}: {onnxruntime_advice(facts.machine)}"
        return Finding("onnxruntime", WARNING, text)
    if facts.gpu and "CUDAExecutionProvider" not in providers:
        advice = onnxruntime_gpu_advice(facts.machine)
        return Finding("onnxruntime", WARNING, f"{text}, so not on the GPU: {advice}")
    return Finding("onnxruntime", OK, text)


def _no_onnxruntime(facts: Facts) -> Finding:
    """Nothing runs, unless TensorRT does: since 1.24 there is no wheel for Python 3.10, JetPack 6's own."""
    if facts.tensorrt:
        return Finding("onnxruntime", OK, "not installed, not needed with backend=tensorrt")
    return Finding("onnxruntime", PROBLEM, f"not installed: {onnxruntime_advice(facts.machine)}")


def _provider(facts: Facts, name: str) -> Finding:
    """Listed is not loadable, and loadable is not built for this GPU; a node that ran there proves both."""
    subject = f"{_short(name)} provider"
    if facts.gpu is None:
        return Finding(subject, OK, "listed, not tried: there is no GPU")
    result = facts.machine.run([sys.executable, "-m", "ltbm.runtime.probes.provider_check", name])
    if result.status == 0:
        return Finding(subject, OK, "ran a node on the GPU")
    # every GPU wheel lists TensorRT, and few machines have it
    status = PROBLEM if name == "CUDAExecutionProvider" else WARNING
    advice = _provider_advice(result, facts, facts.gpu.architecture)
    return Finding(subject, status, f"listed, and does not run: {advice}")


def _provider_advice(result: CommandResult, facts: Facts, architecture: str) -> str:
    """What to do, by what the check printed as it failed."""
    text = result.err.strip()
    missing = MISSING_LIBRARY.search(text)
    if missing and "nvinfer" in missing[1]:
        return f"no {missing[1]}: {tensorrt_advice(facts.machine)}, of the version that onnxruntime names"
    if missing and facts.jetson:
        return f"no {missing[1]}: this onnxruntime is for another CUDA; {JETSON_WHEELS}"
    if missing:
        return (
            f"no {missing[1]}: pip install 'onnxruntime-gpu[cuda,cudnn]', or the CUDA version that this "
            "onnxruntime was built for"
        )
    if "no kernel image" in text:
        return f"this onnxruntime was not built for architecture {architecture}: {JETSON_WHEELS}"
    reason = REASON.search(text)
    if reason:
        return reason[1]
    return text.splitlines()[-1] if text else f"exit code {result.status}"


def merge_op(facts: Facts) -> Finding:
    path = library.native_library()
    if path is None:
        advice = "install a C++ compiler, then install ltbm again"
        return Finding("merge op", WARNING, f"the ONNX function body (same bits, slower): {advice}")
    try:
        facts.machine.load(str(path))
    except OSError as error:
        advice = "pip install --force-reinstall ltbm on this machine"
        return Finding("merge op", PROBLEM, f"{path} does not load ({error}): {advice}")
    return Finding("merge op", OK, f"native CPU op, {path}")


def products(facts: Facts) -> Finding | None:
    """What multiplies quantised weights on the CPU; None without the native library: `merge op` tells."""
    path = library.native_library()
    if path is None:
        return None
    try:
        instructions = library.instructions_of(facts.machine.load(str(path)))
    except OSError:
        return None
    if instructions is None:
        text = "ONNX Runtime's own (more memory, slower): ltbm's need AVX2, or dot products on an ARM CPU"
        return Finding("products", WARNING, text)
    return Finding("products", OK, f"int4 and int8 weights by ltbm's own ops, with {instructions}")


def audio_files(facts: Facts) -> Finding:
    try:
        import soundfile
    except (ImportError, OSError) as error:
        return Finding("audio files", PROBLEM, f"soundfile does not load ({error}): pip install soundfile")
    formats = soundfile.available_formats()
    missing = [name for name in SOUND_FORMATS if name not in formats]
    version = f"libsndfile {soundfile.__libsndfile_version__}"
    if missing:
        return Finding(
            "audio files", WARNING, f"{version} does not read {', '.join(missing)}: upgrade soundfile"
        )
    return Finding("audio files", OK, f"{version}: {', '.join(SOUND_FORMATS)}")


def export(facts: Facts) -> Finding:
    installed = facts.machine.versions(EXPORT_PACKAGES)
    missing = [name for name in EXPORT_PACKAGES if name not in installed]
    if missing:
        status = OK if facts.jetson else WARNING
        advice = "`ltbm export` needs pip install 'ltbm[export]', running bundles does not"
        return Finding("export", status, f"no {', '.join(missing)}: {advice}")
    return Finding("export", OK, ", ".join(f"{name} {version}" for name, version in installed.items()))


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")


PACKAGE_PROBES = (onnxruntime, merge_op, products, audio_files, export)
