"""Builds the CUDA kernels and the TensorRT plugin, for the CPU through the emulator or for a GPU."""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "plugins" / "src"
KERNELS = SOURCES / "cuda" / "ltbm.cu"
BUILT_FOR = SOURCES / "cuda" / "built_for.cpp"
PLUGIN = SOURCES / "tensorrt" / "plugin.cpp"
EMULATOR = HERE / "cuda_emulator"
HOST = HERE / "tensorrt_host" / "host.cpp"


def compiler():
    """The C++ compiler, None if there is none."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")


def nvcc():
    return os.environ.get("NVCC") or shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


@functools.cache
def cuda_includes():
    """Folders with CUDA's headers, asked of nvcc; [] without it."""
    if nvcc() is None:
        return []
    said = subprocess.run([nvcc(), "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True)
    return re.findall(r'"-I([^"]+)"', re.search(r"#\$ INCLUDES=(.*)", said.stderr + said.stdout)[1])


def tensorrt_includes():
    """[folder of NvInfer.h], [] if the environment names none."""
    folder = os.environ.get("TENSORRT_INCLUDE_DIR")
    return [folder] if folder and (Path(folder) / "NvInferRuntime.h").is_file() else []


def require_plugin_headers():
    """Skip where the plugin cannot be compiled."""
    if compiler() is None:
        pytest.skip("no C++ compiler: install g++ or set CXX")
    if nvcc() is None:
        pytest.skip("no CUDA headers: nvcc is not installed")
    if not tensorrt_includes():
        pytest.skip("no TensorRT headers: set TENSORRT_INCLUDE_DIR to the folder of NvInfer.h")


def run(command):
    """Run a build; RuntimeError with all it said if it fails. Returns what it said."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def build_emulated(path, sources=(), includes=(), flags=()):
    """The kernels for the CPU, with more sources if given, as a library at `path`."""
    system = [part for folder in includes for part in ("-isystem", folder)]
    run(
        [
            compiler(),
            "-std=c++17",
            "-O2",
            "-fPIC",
            "-shared",
            "-ffp-contract=off",
            "-fno-strict-aliasing",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unknown-pragmas",
            "-Wno-clobbered",
            "-DLTBM_EMULATED",
            "-U_FORTIFY_SOURCE",
            f"-I{EMULATOR}",
            f"-I{SOURCES / 'cuda'}",
            *system,
            *flags,
            "-x",
            "c++",
            KERNELS,
            EMULATOR / "emulator.cpp",
            *sources,
            "-o",
            path,
        ]
    )
    return path


def build_cuda(path, architectures, sources=(), includes=(), flags=()):
    """The kernels for GPUs of these architectures (such as 90), with more sources if given.
    Returns what ptxas said."""
    system = [part for folder in includes for part in ("-isystem", folder)]
    code = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in architectures]
    return run(
        [
            nvcc(),
            "-std=c++17",
            "-O3",
            "--fmad=false",
            "-Xptxas",
            "-v",
            "-Xcompiler",
            "-fPIC,-Wall,-Wextra",
            "-shared",
            *code,
            *system,
            *flags,
            KERNELS,
            *sources,
            "-o",
            path,
        ]
    )


def build_cuda_op(path, architecture):
    """libltbm_cuda.so for one GPU."""
    flags = ["-DLTBM_CUDA_SHARED", f'-DLTBM_ARCHITECTURES="{architecture}"']
    build_cuda(path, [architecture], [BUILT_FOR], flags=flags)
    return path


def build_host(path):
    """The stand-in for TensorRT, for the headers at hand."""
    system = [part for folder in (*tensorrt_includes(), *cuda_includes()) for part in ("-isystem", folder)]
    run(
        [
            compiler(),
            "-std=c++17",
            "-O1",
            "-fPIC",
            "-shared",
            "-Wall",
            "-Wextra",
            "-Werror",
            *system,
            HOST,
            "-o",
            path,
            "-ldl",
        ]
    )
    return path
