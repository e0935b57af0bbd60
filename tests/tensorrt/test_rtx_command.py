"""`ltbm build` with the real TensorRT-RTX, each in a process of its own: engines are built without a GPU."""

import importlib.util
import json
import shutil
import subprocess
import sys

import pytest

from ltbm.runtime.backends.engine_store import stored
from ltbm.runtime.bundle import Bundle

if importlib.util.find_spec("tensorrt_rtx") is None:
    pytest.skip("tensorrt-rtx is not installed: pip install 'ltbm[rtx]'", allow_module_level=True)

COMMAND = "import sys; from ltbm.runtime.cli import main; sys.exit(main(sys.argv[1:]))"
BUILD_SECONDS = 120
# What we use of it beyond what TensorRT has, by the class or enumeration that has it.
USES = {
    "IBuilderConfig": ["num_compute_capabilities", "set_compute_capability"],
    "ICudaEngine": ["create_runtime_config", "create_execution_context"],
    "IRuntimeConfig": [
        "create_runtime_cache",
        "set_runtime_cache",
        "set_execution_context_allocation_strategy",
        "cuda_graph_strategy",
    ],
    "IRuntimeCache": ["serialize", "deserialize"],
    "CudaGraphStrategy": ["DISABLED", "WHOLE_GRAPH_CAPTURE"],
    "ExecutionContextAllocationStrategy": ["USER_MANAGED"],
    "ComputeCapability": ["SM75", "SM80", "SM86", "SM89", "SM120", "SM121"],
}
LACKING = """
import json, sys
import tensorrt_rtx as trt
lacking = []
for kind, names in json.load(sys.stdin).items():
    for name in names:
        if not hasattr(getattr(trt, kind), name):
            lacking.append(kind + "." + name)
print(json.dumps(lacking))
"""


def python(code: str, *arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        **options,
    )


def ltbm(*arguments) -> subprocess.CompletedProcess:
    return python(COMMAND, *arguments)


@pytest.fixture
def bundle_for(make_bundle, tmp_path):
    """A bundle for TensorRT that a test may write engines into."""

    def copy(family: str, precision: str):
        export = {"target": "tensorrt"} if precision == "int4" else None
        return shutil.copytree(make_bundle(family, precision, export)[1], tmp_path / "bundle")

    return copy


def test_it_has_all_that_we_use():
    done = python(LACKING, input=json.dumps(USES))
    assert json.loads(done.stdout) == [], done.stderr


def test_a_bundle_becomes_engines_for_two_gpus(bundle_for, family):
    path = bundle_for(family, "int4")
    done = ltbm("build", path, "--backend", "tensorrt-rtx", "--gpu", "sm89,sm120", "--max-context", "256")
    assert done.returncode == 0, done.stderr
    assert "the first load on a GPU compiles the engines' kernels" in done.stderr
    (line,) = [line for line in ltbm("inspect", path).stdout.splitlines() if line.startswith("engines")]
    assert "tensorrt-rtx" in line and "for compute capability 8.9, 12.0" in line
    assert "256 tokens, KV cache 0.1 MiB" in line


def test_a_build_that_is_killed_leaves_the_former_engines(bundle_for):
    path = bundle_for("qwen2_audio", "float16")
    build = ["build", path, "--backend", "tensorrt-rtx", "--gpu", "sm89"]
    assert ltbm(*build).returncode == 0
    (folder,) = stored(Bundle.open(path))
    before = {file.name: file.read_bytes() for file in folder.path.iterdir()}
    command = [sys.executable, "-c", COMMAND, *map(str, build), "--refresh"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "Building engine" in line:
                process.kill()
    assert process.returncode < 0
    assert {file.name: file.read_bytes() for file in folder.path.iterdir()} == before


def test_running_without_a_gpu_is_one_line(bundle_for, make_clip):
    """Engines build without a GPU; loading them does not."""
    path = bundle_for("qwen2_audio", "float16")
    done = ltbm("run", path, "clip.wav", "--prompt", "What?", "--backend", "tensorrt-rtx")
    if "does not know" in done.stderr or "no TensorRT-RTX engines" in done.stderr:
        pytest.skip("this machine has a GPU")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "no NVIDIA GPU or driver is found here" in done.stderr and "ltbm doctor" in done.stderr


def test_doctor_knows_it():
    findings = {finding["subject"]: finding for finding in json.loads(ltbm("doctor", "--json").stdout)}
    finding = findings["TensorRT-RTX"]
    assert finding["status"] in ("ok", "warning") and "builds for sm75, sm80, sm86" in finding["text"]
