"""Probes of NVIDIA's libraries: CUDA, cuDNN, TensorRT, their Python packages, and the op's libraries."""

import ctypes

from ...plugins import library
from ..backends.flavours import tensorrt_flavour
from ..backends.trt_library import RTX_INSTALL
from ..machine import CUDA_LIBRARIES, CUDNN_LIBRARIES, Gpu, RtxModule, system_tensorrt
from ..versions import cuda_version, cudnn_version, dots, version_tuple
from .facts import CUDA_USE, OK, PROBLEM, WARNING, Facts, Finding

CUDA_PACKAGES = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12")
CUDNN_PACKAGES = ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
OLDEST_TENSORRT = (10,)
JETSON_ARCHITECTURES = ("87", "110")  # code for these runs on no other, nor other code on these
NO_CUDA_OP = (
    "the merge runs on the CPU with backend=tensorrt-rtx, and as a graph of standard operators with "
    "onnxruntime on a GPU"
)
RTX_PACKAGES = ("tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu12-libs")


def cuda(facts: Facts) -> Finding:
    """The CUDA runtime that the loader finds; wheels bring their own, so its absence alone breaks nothing."""
    packages = _installed(facts, CUDA_PACKAGES)
    newest = facts.gpu.cuda[0] if facts.gpu else 0
    of_driver_first = sorted(CUDA_LIBRARIES, key=lambda name: not name.endswith(f".{newest}"))
    loaded = facts.machine.first(of_driver_first)
    if loaded is None and packages:
        return Finding("CUDA", OK, packages)
    if loaded is None:
        return facts.lacks("CUDA", CUDA_USE, _cuda_advice(facts))
    name, runtime = loaded
    installed = _runtime_version(name, runtime)
    text = f"runtime {dots(installed)} ({name})"
    if packages:
        text += f", {packages}"
    if facts.gpu and installed[0] > newest:
        advice = f"update the driver, or install CUDA {newest}"
        return Finding("CUDA", PROBLEM, f"{text} on a driver for CUDA {dots(facts.gpu.cuda)}: {advice}")
    return Finding("CUDA", OK, text)


def _runtime_version(name: str, runtime: ctypes.CDLL) -> tuple[int, int]:
    number = ctypes.c_int()
    status = runtime.cudaRuntimeGetVersion(ctypes.byref(number))
    if status:
        raise RuntimeError(f"cudaRuntimeGetVersion of {name} gives error {status}")
    return cuda_version(number.value)


def _cuda_advice(facts: Facts) -> str:
    if facts.jetson:
        return "sudo apt install nvidia-jetpack"
    return "it comes with pip install 'onnxruntime-gpu[cuda,cudnn]' or 'ltbm[tensorrt]'"


def cudnn(facts: Facts) -> Finding:
    loaded = facts.machine.first(CUDNN_LIBRARIES)
    if loaded:
        name, cudnn = loaded
        return Finding("cuDNN", OK, f"{dots(cudnn_version(cudnn.cudnnGetVersion()))} ({name})")
    packages = _installed(facts, CUDNN_PACKAGES)
    if packages:
        return Finding("cuDNN", OK, packages)
    use = "needed only for onnxruntime with device=cuda"
    return facts.lacks("cuDNN", use, "pip install 'onnxruntime-gpu[cuda,cudnn]'")


def cuda_bindings(facts: Facts) -> Finding:
    installed = facts.machine.version("cuda-bindings")
    newest = facts.gpu.cuda if facts.gpu else (0, 0)
    advice = f"pip install 'cuda-bindings=={newest[0]}.*'"
    if installed is None:
        return facts.lacks("cuda-bindings", CUDA_USE, advice)
    if facts.gpu and int(installed.split(".")[0]) > newest[0]:
        text = f"{installed} on a driver for CUDA {dots(newest)}: {advice}"
        return Finding("cuda-bindings", PROBLEM, text)
    return Finding("cuda-bindings", OK, installed)


def tensorrt(facts: Facts) -> Finding:
    install = _tensorrt_advice(facts)
    if facts.tensorrt_fault:
        text = f"Python's tensorrt does not load ({facts.tensorrt_fault}): {install}"
        return Finding("TensorRT", PROBLEM, text)
    system = system_tensorrt(facts.machine)
    if facts.tensorrt is None:
        return _no_tensorrt(facts, system, install)
    version = version_tuple(facts.tensorrt)
    if version < OLDEST_TENSORRT:
        text = f"{facts.tensorrt} is too old, 10 or newer is needed: {install}"
        return Finding("TensorRT", PROBLEM, text)
    text = f"{facts.tensorrt}, which runs decoder.{tensorrt_flavour(facts.tensorrt)}"
    if system and system[:2] != version:
        advice = (
            f"the system's libnvinfer is {dots(system)}, and an engine runs only with the version that built "
            "it: do not mix trtexec or C++ with Python here"
        )
        return Finding("TensorRT", WARNING, f"{text}; {advice}")
    return Finding("TensorRT", OK, text)


def _no_tensorrt(facts: Facts, system: tuple[int, int, int] | None, install: str) -> Finding:
    """Python has no module tensorrt; the system may have the library."""
    if system is None and facts.rtx:
        return Finding("TensorRT", OK, "none, needed only for backend=tensorrt; TensorRT-RTX is here")
    if system is None:
        return facts.lacks("TensorRT", "needed only for `ltbm build` and backend=tensorrt", install)
    advice = "install the module of the same version"
    if facts.jetson:
        advice = (
            "use JetPack's own Python, in an environment made with python3 -m venv --system-site-packages"
        )
    text = f"libnvinfer {dots(system)}, but this Python has no module tensorrt: {advice}"
    return Finding("TensorRT", WARNING, text)


def _tensorrt_advice(facts: Facts) -> str:
    if facts.jetson:
        return "sudo apt install tensorrt python3-libnvinfer"
    return "pip install 'ltbm[tensorrt]'"


def tensorrt_rtx(facts: Facts) -> Finding:
    """Its version and libraries, and whether it knows this GPU and runs on its driver."""
    if facts.rtx_fault:
        text = f"Python's tensorrt_rtx does not load ({facts.rtx_fault}): {RTX_INSTALL}"
        return Finding("TensorRT-RTX", PROBLEM, text)
    if facts.rtx is None:
        return Finding("TensorRT-RTX", OK, f"none, needed only for backend=tensorrt-rtx ({RTX_INSTALL})")
    text = f"{facts.rtx.version}, builds for {', '.join(facts.rtx.architectures)}"
    packages = _installed(facts, RTX_PACKAGES)
    if packages:
        text += f"; {packages}"
    obstacle = _rtx_obstacle(facts, facts.rtx)
    if obstacle:
        return Finding("TensorRT-RTX", WARNING, f"{text}; {obstacle}")
    return Finding("TensorRT-RTX", OK, text)


def _rtx_obstacle(facts: Facts, rtx: RtxModule) -> str:
    """Why this GPU does not run it, with what to do; empty if it does, or if there is none."""
    gpu = facts.gpu
    if gpu is None:
        return ""
    if f"sm{gpu.architecture}" not in rtx.architectures:
        return f"this GPU, sm{gpu.architecture}, is not among them: take backend=tensorrt"
    for_cuda_13 = facts.machine.version("tensorrt-rtx-cu13-libs")
    if for_cuda_13 and gpu.cuda < (13, 0):
        return f"its libraries are for CUDA 13, the driver is for {dots(gpu.cuda)}: update the driver"
    return ""


def plugin(facts: Facts) -> Finding:
    """The TensorRT plugin of the merge op: there, loads, built for this GPU and this TensorRT."""
    try:
        path = library.tensorrt_library()
    except FileNotFoundError as error:
        return Finding("plugin", PROBLEM, str(error))
    if path is None and facts.rtx and facts.tensorrt is None:
        return Finding("plugin", OK, "none, needed only for backend=tensorrt")
    if path is None:
        return facts.lacks("plugin", "needed only for backend=tensorrt", library.BUILD_TENSORRT)
    try:
        architectures, headers = built_for(facts.machine.load(str(path)))
    except OSError as error:
        return Finding("plugin", PROBLEM, f"{path} does not load ({error}): {library.BUILD_TENSORRT}")
    text = f"{path} for architectures {', '.join(architectures) or 'unknown'} and TensorRT {headers}"
    mismatch = _plugin_mismatch(facts, architectures, headers)
    if mismatch:
        return Finding("plugin", PROBLEM, f"{text}, {mismatch}: {library.BUILD_TENSORRT}")
    return Finding("plugin", OK, text)


def cuda_op(facts: Facts) -> Finding:
    """The merge op as a CUDA library: there, loads, built for this GPU."""
    try:
        path = library.cuda_library()
    except FileNotFoundError as error:
        return Finding("CUDA op", PROBLEM, str(error))
    if path is None:
        return facts.lacks("CUDA op", NO_CUDA_OP, library.BUILD_CUDA)
    try:
        architectures, _ = built_for(facts.machine.load(str(path)))
    except OSError as error:
        return Finding("CUDA op", PROBLEM, f"{path} does not load ({error}): {library.BUILD_CUDA}")
    text = f"{path} for architectures {', '.join(architectures) or 'unknown'}"
    if facts.gpu and not _has_code_for(facts.gpu, architectures):
        text = f"{text}, not for this GPU, {facts.gpu.architecture}: {library.BUILD_CUDA}"
        return Finding("CUDA op", PROBLEM, text)
    return Finding("CUDA op", OK, text)


def _plugin_mismatch(facts: Facts, architectures: list[str], headers: str) -> str:
    """What a plugin was built for that is not so here, in words; empty if it fits."""
    if facts.gpu and not _has_code_for(facts.gpu, architectures):
        return f"not for this GPU, {facts.gpu.architecture}"
    if facts.tensorrt and headers.split(".")[0] != facts.tensorrt.split(".")[0]:
        return f"here is {facts.tensorrt}"
    return ""


def _has_code_for(gpu: Gpu, architectures: list[str]) -> bool:
    return any(runs_on(built, gpu.architecture) for built in architectures)


def built_for(native: ctypes.CDLL) -> tuple[list[str], str]:
    """GPU architectures and TensorRT version that the plugin or the CUDA op exports.

    They do so as one text, such as architectures=87,110;cuda=12060;tensorrt=10.3.
    """
    try:
        text = ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(native, "ltbm_built_for"))).decode()
    except ValueError:  # some other library, or one that was built before plugins exported it
        return [], "unknown"
    exported = dict(part.split("=", 1) for part in text.split(";"))
    return exported["architectures"].split(","), exported.get("tensorrt", "none")


def runs_on(built: str, gpu: str) -> bool:
    """Whether code for the architecture `built` runs on `gpu`: the same, or a later one of its generation."""
    if built == gpu:
        return True
    if built in JETSON_ARCHITECTURES or gpu in JETSON_ARCHITECTURES or not built.isdigit():
        return False
    return built[:-1] == gpu[:-1] and int(built) < int(gpu)


def _installed(facts: Facts, names: tuple[str, ...]) -> str:
    """Python packages with their versions, in words."""
    return ", ".join(f"{name} {version}" for name, version in facts.machine.versions(names).items())


NVIDIA_PROBES = (cuda, cudnn, cuda_bindings, tensorrt, tensorrt_rtx, plugin, cuda_op)
