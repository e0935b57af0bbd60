"""`ltbm doctor` on machines that are not here: a Jetson, one without a GPU, one that answers nothing."""

import json

from ltbm.runtime.cli import main
from ltbm.runtime.doctor import examine
from ltbm.runtime.machine import CommandResult, Machine
from ltbm.runtime.probes import device
from tests.support.fake_machine import MEMINFO, NO_FILE, NO_TENSORRT, by_subject, fake_machine

OF_THE_TEST_MACHINE = ("export", "merge op", "products")  # are as they are here, not as on the Orin
WHOLE_ORIN = {
    "memory": "7.4 GiB, shared by CPU and GPU, 5.0 GiB available, swap 8.0 GiB, zram 1.0 GiB",
    "Jetson": "NVIDIA Jetson Orin Nano, Jetson Linux 36.4.3, JetPack 6.2+b77",
    "power": "mode MAXN_SUPER, GPU clock follows the load",
    "GPU": "Orin, architecture 87, 61.0 GiB of the machine's memory, driver 540.4.0 for CUDA up to 12.6",
    "CUDA": "runtime 12.6 (libcudart.so.12)",
    "cuDNN": "9.3.0",
    "cuda-bindings": "12.9.2",
    "TensorRT": "10.3.0, which runs decoder.concat20",
    "plugin": "for architectures 80, 87 and TensorRT 10.3",
    "CUDA op": "libltbm_cuda.so for architectures 80, 87",
    "onnxruntime": "1.24.0 with Tensorrt, CUDA, CPU",
    "CUDA provider": "ran a node on the GPU",
}


def test_a_whole_jetson_is_all_ok(orin):
    findings = by_subject(orin())
    for subject, finding in findings.items():
        assert finding.status == "ok" or subject in OF_THE_TEST_MACHINE, finding
    for subject, words in WHOLE_ORIN.items():
        assert words in findings[subject].text, subject


def test_a_machine_without_a_gpu_has_no_problem(tmp_path, library, monkeypatch):
    monkeypatch.delenv("LTBM_TENSORRT_PLUGIN", raising=False)
    monkeypatch.delenv("LTBM_CUDA_OP", raising=False)
    commands = {
        "tensorrt": NO_TENSORRT,
        "onnxruntime": CommandResult(0, "1.32.0 CUDAExecutionProvider CPUExecutionProvider"),
    }
    findings = by_subject(fake_machine(tmp_path, library, {"proc/meminfo": MEMINFO}, commands, {}, ()))
    assert "problem" not in {finding.status for finding in findings.values()}
    for subject in (
        "GPU",
        "CUDA",
        "cuDNN",
        "cuda-bindings",
        "TensorRT",
        "plugin",
        "CUDA op",
        "CUDA provider",
    ):
        assert findings[subject].status == "ok", subject
    assert "Jetson" not in findings and "power" not in findings


def test_a_machine_that_answers_nothing_is_examined_to_the_end(tmp_path):
    def silent(name):
        raise OSError(NO_FILE)

    def missing(command):
        return CommandResult(None, err="not there")

    findings = by_subject(Machine(tmp_path, missing, silent, lambda name: None))
    assert findings["memory"].status == "warning" and findings["onnxruntime"].status == "problem"


def test_a_probe_that_fails_is_a_warning_and_the_others_go_on(orin, monkeypatch):
    def broken(facts):
        raise KeyError("surprise")

    monkeypatch.setattr("ltbm.runtime.doctor.PROBES", (broken, device.python))
    first, second = examine(machine=orin())
    assert (first.subject, first.status) == ("broken", "warning") and "KeyError: 'surprise'" in first.text
    assert second.subject == "python"


def test_the_command_prints_a_line_each_and_exits_with_1_on_a_problem(qwen, tmp_path, capsys):
    assert main(["doctor", str(qwen[1])]) == 0
    out = capsys.readouterr().out
    for words in (
        "onnxruntime",
        "merge op",
        "products",
        "audio files",
        "export",
        "every file as its manifest says",
    ):
        assert words in out
    assert main(["doctor", str(tmp_path), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert [finding["subject"] for finding in findings if finding["status"] == "problem"] == ["bundle"]
