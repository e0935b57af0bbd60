"""A fake GPU and a fake TensorRT: `ltbm build` and sessions run on them with the real graphs, on the CPU."""

import shutil
import sys

import pytest

from ltbm.runtime.backends.trt_library import load_library
from tests.support import fake_cuda_op
from tests.support.fake_device import MODULES_OVER_FAKES, Device

BUNDLES = (("qwen2_audio", "float32"), ("audioflamingo3", "float32"), ("qwen2_audio", "float16"))


@pytest.fixture
def device(make_bundle, monkeypatch):
    for family, precision in BUNDLES:  # before libraries of the export see the fake tensorrt
        make_bundle(family, precision)
    yield Device(monkeypatch)
    load_library.cache_clear()
    for name in MODULES_OVER_FAKES:
        sys.modules.pop(name, None)


@pytest.fixture
def cuda_op(device, monkeypatch, emulated_op):
    """libltbm_cuda.so is installed."""
    fake_cuda_op.install(monkeypatch, device.driver, emulated_op)


@pytest.fixture
def bundle_of(make_bundle, tmp_path):
    """A bundle of a family that a test may write engines into."""

    def copy(family: str = "qwen2_audio", precision: str = "float32"):
        path = tmp_path / f"{family}.{precision}"
        if not path.exists():
            shutil.copytree(make_bundle(family, precision)[1], path)
        return path

    return copy
