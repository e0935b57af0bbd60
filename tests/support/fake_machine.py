"""Machines that are not here: files under a fake root, results of fake commands, one fake library.

The library stands for libcuda, libcudart, cuDNN, libnvinfer and the plugin, so that every call goes through
ctypes.
"""

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from ltbm.runtime.doctor import examine
from ltbm.runtime.machine import CommandResult, Machine
from ltbm.runtime.probes.facts import Finding

LIBRARY = r"""
#include <stdlib.h>
#include <string.h>
static int of(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}
int cuInit(unsigned flags) { return of("FAKE_INIT", 0); }
int cuGetErrorName(int status, const char **name) { *name = "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return 0; }
int cuDeviceGetName(char *name, int room, int device) { strncpy(name, "Orin", room); return device != 7; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = (size_t)of("FAKE_MIB", 62464) << 20;
    return device != 7;
}
int cuDriverGetVersion(int *version) { *version = of("FAKE_DRIVER", 12060); return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) {
  *value = which == 75 ? of("FAKE_SM", 87) / 10 : which == 76 ? of("FAKE_SM", 87) % 10 : which == 18;
  return device != 7;
}
int cudaRuntimeGetVersion(int *version) { *version = of("FAKE_RUNTIME", 12060); return 0; }
size_t cudnnGetVersion(void) { return 90300; }
int getInferLibVersion(void) { return of("FAKE_NVINFER", 100300); }
extern const char ltbm_built_for[];
const char ltbm_built_for[] = "architectures=80,87;cuda=12060;tensorrt=10.3";
"""
DRIVER = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  "
    "(buildbrain)\nGCC version: collect2\n"
)
RELEASE = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 "
    "01:49:37 UTC 2025\n"
)
MEMINFO = "MemTotal: 7802808 kB\nMemFree: 1 kB\nMemAvailable: 5242880 kB\n"
SWAPS = "Filename Type Size Used Priority\n/swapfile file 8388608 0 -2\n/dev/zram0 partition 1048576 0 5\n"
CLOCKS = "sys/class/devfreq/17000000.gpu/"
ORIN_FILES = {
    "proc/driver/nvidia/version": DRIVER,
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano\0",
    "etc/nv_tegra_release": RELEASE,
    "proc/meminfo": MEMINFO,
    "proc/swaps": SWAPS,
    CLOCKS + "min_freq": "306000000\n",
    CLOCKS + "max_freq": "1020000000\n",
}
ORIN_COMMANDS = {
    "dpkg-query": CommandResult(0, "6.2+b77"),
    "nvpmodel": CommandResult(0, "NV Power Mode: MAXN_SUPER\n2"),
    "tensorrt": CommandResult(0, "10.3.0"),
    "onnxruntime": CommandResult(
        0, "1.24.0 TensorrtExecutionProvider CUDAExecutionProvider CPUExecutionProvider"
    ),
    "CUDAExecutionProvider": CommandResult(0),
    "TensorrtExecutionProvider": CommandResult(0),
}
LIBRARIES = (
    "libcuda.so.1",
    "libcudart.so.12",
    "libcudnn.so.9",
    "libnvinfer.so.10",
    "libltbm_tensorrt.so",
    "libltbm_cuda.so",
)
VERSIONS = {"cuda-bindings": "12.9.2", "onnxruntime-gpu": "1.24.0"}
NO_FILE = "cannot open shared object file: No such file or directory"
NO_RTX = CommandResult(1, "", "ModuleNotFoundError: No module named 'tensorrt_rtx'")
NO_TENSORRT = CommandResult(1, "", "ModuleNotFoundError: No module named 'tensorrt'")


def compile_library(folder: Path) -> Path:
    """The fake library; skips where there is no compiler. FAKE_... variables change what it answers."""
    compiler = shutil.which("cc") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C compiler: install gcc")
    (folder / "fake.c").write_text(LIBRARY)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "fake.so", folder / "fake.c"], check=True)
    return folder / "fake.so"


def fake_machine(
    root: Path,
    library: Path | None,
    files: Mapping[str, str | None],
    commands: Mapping[str, CommandResult | None],
    versions: Mapping[str, str | None],
    libraries: Sequence[str],
) -> Machine:
    """A machine with these files (None for one that is absent), commands, Python packages and libraries.

    library: loads under every name in `libraries`
    """
    for name, text in files.items():
        if text is not None:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return Machine(root, _runner(commands), _loader(library, libraries), versions.get)


def _runner(commands: Mapping[str, CommandResult | None]) -> Callable[[Sequence[str]], CommandResult]:
    """Commands by their program; Python's by the module it imports or the last argument."""

    def run(command: Sequence[str]) -> CommandResult:
        name = command[-1] if command[0] == sys.executable else command[0]
        for module in ("tensorrt", "tensorrt_rtx", "onnxruntime"):
            if name.startswith(f"import {module};"):
                name = module
        return ({"tensorrt_rtx": NO_RTX} | dict(commands)).get(name) or CommandResult(None, err=f"no {name}")

    return run


def _loader(library: Path | None, libraries: Sequence[str]) -> Callable[[str], ctypes.CDLL]:
    def load(name: str) -> ctypes.CDLL:
        file = Path(name).name
        if file == "libltbm_ort.so":
            return ctypes.CDLL(name)
        if file not in libraries:
            raise OSError(f"{file}: {NO_FILE}")
        return ctypes.CDLL(str(library))

    return load


def by_subject(machine: Machine, bundle: str | None = None) -> dict[str, Finding]:
    """The doctor's findings."""
    return {finding.subject: finding for finding in examine(bundle, machine)}
