"""What `ltbm doctor` says of each part of a Jetson Orin that is missing, broken or slow."""

import re

import pytest

from ltbm.runtime.machine import CommandResult
from ltbm.runtime.probes import nvidia, packages
from tests.support.fake_machine import CLOCKS, LIBRARIES, MEMINFO, NO_FILE, NO_TENSORRT, SWAPS, by_subject

R35 = {"etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 1, BOARD: t186ref\n"}
R39 = {
    "etc/nv_tegra_release": "# R39 (release), REVISION: 2.1, GCID: 46758480, BOARD: generic, EABI: aarch64\n"
}
HALF_TENSORRT = CommandResult(1, "", "ImportError: cannot import name 'bindings' from 'tensorrt'")
NO_ONNXRUNTIME = CommandResult(1, "", "ModuleNotFoundError: No module named 'onnxruntime'")
LOST_NVINFER = CommandResult(1, "", f"Trace\nImportError: with error: libnvinfer.so.10: {NO_FILE}")
NO_KERNEL = CommandResult(1, "", "cudaErrorNoKernelImageForDevice: no kernel image is available")
LOST_CUBLAS = CommandResult(
    1,
    "",
    "[E:onnxruntime] Failed to load library libonnxruntime_providers_cuda.so with error: "
    f"libcublasLt.so.12: {NO_FILE}\nFAIL",
)
RTX = CommandResult(0, "1.7.1 NONE CURRENT SM86 SM120")
NO_GLIBC = CommandResult(1, "", "ImportError: GLIBC_2.38 not found")
BROKEN = [
    (
        "memory",
        "warning",
        "set-default multi-user",
        {"files": {"proc/meminfo": MEMINFO.replace("5242880", "524288")}},
    ),
    (
        "memory",
        "warning",
        "disable nvzramconfig",
        {"files": {"proc/swaps": SWAPS.replace("/swapfile", "/dev/zram1")}},
    ),
    (
        "Jetson",
        "problem",
        "Jetson Linux 35.4.1, JetPack unknown: its TensorRT is older",
        {"files": R35, "commands": {"dpkg-query": None}},
    ),
    (
        "Jetson",
        "ok",
        "Jetson Linux 39.2.1, JetPack 7.2",
        {"files": R39, "commands": {"dpkg-query": CommandResult(1)}},
    ),
    ("Jetson", "warning", "-v /etc/nv_tegra_release", {"files": {"etc/nv_tegra_release": None}}),
    (
        "power",
        "warning",
        "mode 15W, .*MAXN is faster",
        {"commands": {"nvpmodel": CommandResult(0, "NV Power Mode: 15W\n0")}},
    ),
    ("power", "warning", "run it on the host", {"commands": {"nvpmodel": None}}),
    ("power", "ok", "GPU clock fixed", {"files": {CLOCKS + "min_freq": "1020000000"}}),
    ("GPU", "problem", "--gpus all", {"libraries": ()}),
    ("GPU", "problem", r"cuInit fails with CUDA_ERROR_SYSTEM_DRIVER_MISMATCH \(803\)", {"init": 803}),
    ("CUDA", "problem", "13.0 .* on a driver for CUDA 12.6: update the driver", {"runtime": 13000}),
    (
        "CUDA",
        "ok",
        "libcudart.so.13",
        {"driver": 13020, "runtime": 13000, "libraries": (*LIBRARIES, "libcudart.so.13")},
    ),
    ("CUDA", "ok", "libcudart.so.12", {"libraries": (*LIBRARIES, "libcudart.so.13")}),
    ("CUDA", "warning", "apt install nvidia-jetpack", {"libraries": ("libcuda.so.1",)}),
    (
        "CUDA",
        "ok",
        "nvidia-cuda-runtime-cu12 12.6",
        {"libraries": ("libcuda.so.1",), "versions": {"nvidia-cuda-runtime-cu12": "12.6"}},
    ),
    ("cuDNN", "warning", "cuda,cudnn", {"libraries": ("libcuda.so.1",)}),
    ("cuda-bindings", "warning", "cuda-bindings==12", {"versions": {"cuda-bindings": None}}),
    (
        "cuda-bindings",
        "problem",
        "13.0.1 on a driver for CUDA 12.6",
        {"versions": {"cuda-bindings": "13.0.1"}},
    ),
    (
        "TensorRT",
        "problem",
        "does not load .ImportError: .*libnvinfer",
        {"commands": {"tensorrt": LOST_NVINFER}},
    ),
    ("TensorRT", "problem", "cannot import name", {"commands": {"tensorrt": HALF_TENSORRT}}),
    ("TensorRT", "problem", "8.6.2 is too old", {"commands": {"tensorrt": CommandResult(0, "8.6.2")}}),
    ("TensorRT", "warning", "--system-site-packages", {"commands": {"tensorrt": NO_TENSORRT}}),
    (
        "TensorRT",
        "warning",
        "python3-libnvinfer",
        {"commands": {"tensorrt": NO_TENSORRT}, "libraries": ("libcuda.so.1",)},
    ),
    ("TensorRT", "warning", "libnvinfer is 10.16.0, .* do not mix", {"nvinfer": 101600}),
    (
        "TensorRT",
        "ok",
        "10.16.1.11, which runs decoder.trt24",
        {"commands": {"tensorrt": CommandResult(0, "10.16.1.11")}, "nvinfer": 101601},
    ),
    ("TensorRT-RTX", "ok", r"none, .* .pip install 'ltbm.rtx.'", {}),
    (
        "TensorRT-RTX",
        "problem",
        "does not load .ImportError: GLIBC",
        {"commands": {"tensorrt_rtx": NO_GLIBC}},
    ),
    (
        "TensorRT-RTX",
        "ok",
        "1.7.1, builds for sm86, sm120; tensorrt-rtx-cu12-libs 1.7.1",
        {"commands": {"tensorrt_rtx": RTX}, "versions": {"tensorrt-rtx-cu12-libs": "1.7.1"}, "sm": 86},
    ),
    (
        "TensorRT-RTX",
        "warning",
        "this GPU, sm87, is not among them: take backend=tensorrt",
        {"commands": {"tensorrt_rtx": RTX}},
    ),
    (
        "TensorRT-RTX",
        "warning",
        "for CUDA 13, the driver is for 12.6: update the driver",
        {"commands": {"tensorrt_rtx": RTX}, "versions": {"tensorrt-rtx-cu13-libs": "1.7.1"}, "sm": 86},
    ),
    (
        "TensorRT",
        "ok",
        "none, .* TensorRT-RTX is here",
        {"commands": {"tensorrt": NO_TENSORRT, "tensorrt_rtx": RTX}, "libraries": ("libcuda.so.1",)},
    ),
    ("plugin", "problem", "not for this GPU, 110: build it", {"sm": 110}),
    (
        "plugin",
        "problem",
        "TensorRT 10.3, here is 11.1.0",
        {"commands": {"tensorrt": CommandResult(0, "11.1.0")}},
    ),
    ("plugin", "problem", "does not load .*cannot open", {"libraries": ("libcuda.so.1",)}),
    ("CUDA op", "problem", "not for this GPU, 110: build it .*LTBM_CUDA=ON", {"sm": 110}),
    ("CUDA op", "problem", "does not load .*cannot open", {"libraries": ("libcuda.so.1",)}),
    (
        "onnxruntime",
        "problem",
        "onnxruntime and onnxruntime-gpu are installed over each other",
        {"versions": {"onnxruntime": "1.24.0"}},
    ),
    (
        "onnxruntime",
        "problem",
        "does not load .ImportError: GLIBC",
        {"commands": {"onnxruntime": CommandResult(1, "", "ImportError: GLIBC_2.38 not found")}},
    ),
    ("onnxruntime", "ok", "not needed with backend=tensorrt", {"commands": {"onnxruntime": NO_ONNXRUNTIME}}),
    (
        "onnxruntime",
        "warning",
        "1.23.2 with CPU is older than 1.24",
        {"commands": {"onnxruntime": CommandResult(0, "1.23.2 CPUExecutionProvider")}},
    ),
    (
        "onnxruntime",
        "warning",
        "not on the GPU: PyPI has",
        {"commands": {"onnxruntime": CommandResult(0, "1.24.0 CPUExecutionProvider")}},
    ),
    (
        "CUDA provider",
        "problem",
        "no libcublasLt.so.12: this onnxruntime is for another CUDA; PyPI has onnxruntime-gpu for no Jetson",
        {"commands": {"CUDAExecutionProvider": LOST_CUBLAS}},
    ),
    (
        "CUDA provider",
        "problem",
        "not built for architecture 87",
        {"commands": {"CUDAExecutionProvider": NO_KERNEL}},
    ),
    (
        "CUDA provider",
        "problem",
        "exit code -11",
        {"commands": {"CUDAExecutionProvider": CommandResult(-11)}},
    ),
    (
        "Tensorrt provider",
        "warning",
        "no libnvinfer.so.10: ",
        {"commands": {"TensorrtExecutionProvider": LOST_NVINFER}},
    ),
]


@pytest.mark.parametrize(
    "subject,status,words,changes",
    BROKEN,
    ids=[f"{row[0]}-{row[1]}-{index}" for index, row in enumerate(BROKEN)],
)
def test_what_is_broken_is_named_with_what_to_do(orin, subject, status, words, changes):
    finding = by_subject(orin(**changes))[subject]
    assert finding.status == status, finding
    assert re.search(words, finding.text), finding


@pytest.mark.parametrize(
    "subject, variable", [("plugin", "LTBM_TENSORRT_PLUGIN"), ("CUDA op", "LTBM_CUDA_OP")]
)
def test_a_library_named_and_lost_is_a_problem(orin, monkeypatch, tmp_path, subject, variable):
    machine = orin()
    monkeypatch.setenv(variable, str(tmp_path / "gone.so"))
    finding = by_subject(machine)[subject]
    assert finding.status == "problem" and "gone.so, which is no file" in finding.text


def test_without_the_cuda_op_the_merge_is_slower(orin, monkeypatch):
    machine = orin()
    monkeypatch.delenv("LTBM_CUDA_OP")
    monkeypatch.setattr(nvidia.library, "installed", lambda name: None)
    finding = by_subject(machine)["CUDA op"]
    assert finding.status == "warning"
    assert "none, the merge runs on the CPU with backend=tensorrt-rtx" in finding.text


def test_what_multiplies_quantised_weights(orin, monkeypatch):
    monkeypatch.setattr(packages.library, "instructions_of", lambda native: "dotprod")
    finding = by_subject(orin())["products"]
    assert finding.status == "ok" and "ltbm's own ops, with dotprod" in finding.text
    monkeypatch.setattr(packages.library, "instructions_of", lambda native: None)
    finding = by_subject(orin())["products"]
    assert finding.status == "warning" and "ONNX Runtime's own (more memory, slower)" in finding.text
    monkeypatch.setattr(packages.library, "native_library", lambda: None)
    assert "products" not in by_subject(orin())


@pytest.mark.parametrize(
    "built,gpu,runs",
    [
        ("87", "87", True),
        ("80", "86", True),
        ("86", "80", False),
        ("80", "87", False),
        ("87", "89", False),
        ("90", "100", False),
        ("100", "103", True),
        ("none", "87", False),
    ],
)
def test_code_for_one_architecture_runs_on_another(built, gpu, runs):
    assert nvidia.runs_on(built, gpu) is runs
