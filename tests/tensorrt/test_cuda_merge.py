"""The merge on a GPU where TensorRT has no plugins: the emulated op on the fake stream, then projector."""

import json

import numpy as np
import pytest

from ltbm.runtime.backends.engines import open_engines
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.session import Session

pytestmark = pytest.mark.compiler

PROMPT = "What do you hear?"
OTHER = "And how often is it heard?"
LEVELS = ("full", "keep75", "keep50", "keep33", "keep25", "keep12", "keep6")


@pytest.fixture
def built(device, bundle_of):
    device.tensorrt_rtx()

    def build(family="qwen2_audio", precision="float32"):
        path = bundle_of(family, precision)
        device.build(path, backend="tensorrt-rtx")
        return path

    return build


@pytest.mark.parametrize("family", ["qwen2_audio", "audioflamingo3"])
def test_answers_are_those_of_onnxruntime(device, cuda_op, built, make_clip, family):
    """Every level, several requests with reuse, audio of more than a segment."""
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
        assert got.reused_tokens > 0
    segments = 3 if family == "audioflamingo3" else 2
    assert len(device.driver.named("op")) == segments * len(LEVELS)


def test_float16(cuda_op, built, make_clip):
    path = built(precision="float16")
    with Session.open(path) as expected, Session.open(path, backend="tensorrt-rtx") as session:
        wanted = expected.generate(make_clip(3), PROMPT, "keep25", max_new_tokens=6)
        assert (
            session.generate(make_clip(3), PROMPT, "keep25", max_new_tokens=6).token_ids == wanted.token_ids
        )


def test_only_logits_come_to_the_host(device, cuda_op, built, make_clip):
    path = built()
    with Session.open(path, backend="tensorrt-rtx") as session:
        answer = session.generate(make_clip(5), PROMPT, "keep25", max_new_tokens=5)
        logits = 4 * session.manifest.decoder.vocab_size
    copies = device.driver.named("copy")
    to_host = [copy["bytes"] for copy in copies if copy["kind"] == "DeviceToHost"]
    assert to_host == [logits] * len(answer.token_ids)


def test_without_the_op_the_merge_runs_on_the_cpu_and_says_so(device, built, make_clip):
    path = built()
    with pytest.warns(RuntimeWarning, match="merge runs on the CPU.*no libltbm_cuda.so.*LTBM_CUDA=ON"):
        session = Session.open(path, backend="tensorrt-rtx")
    with session:
        assert session.generate(make_clip(3), PROMPT, max_new_tokens=2).token_ids
    assert not device.driver.named("op")


def test_a_bundle_of_an_older_export_is_refused_with_what_to_do(device, built):
    path = built()
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["files"]["merge.projector.onnx"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FileNotFoundError, match="has no merge.projector.onnx, .* run `ltbm export` again"):
        Session.open(path, backend="tensorrt-rtx")
    with pytest.raises(FileNotFoundError, match="has no merge.projector.onnx, .* run `ltbm export` again"):
        device.build(path, backend="tensorrt-rtx")


def test_a_library_that_is_named_and_not_there(monkeypatch, built, tmp_path):
    path = built()
    monkeypatch.setenv("LTBM_CUDA_OP", str(tmp_path / "lost.so"))
    with pytest.raises(FileNotFoundError, match="LTBM_CUDA_OP names .*lost.so, which is no file"):
        Session.open(path, backend="tensorrt-rtx")


def test_a_library_that_does_not_load(monkeypatch, built, tmp_path):
    path = built()
    (tmp_path / "broken.so").write_bytes(b"not a library")
    monkeypatch.setenv("LTBM_CUDA_OP", str(tmp_path / "broken.so"))
    with pytest.raises(OSError, match="the CUDA op .*broken.so does not load: .*LTBM_CUDA=ON"):
        Session.open(path, backend="tensorrt-rtx")


# --- the engine alone ---


@pytest.fixture
def engines(cuda_op, built):
    """(the merge on ONNX Runtime, the merge as op and projector)."""
    bundle = Bundle.open(built("audioflamingo3"))
    plain = open_engines(bundle, threads=1)
    on_gpu = open_engines(bundle, backend="tensorrt-rtx")
    yield plain.get("merge"), on_gpu.get("merge")
    plain.close()
    on_gpu.close()


def inputs_of(engine, original: int = 1, **changes) -> dict:
    """Two rows, of 40 and 33 tokens, merged to 10 and 9."""
    width = engine.inputs["audio_embeds"].width
    tokens = np.random.default_rng(3).standard_normal((2, 40, width)).astype(np.float32)
    inputs = {
        "audio_embeds": np.cumsum(tokens, axis=1),
        "lengths": np.array([40, 33], np.int32),
        "targets": np.array([10, 9], np.int32),
        "keep": np.array([12], np.int64),
        "window": np.array([8], np.int32),
        "first_position": np.array([5, 45], np.int64),
        "original_positions": np.array([original], np.int32),
        "bias_strength": np.array([1.5 * original], np.float32),
    }
    return inputs | changes


@pytest.mark.parametrize("original", [0, 1])
def test_it_takes_and_gives_what_the_graph_does(engines, original):
    graph, in_parts = engines
    assert in_parts.inputs.keys() == graph.inputs.keys() and in_parts.outputs.keys() == graph.outputs.keys()
    inputs = inputs_of(graph, original)
    wanted = graph.run(inputs)
    got = in_parts.run(inputs)
    for name in ("sizes", "anchors", "source_map", "position_ids"):
        np.testing.assert_array_equal(got[name], wanted[name], err_msg=name)
    for name in ("merged_embeds", "key_bias"):
        np.testing.assert_allclose(got[name], wanted[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"lengths": np.array([41, 33], np.int32)}, r"lengths\[0\] is 41, expected 0..40"),
        ({"targets": np.array([10, 34], np.int32)}, r"targets\[1\] is 34 for a row of 33 tokens"),
        ({"keep": np.array([9], np.int64)}, "keep is 9 slots, expected at least 10"),
        ({"window": np.array([-2], np.int32)}, "window is -2"),
        ({"lengths": np.array([40], np.int32)}, "2 rows, got 1 lengths"),
    ],
)
def test_what_a_kernel_cannot_refuse_is_refused_before(engines, changes, words):
    with pytest.raises(ValueError, match=words):
        engines[1].run(inputs_of(engines[1], **changes))


def test_outputs_on_the_host_are_refused(engines):
    _, in_parts = engines
    outputs = {}
    for name, spec in in_parts.outputs.items():
        count = 40 if name == "source_map" else 12
        outputs[name] = np.zeros((2, count, *spec.shape[2:]), spec.dtype)
    with pytest.raises(ValueError, match="is an output on the host"):
        in_parts.bind(inputs_of(in_parts) | outputs)
