"""Products of quantised weights in programs of their own: checked for memory that is not theirs, and with an
ARM CPU's dot products under emulation."""

import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support.products import Product, packed

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "plugins/src/products"
FLAGS = ("-std=c++17", "-fno-math-errno", "-fno-trapping-math")
SANITIZERS = ("-O1", "-fsanitize=address", "-DLTBM_X86")
X86 = {
    "avx2": ("-mavx2", "-mfma"),
    "avx512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma"),
}
ARM_COMPILER = shutil.which("aarch64-linux-gnu-g++")
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
WITH_DOT_PRODUCTS, WITHOUT = "max", "cortex-a72"
needs_emulator = pytest.mark.skipif(
    not ARM_COMPILER or not EMULATOR, reason="apt-get install g++-aarch64-linux-gnu qemu-user-static"
)
needs_sanitizers = pytest.mark.skipif(
    platform.machine() != "x86_64" or not shutil.which("g++"), reason="needs g++ on an x86-64 processor"
)


def build(folder: Path, compiler: str, flags: tuple[str, ...], kernels: dict[str, tuple[str, ...]]) -> Path:
    """The driver with kernels.cpp once for each instruction set."""
    compile_ = [compiler, *FLAGS, *flags]
    objects = []
    for name, instructions in kernels.items():
        objects.append(folder / f"{name}.o")
        command = [*compile_, *instructions, f"-DLTBM_ISA={name}", "-c", SOURCES / "kernels.cpp"]
        subprocess.run([*command, "-o", objects[-1]], check=True)
    sources = [SOURCES / "product.cpp", SOURCES / "dispatch.cpp", ROOT / "tests/support/product_driver.cpp"]
    subprocess.run([*compile_, *sources, *objects, "-o", folder / "driver"], check=True)
    return folder / "driver"


@pytest.fixture(scope="module")
def arm_driver(tmp_path_factory) -> Path:
    kernels = {"dotprod": ("-march=armv8.2-a+dotprod",)}
    return build(tmp_path_factory.mktemp("arm64"), str(ARM_COMPILER), ("-O2", "-static"), kernels)


@pytest.fixture(scope="module")
def checked_driver(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("checked"), "g++", SANITIZERS, X86)


def run(command: list, product: Product, x: np.ndarray, **settings) -> subprocess.CompletedProcess:
    (columns, width) = product.codes.shape
    sizes = [len(x), columns, width, product.bits, product.block, product.has_zero_points]
    parts = [np.array(sizes, np.int64), x, packed(product.codes, product.bits), product.scales]
    if product.has_zero_points:
        parts.append(packed(product.zero_points, product.bits))
    given = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
    return subprocess.run(command, input=given, capture_output=True, **settings)


def check(command: list, product: Product, rows: tuple[int, ...], **settings) -> None:
    (columns, width) = product.codes.shape
    for count in rows:
        x = np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)
        done = run(command, product, x, **settings)
        assert done.returncode == 0, done.stderr.decode()
        y = np.frombuffer(done.stdout, np.float32).reshape(count, columns)
        want, magnitudes = product.expected(x)
        assert (np.abs(y - want) <= 1e-6 * magnitudes + 1e-6).all(), count


@needs_sanitizers
@pytest.mark.parametrize("instructions", X86)
@pytest.mark.parametrize(
    "bits, block, zero_points", [(4, 16, True), (4, 32, False), (8, 32, False), (8, 64, True)]
)
def test_nothing_is_read_beyond_the_weights(checked_driver, instructions, bits, block, zero_points):
    """Few rows read on behind a column, which the last columns must not."""
    flags = Path("/proc/cpuinfo").read_text()
    if instructions == "avx512" and "avx512_vnni" not in flags:
        pytest.skip("this processor has no AVX-512 VNNI")
    product = Product(37, 192, bits, block, zero_points)
    check([checked_driver], product, rows=(1, 3, 6, 11), env={"LTBM_CPU": instructions})


@needs_emulator
@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("bits, block", [(4, 16), (4, 32), (4, 128), (8, 32), (8, 256)])
def test_products_on_arm(arm_driver, bits, block, zero_points):
    product = Product(37, 512, bits, block, zero_points)
    check([EMULATOR, "-cpu", WITH_DOT_PRODUCTS, arm_driver], product, rows=(1, 4, 5, 11))


@needs_emulator
def test_an_arm_cpu_without_dot_products_says_so(arm_driver):
    done = run([EMULATOR, "-cpu", WITHOUT, arm_driver], Product(8, 64, 4, 32), np.ones((1, 64), np.float32))
    assert done.returncode == 1 and b"none of the instructions" in done.stderr
