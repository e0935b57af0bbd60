"""Which engines are loaded: those of this bundle, GPU, TensorRT and plugin, whole;
anything else is named and left."""

import json
import shutil

import pytest

from ltbm.runtime.backends import engine_store
from ltbm.runtime.backends.shape_ranges import optimisation_profiles
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.session import Session


@pytest.fixture
def built(device, bundle_of):
    path = bundle_of()
    device.build(path)
    return path


def refused(path) -> str:
    with pytest.raises(FileNotFoundError, match="ltbm build .* --refresh") as caught:
        Session.open(path, backend="tensorrt")
    return str(caught.value)


def test_none_at_all(device, bundle_of):
    with pytest.raises(FileNotFoundError, match="no TensorRT engines of .* run `ltbm build"):
        Session.open(bundle_of(), backend="tensorrt")


def test_another_tensorrt(device, built):
    device.tensorrt("10.16.2")
    assert "built for tensorrt 10.16.1, here it is 10.16.2" in refused(built)


def test_another_gpu(device, built):
    device.gpu("Fake Thor")
    assert "built for gpu Fake Orin, here it is Fake Thor" in refused(built)


def test_another_plugin(device, built, tmp_path, monkeypatch):
    import _ctypes

    other = tmp_path / "libother.so"
    shutil.copy(_ctypes.__file__, other)
    other.write_bytes(other.read_bytes() + b"changed")
    monkeypatch.setenv("LTBM_TENSORRT_PLUGIN", str(other))
    assert "built for plugin" in refused(built)


@pytest.mark.parametrize("name, stage", [("decoder.weights", "decoder"), ("merge.trt.onnx", "merge")])
def test_another_bundle(device, built, name, stage):
    manifest = json.loads((built / "manifest.json").read_text())
    manifest["files"][name]["sha256"] = "0" * 64
    (built / "manifest.json").write_text(json.dumps(manifest))
    assert f"built for the {stage} graph" in refused(built)


def test_half_and_cut_engines(device, built):
    (folder,) = engine_store.stored(Bundle.open(built))
    folder.file("decoder").write_bytes(b"half")
    assert "decoder.engine is missing or has another size" in refused(built)
    folder.file("decoder").unlink()
    assert "decoder.engine is missing" in refused(built)
    shutil.rmtree(folder.path)
    device.build(built, stages=("encoder",))
    assert "no merge engine, no decoder engine" in refused(built)


def test_the_newest_of_several_limits_is_taken(device, built, make_clip):
    """Limits are part of the key, and a session takes what was built last."""
    device.build(built, max_context=256)
    assert len(list(engine_store.stored(Bundle.open(built)))) == 2
    with Session.open(built, backend="tensorrt") as session:
        with pytest.raises(ValueError, match="--max-context"):
            session.generate(make_clip(3), "What?", max_new_tokens=300)


def test_refresh_deletes_what_this_gpu_cannot_load_and_nothing_of_others(device, built):
    device.gpu("Fake Thor")
    device.build(built)
    device.tensorrt("10.16.2")
    folder, said = device.build(built, refresh=True)
    left = {one.key.target.gpu: one.key.target.tensorrt for one in engine_store.stored(Bundle.open(built))}
    assert left == {"Fake Thor": "10.16.2", "Fake Orin": "10.16.1"}
    assert any(line.startswith("removed the stale engines") for line in said)
    assert any("built for tensorrt 10.16.1, here it is 10.16.2" in line for line in said)


def test_a_build_that_is_killed_leaves_the_former_engine(device, built, monkeypatch):
    (folder,) = engine_store.stored(Bundle.open(built))
    folder.file("encoder").write_bytes(b"the former engine")
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        device.build(built, refresh=True)
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2}', '{"format": 2, "key": {}}', '{"format": 2, "key": 3}']
)
def test_a_record_that_nobody_understands_is_no_engine(device, built, text):
    (folder,) = engine_store.stored(Bundle.open(built))
    (folder.path / "engines.json").write_text(text)
    assert list(engine_store.stored(Bundle.open(built))) == []


def test_engines_of_a_former_format_are_named(device, built):
    (folder,) = engine_store.stored(Bundle.open(built))
    record = folder.path / "engines.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"format": 1}))
    assert f"{folder.path.name}: engines.json has format 1, this ltbm reads 2" in refused(built)
    device.build(built)
    assert [one.key for one in engine_store.stored(Bundle.open(built))] == [folder.key]


def test_a_record_gives_back_what_was_stored(device, built):
    manifest = Bundle.open(built).manifest
    (folder,) = engine_store.stored(Bundle.open(built))
    for stage in folder.key.target.stages:
        profiles = optimisation_profiles(manifest, stage, folder.key.flavour, folder.key.limits)
        assert folder.stages[stage].profiles == profiles


def test_every_part_of_the_key_changes_the_folder(device, built):
    from dataclasses import replace

    (folder,) = engine_store.stored(Bundle.open(built))
    key = folder.key
    others = [
        replace(key, target=replace(key.target, **{name: "x"}))
        for name in ("tensorrt", "compute_capability", "gpu", "plugin")
    ]
    others += [
        replace(key, precision="x"),
        replace(key, flavour="x"),
        replace(key, graphs=key.graphs | {"merge": "x"}),
        replace(key, limits=replace(key.limits, max_context=64)),
        replace(key, limits=replace(key.limits, max_audio_segments=9)),
    ]
    assert len({one.digest for one in [key, *others]}) == len(others) + 1
    assert folder.path.name == key.digest
