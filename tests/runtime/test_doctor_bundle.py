"""`ltbm doctor BUNDLE`: its files, its decoders, whether it fits, and its TensorRT engines."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from ltbm.export.packing import pack_bundle
from ltbm.runtime.backends.engine_store import Key, Target, store
from ltbm.runtime.backends.packed_store import this_host
from ltbm.runtime.backends.shape_ranges import Limits
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.doctor import examine
from ltbm.runtime.machine import CommandResult
from tests.support.fake_machine import NO_TENSORRT, by_subject, fake_machine


def test_a_bundle_is_checked_too(qwen, orin):
    findings = by_subject(orin(), str(qwen[1]))
    assert "every file as its manifest says" in findings["bundle"].text
    assert findings["decoder"].status == findings["fits"].status == findings["disk"].status == "ok"
    assert "gqa for onnxruntime on cpu" in findings["decoder"].text
    assert "concat20 for tensorrt on cuda" in findings["decoder"].text
    newer = by_subject(orin(commands={"tensorrt": CommandResult(0, "10.16.1")}), str(qwen[1]))["decoder"]
    assert "trt24 for tensorrt on cuda" in newer.text


def test_a_decoder_that_a_bundle_lacks_is_named(qwen, orin, tmp_path):
    folder = shutil.copytree(qwen[1], tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["flavours"] = [flavour for flavour in manifest["flavours"] if flavour != "gqa"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    findings = [finding for finding in examine(str(folder), orin()) if finding.subject == "decoder"]
    assert [finding.status for finding in findings] == ["ok", "warning"]
    assert "no gqa for onnxruntime on cpu" in findings[1].text


@pytest.fixture
def built(qwen, tmp_path):
    """A bundle with an engine of each stage, built on the Orin with a plugin of these bytes."""
    bundle = Bundle.open(shutil.copytree(qwen[1], tmp_path / "bundle"))
    plugin = hashlib.sha256(b"").hexdigest()
    key = Key.of(bundle, Target("10.3.0", "8.7", "Orin", plugin), Limits.of(bundle.manifest))
    for stage in key.target.stages:
        store(bundle, key, stage, b"plan", 1.0, [])
    return bundle, key.digest


def test_a_changed_byte_is_found(orin, built):
    bundle, _ = built
    weights = bundle.path / "encoder.weights"
    weights.write_bytes(b"?" + weights.read_bytes()[1:])
    findings = by_subject(orin(), str(bundle.path))
    assert findings["bundle"].status == "problem"
    assert "encoder.weights does not have the sha256" in findings["bundle"].text
    assert "engines" not in findings


def test_engines_of_this_machine_are_told_from_foreign_ones(orin, built):
    bundle, name = built
    finding = by_subject(orin(), str(bundle.path))["engines"]
    assert (finding.status, finding.text.split()[0]) == ("ok", name)
    for changes, words in (
        ({"commands": {"tensorrt": CommandResult(0, "10.7.0")}}, "tensorrt 10.3.0, here it is 10.7.0"),
        ({"sm": 89}, "compute capability 8.7"),
    ):
        finding = by_subject(orin(**changes), str(bundle.path))["engines"]
        assert finding.status == "warning" and words in finding.text and "ltbm build" in finding.text


def test_engines_that_are_lost_or_need_a_gpu_are_told(orin, built, qwen, tmp_path):
    bundle, _ = built
    (next((bundle.path / "engines").iterdir()) / "merge.engine").unlink()
    assert "merge.engine is missing" in by_subject(orin(), str(bundle.path))["engines"].text
    assert by_subject(orin(), str(qwen[1]))["engines"].status == "warning"
    without = fake_machine(tmp_path / "cpu", None, {}, {"tensorrt": NO_TENSORRT}, {}, ())
    finding = by_subject(without, str(bundle.path))["engines"]
    assert finding.text == "1 built, which need a GPU, TensorRT and the plugin"
    assert by_subject(without, str(qwen[1]))["engines"].status == "ok"


def test_engines_of_tensorrt_rtx_are_for_the_capabilities_they_name(orin, qwen, tmp_path):
    bundle = Bundle.open(shutil.copytree(qwen[1], tmp_path / "bundle"))
    target = Target("1.7.1", "8.6, 12.0", "", "", "tensorrt-rtx")
    key = Key.of(bundle, target, Limits.of(bundle.manifest))
    for stage in target.stages:
        store(bundle, key, stage, b"plan", 1.0, [])
    rtx = {"tensorrt": NO_TENSORRT, "tensorrt_rtx": CommandResult(0, "1.7.1 SM86 SM89 SM120")}

    def engines(commands, **changes):
        return by_subject(orin(commands=commands, **changes), str(bundle.path))["engines"]

    finding = engines(rtx, sm=86)
    assert finding.status == "ok"
    assert "for compute capabilities 8.6, 12.0, this machine's among them" in finding.text
    finding = engines(rtx, sm=89)
    assert finding.status == "warning"
    assert "built for compute capability 8.6, 12.0, here it is 8.9" in finding.text
    assert f"`ltbm build {bundle.path} --backend tensorrt-rtx --refresh`" in finding.text
    finding = engines({})
    assert finding.status == "ok"
    assert "is for backend=tensorrt-rtx, which this machine does not run" in finding.text
    without = fake_machine(tmp_path / "cpu", None, {}, {"tensorrt": NO_TENSORRT}, {}, ())
    finding = by_subject(without, str(bundle.path))["engines"]
    assert finding.text == "1 built, which need a GPU and TensorRT-RTX"
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    del manifest["files"]["merge.projector.onnx"]  # as an earlier export wrote it
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    finding = engines(rtx, sm=86)
    assert finding.status == "warning" and "no merge.projector.onnx, which its engines need" in finding.text


def test_engines_of_a_former_format_are_named(orin, built):
    bundle, name = built
    record = bundle.path / "engines" / name / "engines.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"format": 1}))
    finding = by_subject(orin(), str(bundle.path))["engines"]
    assert finding.status == "warning"
    assert finding.text.startswith(f"{name} will not be loaded: engines.json has format 1")
    assert "delete the folder" in finding.text and "ltbm build" in finding.text


def test_a_bundle_may_fit_the_machine_and_not_its_gpu(qwen, orin):
    finding = by_subject(orin(mib=1), str(qwen[1]))["fits"]
    assert finding.status == "warning" and "more than the GPU's 1 MiB" in finding.text


@pytest.mark.parametrize("total,available,status", [(100, 100, "problem"), (7802808, 100, "warning")])
def test_a_bundle_that_does_not_fit_says_so(qwen, orin, total, available, status):
    meminfo = f"MemTotal: {total} kB\nMemAvailable: {available} kB\n"
    finding = by_subject(orin(files={"proc/meminfo": meminfo}), str(qwen[1]))["fits"]
    assert finding.status == status and "int4" in finding.text


def test_packed_weights_of_this_machine_are_told_from_others(orin, qwen, tmp_path):
    path = shutil.copytree(qwen[1], tmp_path / "bundle")
    here = this_host()
    assert here
    cpu = {"proc/cpuinfo": Path("/proc/cpuinfo").read_text()}
    same = orin(files=cpu, versions={"onnxruntime": here.onnxruntime, "onnxruntime-gpu": None})
    assert "none: `ltbm pack" in by_subject(same, str(path))["packed weights"].text
    packed = pack_bundle(Bundle.open(path), threads=1, progress=lambda line: None)
    findings = by_subject(same, str(path))
    assert findings["packed weights"].status == "ok" and "mapped here" in findings["packed weights"].text
    assert "packed and mapped" in findings["fits"].text
    for one in packed.values():
        weights = one.path / "packed.weights"
        weights.write_bytes(b"?" * weights.stat().st_size)
    assert "packed.weights was changed" in by_subject(same, str(path))["packed weights"].text
    finding = by_subject(orin(), str(path))["packed weights"]
    assert finding.status == "warning" and "here it is 1.24.0" in finding.text and "ltbm pack" in finding.text
