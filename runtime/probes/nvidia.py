"""Probes of NVIDIA's libraries: CUDA, cuDNN, TensorRT, their Python packages,
and the op's plugin for this GPU."""

import ctypes

from ...plugins import library
from ..backends.engine_store import IN_PLACE_SINCE, version_tuple
from ..backends.shape_ranges import GROWING
from ..machine import CUDA_LIBRARIES, CUDNN_LIBRARIES, cuda_version, cudnn_version, system_tensorrt
from .facts import OK, PROBLEM, WARNING, Facts, Finding, dots

OLDEST_TENSORRT = (10,)
TEGRA = ("87", "110")  # code for Jetson's GPUs runs on no other, and theirs runs no other's


def cuda(facts: Facts) -> Finding:
    """The CUDA runtime that the loader finds; wheels bring their own,
    so that its absence alone breaks nothing."""
    packages = _listed(facts, ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12"))
    newest = facts.gpu.cuda[0] if facts.gpu else 0
    by_fit = sorted(
        CUDA_LIBRARIES, key=lambda name: not name.endswith(f".{newest}")
    )  # of two, that of the driver
    found = facts.machine.first(by_fit)
    if found is None and packages:
        return Finding("CUDA", OK, packages)
    if found is None:
        return facts.lacks("CUDA", "needed only for device=cuda and backend=tensorrt", _cuda_advice(facts))
    number = ctypes.c_int()
    if status := found[1].cudaRuntimeGetVersion(ctypes.byref(number)):
        raise RuntimeError(f"cudaRuntimeGetVersion of {found[0]} gives error {status}")
    installed = cuda_version(number.value)
    text = f"runtime {dots(installed)} ({found[0]})" + (f", {packages}" if packages else "")
    if facts.gpu and installed[0] > newest:
        return Finding(
            "CUDA",
            PROBLEM,
            f"{text} on a driver for CUDA {dots(facts.gpu.cuda)}: update the driver, or install CUDA "
            f"{newest}",
        )
    return Finding("CUDA", OK, text)


def _cuda_advice(facts: Facts) -> str:
    return (
        "sudo apt install nvidia-jetpack"
        if facts.jetson
        else "it comes with pip install 'onnxruntime-gpu[cuda,cudnn]' or 'ltbm[tensorrt]'"
    )


def cudnn(facts: Facts) -> Finding:
    found = facts.machine.first(CUDNN_LIBRARIES)
    packages = _listed(facts, ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12"))
    if found:
        return Finding("cuDNN", OK, f"{dots(cudnn_version(found[1].cudnnGetVersion()))} ({found[0]})")
    if packages:
        return Finding("cuDNN", OK, packages)
    return facts.lacks(
        "cuDNN", "needed only for onnxruntime with device=cuda", "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    )


def cuda_bindings(facts: Facts) -> Finding:
    found = facts.machine.version("cuda-bindings")
    newest = facts.gpu.cuda if facts.gpu else (0, 0)
    advice = f"pip install 'cuda-bindings=={newest[0]}.*'"
    if found is None:
        return facts.lacks("cuda-bindings", "needed only for device=cuda and backend=tensorrt", advice)
    if facts.gpu and int(found.split(".")[0]) > newest[0]:
        return Finding("cuda-bindings", PROBLEM, f"{found} on a driver for CUDA {dots(newest)}: {advice}")
    return Finding("cuda-bindings", OK, found)


def tensorrt(facts: Facts) -> Finding:
    system = system_tensorrt(facts.machine)
    module = facts.tensorrt
    version = version_tuple(module) if module else ()
    install = (
        "sudo apt install tensorrt python3-libnvinfer" if facts.jetson else "pip install 'ltbm[tensorrt]'"
    )
    if facts.tensorrt_fault:
        return Finding(
            "TensorRT", PROBLEM, f"Python's tensorrt does not load ({facts.tensorrt_fault}): {install}"
        )
    if module is None and system is None:
        return facts.lacks("TensorRT", "needed only for `ltbm build` and backend=tensorrt", install)
    if module is None and system is not None:
        own = (
            "use JetPack's own Python, in an environment made with python3 -m venv --system-site-packages"
            if facts.jetson
            else "install the module of the same version"
        )
        return Finding(
            "TensorRT", WARNING, f"libnvinfer {dots(system)}, but this Python has no module tensorrt: {own}"
        )
    if version < OLDEST_TENSORRT:
        return Finding("TensorRT", PROBLEM, f"{module} is too old, 10 or newer is needed: {install}")
    text = f"{module}, which runs decoder.{'std24' if version >= IN_PLACE_SINCE else GROWING}"
    if system and system[:2] != version:
        return Finding(
            "TensorRT",
            WARNING,
            f"{text}; the system's libnvinfer is {dots(system)}, and an engine runs only with the version "
            "that built it: do not mix trtexec or C++ with Python here",
        )
    return Finding("TensorRT", OK, text)


def plugin(facts: Facts) -> Finding:
    """The TensorRT plugin of the merge op: there, loads, built for this GPU and this TensorRT."""
    try:
        path = library.tensorrt_library()
    except FileNotFoundError as error:
        return Finding("plugin", PROBLEM, str(error))
    if path is None:
        return facts.lacks("plugin", "needed only for backend=tensorrt", library.BUILD_TENSORRT)
    try:
        architectures, headers = built_for(facts.machine.load(str(path)))
    except OSError as error:
        return Finding("plugin", PROBLEM, f"{path} does not load ({error}): {library.BUILD_TENSORRT}")
    text = f"{path} for architectures {', '.join(architectures) or 'unknown'} and TensorRT {headers}"
    if facts.gpu and not any(runs_on(architecture, facts.gpu.architecture) for architecture in architectures):
        return Finding(
            "plugin", PROBLEM, f"{text}, not for this GPU, {facts.gpu.architecture}: {library.BUILD_TENSORRT}"
        )
    if facts.tensorrt and headers.split(".")[0] != facts.tensorrt.split(".")[0]:
        return Finding("plugin", PROBLEM, f"{text}, here is {facts.tensorrt}: {library.BUILD_TENSORRT}")
    return Finding("plugin", OK, text)


def built_for(plugin: ctypes.CDLL) -> tuple[list[str], str]:
    """GPU architectures and TensorRT version, as the plugin exports them
    (architectures=87,110;cuda=12060;tensorrt=10.3)."""
    try:
        text = ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(plugin, "ltbm_built_for"))).decode()
    except ValueError:  # some other library, or one from before it said so
        return [], "unknown"
    facts = dict(part.split("=", 1) for part in text.split(";"))
    return facts["architectures"].split(","), facts["tensorrt"]


def runs_on(built: str, gpu: str) -> bool:
    """Whether code for the architecture `built` runs on `gpu`: the same,
    or on a card an older one of its generation."""
    if built == gpu:
        return True
    if built in TEGRA or gpu in TEGRA or not built.isdigit():
        return False
    return built[:-1] == gpu[:-1] and int(built) < int(gpu)


def _listed(facts: Facts, names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {number}" for name, number in facts.machine.versions(names).items())


NVIDIA_PROBES = (cuda, cudnn, cuda_bindings, tensorrt, plugin)
