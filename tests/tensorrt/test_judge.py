"""Every graph that a bundle gives to TensorRT, built by the real TensorRT-RTX, which needs no GPU for it."""

import json
import shutil
from dataclasses import replace

import pytest

from ltbm.export import tensorrt_builder
from ltbm.export.tensorrt_builder import BuildJob, build_plan
from ltbm.runtime.backends.engine_store import graph_file
from ltbm.runtime.backends.shape_ranges import Limits, optimisation_profiles
from ltbm.runtime.backends.trt_library import TENSORRT_RTX, load_library
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.cli import main

pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX: pip install 'ltbm[rtx]' (Linux x86-64, aarch64)")

CAPABILITY = "SM89"  # one: each is compiled for
CONTEXT = 512  # tokens
PRECISIONS = ("float32", "float16", "bfloat16", "int4")
FURTHER = ("musicflamingo", "voxtral", "qwen2_5_omni", "qwen3_asr")  # beside the families that all tests take
FURTHER_GRAPHS = (
    ("encoder", "float32"),
    ("encoder", "float16"),
    ("encoder", "bfloat16"),
    ("projector", "float16"),
    ("projector", "bfloat16"),
    ("decoder", "float16"),
    ("decoder", "bfloat16"),
    ("decoder", "int4"),
)
"""An int4 bundle's encoder and projector are those of float16."""
GROUPED, MULTI_HEAD = 2, 4  # KV heads of the tiny models, which have 4 heads
EXPLAINED = ("has Int64 binding",)
"""Parts of warnings that are understood: positions are int64 for every runtime."""


@pytest.fixture
def build():
    """(bundle, stage, flavour) -> the plan's bytes; what TensorRT warns of is an error here."""
    library = load_library(TENSORRT_RTX)

    def build_stage(path, stage, flavour, **changes):
        bundle = Bundle.open(path)
        limits = Limits.of(bundle.manifest, max_context=CONTEXT)
        warnings = []
        library.logger.report = warnings.append
        job = dict(
            stage=stage,
            graph=bundle.file(graph_file(stage, flavour)),
            profiles=optimisation_profiles(bundle.manifest, stage, flavour, limits),
            capacity=CONTEXT if flavour == "trt24" and stage == "decoder" else None,
            capabilities=[CAPABILITY],
        )
        try:
            plan = build_plan(library, BuildJob(**(job | changes)), lambda line: None)
        finally:
            library.logger.report = None
        unexplained = [line for line in warnings if not any(part in line for part in EXPLAINED)]
        assert unexplained == []
        return plan.nbytes

    return build_stage


def bundle_of(make_bundle, family, precision, kv_heads=GROUPED):
    export = {"target": "tensorrt"} if precision == "int4" else None
    return make_bundle(family, precision, export, num_key_value_heads=kv_heads)[1]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_encoders(build, make_bundle, precision):
    """Audio Flamingo 3's are the same graphs, as its decoders are (tests/export/test_families.py)."""
    assert build(bundle_of(make_bundle, "qwen2_audio", precision), "encoder", "trt24") > 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_projectors(build, make_bundle, family, precision):
    assert build(bundle_of(make_bundle, family, precision), "projector", "trt24") > 0


@pytest.mark.parametrize("stage,precision", FURTHER_GRAPHS)
@pytest.mark.parametrize("further", FURTHER)
def test_further_families(build, make_bundle, further, stage, precision):
    """Rotary time; whole segments stacked and a Llama; blocks; convolutions over time and mel, keys with a
    bias, a projector of the tower's width and a Qwen3 with norms of queries and keys."""
    assert build(bundle_of(make_bundle, further, precision), stage, "trt24") > 0


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kv_heads", (GROUPED, MULTI_HEAD))
def test_decoders_of_fixed_capacity(build, make_bundle, precision, kv_heads):
    assert build(bundle_of(make_bundle, "qwen2_audio", precision, kv_heads), "decoder", "trt24") > 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_decoders_of_growing_cache(build, make_bundle, precision):
    """TensorRT before 10.15 takes them; this one must, too."""
    assert build(bundle_of(make_bundle, "audioflamingo3", precision), "decoder", "concat20") > 0


@pytest.mark.parametrize("flavour", ("trt24", "concat20"))
def test_an_int4_head(build, make_bundle, flavour):
    export = {"target": "tensorrt", "lm_head_precision": "int4"}
    assert build(make_bundle("qwen2_audio", "int4", export)[1], "decoder", flavour) > 0


# --- the judge finds what it is there for ---


def test_a_capacity_that_varies_is_refused(build, qwen):
    with pytest.raises(ValueError, match="KV cache tensor must have a static sequence length"):
        build(qwen[1], "decoder", "trt24", capacity=None)


def test_attention_reads_the_tokens_that_are_there(build, qwen, monkeypatch):
    """Keys and values as TensorRT's own network has them: a length that varies, not the capacity."""
    lengths = []

    def look(trt, network):
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            if layer.type == trt.LayerType.ATTENTION_INPUT:
                lengths.extend([layer.get_input(1).shape[2], layer.get_input(2).shape[2]])
        raise InterruptedError("seen")

    monkeypatch.setattr(tensorrt_builder, "allow_decomposed_attention", look)
    with pytest.raises(InterruptedError, match="seen"):
        build(qwen[1], "decoder", "trt24")
    assert lengths == [-1] * 4


def test_float32_needs_attention_that_is_taken_apart(build, qwen, monkeypatch):
    monkeypatch.setattr(tensorrt_builder, "allow_decomposed_attention", lambda trt, network: None)
    with pytest.raises(RuntimeError, match="Attention operation was not supported by a dedicated kernel"):
        build(qwen[1], "decoder", "trt24")


def test_profiles_that_disagree_are_found(build, qwen):
    bundle = Bundle.open(qwen[1])
    limits = Limits.of(bundle.manifest, max_context=CONTEXT)
    prefill, decode = optimisation_profiles(bundle.manifest, "decoder", "concat20", limits)
    shapes = dict(prefill.shapes)
    for name, (least, usual, most) in prefill.shapes.items():
        if name.startswith("past."):
            shapes[name] = (least, usual, (*most[:2], CONTEXT - 1, most[3]))
    with pytest.raises(AssertionError, match="not self-consistent"):
        build(qwen[1], "decoder", "concat20", profiles=[replace(prefill, shapes=shapes), decode])


@pytest.mark.parametrize("name", ("merge.trt.onnx", "merge.onnx"))
def test_the_merge_never_reaches_a_parser_without_plugins(build, qwen, name):
    """It would end the process."""
    with pytest.raises(ValueError, match="TensorRT-RTX has no plugins: there the merge runs outside"):
        build(qwen[1], "merge", "trt24", graph=qwen[1] / name)


# --- the command ---


@pytest.mark.slow
@pytest.mark.parametrize("family,precision", [("qwen2_audio", "float16"), ("audioflamingo3", "int4")])
def test_engines_are_built_without_a_gpu(make_bundle, tmp_path, capsys, family, precision):
    path = tmp_path / "bundle"
    shutil.copytree(bundle_of(make_bundle, family, precision), path)
    arguments = ["build", str(path), "--backend", "tensorrt-rtx", "--gpu", "sm89,sm120", "--level", "keep25"]
    assert main([*arguments, "--json"]) == 0
    out, said = capsys.readouterr()
    key = json.loads(out)["key"]
    assert key["target"]["compute_capability"] == "8.9, 12.0" and set(key["graphs"]) == {
        "encoder",
        "projector",
        "decoder",
    }
    segments = 1 if family == "qwen2_audio" else 4
    assert key["limits"]["max_context"] == -(-(segments * 188 + 1024) // 64) * 64
    assert "MiB, whatever a request takes" in said
    assert main(["inspect", str(path), "--json"]) == 0
    (engines,) = json.loads(capsys.readouterr().out)["engines"].values()
    assert engines["backend"] == "tensorrt-rtx" and engines["compute_capability"] == "8.9, 12.0"
    assert engines["stages"] == ["encoder", "projector", "decoder"]


@pytest.mark.parametrize(
    "flags,words",
    [
        (["--gpu", "sm42"], "does not know sm42; it builds for sm75, sm80"),
        (["--stages", "merge"], "builds no merge engine (it has no plugins"),
        (["--max-context", "99999999"], "max context 99999999 is not in"),
        (["--max-context", "0"], "--max-context: 0 is not a whole number from 1 to"),
        (["--max-audio-segments", "0"], "--max-audio-segments: 0 is not a whole number from 1 to"),
        (["--stages", "projection"], "stages projection: give some of encoder, projector, decoder"),
        (["--level", "loud"], "unknown level"),
    ],
)
def test_the_command_refuses(qwen, capsys, flags, words):
    assert main(["build", str(qwen[1]), "--backend", "tensorrt-rtx", *flags]) in (1, 2)
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_a_bundle_of_another_target_is_refused(make_bundle, capsys):
    path = make_bundle("qwen2_audio", "int4")[1]
    assert main(["build", str(path), "--backend", "tensorrt-rtx"]) == 1
    assert "export with --target tensorrt" in capsys.readouterr().err
