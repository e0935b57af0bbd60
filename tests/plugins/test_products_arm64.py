"""Products of quantised weights with an ARM CPU's dot products, cross-compiled and run under emulation."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support.products import Product, packed

COMPILER = shutil.which("aarch64-linux-gnu-g++")
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
pytestmark = pytest.mark.skipif(
    not COMPILER or not EMULATOR, reason="apt-get install g++-aarch64-linux-gnu qemu-user-static"
)
ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "plugins/src/products"
FLAGS = ("-std=c++17", "-O2", "-fno-math-errno", "-fno-trapping-math")
WITH_DOT_PRODUCTS, WITHOUT = "max", "cortex-a72"


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("arm64")
    kernels = folder / "kernels.o"
    dot_products = ("-march=armv8.2-a+dotprod", "-DLTBM_ISA=dotprod")
    compile_ = [COMPILER, *FLAGS]
    subprocess.run([*compile_, *dot_products, "-c", SOURCES / "kernels.cpp", "-o", kernels], check=True)
    sources = [SOURCES / "product.cpp", SOURCES / "dispatch.cpp", ROOT / "tests/support/product_driver.cpp"]
    subprocess.run([*compile_, "-static", *sources, kernels, "-o", folder / "driver"], check=True)
    return folder / "driver"


def run(driver: Path, product: Product, x: np.ndarray, cpu: str) -> subprocess.CompletedProcess:
    (columns, width) = product.codes.shape
    sizes = [len(x), columns, width, product.bits, product.block, product.has_zero_points]
    parts = [np.array(sizes, np.int64), x, packed(product.codes, product.bits), product.scales]
    if product.has_zero_points:
        parts.append(packed(product.zero_points, product.bits))
    given = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
    return subprocess.run([EMULATOR, "-cpu", cpu, driver], input=given, capture_output=True)


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("bits, block", [(4, 16), (4, 32), (4, 128), (8, 32), (8, 256)])
def test_products(driver, bits, block, zero_points):
    product = Product(37, 512, bits, block, zero_points)
    for rows in (1, 4, 5, 11):
        x = np.random.default_rng(rows).normal(size=(rows, 512)).astype(np.float32)
        done = run(driver, product, x, WITH_DOT_PRODUCTS)
        assert done.returncode == 0, done.stderr
        y = np.frombuffer(done.stdout, np.float32).reshape(rows, 37)
        want, magnitudes = product.expected(x)
        assert (np.abs(y - want) <= 1e-6 * magnitudes + 1e-6).all(), rows


def test_a_cpu_without_dot_products_says_so(driver):
    done = run(driver, Product(8, 64, 4, 32), np.ones((1, 64), np.float32), WITHOUT)
    assert done.returncode == 1 and b"none of the instructions" in done.stderr
