"""A session on TensorRT-RTX over the fake device: the answers of ONNX Runtime, engines built elsewhere."""

import pytest

from ltbm.runtime.backends.engine_store import find_engines, this_target
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.session import Session

PROMPT = "What do you hear?"
OTHER = "And how often is it heard?"
LEVELS = ("full", "keep75", "keep50", "keep33", "keep25", "keep12", "keep6")


@pytest.fixture
def built(device, bundle_of):
    """family -> a bundle with engines for three capabilities, among them this GPU's, 8.7."""
    device.tensorrt_rtx()

    def build(family="qwen2_audio", **options):
        path = bundle_of(family)
        device.build(path, backend="tensorrt-rtx", **options)
        return path

    return build


@pytest.mark.parametrize("family", ["qwen2_audio", "audioflamingo3"])
def test_answers_are_those_of_onnxruntime(device, built, make_clip, family):
    """Every level, with reuse, audio of more than a segment."""
    path = built(family)
    assert device.trt.built == ["encoder.onnx", "merge.projector.onnx", "decoder.trt24.onnx"]
    clips = [make_clip(5), make_clip(35 if family == "audioflamingo3" else 3, seed=1)]
    with Session.open(path) as expected, Session.open(path, backend="tensorrt-rtx") as session:
        for level in LEVELS:
            for prompt in (PROMPT, OTHER):
                wanted = expected.generate(clips, prompt, level, max_new_tokens=6)
                got = session.generate(clips, prompt, level, max_new_tokens=6)
                assert got.token_ids == wanted.token_ids
                assert got.prompt_token_ids == wanted.prompt_token_ids
                assert got.reused_tokens >= wanted.reused_tokens  # a fixed cache is never replaced
        assert got.reused_tokens > 0


def test_kernels_are_compiled_once_for_a_gpu(device, built, make_clip):
    path = built()
    for compiled in (True, False):
        with Session.open(path, backend="tensorrt-rtx") as session:
            session.generate(make_clip(2), PROMPT, max_new_tokens=1)
        assert device.trt.compiled == [compiled] * 2
        device.trt.compiled.clear()
    device.gpu("Another GPU")
    Session.open(path, backend="tensorrt-rtx").close()
    assert device.trt.compiled == [True] * 2
    names = sorted(file.name for file in (path / "engines").glob("*/*.kernels"))
    assert names == [
        "decoder.another-gpu-cuda-12.6.kernels",
        "decoder.fake-orin-cuda-12.6.kernels",
        "encoder.another-gpu-cuda-12.6.kernels",
        "encoder.fake-orin-cuda-12.6.kernels",
    ]


def test_engines_for_other_gpus_are_named(device, built):
    path = built(capabilities=["sm120"])
    with pytest.raises(
        FileNotFoundError,
        match="no TensorRT-RTX engines .* --backend tensorrt-rtx --refresh.*"
        "built for compute capability 12.0, here it is 8.7",
    ):
        Session.open(path, backend="tensorrt-rtx")


def test_both_kinds_of_engines_in_one_bundle(device, built, bundle_of):
    path = built()
    device.tensorrt("10.16.1")
    device.build(path)
    bundle = Bundle.open(path)
    for backend in ("tensorrt", "tensorrt-rtx"):
        assert find_engines(bundle, this_target(backend)).key.target.backend == backend
    with pytest.raises(ValueError, match="--gpu is for --backend tensorrt-rtx"):
        device.build(path, capabilities=["sm87"])


def test_the_cache_has_the_capacity_that_was_built(device, built, make_clip):
    path = built(max_context=256)
    with Session.open(path, backend="tensorrt-rtx") as session:
        answer = session.generate(make_clip(2), PROMPT, "keep25", max_new_tokens=2)
        assert answer.kv_allocated_bytes == session.manifest.decoder.kv_bytes(256, 4) > answer.kv_bytes
        with pytest.raises(ValueError, match="the engine holds 256: take a lower level"):
            session.generate(make_clip(20), PROMPT, "full", max_new_tokens=2)
        assert (
            session.generate(make_clip(2), PROMPT, "keep25", max_new_tokens=2).token_ids == answer.token_ids
        )
