"""What this machine is: its GPU and driver, its libraries, its memory, all read through a `Machine`."""

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .versions import cuda_version, dots, tensorrt_version

KIB = 1024  # bytes; /proc counts in these
ANSWER_SECONDS = 90  # the first load of CUDA's libraries from a slow disk takes most of it
CUDA_LIBRARIES = ("libcudart.so.13", "libcudart.so.12")
CUDNN_LIBRARIES = ("libcudnn.so.9", "libcudnn.so.8")
TENSORRT_LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8")
JETSON_WHEELS = (
    "PyPI has onnxruntime-gpu for no Jetson: take NVIDIA's wheel for your JetPack (Jetson AI Lab), build it "
    "for your GPU, or run --backend tensorrt, which does not need it"
)
ONNXRUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
OLDEST_PYTHON_WITH_ONNXRUNTIME = (3, 11)  # since 1.24; JetPack 6 has 3.10
VECTOR_EXTENSIONS = ("sse4", "avx", "fma", "f16c", "amx", "asimd", "sve", "sme", "i8mm", "bf16")
"""How extensions for vectors and matrices begin in /proc/cpuinfo: x86's, then arm's."""
# CUdevice_attribute of cuda.h
CAPABILITY_MAJOR = 75
CAPABILITY_MINOR = 76
INTEGRATED = 18


@dataclass(frozen=True)
class CommandResult:
    """What a command printed, and its exit status, None where it could not be run."""

    status: int | None
    out: str = ""
    err: str = ""


def run_command(command: Sequence[str]) -> CommandResult:
    """Run to the end, for at most ANSWER_SECONDS."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return CommandResult(None, err=str(error))
    return CommandResult(done.returncode, done.stdout.strip(), done.stderr.strip())


def installed_version(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Machine:
    """Where facts are read.

    root: the folder of the system's files
    run: runs a command
    load: a shared library by name or path; OSError if it does not load
    version: of an installed Python distribution, None if it is not
    """

    root: Path = Path("/")
    run: Callable[[Sequence[str]], CommandResult] = run_command
    load: Callable[[str], ctypes.CDLL] = ctypes.CDLL
    version: Callable[[str], str | None] = installed_version

    def read(self, path: str | Path) -> str | None:
        """A text file without the white space and zero bytes around it; None where there is no such file."""
        try:
            return (self.root / path).read_text(errors="replace").strip("\0\n\t ")
        except OSError:
            return None

    def first(self, names: Sequence[str]) -> tuple[str, ctypes.CDLL] | None:
        """The first library of `names` that loads."""
        for name in names:
            try:
                return name, self.load(name)
            except OSError:
                continue
        return None

    def versions(self, distributions: Sequence[str]) -> dict[str, str]:
        """Name -> version of those that are installed."""
        installed = {}
        for name in distributions:
            version = self.version(name)
            if version:
                installed[name] = version
        return installed


@dataclass(frozen=True)
class Gpu:
    """The first CUDA device as the driver describes it."""

    name: str
    capability: tuple[int, int]
    memory: int  # bytes
    integrated: bool  # shares the processor's memory, as on Jetson
    cuda: tuple[int, int]  # the newest CUDA that the driver runs

    @property
    def compute_capability(self) -> str:
        """As NVIDIA's documents write it: 8.7 is Orin."""
        return dots(self.capability)

    @property
    def architecture(self) -> str:
        """As nvcc and CUDA_ARCHITECTURES write it: 87 is Orin."""
        return f"{self.capability[0]}{self.capability[1]}"


def find_gpu(machine: Machine) -> Gpu | None:
    """None where there is no NVIDIA driver; RuntimeError where there is one that does not answer."""
    driver = driver_version(machine)
    try:
        cuda = machine.load("libcuda.so.1")
    except OSError as error:
        if driver is None:
            return None
        raise RuntimeError(
            f"driver {driver} is loaded, its libcuda.so.1 is not ({error}): "
            "start a container with --gpus all, or --runtime nvidia on Jetson"
        ) from None
    _call(cuda, "cuInit", 0)
    device = _integer(cuda, "cuDeviceGet", 0)
    name = ctypes.create_string_buffer(256)
    _call(cuda, "cuDeviceGetName", name, len(name), device)
    memory = ctypes.c_size_t()
    _call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    major = _integer(cuda, "cuDeviceGetAttribute", CAPABILITY_MAJOR, device)
    minor = _integer(cuda, "cuDeviceGetAttribute", CAPABILITY_MINOR, device)
    integrated = bool(_integer(cuda, "cuDeviceGetAttribute", INTEGRATED, device))
    newest_cuda = cuda_version(_integer(cuda, "cuDriverGetVersion"))
    return Gpu(name.value.decode(errors="replace"), (major, minor), memory.value, integrated, newest_cuda)


def _integer(cuda: ctypes.CDLL, function: str, *arguments: int) -> int:
    """The int that a driver call writes through its first argument."""
    value = ctypes.c_int()
    _call(cuda, function, ctypes.byref(value), *arguments)
    return value.value


def _call(cuda: ctypes.CDLL, function: str, *arguments: Any) -> None:
    """RuntimeError with the driver's name of the error if it failed."""
    status = getattr(cuda, function)(*arguments)
    if status:
        reason = ctypes.c_char_p()
        cuda.cuGetErrorName(status, ctypes.byref(reason))
        raise RuntimeError(
            f"{function} fails with {(reason.value or b'error').decode()} ({status}): "
            "the driver and its libraries do not go together; reboot after a driver update, "
            "and do not mix versions between host and container"
        )


def driver_version(machine: Machine) -> str | None:
    """Of the kernel module, such as 540.4.0."""
    text = machine.read("proc/driver/nvidia/version")
    if not text:
        return None
    for word in text.splitlines()[0].split():
        if "." in word and word.replace(".", "").isdigit():
            return word
    return "of unknown version"


def query_module(machine: Machine, module: str, expression: str) -> str | None:
    """What `expression` prints after `import module`, in a process of its own: broken libraries can end one.

    None where there is no such module; RuntimeError with the reason where it does not load.
    """
    result = machine.run([sys.executable, "-c", f"import {module}; print({expression})"])
    if result.status == 0:
        return result.out.splitlines()[-1]
    reason = result.err.splitlines()[-1] if result.err else f"exit code {result.status}"
    if reason.startswith("ModuleNotFoundError") and repr(module) in reason:
        return None
    raise RuntimeError(reason)


def find_tensorrt(machine: Machine) -> str | None:
    """The version of Python's tensorrt, such as 10.3.0; None and RuntimeError as `query_module`."""
    return query_module(machine, "tensorrt", "tensorrt.__version__")


@dataclass(frozen=True)
class RtxModule:
    """Python's tensorrt_rtx."""

    version: str
    architectures: tuple[str, ...]  # that it builds for, such as sm86


def find_tensorrt_rtx(machine: Machine) -> RtxModule | None:
    """None and RuntimeError as `query_module`."""
    names = "*tensorrt_rtx.ComputeCapability.__members__"
    printed = query_module(machine, "tensorrt_rtx", f"tensorrt_rtx.__version__, {names}")
    if printed is None:
        return None
    version, *members = printed.split()
    return RtxModule(version, tuple(name.lower() for name in members if name.startswith("SM")))


def system_tensorrt(machine: Machine) -> tuple[int, int, int] | None:
    """The version of the libnvinfer that the loader finds, from JetPack or an archive on LD_LIBRARY_PATH."""
    loaded = machine.first(TENSORRT_LIBRARIES)
    if loaded is None:
        return None
    _, library = loaded
    return tensorrt_version(library.getInferLibVersion())


def tensorrt_advice(machine: Machine) -> str:
    """How to install Python's tensorrt."""
    if find_jetson(machine):
        return (
            "it comes with JetPack: sudo apt install python3-libnvinfer, and make the virtual environment "
            "with --system-site-packages"
        )
    return "pip install 'ltbm[tensorrt]'"


def onnxruntime_version(machine: Machine) -> str | None:
    """Of the onnxruntime that is installed, under whichever name; None where none is."""
    return next(iter(machine.versions(ONNXRUNTIMES).values()), None)


def onnxruntime_advice(machine: Machine, python: tuple[int, ...] = sys.version_info[:2]) -> str:
    """How to install onnxruntime, for the CPU or CUDA."""
    if python < OLDEST_PYTHON_WITH_ONNXRUNTIME:
        text = f"it needs Python {dots(OLDEST_PYTHON_WITH_ONNXRUNTIME)} or newer"
        return f"{text}; on a Jetson, --backend tensorrt does not" if find_jetson(machine) else text
    if find_jetson(machine):
        return f"pip install 'ltbm[cpu]' for the CPU; for its GPU {JETSON_WHEELS}"
    return "pip install 'ltbm[cpu]', or 'ltbm[gpu]' for CUDA"


def onnxruntime_gpu_advice(machine: Machine) -> str:
    """How an onnxruntime for CUDA takes the place of one for the CPU."""
    if find_jetson(machine):
        return JETSON_WHEELS
    return "pip uninstall onnxruntime && pip install 'ltbm[gpu]'"


@dataclass(frozen=True)
class Jetson:
    """A Jetson module and its software."""

    model: str
    l4t: tuple[int, ...]  # Jetson Linux, such as (36, 4, 3); empty where unknown


def find_jetson(machine: Machine) -> Jetson | None:
    """From the device tree and /etc/nv_tegra_release, which containers see too."""
    model = machine.read("proc/device-tree/model")
    release = machine.read("etc/nv_tegra_release")
    if release is None and "Jetson" not in (model or ""):
        return None
    return Jetson(model or "a Jetson", _l4t_version(release or ""))


def _l4t_version(release: str) -> tuple[int, ...]:
    """`# R36 (release), REVISION: 4.3, ...` -> (36, 4, 3)."""
    match = re.match(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", release)
    if match is None:
        return ()
    return tuple(int(part) for part in f"{match[1]}.{match[2]}".split("."))


@dataclass(frozen=True)
class Memory:
    """Bytes of the processor's memory, within the limit of a container."""

    total: int
    available: int
    swap: int  # without zram
    zram: int  # swap that is compressed into the same memory


def find_memory(machine: Machine) -> Memory | None:
    """None where the system does not tell."""
    text = machine.read("proc/meminfo")
    if text is None:
        return None
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    total = int(lines["MemTotal"].split()[0]) * KIB
    available = int(lines["MemAvailable"].split()[0]) * KIB
    limit = _number(machine.read("sys/fs/cgroup/memory.max"))
    used = _number(machine.read("sys/fs/cgroup/memory.current"))
    if limit is not None and used is not None and limit < total:
        total = limit
        available = min(available, limit - used + _reclaimable(machine))
    swap, zram = _swap_and_zram(machine)
    return Memory(total, available, swap, zram)


def _number(text: str | None) -> int | None:
    """None for what is not a number: a container without a limit has `max`."""
    return int(text) if text and text.isdigit() else None


def _reclaimable(machine: Machine) -> int:
    """Bytes that a container uses for cached files, which are dropped when memory is needed."""
    text = machine.read("sys/fs/cgroup/memory.stat") or ""
    uses = dict(line.split() for line in text.splitlines())
    return int(uses.get("inactive_file", 0))


def _swap_and_zram(machine: Machine) -> tuple[int, int]:
    """Bytes of swap on disks, and of swap compressed into memory."""
    swap = zram = 0
    for line in (machine.read("proc/swaps") or "").splitlines()[1:]:
        name, _, kibibytes, *_ = line.split()
        if "zram" in name:
            zram += int(kibibytes) * KIB
        else:
            swap += int(kibibytes) * KIB
    return swap, zram


def cpu_extensions(machine: Machine) -> str:
    """The extensions of the CPU's instruction set for vectors and matrices; empty where the system does not
    tell."""
    text = machine.read("proc/cpuinfo") or ""
    for line in text.splitlines():
        name, _, words = line.partition(":")
        if name.strip() in ("flags", "Features"):  # of x86, of arm
            return " ".join(sorted(word for word in words.split() if word.startswith(VECTOR_EXTENSIONS)))
    return ""


def free_disk(folder: Path) -> int:
    """Bytes that this user may still write under `folder`."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
