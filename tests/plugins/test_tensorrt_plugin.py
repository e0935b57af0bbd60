"""The TensorRT plugin in a stand-in for TensorRT: what a build asks of it,
and its results on emulated kernels.

Needs TensorRT's headers (TENSORRT_INCLUDE_DIR) and those of CUDA (nvcc), but neither library and no GPU.
"""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ltbm.plugins.merge import merge_rows
from ltbm.runtime.probes.nvidia import built_for
from tests.support import cuda_builds as builds
from tests.support import cuda_harness as harness

pytestmark = pytest.mark.compiler

PLUGINS = Path(__file__).parents[2] / "plugins"
X, KEEP, Y = 0, 3, 5  # places among the inputs and outputs
needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
needs_nvcc = pytest.mark.skipif(builds.nvcc() is None, reason="nvcc is not installed")


@pytest.fixture(scope="module")
def library(emulated_plugin):
    return emulated_plugin


@pytest.fixture(scope="module")
def host(library, tmp_path_factory):
    return harness.Host(builds.build_host(tmp_path_factory.mktemp("host") / "libhost.so"), library)


@pytest.fixture
def plugin(host):
    made = host.create()
    yield made
    made.destroy()


def symbols(library, option):
    said = subprocess.run(["nm", "-D", "-C", option, library], capture_output=True, text=True, check=True)
    return said.stdout


def test_library_exports_two_functions_and_needs_no_libnvinfer(library):
    exported = {line.split()[-1] for line in symbols(library, "--defined-only").splitlines() if " T " in line}
    assert {name.split("(")[0] for name in exported} == {"getCreators", "setLoggerFinder"}
    assert "nvinfer1::" not in symbols(library, "--undefined-only")


def test_creator_has_the_name_of_the_op(host):
    assert host.describe() == "LTBM 1 ai.ltbm: step_num step_den"


def test_shapes_follow_x_and_the_value_of_keep(plugin):
    assert plugin.shapes((3, 50, 16), keep=7) == [(3, 7, 16), (3, 7), (3, 7), (3, 50)]
    with pytest.raises(RuntimeError, match=r"tensorrt_plugin_shape_input_indices = \[3\]"):
        plugin.shapes((3, 50, 16), keep=7, shape_inputs=0)
    with pytest.raises(RuntimeError, match=r"x must be \[B, T, D\]"):
        plugin.shapes((3, 50), keep=7)


@pytest.mark.parametrize("x_type", ["float32", "float16"])
def test_y_has_the_type_of_x(host, plugin, x_type):
    number = {name: host.library.host_type(name.encode()) for name in (x_type, "int32")}
    assert plugin.types(x_type) == [number[x_type]] + 3 * [number["int32"]]


def test_formats(plugin):
    for x_type in ("float32", "float16"):
        want = [x_type, "int32", "int32", "int64", "int32", x_type, "int32", "int32", "int32"]
        for position, dtype in enumerate(want):
            assert plugin.supports(position, x_type, dtype)
            assert not plugin.supports(position, x_type, dtype, linear=False)
            assert not plugin.supports(position, x_type, "int8")
    assert not plugin.supports(X, "bfloat16", "bfloat16")
    assert not plugin.supports(Y, "float32", "float16")
    assert not plugin.supports(KEEP, "float32", "float32")


def test_workspace_covers_every_smaller_shape(plugin):
    most = plugin.workspace((8, 750, 1280, 375), 1)
    assert most > 0
    assert (
        max(plugin.workspace((batch, tokens, 1280, 375), 0) for batch in (1, 8) for tokens in (1, 749, 750))
        == most
    )
    assert plugin.workspace((8, 750, 40000, 375), 1) == -1


def test_fields_outlive_serialisation_and_make_the_timing_id(host):
    plugin = host.create((1, 4))
    assert plugin.timing_id() == "LTBM 1, step 1/4"
    plugin = plugin.reload()
    clone, attached = plugin.clone(), plugin.attach()
    plugin.destroy()
    for made in (clone, attached):
        assert made.timing_id() == "LTBM 1, step 1/4"
        made.destroy()


def test_step_defaults_and_comes_in_either_integer_type(host):
    for wide, given, expected in ((True, 0, "2/5"), (False, 2, "1/2"), (True, 2, "1/2")):
        plugin = host.create((1, 2), wide, given)
        assert plugin.timing_id().endswith(expected)
        plugin.destroy()


@pytest.mark.parametrize("step", [(0, 5), (2, -1), (2**40, 5)])
def test_creator_refuses_a_step_that_is_no_positive_fraction(host, step):
    with pytest.raises(RuntimeError, match="step_num and step_den must be positive"):
        host.create(step)


def test_lengths_must_be_one_for_each_row(host, plugin):
    host.library.host_clear_log()
    assert host.library.host_wrong_lengths(plugin.address) == -1
    assert "lengths and targets must be [B]" in host.log()


def test_enqueue_passes_on_what_the_kernels_refuse(plugin):
    pointers = dict.fromkeys(("x", "lengths", "targets", "window", *harness.OUTPUTS, "workspace"), 0)
    with pytest.raises(RuntimeError, match="no workspace was given"):
        plugin.enqueue(pointers, (1, 8, 4, 2), 0)


@pytest.mark.parametrize("seed", range(20))
def test_enqueue_equals_the_reference(host, seed):
    with np.errstate(over="ignore", invalid="ignore"):
        x, lengths, targets, keep, window, step = harness.random_batch(1000 + seed, 40, 40)
        want = merge_rows(x, lengths, targets, keep, window, step)
    plugin = host.create(step).reload().attach()
    harness.assert_same(harness.merge_on_host(plugin, x, lengths, targets, keep, window), want)
    plugin.destroy()


# --- builds ---


def configure(folder, *options):
    return subprocess.run(["cmake", "-S", PLUGINS, "-B", folder, *options], capture_output=True, text=True)


@needs_cmake
def test_cmake_says_where_headers_come_from(tmp_path):
    done = configure(tmp_path, "-DLTBM_TENSORRT=ON")
    assert done.returncode and "-DTENSORRT_INCLUDE_DIR=<folder of NvInfer.h>" in done.stderr


@needs_cmake
def test_cmake_says_that_nvcc_is_missing(tmp_path):
    (tmp_path / "NvInferRuntime.h").touch()
    done = configure(
        tmp_path / "build", f"-DTENSORRT_INCLUDE_DIR={tmp_path}", "-DCMAKE_CUDA_COMPILER=NOTFOUND"
    )
    assert done.returncode and "needs nvcc" in done.stderr


@needs_cmake
@needs_nvcc
def test_cmake_builds_the_plugin(tmp_path):
    """The real library for one GPU: it compiles, exports two functions and needs no libnvinfer."""
    builds.require_plugin_headers()
    done = configure(
        tmp_path,
        f"-DTENSORRT_INCLUDE_DIR={builds.tensorrt_includes()[0]}",
        "-DCUDA_ARCHITECTURES=90",
        f"-DCMAKE_CUDA_COMPILER={builds.nvcc()}",
    )
    assert done.returncode == 0, done.stderr
    builds.run(["cmake", "--build", tmp_path, "--target", "ltbm_tensorrt"])
    library = tmp_path / "libltbm_tensorrt.so"
    exported = {
        line.split()[-1].split("(")[0]
        for line in symbols(library, "--defined-only").splitlines()
        if " T " in line
    }
    assert exported == {"getCreators", "setLoggerFinder"}
    assert "nvinfer1::" not in symbols(library, "--undefined-only")
    assert "libnvinfer" not in subprocess.run(["ldd", library], capture_output=True, text=True).stdout
    assert built_for(ctypes.CDLL(str(library)))[0] == ["90"]
