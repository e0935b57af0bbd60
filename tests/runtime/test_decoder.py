import shutil

import numpy as np
import pytest

from ltbm.export.static_dims import with_static_dim
from ltbm.runtime.backends.opening import open_engine
from ltbm.runtime.levels import parse_level
from ltbm.runtime.prompt import Turn
from ltbm.runtime.stages.decoder import Decoder

FLAVOURS = ("gqa", "std24", "trt24")


@pytest.fixture(scope="module")
def prefixes(session, make_clip):
    """Three prefixes of different lengths, merged, with gaps in their positions and biases on their keys."""
    made, level, pipeline = [], parse_level("keep25"), session.pipeline
    for seconds, prompt in ((1, "short ?"), (4, "a longer question ?"), (2.5, "mid ?")):
        (audio,) = audios = pipeline.segments(make_clip(seconds))
        layout = pipeline.lay_out([Turn("user", prompt, 1)], audios, level, 8)
        made.append(pipeline.prefix(layout, [pipeline.merge(pipeline.encode(audio), layout.level)]))
    return made


def logits_of(session, flavour: str, prefixes, steps: int = 4) -> np.ndarray:
    """[steps + 1, B, V] with the same forced tokens in every row."""
    engine = open_engine(session.bundle.file(f"decoder.{flavour}.onnx"), "onnxruntime", "cpu")
    decoder = Decoder(engine, session.manifest.decoder, 200, rows=len(prefixes))
    out = [decoder.prefill(prefixes).copy()]
    for token in range(20, 20 + steps):
        out.append(decoder.step(session.pipeline.embeddings[[token] * len(prefixes)]).copy())
    return np.stack(out)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_rows_of_a_batch_equal_rows_alone(session, prefixes, flavour):
    together = logits_of(session, flavour, prefixes)
    alone = np.concatenate([logits_of(session, flavour, [prefix]) for prefix in prefixes], axis=1)
    assert np.abs(together - alone).max() < 1e-4


def fixed_engine(session, folder, capacity=256):
    """The decoder for TensorRT with its capacity made a number, on ONNX Runtime."""
    path = session.bundle.file("decoder.trt24.onnx")
    fixed = folder / path.name
    fixed.write_bytes(with_static_dim(path.read_bytes(), "CAP", capacity))
    shutil.copy(session.bundle.file("decoder.weights"), folder)
    return open_engine(fixed, "onnxruntime", "cpu")


def test_a_fixed_capacity_is_read_as_far_as_tokens_are_there(session, prefixes, tmp_path):
    """The same logits as another flavour; key_bias grows by buckets, and with it what attention reads."""
    engine = fixed_engine(session, tmp_path)
    widths = []
    bind = engine.bind

    def watched(arrays, once):
        widths.append(arrays["key_bias"].shape[1])
        return bind(arrays, once)

    engine.bind = watched
    decoder = Decoder(engine, session.manifest.decoder, 100)
    assert decoder.cache.capacity == 256
    out = [decoder.prefill(prefixes[:1]).copy()]
    for token in range(20, 90):
        out.append(decoder.step(session.pipeline.embeddings[[token]]).copy())
    expected = logits_of(session, "gqa", prefixes[:1], steps=70)
    assert np.abs(np.stack(out) - expected).max() < 1e-4
    first = -(-len(prefixes[0]) // 64) * 64
    assert widths == [first, first, first + 64] + [first + 128] * (widths[-1] == first + 128)


def test_more_than_a_fixed_capacity_is_refused(session, tmp_path):
    engine = fixed_engine(session, tmp_path)
    with pytest.raises(ValueError, match="take 300 tokens of KV cache, the engine holds 256"):
        Decoder(engine, session.manifest.decoder, 300)


def test_flavours_agree(session, prefixes):
    assert np.abs(logits_of(session, "gqa", prefixes) - logits_of(session, "std24", prefixes)).max() < 1e-4


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_cache_is_updated_in_place(session, prefixes, flavour):
    """The buffer bound as past and present holds the new keys after a step, and only in the next place."""
    engine = open_engine(session.bundle.file(f"decoder.{flavour}.onnx"), "onnxruntime", "cpu")
    decoder = Decoder(engine, session.manifest.decoder, 120)
    decoder.prefill(prefixes[:1])
    keys, length = decoder.cache.arrays(1)["past.0.key"], int(decoder.cache.lengths[0])
    assert keys is decoder.cache.arrays(1)["present.0.key"]
    before = keys.copy()
    decoder.step(session.pipeline.embeddings[[20]])
    changed = np.flatnonzero((keys != before).any(axis=(0, 1, 3)))
    assert changed.tolist() == [length]
