"""`ltbm build` over the fake TensorRT: what is built, what is said, and what is refused."""

import json
import sys

import pytest

from ltbm.runtime.backends.shape_ranges import Limits, optimisation_profiles
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.cli import main

GIB = 2**30


def test_three_engines_and_their_record(device, bundle_of):
    path = bundle_of()
    folder, said = device.build(path, max_context=500)
    assert device.trt.built == ["encoder.onnx", "merge.trt.onnx", "decoder.trt24.onnx"]
    record = json.loads((folder.path / "engines.json").read_text())
    assert folder.path.parent == path / "engines" and record["key"]["limits"] == {
        "max_audio_segments": 1,
        "max_context": 512,
    }
    assert (
        record["key"]["target"]["tensorrt"] == "10.16.1"
        and record["key"]["target"]["compute_capability"] == "8.7"
    )
    assert [profile["name"] for profile in record["stages"]["decoder"]["profiles"]] == ["prefill", "decode"]
    assert record["stages"]["merge"]["profiles"][0]["values"]["keep"] == [[1], [375], [750]]
    assert sorted(file.name for file in folder.path.iterdir()) == [
        "decoder.engine",
        "encoder.engine",
        "engines.json",
        "merge.engine",
    ]
    from ltbm.runtime.backends.trt_library import load_library

    assert load_library().logger.report is None and load_library() is load_library()
    assert any("encoder: Build, 20 steps" in line for line in said) and any(
        "Build 10 of 20" in line for line in said
    )


def test_the_older_tensorrt_gets_the_growing_cache(device, bundle_of):
    device.tensorrt("10.3.0")
    folder, _ = device.build(bundle_of())
    assert device.trt.built[-1] == "decoder.concat20.onnx" and folder.key.flavour == "concat20"


def test_what_is_there_is_not_built_again_unless_refreshed(device, bundle_of):
    path = bundle_of()
    first, _ = device.build(path, stages=("encoder",))
    _, said = device.build(path)
    assert (
        device.trt.built == ["encoder.onnx", "merge.trt.onnx", "decoder.trt24.onnx"]
        and "encoder: is there" in said[0]
    )
    first.file("merge").write_bytes(b"cut")
    device.build(path)
    assert device.trt.built[3:] == ["merge.trt.onnx"]
    device.build(path, refresh=True)
    assert len(device.trt.built) == 7


def test_the_timing_cache_is_kept_and_a_foreign_one_replaced(device, bundle_of):
    path = bundle_of()
    device.build(path, stages=("merge",))
    (cache,) = (path / "engines").glob("timing-10.16.1-8.7.cache")
    assert cache.read_bytes() == b"timings"
    cache.write_bytes(b"foreign")
    _, said = device.build(path, stages=("encoder",))
    assert (
        any("timing cache" in line and "not taken" in line for line in said)
        and cache.read_bytes() == b"timings"
    )


def test_a_parser_error_names_the_node_and_what_to_do(device, bundle_of, monkeypatch):
    path = bundle_of()
    device.trt.fail.add("parse")
    with pytest.raises(
        ValueError,
        match=r"encoder.onnx: node Attention_7 \(Attention\): No importer.*decoder.concat20 before 10.15",
    ):
        device.build(path)
    device.trt.fail.clear()
    from ltbm.plugins import library

    monkeypatch.setattr(library, "load_tensorrt_plugin", lambda registry: None)
    with pytest.raises(
        ValueError,
        match=r"merge.trt.onnx: node LTBM_0 \(LTBM\): Plugin not found.*cmake.define.TENSORRT_INCLUDE_DIR",
    ):
        device.build(path)


@pytest.mark.parametrize(
    "call, text",
    [
        ("build_serialized_network", "built no encoder engine; TensorRT says: out of memory"),
        ("add_optimization_profile", "refused the optimisation profile encoder"),
    ],
)
def test_a_refusing_builder_is_an_error_and_leaves_nothing(device, bundle_of, call, text):
    path = bundle_of()
    device.trt.fail.add(call)
    with pytest.raises(RuntimeError, match=text):
        device.build(path)
    assert not list((path / "engines").rglob("*.engine")) and not list(
        (path / "engines").rglob("engines.json")
    )


def test_without_a_plugin_the_merge_is_refused_with_how_to_build_it(device, bundle_of, monkeypatch):
    monkeypatch.delenv("LTBM_TENSORRT_PLUGIN")
    from ltbm.plugins import library

    monkeypatch.setattr(library, "installed", lambda name: None)
    with pytest.raises(FileNotFoundError, match="no TensorRT plugin is installed.*cmake"):
        device.build(bundle_of())


@pytest.mark.parametrize(
    "integrated, available, free_device, refused",
    [
        (True, 9, 0, False),
        (True, 4, 9, "5.6 GiB of memory, 4.0 GiB are free"),
        (False, 9, 1, "2.0 GiB of GPU memory, 1.0 GiB"),
        (False, 2, 9, "3.6 GiB of host memory, 2.0 GiB"),
        (False, 4, 3, False),
    ],
)
def test_what_will_not_fit_is_refused_before(
    device, bundle_of, monkeypatch, integrated, available, free_device, refused
):
    from ltbm.runtime import machine
    from ltbm.runtime.bundle import FileRecord

    device.gpu("Fake", integrated)
    monkeypatch.setattr(machine, "find_memory", lambda _: machine.Memory(64 * GIB, available * GIB, 0, 0))
    bundle = Bundle.open(bundle_of())
    bundle.manifest.files["decoder.weights"] = FileRecord("", GIB)
    device.driver.capacity = free_device * GIB
    from ltbm.export.engine import check_memory

    if refused:
        with pytest.raises(MemoryError, match=refused + ".*swap.*--stages"):
            check_memory(bundle, "decoder", workspace_gib=1)
    else:
        check_memory(bundle, "decoder", workspace_gib=1)


def test_a_build_asks_for_memory_first(device, bundle_of):
    path = bundle_of()
    device.gpu("Fake", integrated=False)
    device.driver.capacity = 0
    with pytest.raises(MemoryError, match="the build of encoder takes about"):
        device.build(path)
    assert device.trt.built == []


def test_quantised_weights_that_tensorrt_cannot_take_are_refused(device, bundle_of):
    from dataclasses import replace

    from ltbm.export.engine import build_engines

    bundle = Bundle.open(bundle_of())
    manifest = replace(
        bundle.manifest, precision=replace(bundle.manifest.precision, weights="int4", block_size=32)
    )
    with pytest.raises(ValueError, match="--target tensorrt, or with float16"):
        build_engines(replace(bundle, manifest=manifest))
    manifest = replace(manifest, precision=replace(manifest.precision, signed=True))
    assert build_engines(replace(bundle, manifest=manifest), progress=lambda line: None).key.precision == str(
        manifest.precision
    )


def test_an_int8_encoder_is_refused(device, bundle_of):
    from dataclasses import replace

    from ltbm.export.engine import build_engines

    bundle = Bundle.open(bundle_of())
    precision = replace(bundle.manifest.precision, encoder="int8")
    with pytest.raises(ValueError, match="for CPUs; export with --encoder-precision float16"):
        build_engines(replace(bundle, manifest=replace(bundle.manifest, precision=precision)))


def test_limits_are_checked_and_rounded(bundle_of):
    manifest = Bundle.open(bundle_of("audioflamingo3")).manifest
    assert Limits.of(manifest) == Limits(4, 4032)  # 4 windows of 750 and 1024, in buckets of 64
    assert Limits.of(manifest, 1) == Limits(1, 1792) and Limits.of(manifest, 1, 65).max_context == 128
    assert Limits.of(manifest, 20).max_context == manifest.decoder.max_positions
    for windows, context in ((0, None), (21, None), (1, 0), (1, 4097)):
        with pytest.raises(ValueError, match="is not in 1 to"):
            Limits.of(manifest, windows, context)


@pytest.mark.parametrize("flavour", ["trt24", "concat20"])
@pytest.mark.parametrize("context", [64, 128, 512, 4032])
def test_profiles_are_in_order(bundle_of, flavour, context):
    manifest = Bundle.open(bundle_of("audioflamingo3")).manifest
    for stage in ("encoder", "merge", "decoder"):
        for profile in optimisation_profiles(manifest, stage, flavour, Limits(2, context)):
            for least, usual, most in [*profile.shapes.values(), *profile.values.values()]:
                assert len(least) == len(usual) == len(most) and all(
                    low <= n <= high for low, n, high in zip(least, usual, most)
                )


def test_the_command_prints_what_was_built(device, bundle_of, capsys):
    path = bundle_of()
    former = ["--max-audio-windows", "1"]
    assert main(["build", str(path), "--stages", "encoder,merge", "--json", *former]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed["stages"]) == ["encoder", "merge"] and printed["key"]["flavour"] == "trt24"
    assert main(["build", str(path)]) == 0
    out, err = capsys.readouterr()
    assert (
        out.splitlines()[0].startswith("engines  ")
        and out.count("MiB") == 3
        and "decoder: building for TensorRT" in err
    )
    assert (
        main(["build", str(path), "--stages", "brain"]) == 1
        and "give some of encoder, merge, decoder" in capsys.readouterr().err
    )
    assert main(["build", str(path), "--workspace", "0"]) == 2


def test_without_tensorrt_every_entry_says_what_to_install(bundle_of, capsys, monkeypatch):
    from ltbm.runtime import machine
    from ltbm.runtime.session import Session

    path = bundle_of()
    backends = "ltbm.runtime.backends"
    modules = (f"{backends}.trt", f"{backends}.trt_library", f"{backends}.cuda", "ltbm.export.engine")
    for name in ("tensorrt", *modules):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    orin = machine.Jetson("Orin", (36, 4))
    for jetson, wanted in (
        (None, r"pip install 'ltbm\[tensorrt\]'"),
        (orin, "JetPack.*python3-libnvinfer.*--system-site-packages"),
    ):
        monkeypatch.setattr(machine, "find_jetson", lambda _: jetson)  # noqa: B023
        with pytest.raises(ImportError, match=wanted):
            Session.open(path, backend="tensorrt")
        assert main(["build", str(path)]) == 1
        said = capsys.readouterr().err
        assert "TensorRT" in said and said.count("\n") == 1
