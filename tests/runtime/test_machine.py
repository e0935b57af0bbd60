"""What is read of a machine, and the check that runs a node on a provider."""

import re
import sys

import pytest

from ltbm.runtime import machine as machines
from ltbm.runtime.probes import provider_check
from tests.support.fake_machine import MEMINFO, fake_machine


def test_memory_is_that_of_the_container(tmp_path):
    files = {
        "proc/meminfo": MEMINFO,
        "sys/fs/cgroup/memory.max": "4294967296\n",
        "sys/fs/cgroup/memory.current": "1073741824\n",
    }
    memory = machines.find_memory(fake_machine(tmp_path, None, files, {}, {}, ()))
    assert (memory.total, memory.available) == (4 * 2**30, 3 * 2**30)


def test_a_command_that_hangs_or_is_missing_has_no_status(monkeypatch):
    monkeypatch.setattr(machines, "ANSWER_SECONDS", 0.2)
    assert machines.run_command(["sleep", "5"]).status is None
    assert machines.run_command(["no-such-command-here"]).status is None


def test_the_provider_check_runs_a_node():
    check = [sys.executable, "-m", "ltbm.runtime.probes.provider_check"]
    assert machines.run_command([*check, "CPUExecutionProvider"]).status == 0
    unknown = machines.run_command([*check, "NoExecutionProvider"])
    assert unknown.status == 1 and "NoExecutionProvider" in unknown.err


def test_the_check_is_a_model(tmp_path):
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(onnx.load_from_string(provider_check.relu_model()))


@pytest.mark.parametrize(
    "model, python, advice",
    [
        (None, (3, 12), "pip install 'ltbm.cpu.', or 'ltbm.gpu.' for CUDA"),
        (None, (3, 10), "needs Python 3.11 or newer$"),
        ("NVIDIA Jetson AGX Thor", (3, 12), "'ltbm.cpu.' for the CPU; for its GPU PyPI has .* for no Jetson"),
        ("NVIDIA Jetson Orin Nano", (3, 10), "needs Python 3.11 or newer; on a Jetson, --backend tensorrt"),
    ],
)
def test_how_to_install_onnxruntime(tmp_path, model, python, advice):
    files = {"proc/device-tree/model": model} if model else {}
    machine = fake_machine(tmp_path, None, files, {}, {}, ())
    assert re.search(advice, machines.onnxruntime_advice(machine, python))
    assert ("ltbm[gpu]" in machines.onnxruntime_gpu_advice(machine)) == (model is None)
