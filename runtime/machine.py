"""What this machine is: its GPU and driver, its libraries, its memory.
Every fact is read through a `Machine`."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ANSWER_SECONDS = 90  # the first load of CUDA's libraries from a slow disk takes most of it
CUDA_LIBRARIES = ("libcudart.so.13", "libcudart.so.12")
CUDNN_LIBRARIES = ("libcudnn.so.9", "libcudnn.so.8")
TENSORRT_LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8")
# CUdevice_attribute of cuda.h
CAPABILITY_MAJOR, CAPABILITY_MINOR, INTEGRATED = 75, 76, 18


@dataclass(frozen=True)
class CommandResult:
    """A finished command; `status` is None where it could not be run."""

    status: int | None
    out: str = ""
    err: str = ""


def run_command(command: Sequence[str]) -> CommandResult:
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
    run: a command's answer
    load: a shared library by name or path; OSError if it does not load
    version: of an installed Python distribution, None if it is not
    """

    root: Path = Path("/")
    run: Callable[[Sequence[str]], CommandResult] = run_command
    load: Callable[[str], ctypes.CDLL] = ctypes.CDLL
    version: Callable[[str], str | None] = installed_version

    def read(self, path: str | Path) -> str | None:
        """A text file's content without the white space and zero bytes around it;
        None where there is none."""
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
        found = {name: self.version(name) for name in distributions}
        return {name: number for name, number in found.items() if number}


@dataclass(frozen=True)
class Gpu:
    """The first CUDA device as the driver describes it."""

    name: str
    capability: tuple[int, int]
    memory: int  # bytes
    integrated: bool  # shares the processor's memory, as on Jetson
    cuda: tuple[int, int]  # the newest CUDA that the driver runs

    @property
    def architecture(self) -> str:
        """As nvcc and CUDA_ARCHITECTURES write it: 87 is Orin."""
        return f"{self.capability[0]}{self.capability[1]}"


def find_gpu(machine: Machine) -> Gpu | None:
    """None where there is no NVIDIA driver; RuntimeError with the reason where there is one and it does not
    answer."""
    driver = driver_version(machine)
    try:
        cuda = machine.load("libcuda.so.1")
    except OSError as error:
        if driver is None:
            return None
        raise RuntimeError(
            f"driver {driver} is loaded, its libcuda.so.1 is not ({error}): start a container with --gpus "
            "all, "
            "or --runtime nvidia on Jetson"
        ) from None
    _call(cuda, "cuInit", 0)
    device = ctypes.c_int()
    _call(cuda, "cuDeviceGet", ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(256)
    memory = ctypes.c_size_t()
    _call(cuda, "cuDeviceGetName", name, len(name), device)
    _call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    version = _integer(cuda, "cuDriverGetVersion")
    major, minor, integrated = (
        _integer(cuda, "cuDeviceGetAttribute", which, device)
        for which in (CAPABILITY_MAJOR, CAPABILITY_MINOR, INTEGRATED)
    )
    return Gpu(
        name.value.decode(errors="replace"),
        (major, minor),
        memory.value,
        bool(integrated),
        cuda_version(version),
    )


def _integer(cuda, function: str, *arguments) -> int:
    """The int that a driver call writes through its first argument."""
    value = ctypes.c_int()
    _call(cuda, function, ctypes.byref(value), *arguments)
    return value.value


def _call(cuda, function: str, *arguments) -> None:
    status = getattr(cuda, function)(*arguments)
    if status:
        reason = ctypes.c_char_p()
        cuda.cuGetErrorName(status, ctypes.byref(reason))
        raise RuntimeError(
            f"{function} says {(reason.value or b'error').decode()} ({status}): the driver and its "
            "libraries do not go together; "
            "reboot after a driver update, and do not mix versions between host and container"
        )


def driver_version(machine: Machine) -> str | None:
    """Of the kernel module, such as 540.4.0."""
    text = machine.read("proc/driver/nvidia/version")
    words = text.splitlines()[0].split() if text else []
    return next(
        (word for word in words if word.replace(".", "").isdigit() and "." in word),
        "of unknown version" if words else None,
    )


def cuda_version(number: int) -> tuple[int, int]:
    """CUDA's 12060 -> (12, 6)."""
    return number // 1000, number % 1000 // 10


def tensorrt_version(number: int) -> tuple[int, int, int]:
    """TensorRT's 101600 -> (10, 16, 0), and its 8602, as it was before version 10, -> (8, 6, 2)."""
    step = 10_000 if number >= 10_000 else 1000
    return number // step, number % step // 100, number % 100


cudnn_version = tensorrt_version
"""cuDNN's 90300 -> (9, 3, 0), and its 8907, as it was before version 9, -> (8, 9, 7)."""


def ask_module(machine: Machine, module: str, expression: str) -> str | None:
    """What `expression` prints after `import module`, in a process of its own because broken libraries can
    end one.

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
    """The version of Python's tensorrt, such as 10.3.0; None and RuntimeError as `ask_module`."""
    return ask_module(machine, "tensorrt", "tensorrt.__version__")


def system_tensorrt(machine: Machine) -> tuple[int, int, int] | None:
    """The version of the libnvinfer that the loader finds,
    as a JetPack or an archive on LD_LIBRARY_PATH installs it."""
    found = machine.first(TENSORRT_LIBRARIES)
    return tensorrt_version(found[1].getInferLibVersion()) if found else None


@dataclass(frozen=True)
class Jetson:
    """A Jetson module and its software."""

    model: str
    l4t: tuple[int, ...]  # Jetson Linux, such as (36, 4, 3); empty where it is not told


def find_jetson(machine: Machine) -> Jetson | None:
    """From /etc/nv_tegra_release (`# R36 (release), REVISION: 4.3, ...`) and the device tree,
    which containers see too."""
    model = machine.read("proc/device-tree/model")
    release = machine.read("etc/nv_tegra_release")
    if release is None and "Jetson" not in (model or ""):
        return None
    return Jetson(model or "a Jetson", _l4t(release or ""))


def _l4t(release: str) -> tuple[int, ...]:
    major, _, rest = release.partition("(release), REVISION:")
    digits = major.strip("# R") + "." + rest.split(",")[0].strip()
    return (
        tuple(int(part) for part in digits.split(".")) if rest and digits.replace(".", "").isdigit() else ()
    )


@dataclass(frozen=True)
class Memory:
    """Bytes of the processor's memory, within the limit of a container."""

    total: int
    available: int
    swap: int  # without zram
    zram: int  # swap that is compressed into the same memory


def find_memory(machine: Machine) -> Memory | None:
    text = machine.read("proc/meminfo")
    if text is None:
        return None
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    total, available = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    limit, used = (machine.read(f"sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit and limit.isdigit() and used and used.isdigit() and int(limit) < total:
        kinds = dict(line.split() for line in (machine.read("sys/fs/cgroup/memory.stat") or "").splitlines())
        held = int(used) - int(kinds.get("inactive_file", 0))  # cached files go when memory is asked for
        total = int(limit)
        available = min(available, int(limit) - held)
    swaps = [line.split() for line in (machine.read("proc/swaps") or "").splitlines()[1:]]
    zram = sum(int(size) * 1024 for name, _, size, *_ in swaps if "zram" in name)
    return Memory(total, available, sum(int(size) * 1024 for _, _, size, *_ in swaps) - zram, zram)


def free_disk(folder: Path) -> int:
    """Bytes that this user may still write under `folder`."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize
