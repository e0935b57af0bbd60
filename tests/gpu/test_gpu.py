"""The CUDA kernels on a real GPU; skips, saying why, where there is none."""

import ctypes
import json

import numpy as np
import pytest

from tests.gpu import check_and_time as script

pytestmark = [pytest.mark.slow, pytest.mark.gpu, pytest.mark.compiler]


def gpus():
    """How many the driver shows."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def test_kernels_equal_the_reference_on_this_gpu(tmp_path):
    if script.builds.nvcc() is None:
        pytest.skip("nvcc is not installed")
    if gpus() == 0:
        pytest.skip("no CUDA GPU at hand")
    assert script.main(["--quick", "--json", str(tmp_path / "gpu.json")]) == 0
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["cases"] > 100 and report["nodes"] == 3


def test_script_builds_for_a_gpu_that_is_not_here(tmp_path):
    """All of it compiles, with the plugin where TensorRT's headers are; loading it needs no driver."""
    if script.builds.nvcc() is None:
        pytest.skip("nvcc is not installed")
    includes = script.builds.tensorrt_includes()
    library = tmp_path / "libltbm_gpu.so"
    script.builds.build_cuda(
        library, [90], [script.DEVICE_CALLS] + [script.builds.PLUGIN] * bool(includes), includes
    )
    loaded = ctypes.CDLL(str(library))
    names = [
        "ltbm_cuda_enqueue",
        "ltbm_cuda_workspace",
        "gpu_describe",
        "gpu_time",
        *["getCreators"] * bool(includes),
    ]
    assert all(hasattr(loaded, name) for name in names)


@pytest.mark.parametrize("window", [-1, 0, 8])
def test_plain_pytorch_merges_the_same(window):
    torch = pytest.importorskip("torch")
    from tests.support import torch_merge

    x = script.harness.slow_tokens(np.random.default_rng(0), 3, 60, 20)
    lengths, targets = [60, 41, 0], [15, 30, 0]
    got = torch_merge.merge_rows(torch.from_numpy(x), lengths, targets, 30, window)
    want = script.merge.merge_rows(x, lengths, targets, 30, window)
    for name, tensor in zip(script.harness.OUTPUTS, got):
        if name == "y":
            np.testing.assert_allclose(tensor.numpy(), want[name], rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(tensor.numpy(), want[name], err_msg=name)
