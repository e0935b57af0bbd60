"""Engines of TensorRT-RTX over its fake: built without a GPU, and what a load compiles and keeps."""

import importlib
import json
import re
import warnings

import pytest

from ltbm.runtime.backends.engine_store import Target, stored
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.cli import main
from ltbm.runtime.session import Session

VERSION = "1.7.1.116"
KNOWN = "NONE CURRENT SM75 SM86 SM89 SM120"
PROMPT = "What do you hear?"


@pytest.fixture
def rtx(device, monkeypatch):
    """A machine with TensorRT-RTX alone and a GeForce RTX 4090."""
    device.tensorrt_rtx(VERSION, KNOWN)
    device.gpu("Fake RTX 4090", integrated=False, capability=(8, 9))
    monkeypatch.setattr("ltbm.runtime.machine.driver_version", lambda _: "580.95.05")
    return device


def build(rtx, path, *capabilities: str, **options):
    return rtx.build(path, backend="tensorrt-rtx", capabilities=capabilities or None, **options)


@pytest.fixture
def built(rtx, bundle_of):
    path = bundle_of()
    build(rtx, path, "sm86", "sm89")
    return path


def kernel_files(bundle) -> list[str]:
    return sorted(path.name for path in (bundle / "engines").rglob("*.kernels"))


# --- building ---


def test_a_build_needs_no_gpu_and_keeps_no_timings(rtx, bundle_of):
    path = bundle_of()
    rtx.gpu(None)
    folder, said = build(rtx, path, "sm120", "sm86", "sm86")
    assert folder.key.target == Target(VERSION, "8.6, 12.0", "", "", "tensorrt-rtx")
    assert json.loads(folder.file("encoder").read_bytes())["capabilities"] == ["SM86", "SM120"]
    assert [file.name for file in folder.path.parent.iterdir()] == [folder.path.name]
    assert said[0] == f"encoder: building for TensorRT-RTX {VERSION} on compute capability 8.6, 12.0"
    assert "the first load on a GPU compiles the engines' kernels" in said[-1]


def test_all_that_the_version_knows_is_the_default(rtx, bundle_of):
    folder, _ = build(rtx, bundle_of())
    assert folder.key.target.compute_capability == "7.5, 8.6, 8.9, 12.0"


def test_a_refused_capability_is_an_error(rtx, bundle_of):
    rtx.trt.fail.add("set_compute_capability")
    with pytest.raises(RuntimeError, match="TensorRT-RTX refused to build for sm75"):
        build(rtx, bundle_of())


def test_without_tensorrt_rtx_it_says_what_to_install(rtx, bundle_of, capsys):
    rtx.without("tensorrt_rtx")
    assert main(["build", str(bundle_of()), "--backend", "tensorrt-rtx"]) == 1
    said = capsys.readouterr().err
    assert "the tensorrt-rtx backend needs TensorRT-RTX" in said and "pip install 'ltbm[rtx]'" in said


def test_memory_is_asked_of_the_host_alone(rtx, bundle_of, monkeypatch):
    from ltbm.runtime import machine

    rtx.driver.capacity = 0  # of the GPU
    build(rtx, bundle_of())
    engine = importlib.import_module("ltbm.export.engine")
    monkeypatch.setattr(engine, "find_memory", lambda _: machine.Memory(2**30, 1000, 0, 0))
    with pytest.raises(MemoryError, match="the build of encoder takes about .* GiB of host memory"):
        build(rtx, bundle_of(), refresh=True)


def test_a_bundle_of_an_older_export_is_refused_with_what_to_do(rtx, bundle_of, capsys):
    path = bundle_of()
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["files"]["decoder.trt24.onnx"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert main(["build", str(path), "--backend", "tensorrt-rtx"]) == 1
    said = capsys.readouterr().err
    assert "has no decoder.trt24.onnx, which its engines need: run `ltbm export` again" in said
    assert said.count("\n") == 1 and rtx.trt.built == []


def test_a_full_disk_is_said_before_the_build(rtx, bundle_of, monkeypatch):
    engine = importlib.import_module("ltbm.export.engine")
    monkeypatch.setattr(engine, "free_disk", lambda path: 1000)
    with pytest.raises(OSError, match="the encoder engine takes about .* MiB, 0 MiB are free under"):
        build(rtx, bundle_of())
    assert rtx.trt.built == []


def full(*_):
    raise OSError(28, "No space left on device")


def killed(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("fault, error", [(full, OSError), (killed, KeyboardInterrupt)])
def test_a_build_that_is_cut_off_leaves_the_former_engines(rtx, built, monkeypatch, fault, error):
    (folder,) = stored(Bundle.open(built))
    folder.file("encoder").write_bytes(b"the former engine")
    before = {file.name: file.read_bytes() for file in folder.path.iterdir()}
    monkeypatch.setattr("os.replace", fault)
    with pytest.raises(error) as caught:
        build(rtx, built, "sm86", "sm89", refresh=True)
    assert {file.name: file.read_bytes() for file in folder.path.iterdir()} == before
    if fault is full:
        assert re.search("encoder.engine was not written .*No space.*build again", str(caught.value))


def test_refresh_deletes_what_was_built_for_the_same_gpus_alone(rtx, bundle_of):
    path = bundle_of()
    build(rtx, path, "sm86")
    build(rtx, path, "sm120")
    rtx.tensorrt_rtx("1.8.0", KNOWN)
    build(rtx, path, "sm86", refresh=True)
    targets = [folder.key.target for folder in stored(Bundle.open(path))]
    left = {target.compute_capability: target.tensorrt for target in targets}
    assert left == {"8.6": "1.8.0", "12.0": VERSION}


def test_refresh_keeps_the_one_stage_that_it_built(rtx, bundle_of):
    path = bundle_of()
    folder, said = build(rtx, path, "sm86", stages=["encoder"], refresh=True)
    assert folder.file("encoder").is_file() and not any("removed" in line for line in said)


# --- which are loaded ---


def test_a_gpu_that_the_version_does_not_know(rtx, built):
    rtx.gpu("Fake H100", integrated=False, capability=(9, 0))
    with pytest.raises(RuntimeError, match="does not know Fake H100 .sm90.*--backend tensorrt"):
        Session.open(built, backend="tensorrt-rtx")


def test_another_version(rtx, built):
    rtx.tensorrt_rtx("1.8.0", KNOWN)
    with pytest.raises(FileNotFoundError, match=f"built for tensorrt {VERSION}, here it is 1.8.0"):
        Session.open(built, backend="tensorrt-rtx")


def test_engines_of_the_other_backend_are_named_as_such(rtx, built):
    rtx.tensorrt("10.16.1")
    with pytest.raises(FileNotFoundError, match="no TensorRT engines .*: built for --backend tensorrt-rtx$"):
        Session.open(built, backend="tensorrt")


# --- kernels ---


def test_kernels_are_kept_before_a_process_may_be_killed(rtx, built):
    session = Session.open(built, backend="tensorrt-rtx")
    names = kernel_files(built)
    assert names == [f"{stage}.fake-rtx-4090-580.95.05.kernels" for stage in ("decoder", "encoder")]
    session.close()


def test_kernels_of_another_version_are_compiled_anew(rtx, built):
    Session.open(built, backend="tensorrt-rtx").close()
    kept = {file: file.read_bytes() for file in (built / "engines").rglob("*.kernels")}
    for file in kept:
        file.write_bytes(b"of another version")
    rtx.trt.compiled.clear()
    Session.open(built, backend="tensorrt-rtx").close()
    assert rtx.trt.compiled == [True] * len(kept)
    assert {file: file.read_bytes() for file in kept} == kept


def test_kernels_that_cannot_be_kept_are_a_warning(rtx, built, make_clip, monkeypatch):
    monkeypatch.setattr("ltbm.runtime.backends.kernel_cache.write_whole", full)
    with pytest.warns(RuntimeWarning, match="compiled kernels are not kept.*No space left"):
        session = Session.open(built, backend="tensorrt-rtx")
    with session, warnings.catch_warnings():
        warnings.simplefilter("error")  # once for each engine is enough
        assert session.generate(make_clip(3), PROMPT, max_new_tokens=3).token_ids
    assert kernel_files(built) == []


def test_everything_is_freed(rtx, built, make_clip):
    with Session.open(built, backend="tensorrt-rtx") as session:
        session.generate(make_clip(3), PROMPT, max_new_tokens=4)
    assert rtx.trt.alive == {"engines": 0, "contexts": 0}


def test_a_runtime_cache_that_is_refused_is_an_error(rtx, built):
    rtx.trt.fail.add("set_runtime_cache")
    with pytest.raises(RuntimeError, match="TensorRT-RTX refused its runtime cache"):
        Session.open(built, backend="tensorrt-rtx")


def test_it_makes_the_graph_of_decode_steps_itself(rtx, built, make_clip):
    """It alone knows when the kernels for their shapes are compiled."""
    with Session.open(built, backend="tensorrt-rtx") as session:
        session.generate(make_clip(3), PROMPT, max_new_tokens=6)
    runs = rtx.driver.named("execute")
    graphs = {(run["stage"].split(".")[0], run["profile"]): run["graphs"] for run in runs}
    assert graphs == {
        ("encoder", 0): "DISABLED",
        ("decoder", 0): "DISABLED",
        ("decoder", 1): "WHOLE_GRAPH_CAPTURE",
    }
    assert not rtx.driver.named("cudaStreamBeginCapture")
