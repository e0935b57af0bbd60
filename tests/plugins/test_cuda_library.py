"""libltbm_cuda.so as CMake builds it: the kernels behind the C interface, without a header of TensorRT."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from ltbm.runtime.probes.nvidia import built_for
from tests.support import cuda_builds as builds

PLUGINS = Path(__file__).parents[2] / "plugins"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.compiler,
    pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed"),
    pytest.mark.skipif(builds.nvcc() is None, reason="nvcc is not installed"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The library for one GPU."""
    folder = tmp_path_factory.mktemp("cuda")
    options = ["-DLTBM_CUDA=ON", "-DCUDA_ARCHITECTURES=90", f"-DCMAKE_CUDA_COMPILER={builds.nvcc()}"]
    builds.run(["cmake", "-S", PLUGINS, "-B", folder, *options])
    builds.run(["cmake", "--build", folder, "--target", "ltbm_cuda"])
    return folder / "libltbm_cuda.so"


def test_it_exports_the_c_interface_alone(library):
    listed = builds.run(["nm", "-D", "--defined-only", library]).splitlines()
    exported = {line.split()[-1] for line in listed}
    assert exported == {"ltbm_cuda_workspace", "ltbm_cuda_enqueue", "ltbm_built_for"}


def test_it_says_what_it_was_built_for(library):
    architectures, headers = built_for(ctypes.CDLL(str(library)))
    assert (architectures, headers) == (["90"], "none")


def test_it_needs_no_library_of_nvidia(library):
    needed = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    assert "nvinfer" not in needed
    assert "libcudart" not in needed


def test_it_refuses_a_null_call_without_a_gpu(library):
    enqueue = ctypes.CDLL(str(library)).ltbm_cuda_enqueue
    enqueue.restype = ctypes.c_char_p
    assert enqueue(None, None) == b"LTBM: the call is null"
