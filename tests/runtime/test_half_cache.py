"""A KV cache of float16 beside float32 activations: half the memory, its values those of float32 rounded."""

import numpy as np
import onnx
import pytest

from ltbm.runtime.backends import ort
from ltbm.runtime.backends.half_cache import with_half_cache
from ltbm.runtime.levels import parse_level
from ltbm.runtime.pipeline import Pipeline
from ltbm.runtime.prompt import Turn
from ltbm.runtime.session import Session

STEPS = 4


@pytest.fixture(scope="module")
def ran(qwen, make_clip):
    """kv_cache -> (logits after the prompt and each of STEPS given tokens, the cache's arrays by name)."""
    found = {}
    tokens = np.random.default_rng(2).integers(0, 200, STEPS)
    for kv_cache in (None, "float16"):
        with Pipeline.open(qwen[1], threads=1, kv_cache=kv_cache) as pipeline:
            (audio,) = pipeline.segments(make_clip(4))
            layout = pipeline.lay_out([Turn("user", "hm ?", 1)], [audio], parse_level("keep50"), STEPS)
            merged = pipeline.merge(pipeline.encode(audio), layout.level)
            prefix = pipeline.prefix(layout, [merged])
            decoder = pipeline.decoder(len(prefix) + STEPS)
            logits = [decoder.prefill([prefix]).copy()]
            logits += [decoder.step(pipeline.embeddings[[token]]).copy() for token in tokens]
            arrays = decoder.cache.arrays(1)
            found[kv_cache] = np.stack(logits), {name: np.array(array) for name, array in arrays.items()}
    return found


def test_the_first_layers_cache_is_float32_rounded(ran):
    """Nothing before it depends on the cache."""
    full = ran[None][1]
    half = ran["float16"][1]
    for part in ("key", "value"):
        name = f"past.0.{part}"
        assert half[name].dtype == np.float16
        assert np.ptp(full[name]) > 0 and np.array_equal(full[name].astype(np.float16), half[name])


def test_logits_are_those_of_float32_but_for_the_rounding(ran):
    full = ran[None][0]
    difference = np.abs(ran["float16"][0] - full).max()
    assert 0 < difference < 0.01 * full.std()


def test_a_session_takes_half_the_memory_and_gives_the_same_tokens(qwen, make_clip):
    answers = []
    for kv_cache in (None, "float16"):
        with Session.open(qwen[1], kv_cache=kv_cache) as session:
            answers.append(session.generate(make_clip(5), "hm ?", "keep25", max_new_tokens=8))
    assert answers[0].token_ids == answers[1].token_ids
    assert answers[0].kv_allocated_bytes == 2 * answers[1].kv_allocated_bytes


def test_nothing_else_of_the_graph_changes(qwen):
    model = (qwen[1] / "decoder.gqa.onnx").read_bytes()
    changed = onnx.load_model_from_string(with_half_cache(model))
    caches = 0
    for value in (*changed.graph.input, *changed.graph.output):
        if value.name.startswith(("past.", "present.")):
            assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
            caches += 1
    assert caches == 8  # keys and values of two layers, in and out
    assert changed == onnx.load_model_from_string(model)


def test_where_it_is_not_to_be_had(qwen, make_bundle, monkeypatch):
    with pytest.raises(ValueError, match="a KV cache of float16 is not available on tensorrt cuda"):
        Session.open(qwen[1], backend="tensorrt", kv_cache="float16")
    odd = make_bundle("qwen2_audio", hidden_size=160, num_attention_heads=8)[1]
    with pytest.raises(ValueError, match="takes no heads of 20 values.*leave --kv-cache out"):
        Session.open(odd, kv_cache="float16")
    monkeypatch.setattr(ort.onnxruntime, "__version__", "1.26.0")
    with pytest.raises(RuntimeError, match="a KV cache of float16 needs onnxruntime 1.27 or newer"):
        Session.open(qwen[1], kv_cache="float16")
