"""Everything our source uses of tensorrt and cuda-bindings, against the real bindings of several versions.

TensorRT's libraries are not needed: the bindings are imported over libraries that only export the symbols
asked for.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support import uses as finder

pytestmark = pytest.mark.network

TENSORRT = {
    "10.3.0": "JetPack 6.2, the oldest we support",
    "10.16.1.11": "JetPack 7.2",
    "11.4.0.106": "the newest",
}
RTX_ONLY = {"ComputeCapability.__members__"}  # test_judge uses the real TensorRT-RTX
CUDA = ["12.9.4", "13.5.0"]
ENTRY_POINTS = "|".join(
    [
        r"create\w+_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
        "initLibNvInferPlugins",
        "getNvOnnxParserVersion",
    ]
)


def python_path(*folders) -> str:
    """PYTHONPATH with `folders` before what it holds."""
    return os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])


def cached(requirement: str, *also: str) -> Path:
    """A folder with the packages, from the index once per machine and Python;
    skips where it cannot be had."""
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ltbm-tests"
    folder = root / f"{requirement}-{sys.implementation.cache_tag}"
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=root))
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--target",
        scratch,
    ]
    got = subprocess.run([*install, requirement, *also], capture_output=True, text=True, timeout=300)
    if got.returncode:
        shutil.rmtree(scratch)
        pytest.skip(
            f"{requirement} cannot be had for this Python or from here: {got.stderr.strip().splitlines()[-1]}"
        )
    scratch.chmod(0o755)
    try:
        scratch.rename(folder)
    except OSError:  # another run was first
        shutil.rmtree(scratch)
    return folder


def stub_libraries(bindings: Path, folder: Path) -> Path:
    """Libraries under the names that the bindings need, with the symbols that nothing else gives them."""
    binary = bindings / "tensorrt_bindings" / "tensorrt.so"
    compiler = shutil.which("cc") or shutil.which("gcc")
    tools = [shutil.which(name) for name in ("nm", "readelf")]
    if not compiler or not all(tools):
        pytest.skip("no C compiler with nm and readelf to make the stub libraries")
    undefined = subprocess.run(
        ["nm", "-D", "--undefined-only", binary], capture_output=True, text=True, check=True
    ).stdout.split()
    symbols = [name for name in undefined if re.fullmatch(ENTRY_POINTS, name)]
    needed = subprocess.run(["readelf", "-d", binary], capture_output=True, text=True, check=True).stdout
    source = folder / "stub.c"
    source.write_text("".join(f"void* {name}(void) {{ return 0; }}\n" for name in symbols))
    for name in re.findall(r"\[(libnv\w+\.so\.\d+)\]", needed):
        subprocess.run(
            [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, source], check=True
        )
    return folder


def ask(facts: dict, packages: Path, libraries: Path | None = None) -> dict:
    environment = os.environ | {"PYTHONPATH": python_path(packages)}
    if libraries:
        environment["LD_LIBRARY_PATH"] = str(libraries)
    got = subprocess.run(
        [sys.executable, Path(finder.__file__).with_name("probe_bindings.py")],
        input=json.dumps(facts),
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert got.returncode == 0, got.stderr
    return json.loads(got.stdout.splitlines()[-1])


def tensorrt_facts(version: str, **changes) -> dict:
    uses = finder.find_uses()
    return {
        "module": "tensorrt",
        "newest": version == list(TENSORRT)[-1],
        "trt": sorted(uses.trt - RTX_ONLY),
        "methods": sorted(uses.methods, key=str),
        "optional": sorted(uses.optional),
        "subclasses": uses.subclasses,
        "unnamed": sorted(uses.unnamed),
    } | changes


@pytest.fixture(scope="module", params=TENSORRT)
def bindings(request, tmp_path_factory):
    """(version, what answers for it)"""
    packages = cached(f"tensorrt-cu12-bindings=={request.param}")
    libraries = stub_libraries(packages, tmp_path_factory.mktemp("stubs"))
    return request.param, lambda facts: ask(facts, packages, libraries)


def test_tensorrt_has_all_that_we_use(bindings):
    version, answer = bindings
    said = answer(tensorrt_facts(version))
    assert said == {"problems": [], "version": version}


def test_what_is_not_there_is_found(bindings):
    version, answer = bindings
    wrong = answer(
        tensorrt_facts(
            version,
            trt=["BuilderFlag.TURBO"],
            subclasses={"IProgressMonitor": ["phase_start"]},
            optional=[],
            unnamed=[("Builder", "create_builder_config", "settings")],
            methods=[
                ("ICudaEngine", "warp", 0, None),
                ("IExecutionContext", "execute_async_v3", 2, None),
                ("Builder", "create_network", 1, "ICudaEngine"),
            ],
        )
    )["problems"]
    for part in (
        "trt.BuilderFlag.TURBO",
        "subclass of trt.IProgressMonitor",
        "ICudaEngine.warp",
        "execute_async_v3 is called with 2",
        "we hold it as ICudaEngine",
        "held as settings",
    ):
        assert any(part in line for line in wrong), (part, wrong)
    assert len(wrong) == 6


USE = """
from ltbm.runtime.backends.trt import NUMPY_TYPES
from ltbm.runtime.backends.trt_library import load_library
from ltbm.export.tensorrt_builder import monitor
trt, lines, logger = load_library().trt, [], load_library().logger
logger.report = lines.append
for severity in (trt.ILogger.INFO, trt.ILogger.WARNING, trt.ILogger.ERROR):
    logger.log(severity, severity.name)
assert lines == ["TensorRT: WARNING", "TensorRT: ERROR"]
assert logger.take_errors() == "; TensorRT says: ERROR" and logger.take_errors() == ""
monitor = monitor(trt, "merge", lines.append)
monitor.phase_start("Build", None, 20)
assert monitor.step_complete("Build", 10) and lines[-1] == "merge: Build 10 of 20"
monitor.phase_finish("Build")
missing = set(NUMPY_TYPES) - {name for name in dir(trt.DataType) if trt.DataType.__members__.get(name)}
assert not missing, missing
assert 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) > 0
print("used")
"""


def test_our_modules_run_on_the_real_classes(bindings, tmp_path):
    """As far as no library is asked: subclasses are made and called, enumerations compared."""
    version, _ = bindings
    (tmp_path / "tensorrt.py").write_text(
        "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
    )
    packages = (
        cached(f"tensorrt-cu12-bindings=={version}"),
        cached(f"cuda-bindings=={CUDA[0]}", "cuda-pathfinder"),
    )
    environment = os.environ | {
        "PYTHONPATH": python_path(tmp_path, *packages),
        "LD_LIBRARY_PATH": str(stub_libraries(packages[0], tmp_path)),
    }
    got = subprocess.run(
        [sys.executable, "-c", USE], env=environment, capture_output=True, text=True, timeout=120
    )
    assert got.stdout == "used\n", got.stderr


@pytest.mark.parametrize("version", CUDA)
def test_cuda_bindings_have_all_that_we_use(version):
    packages = cached(f"cuda-bindings=={version}", "cuda-pathfinder")
    used = sorted(finder.find_uses().cudart, key=str)
    assert ask({"module": "cudart", "cudart": used}, packages)["problems"] == []
    wrong = ask({"module": "cudart", "cudart": [("cudaTeleport", 1), ("cudaMalloc", 2)]}, packages)[
        "problems"
    ]
    assert len(wrong) == 2


def test_our_uses_are_found():
    uses = finder.find_uses()
    assert {"Runtime", "Builder", "OnnxParser", "TensorIOMode.INPUT", "ILogger", "__version__"} <= uses.trt
    assert ("ICudaEngine", "get_aliased_input_tensor") in uses.optional
    assert {kind for kind, *_ in uses.methods} | {"INetworkDefinition"} == set(
        finder.CLASSES.values()
    )  # a network is only passed on
    assert ("cudaMalloc", 1) in uses.cudart and ("cudaFreeHost", None) in uses.cudart
    assert set(uses.subclasses) == {"ILogger", "IProgressMonitor"}


def test_a_machine_without_a_gpu_says_so():
    """The real bindings, whose every call fails here."""
    packages = cached(f"cuda-bindings=={CUDA[0]}", "cuda-pathfinder")
    code = (
        "from cuda.bindings import runtime\nif runtime.cudaGetDeviceCount()[0] == 0: print('a GPU'); raise "
        "SystemExit\n"
        "from ltbm.runtime.backends.cuda import Stream\nStream()"
    )
    got = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": python_path(packages)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "a GPU" in got.stdout:
        pytest.skip("this machine has a GPU")
    assert "RuntimeError: CUDA call failed" in got.stderr and "ltbm doctor" in got.stderr
