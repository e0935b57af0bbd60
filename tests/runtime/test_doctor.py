"""`ltbm doctor` on machines that are not here: files under a fake root, answers of fake commands,
one fake library.

The library stands for libcuda, libcudart, cuDNN, libnvinfer and the plugin,
so that every call goes through ctypes.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys

import pytest

from ltbm.runtime import machine as machines
from ltbm.runtime.backends.engine_store import STAGES, Key, Target, store
from ltbm.runtime.backends.shape_ranges import Limits
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.cli import main
from ltbm.runtime.doctor import examine
from ltbm.runtime.machine import CommandResult, Machine
from ltbm.runtime.probes import device, nvidia, provider_check

LIBRARY = r"""
#include <stdlib.h>
#include <string.h>
static int of(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}
int cuInit(unsigned flags) { return of("FAKE_INIT", 0); }
int cuGetErrorName(int status, const char **name) { *name = "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return 0; }
int cuDeviceGetName(char *name, int room, int device) { strncpy(name, "Orin", room); return device != 7; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = (size_t)of("FAKE_MIB", 62464) << 20;
    return device != 7;
}
int cuDriverGetVersion(int *version) { *version = of("FAKE_DRIVER", 12060); return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) {
  *value = which == 75 ? of("FAKE_SM", 87) / 10 : which == 76 ? of("FAKE_SM", 87) % 10 : which == 18;
  return device != 7;
}
int cudaRuntimeGetVersion(int *version) { *version = of("FAKE_RUNTIME", 12060); return 0; }
size_t cudnnGetVersion(void) { return 90300; }
int getInferLibVersion(void) { return of("FAKE_NVINFER", 100300); }
extern const char ltbm_built_for[];
const char ltbm_built_for[] = "architectures=80,87;cuda=12060;tensorrt=10.3";
"""
DRIVER = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  "
    "(buildbrain)\nGCC version: collect2\n"
)
RELEASE = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 "
    "01:49:37 UTC 2025\n"
)
MEMINFO = "MemTotal: 7802808 kB\nMemFree: 1 kB\nMemAvailable: 5242880 kB\n"
SWAPS = "Filename Type Size Used Priority\n/swapfile file 8388608 0 -2\n/dev/zram0 partition 1048576 0 5\n"
CLOCKS = "sys/class/devfreq/17000000.gpu/"
ORIN_FILES = {
    "proc/driver/nvidia/version": DRIVER,
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano\0",
    "etc/nv_tegra_release": RELEASE,
    "proc/meminfo": MEMINFO,
    "proc/swaps": SWAPS,
    CLOCKS + "min_freq": "306000000\n",
    CLOCKS + "max_freq": "1020000000\n",
}
ORIN_SAYS = {
    "dpkg-query": CommandResult(0, "6.2+b77"),
    "nvpmodel": CommandResult(0, "NV Power Mode: MAXN_SUPER\n2"),
    "tensorrt": CommandResult(0, "10.3.0"),
    "onnxruntime": CommandResult(
        0, "1.24.0 TensorrtExecutionProvider CUDAExecutionProvider CPUExecutionProvider"
    ),
    "CUDAExecutionProvider": CommandResult(0),
    "TensorrtExecutionProvider": CommandResult(0),
}
LIBRARIES = ("libcuda.so.1", "libcudart.so.12", "libcudnn.so.9", "libnvinfer.so.10", "libltbm_tensorrt.so")
VERSIONS = {"cuda-bindings": "12.9.2", "onnxruntime-gpu": "1.24.0"}
NO_FILE = "cannot open shared object file: No such file or directory"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C compiler: install gcc")
    folder = tmp_path_factory.mktemp("library")
    (folder / "fake.c").write_text(LIBRARY)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "fake.so", folder / "fake.c"], check=True)
    return folder / "fake.so"


@pytest.fixture
def orin(tmp_path, library, monkeypatch):
    """A Jetson Orin with everything in place, or with changes: files,
    says and versions by name (None takes one away)."""
    plugin = tmp_path / "libltbm_tensorrt.so"
    plugin.touch()
    monkeypatch.setenv("LTBM_TENSORRT_PLUGIN", str(plugin))

    def make(files=(), says=(), versions=(), libraries=LIBRARIES, **numbers) -> Machine:
        for name, number in numbers.items():
            monkeypatch.setenv(f"FAKE_{name.upper()}", str(number))
        return fake_machine(
            tmp_path / "root",
            library,
            {**ORIN_FILES, **dict(files)},
            {**ORIN_SAYS, **dict(says)},
            {**VERSIONS, **dict(versions)},
            libraries,
        )

    return make


def fake_machine(root, library, files, says, versions, libraries) -> Machine:
    for name, text in files.items():
        if text is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)

    def run(command):
        words = command[0] if command[0] != sys.executable else command[-1]
        for name in ("import tensorrt", "import onnxruntime"):
            words = name.split()[1] if words.startswith(name) else words
        return says.get(words) or CommandResult(None, err=f"no {words}")

    def load(name):
        short = str(name).split("/")[-1]
        if short == "libltbm_ort.so":
            return machines.ctypes.CDLL(name)
        if short not in libraries:
            raise OSError(f"{short}: {NO_FILE}")
        return machines.ctypes.CDLL(str(library))

    return Machine(root, run, load, versions.get)


def by_subject(machine, *arguments):
    return {finding.subject: finding for finding in examine(*arguments, machine=machine)}


def test_a_whole_jetson_is_all_ok(orin):
    said = by_subject(orin())
    assert [
        finding
        for finding in said.values()
        if finding.status != "ok" and finding.subject not in ("export", "merge op")
    ] == []
    for subject, words in {
        "memory": "7.4 GiB, shared by CPU and GPU, 5.0 GiB available, swap 8.0 GiB, zram 1.0 GiB",
        "Jetson": "NVIDIA Jetson Orin Nano, Jetson Linux 36.4.3, JetPack 6.2+b77",
        "power": "mode MAXN_SUPER, GPU clock follows the load",
        "GPU": "Orin, architecture 87, 61.0 GiB of the machine's memory, driver 540.4.0 for CUDA up to 12.6",
        "CUDA": "runtime 12.6 (libcudart.so.12)",
        "cuDNN": "9.3.0",
        "cuda-bindings": "12.9.2",
        "TensorRT": "10.3.0, which runs decoder.concat20",
        "plugin": "for architectures 80, 87 and TensorRT 10.3",
        "onnxruntime": "1.24.0 with Tensorrt, CUDA, CPU",
        "CUDA provider": "ran a node on the GPU",
    }.items():
        assert words in said[subject].text, subject


NO_TENSORRT = CommandResult(1, "", "ModuleNotFoundError: No module named 'tensorrt'")
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
        {"files": R35, "says": {"dpkg-query": None}},
    ),
    (
        "Jetson",
        "ok",
        "Jetson Linux 39.2.1, JetPack 7.2",
        {"files": R39, "says": {"dpkg-query": CommandResult(1)}},
    ),
    ("Jetson", "warning", "-v /etc/nv_tegra_release", {"files": {"etc/nv_tegra_release": None}}),
    (
        "power",
        "warning",
        "mode 15W, .*MAXN is faster",
        {"says": {"nvpmodel": CommandResult(0, "NV Power Mode: 15W\n0")}},
    ),
    ("power", "warning", "run it on the host", {"says": {"nvpmodel": None}}),
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
    ("TensorRT", "problem", "does not load .ImportError: .*libnvinfer", {"says": {"tensorrt": LOST_NVINFER}}),
    ("TensorRT", "problem", "cannot import name", {"says": {"tensorrt": HALF_TENSORRT}}),
    ("TensorRT", "problem", "8.6.2 is too old", {"says": {"tensorrt": CommandResult(0, "8.6.2")}}),
    ("TensorRT", "warning", "--system-site-packages", {"says": {"tensorrt": NO_TENSORRT}}),
    (
        "TensorRT",
        "warning",
        "python3-libnvinfer",
        {"says": {"tensorrt": NO_TENSORRT}, "libraries": ("libcuda.so.1",)},
    ),
    ("TensorRT", "warning", "libnvinfer is 10.16.0, .* do not mix", {"nvinfer": 101600}),
    (
        "TensorRT",
        "ok",
        "10.16.1.11, which runs decoder.std24",
        {"says": {"tensorrt": CommandResult(0, "10.16.1.11")}, "nvinfer": 101601},
    ),
    ("plugin", "problem", "not for this GPU, 110: build it", {"sm": 110}),
    (
        "plugin",
        "problem",
        "TensorRT 10.3, here is 11.1.0",
        {"says": {"tensorrt": CommandResult(0, "11.1.0")}},
    ),
    ("plugin", "problem", "does not load .*cannot open", {"libraries": ("libcuda.so.1",)}),
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
        {"says": {"onnxruntime": CommandResult(1, "", "ImportError: GLIBC_2.38 not found")}},
    ),
    ("onnxruntime", "ok", "not needed with backend=tensorrt", {"says": {"onnxruntime": NO_ONNXRUNTIME}}),
    (
        "onnxruntime",
        "warning",
        "1.23.2 with CPU is older than 1.24",
        {"says": {"onnxruntime": CommandResult(0, "1.23.2 CPUExecutionProvider")}},
    ),
    (
        "onnxruntime",
        "warning",
        "not on the GPU: PyPI has",
        {"says": {"onnxruntime": CommandResult(0, "1.24.0 CPUExecutionProvider")}},
    ),
    (
        "CUDA provider",
        "problem",
        "no libcublasLt.so.12: pip install 'onnxruntime-gpu.cuda,cudnn.'",
        {"says": {"CUDAExecutionProvider": LOST_CUBLAS}},
    ),
    (
        "CUDA provider",
        "problem",
        "not built for architecture 87",
        {"says": {"CUDAExecutionProvider": NO_KERNEL}},
    ),
    ("CUDA provider", "problem", "exit code -11", {"says": {"CUDAExecutionProvider": CommandResult(-11)}}),
    (
        "Tensorrt provider",
        "warning",
        "no libnvinfer.so.10: ",
        {"says": {"TensorrtExecutionProvider": LOST_NVINFER}},
    ),
]


@pytest.mark.parametrize(
    "subject,status,words,changes",
    BROKEN,
    ids=[f"{row[0]}-{row[1]}-{place}" for place, row in enumerate(BROKEN)],
)
def test_what_is_broken_is_named_with_what_to_do(orin, subject, status, words, changes):
    finding = by_subject(orin(**changes))[subject]
    assert finding.status == status, finding
    assert re.search(words, finding.text), finding


def test_a_plugin_named_and_lost_is_a_problem(orin, monkeypatch, tmp_path):
    machine = orin()
    monkeypatch.setenv("LTBM_TENSORRT_PLUGIN", str(tmp_path / "gone.so"))
    finding = by_subject(machine)["plugin"]
    assert finding.status == "problem" and "gone.so, which is no file" in finding.text


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


def test_a_machine_without_a_gpu_has_no_problem(tmp_path, library, monkeypatch):
    monkeypatch.delenv("LTBM_TENSORRT_PLUGIN", raising=False)
    says = {
        "tensorrt": NO_TENSORRT,
        "onnxruntime": CommandResult(0, "1.32.0 CUDAExecutionProvider CPUExecutionProvider"),
    }
    said = by_subject(fake_machine(tmp_path, library, {"proc/meminfo": MEMINFO}, says, {}, ()))
    assert [finding for finding in said.values() if finding.status == "problem"] == []
    assert {
        said[name].status
        for name in ("GPU", "CUDA", "cuDNN", "cuda-bindings", "TensorRT", "plugin", "CUDA provider")
    } == {"ok"}
    assert "Jetson" not in said and "power" not in said


def test_a_machine_that_answers_nothing_is_examined_to_the_end(tmp_path):
    def silent(name):
        raise OSError(NO_FILE)

    said = by_subject(
        Machine(tmp_path, lambda command: CommandResult(None, err="not there"), silent, lambda name: None)
    )
    assert said["memory"].status == "warning" and said["onnxruntime"].status == "problem"


def test_a_probe_that_fails_is_a_warning_and_the_others_go_on(orin, monkeypatch):
    def broken(facts):
        raise KeyError("surprise")

    monkeypatch.setattr("ltbm.runtime.doctor.PROBES", (broken, device.python))
    first, second = examine(machine=orin())
    assert (first.subject, first.status) == ("broken", "warning") and "KeyError: 'surprise'" in first.text
    assert second.subject == "python"


def test_memory_is_that_of_the_container(tmp_path):
    files = {
        "proc/meminfo": MEMINFO,
        "sys/fs/cgroup/memory.max": "4294967296\n",
        "sys/fs/cgroup/memory.current": "1073741824\n",
    }
    memory = machines.find_memory(fake_machine(tmp_path, None, files, {}, {}, ()))
    assert (memory.total, memory.available) == (4 * 2**30, 3 * 2**30)


def test_the_provider_check_runs_a_node():
    assert (
        machines.run_command(
            [sys.executable, "-m", "ltbm.runtime.probes.provider_check", "CPUExecutionProvider"]
        ).status
        == 0
    )
    said = machines.run_command(
        [sys.executable, "-m", "ltbm.runtime.probes.provider_check", "NoExecutionProvider"]
    )
    assert said.status == 1 and "NoExecutionProvider" in said.err


def test_the_check_is_a_model(tmp_path):
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(onnx.load_from_string(provider_check.relu_model()))


def test_a_command_that_hangs_or_is_missing_has_no_status(monkeypatch):
    monkeypatch.setattr(machines, "ANSWER_SECONDS", 0.2)
    assert machines.run_command(["sleep", "5"]).status is None
    assert machines.run_command(["no-such-command-here"]).status is None


def test_a_bundle_is_checked_too(qwen, orin):
    said = by_subject(orin(), str(qwen[1]))
    assert "every file as its manifest says" in said["bundle"].text
    assert said["decoder"].status == said["fits"].status == said["disk"].status == "ok"
    assert (
        "gqa for onnxruntime on cpu" in said["decoder"].text
        and "concat20 for tensorrt on cuda" in said["decoder"].text
    )
    newer = by_subject(orin(says={"tensorrt": CommandResult(0, "10.16.1")}), str(qwen[1]))["decoder"]
    assert "std24 for tensorrt on cuda" in newer.text


def test_a_decoder_that_a_bundle_lacks_is_named(qwen, orin, tmp_path):
    folder = shutil.copytree(qwen[1], tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["flavours"] = [flavour for flavour in manifest["flavours"] if flavour != "gqa"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    findings = [finding for finding in examine(str(folder), orin()) if finding.subject == "decoder"]
    assert [finding.status for finding in findings] == [
        "ok",
        "warning",
    ] and "no gqa for onnxruntime on cpu" in findings[1].text


@pytest.fixture
def built(qwen, tmp_path):
    """A bundle with an engine of each stage, built on the Orin with a plugin of these bytes."""
    bundle = Bundle.open(shutil.copytree(qwen[1], tmp_path / "bundle"))
    plugin = hashlib.sha256(b"").hexdigest()
    key = Key.of(bundle, Target("10.3.0", "8.7", "Orin", plugin), Limits.of(bundle.manifest))
    for stage in STAGES:
        store(bundle, key, stage, b"plan", 1.0, [])
    return bundle, key.digest


def test_a_changed_byte_is_found(orin, built):
    bundle, _ = built
    weights = bundle.path / "encoder.weights"
    weights.write_bytes(b"?" + weights.read_bytes()[1:])
    said = by_subject(orin(), str(bundle.path))
    assert (
        said["bundle"].status == "problem"
        and "encoder.weights does not have the sha256" in said["bundle"].text
    )
    assert "engines" not in said


def test_engines_of_this_machine_are_told_from_foreign_ones(orin, built):
    bundle, name = built
    said = by_subject(orin(), str(bundle.path))["engines"]
    assert (said.status, said.text.split()[0]) == ("ok", name)
    for changes, words in (
        ({"says": {"tensorrt": CommandResult(0, "10.7.0")}}, "tensorrt 10.3.0, here it is 10.7.0"),
        ({"sm": 89}, "compute capability 8.7"),
    ):
        said = by_subject(orin(**changes), str(bundle.path))["engines"]
        assert said.status == "warning" and words in said.text and "ltbm build" in said.text


def test_engines_that_are_lost_or_need_a_gpu_are_told(orin, built, qwen, tmp_path):
    bundle, _ = built
    (next((bundle.path / "engines").iterdir()) / "merge.engine").unlink()
    assert "merge.engine is missing" in by_subject(orin(), str(bundle.path))["engines"].text
    assert by_subject(orin(), str(qwen[1]))["engines"].status == "warning"
    without = fake_machine(tmp_path / "cpu", None, {}, {"tensorrt": NO_TENSORRT}, {}, ())
    assert (
        by_subject(without, str(bundle.path))["engines"].text
        == "1 built, which need a GPU, TensorRT and the plugin"
    )
    assert by_subject(without, str(qwen[1]))["engines"].status == "ok"


def test_a_bundle_may_fit_the_machine_and_not_its_gpu(qwen, orin):
    finding = by_subject(orin(mib=1), str(qwen[1]))["fits"]
    assert finding.status == "warning" and "more than the GPU's 1 MiB" in finding.text


@pytest.mark.parametrize("total,available,status", [(100, 100, "problem"), (7802808, 100, "warning")])
def test_a_bundle_that_does_not_fit_says_so(qwen, orin, total, available, status):
    meminfo = f"MemTotal: {total} kB\nMemAvailable: {available} kB\n"
    finding = by_subject(orin(files={"proc/meminfo": meminfo}), str(qwen[1]))["fits"]
    assert finding.status == status and "int4" in finding.text


def test_the_command_prints_a_line_each_and_exits_with_1_on_a_problem(qwen, tmp_path, capsys):
    assert main(["doctor", str(qwen[1])]) == 0
    out = capsys.readouterr().out
    assert all(
        word in out
        for word in ("onnxruntime", "merge op", "audio files", "export", "every file as its manifest says")
    )
    assert main(["doctor", str(tmp_path), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert [finding["subject"] for finding in findings if finding["status"] == "problem"] == ["bundle"]
