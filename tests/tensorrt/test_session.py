"""A session on TensorRT over the fake device: the answers of ONNX Runtime,
by the way that a GPU would take."""

import gc
import sys

import numpy as np
import pytest

from ltbm.runtime.session import Session
from ltbm.runtime.stages.kv_cache import BUCKET

PROMPT = "What do you hear?"
OTHER = "And how often is it heard?"
VERSIONS = {"trt24": "10.16.1", "concat20": "10.3.0"}
CUDA_CALLS = [
    "cudaStreamCreateWithFlags",
    "cudaHostAlloc",
    "cudaMalloc",
    "cudaMemsetAsync",
    "cudaMemcpyAsync",
    "cudaStreamSynchronize",
    "cudaGraphLaunch",
]
TRT_CALLS = {
    "deserialize_cuda_engine": "does not load",
    "create_execution_context": "no execution context",
    "set_optimization_profile_async": "optimisation profile 0",
    "set_input_shape": "refused the shape of input_features, 1x128x304",
    "set_tensor_address": "refused the address of input_features",
    "execute_async_v3": "refused the run; TensorRT says: an illegal address",
}


@pytest.fixture
def built(device, bundle_of):
    path = bundle_of()
    device.build(path)
    return path


def decoder_runs(device) -> list[dict]:
    return [facts for facts in device.driver.named("execute") if facts["stage"].startswith("decoder")]


@pytest.mark.parametrize("flavour", VERSIONS)
@pytest.mark.parametrize("family", ["qwen2_audio", "audioflamingo3"])
def test_answers_are_those_of_onnxruntime(device, bundle_of, make_clip, family, flavour):
    path = bundle_of(family)
    device.tensorrt(VERSIONS[flavour])
    device.build(path)
    clips = [make_clip(5), make_clip(35 if family == "audioflamingo3" else 3, seed=1)]
    with Session.open(path) as expected, Session.open(path, backend="tensorrt") as session:
        assert session.pipeline.engines.flavour == flavour
        for level in ("full", "keep75", "keep50", "keep33", "keep25", "keep12", "keep6"):
            for prompt in (PROMPT, OTHER):
                wanted = expected.generate(clips, prompt, level, max_new_tokens=6)
                got = session.generate(clips, prompt, level, max_new_tokens=6)
                assert got.token_ids == wanted.token_ids and got.tokens_out == wanted.tokens_out
                assert got.prompt_token_ids == wanted.prompt_token_ids
        assert (got.reused_tokens > 0) == (flavour == "trt24")


def test_float16_without_onnxruntime(device, bundle_of, make_clip, monkeypatch):
    """On JetPack 6 there is no onnxruntime to fall back on."""
    path = bundle_of("qwen2_audio", "float16")
    with Session.open(path) as plain:
        wanted = plain.generate(make_clip(3), PROMPT, max_new_tokens=6)
    device.build(path)
    monkeypatch.setitem(sys.modules, "ltbm.runtime.backends.ort", None)
    with Session.open(path, backend="tensorrt") as session:
        assert session.pipeline.engines.get("decoder").inputs["past.0.key"].dtype == np.float16
        assert session.generate(make_clip(3), PROMPT, max_new_tokens=6).token_ids == wanted.token_ids


def test_nothing_waits_before_the_first_logits(device, built, make_clip):
    """From the encoder to prefill the host only asks: no synchronisation, and no cudaFree, which is one."""
    with Session.open(built, backend="tensorrt") as session:
        session.generate(make_clip(3), PROMPT, "keep50", max_new_tokens=2)
    calls = [event.call for event in device.driver.events]
    runs = [place for place, event in enumerate(device.driver.events) if event.call == "execute"]
    between = calls[runs[0] : runs[2]]  # encoder, merge, prefill
    assert len(runs) >= 3 and not {"cudaStreamSynchronize", "cudaFree"} & set(between)


@pytest.mark.parametrize("flavour", VERSIONS)
def test_only_logits_come_to_the_host(device, bundle_of, make_clip, flavour):
    path = bundle_of()
    device.tensorrt(VERSIONS[flavour])
    device.build(path)
    with Session.open(path, backend="tensorrt") as session:
        answer = session.generate(make_clip(5), PROMPT, "keep25", max_new_tokens=5)
        copies = device.driver.named("copy")
        decoder = session.manifest.decoder
    logits = 4 * decoder.vocab_size
    to_host = [copy["bytes"] for copy in copies if copy["kind"] == "DeviceToHost"]
    assert to_host == [logits] * len(answer.token_ids)
    on_device = [copy["bytes"] for copy in copies if copy["kind"] == "DeviceToDevice"]
    for bytes_per_token in (4 * decoder.hidden_size, 8, 4):  # embeddings, positions, key bias
        assert answer.tokens_out * bytes_per_token in on_device


def test_a_cache_in_place_has_one_address_and_a_growing_one_two(device, bundle_of, make_clip):
    for flavour, version in VERSIONS.items():
        device.tensorrt(version)
        path = bundle_of()
        device.build(path)
        device.driver.events.clear()
        with Session.open(path, backend="tensorrt") as session:
            session.generate(make_clip(3), PROMPT, max_new_tokens=4)
        for run in decoder_runs(device):
            pasts = [name for name in run["addresses"] if "past." in name]
            assert pasts
            for past in pasts:
                present = past.replace("past.", "present.")
                in_place = run["addresses"][past] == run["addresses"][present]
                assert in_place == (flavour == "trt24")
        keys = [run["addresses"]["past.0.key"] for run in decoder_runs(device)]
        assert len(set(keys)) == (1 if flavour == "trt24" else 2)


def test_prefill_and_decode_have_their_profiles_and_decode_its_graph(device, built, make_clip):
    with Session.open(built, backend="tensorrt") as session:
        answer = session.generate(make_clip(3), PROMPT, "keep25", max_new_tokens=8)
    tokens = len(answer.token_ids)
    assert tokens == 8
    assert len(answer.prompt_token_ids) % BUCKET <= BUCKET - tokens  # the steps stay in one bucket of keys
    assert [(run["profile"], run["captured"]) for run in decoder_runs(device)] == [
        (0, False),
        (1, False),
        (1, True),
    ]
    assert len(device.driver.named("cudaGraphLaunch")) == tokens - 2


def test_steps_are_captured_anew_in_every_bucket(device, built, make_clip):
    """The second answer comes to more keys than a bucket holds; the cache itself stays where it is."""
    with Session.open(built) as plain, Session.open(built, backend="tensorrt") as session:
        wanted = plain.converse("keep25")
        got = session.converse("keep25")
        for question, audio, count in (
            (PROMPT, make_clip(3), 4),
            (OTHER, None, 90),
            (PROMPT, make_clip(4, seed=2), 4),
        ):
            answers = [talk.ask(question, audio, max_new_tokens=count) for talk in (wanted, got)]
            assert answers[0].token_ids == answers[1].token_ids
        assert answers[1].reused_tokens > 0
    captured = [run for run in decoder_runs(device) if run["captured"]]
    assert len(captured) == 4
    assert len({run["addresses"]["past.0.key"] for run in captured}) == 1


def test_without_a_graph_the_answer_is_the_same_and_a_remark_says_so(device, built, make_clip):
    with Session.open(built) as plain, Session.open(built, backend="tensorrt") as session:
        device.driver.fail["cudaStreamEndCapture"] = device.cuda.cudaError_t.cudaErrorStreamCaptureUnsupported
        with pytest.warns(RuntimeWarning, match="no CUDA graph of the decode step"):
            got = session.generate(make_clip(3), PROMPT, max_new_tokens=6)
        assert got.token_ids == plain.generate(make_clip(3), PROMPT, max_new_tokens=6).token_ids
    assert len(decoder_runs(device)) == 1 + 1 + 1 + 4  # prefill, a step, the capture, and every step after it


def test_a_replaced_cache_goes_before_the_next_is_allocated(device, bundle_of, make_clip, monkeypatch):
    """No binding, and no context that had it, keeps the former one, where the capacity is not fixed."""
    device.tensorrt(VERSIONS["concat20"])
    built = bundle_of()
    device.build(built)
    from ltbm.runtime.backends import cuda

    monkeypatch.setattr(cuda, "RETIRED_BYTES", 0)
    with Session.open(built, backend="tensorrt", reuse=False) as session:
        session.generate(make_clip(3), PROMPT, "full", max_new_tokens=900)
        large = session._context.nbytes
        session.generate(make_clip(3), PROMPT, "keep6", max_new_tokens=2)
        small = session._context.nbytes
        assert small < large / 4
    assert max(facts["allocated"] for facts in device.driver.named("execute")[-2:]) < large
    assert [facts["allocated"] > large for facts in device.driver.named("execute")[:3]] == [
        False,
        False,
        True,
    ]


def test_low_memory_holds_the_stages_in_turn(device, built, make_clip):
    with Session.open(built) as plain, Session.open(built, backend="tensorrt", low_memory=True) as session:
        for seed in (0, 1):
            clip = make_clip(3, seed=seed)
            got = session.generate(clip, PROMPT, max_new_tokens=4)
            wanted = plain.generate(clip, PROMPT, max_new_tokens=4)
            assert got.token_ids == wanted.token_ids
        gc.collect()
        assert device.trt.alive["engines"] == 1


def test_everything_is_freed(device, built, make_clip):
    session = Session.open(built, backend="tensorrt")
    session.generate(make_clip(3), PROMPT, max_new_tokens=4)
    session.close()
    assert device.trt.alive == {"engines": 0, "contexts": 0}
    del session
    gc.collect()
    assert device.driver.allocated == 0 and not device.driver._host


@pytest.mark.parametrize("call", CUDA_CALLS)
def test_a_failing_cuda_call_is_an_error_and_nothing_stays(device, built, make_clip, call):
    device.driver.fail[call] = device.cuda.cudaError_t.cudaErrorInvalidValue
    with pytest.raises(RuntimeError, match="CUDA call failed: cudaErrorInvalidValue.*ltbm doctor"):
        with Session.open(built, backend="tensorrt") as session:
            session.generate(make_clip(3), PROMPT, max_new_tokens=4)
    device.driver.fail.clear()
    session = None
    gc.collect()
    assert device.trt.alive["engines"] == 0 and device.driver.allocated == 0


@pytest.mark.parametrize("call", ["cudaStreamBeginCapture", "cudaGraphInstantiate"])
def test_a_capture_that_fails_elsewhere_costs_only_the_graph(device, built, make_clip, call):
    with Session.open(built) as plain, Session.open(built, backend="tensorrt") as session:
        device.driver.fail[call] = device.cuda.cudaError_t.cudaErrorInvalidValue
        with pytest.warns(RuntimeWarning, match="no CUDA graph"):
            got = session.generate(make_clip(3), PROMPT, max_new_tokens=6)
        assert got.token_ids == plain.generate(make_clip(3), PROMPT, max_new_tokens=6).token_ids


@pytest.mark.parametrize("call", TRT_CALLS)
def test_a_failing_tensorrt_call_is_an_error(device, built, make_clip, call):
    device.trt.fail.add(call)
    with pytest.raises(RuntimeError, match=TRT_CALLS[call]):
        with Session.open(built, backend="tensorrt") as session:
            session.generate(make_clip(3), PROMPT, max_new_tokens=4)


def test_a_full_gpu_says_what_to_do(device, built, make_clip):
    with Session.open(built, backend="tensorrt") as session:
        device.driver.capacity = device.driver.allocated + 40_000
        with pytest.raises(
            MemoryError, match="no room for a KV cache of .* lower max_new_tokens|GPU has no memory left"
        ):
            session.generate(make_clip(3), PROMPT, max_new_tokens=900)


def test_what_engines_were_not_built_for_is_refused(device, bundle_of, make_clip):
    path = bundle_of("audioflamingo3")
    device.build(path, max_audio_segments=1, max_context=128)
    with Session.open(path, backend="tensorrt") as session:
        assert session.generate(make_clip(3), PROMPT, "keep25", max_new_tokens=4).token_ids
        with pytest.raises(
            ValueError,
            match="take 256 tokens of KV cache, the engine holds 128: .* larger --max-context",
        ):
            session.generate(make_clip(3), PROMPT, "full", max_new_tokens=100)
        with pytest.raises(ValueError, match="input_features is 2x128x3000.* --max-audio-segments"):
            session.generate(make_clip(60), PROMPT, "keep6", max_new_tokens=2)


def decode_arrays(specs, zeros) -> dict:
    """Zeros for one step of the decoder that looks at one bucket of keys."""
    arrays = {}
    for name, spec in specs.items():
        shape = [n or 1 for n in spec.shape]
        if name == "key_bias":
            shape[1] = BUCKET
        arrays[name] = zeros(tuple(shape), spec.dtype)
    return arrays


def test_an_engine_runs_on_host_arrays_too(device, built, make_clip):
    with Session.open(built) as plain, Session.open(built, backend="tensorrt") as session:
        features = np.random.default_rng(0).standard_normal((1, 128, 400)).astype(np.float32)
        inputs = {"input_features": features, "frame_lengths": np.array([400], np.int32)}
        wanted = plain.pipeline.engines.get("encoder").run(inputs)["audio_embeds"]
        got = session.pipeline.engines.get("encoder").run(inputs)["audio_embeds"]
        np.testing.assert_allclose(got, wanted, atol=1e-6)
        decoder = session.pipeline.engines.get("decoder")
        outputs = decoder.run(decode_arrays(decoder.inputs, np.zeros))
        assert np.abs(outputs["present.0.key"][:, :, 0]).max() > 0
        assert outputs["logits"].shape == (1, session.manifest.decoder.vocab_size)


def test_outputs_have_the_shapes_that_inputs_give(device, built):
    with Session.open(built, backend="tensorrt") as session:
        engine = session.pipeline.engines.get("encoder")
        arrays = {
            "input_features": np.zeros((1, 128, 400), np.float32),
            "frame_lengths": np.array([400], np.int32),
            "audio_embeds": engine.zeros((1, 99, 32), np.float32),
        }
        with pytest.raises(ValueError, match="audio_embeds is 1x99x32, these inputs give 1x100x32"):
            engine.bind(arrays).run()


def test_a_closed_engine_runs_no_more(device, built):
    session = Session.open(built, backend="tensorrt")
    engine = session.pipeline.engines.get("encoder")
    arrays = {
        "input_features": np.zeros((1, 128, 400), np.float32),
        "frame_lengths": np.array([400], np.int32),
        "audio_embeds": engine.zeros((1, 100, 32), np.float32),
    }
    bound = engine.bind(arrays)
    for _ in range(3):  # plainly, to capture, and as a graph
        bound.run()
    session.close()
    engine.close()  # once more is no error
    for use in (bound.run, lambda: engine.bind(arrays)):
        with pytest.raises(RuntimeError, match="this TensorRT engine is closed"):
            use()


def test_in_place_tensors_must_be_one_array(device, built):
    with Session.open(built, backend="tensorrt") as session:
        engine = session.pipeline.engines.get("decoder")
        arrays = decode_arrays(engine.inputs | engine.outputs, engine.zeros)
        with pytest.raises(ValueError, match="past.0.key and present.0.key are updated in place"):
            engine.bind(arrays)
