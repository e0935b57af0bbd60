"""Where the native bodies of the op are, and how each runtime loads them.

`pip install ltbm` compiles the ONNX Runtime op where it finds a C++ compiler. The CUDA op and the TensorRT
plugin are built on request: both need nvcc, and the plugin TensorRT's headers, which no Python package has.
"""

import ctypes
import os
import sys
from pathlib import Path

OP_DOMAIN = "ai.ltbm"  # of our ops in ONNX graphs
NATIVE_NAME = "libltbm_ort.so"
TENSORRT_NAME = "libltbm_tensorrt.so"
TENSORRT_VARIABLE = "LTBM_TENSORRT_PLUGIN"  # a path that comes before the installed ones
CUDA_NAME = "libltbm_cuda.so"
CUDA_VARIABLE = "LTBM_CUDA_OP"  # the same of the CUDA op
BUILD_TENSORRT = (
    "build it from a checkout of ltbm on the machine that runs it: pip install . "
    "--config-settings=cmake.define.TENSORRT_INCLUDE_DIR=<folder of NvInfer.h> "
    "--config-settings=cmake.define.CUDA_ARCHITECTURES=<87 on Jetson Orin, 110 on Thor>"
)
BUILD_CUDA = (
    "build it from a checkout of ltbm where nvcc is: pip install . "
    "--config-settings=cmake.define.LTBM_CUDA=ON "
    "--config-settings=cmake.define.CUDA_ARCHITECTURES=<89 for a GeForce RTX 40>"
)


def native_library() -> Path | None:
    """The compiled ONNX Runtime op, None where ltbm was installed without it."""
    return installed(NATIVE_NAME)


def register(session_options) -> bool:
    """Add the native ops to an onnxruntime.SessionOptions; False if there are none:
    then the function body of LTBM runs.

    They run on the CPU, so leave them out of sessions on CUDA:
        there the function body keeps tokens on the device.
    """
    path = native_library()
    if path is None:
        return False
    session_options.register_custom_ops_library(str(path))
    return True


def product_instructions() -> str | None:
    """The instructions (avx512, avxvnni, avx2, dotprod) with which the native products of quantised weights
    run on this processor; None where they do not, or are not built."""
    path = native_library()
    return None if path is None else instructions_of(ctypes.CDLL(str(path)))


def instructions_of(native: ctypes.CDLL) -> str | None:
    """The same of a loaded native library."""
    function = getattr(native, "ltbm_product_instructions", None)
    if function is None:  # built from an earlier version of this package
        return None
    function.restype = ctypes.c_char_p
    name = function()
    return None if name is None else name.decode()


def tensorrt_library() -> Path | None:
    """The TensorRT plugin: what LTBM_TENSORRT_PLUGIN names, else the installed one, else None."""
    return _named_or_installed(TENSORRT_VARIABLE, TENSORRT_NAME, BUILD_TENSORRT)


def cuda_library() -> Path | None:
    """The CUDA op: what LTBM_CUDA_OP names, else the installed one, else None."""
    return _named_or_installed(CUDA_VARIABLE, CUDA_NAME, BUILD_CUDA)


def _named_or_installed(variable: str, name: str, build: str) -> Path | None:
    named = os.environ.get(variable)
    if not named:
        return installed(name)
    if not Path(named).is_file():
        raise FileNotFoundError(f"{variable} names {named}, which is no file: unset it, or {build}")
    return Path(named)


def load_tensorrt_plugin(registry, path=None) -> Path:
    """Make the plugin known to TensorRT before an engine with the op is built or loaded.

    registry: tensorrt.get_plugin_registry(), or that of a builder or runtime.
        Engines built with it need the same file.
    """
    path = require_tensorrt_library(path)
    try:
        ctypes.CDLL(str(path))  # TensorRT returns None for a library that does not load, and keeps the reason
    except OSError as error:
        raise OSError(
            f"the TensorRT plugin {path} does not load: {error}. It was built for another machine or CUDA: "
            f"{BUILD_TENSORRT}"
        ) from None
    if registry.load_library(str(path)) is None:
        raise RuntimeError(f"TensorRT took no plugin from {path}: its log says why; {BUILD_TENSORRT}")
    return path


def trtexec_arguments(path=None) -> list[str]:
    """What trtexec needs on its command line to know the op, for building and for running."""
    return [f"--dynamicPlugins={require_tensorrt_library(path)}"]


def require_tensorrt_library(path=None) -> Path:
    found = tensorrt_library() if path is None else Path(path)
    if found is None:
        raise FileNotFoundError(f"no TensorRT plugin is installed: {BUILD_TENSORRT}")
    if not found.is_file():
        raise FileNotFoundError(f"there is no TensorRT plugin at {found}: {BUILD_TENSORRT}")
    return found


def installed(name) -> Path | None:
    """A compiled file of this package. An editable install spreads the package over two folders."""
    for folder in sys.modules[__name__.rpartition(".")[0]].__path__:
        path = Path(folder) / name
        if path.is_file():
            return path
    return None
