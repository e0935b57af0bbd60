"""Graphs whose quantised products are our op's: the same answers, and weights that stay where they are."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile

from ltbm.plugins import library
from ltbm.runtime.backends import ort
from ltbm.runtime.backends.backend import EngineOptions
from ltbm.runtime.backends.native_products import (
    BLOCKS,
    COLUMNS,
    COLUMNS_CHAIN,
    NO_DOT_PRODUCTS,
    THEIR_DOMAIN,
    with_native_products,
)
from ltbm.runtime.backends.ort import OrtEngine
from ltbm.runtime.cli import main
from ltbm.runtime.levels import parse_level
from ltbm.runtime.pipeline import Pipeline
from ltbm.runtime.prompt import Turn
from ltbm.runtime.session import Session
from tests.support.products import Product

if library.product_instructions() is None:
    pytest.skip("this processor has no kernels for products of quantised weights", allow_module_level=True)

STEPS = 4


@pytest.fixture(scope="module", params=["int4", "int8"])
def quantised(request, make_bundle) -> Path:
    return make_bundle("qwen2_audio", request.param)[1]


def domains(model: bytes) -> list[str]:
    return [node.domain for node in onnx.load_from_string(model).graph.node if node.op_type == BLOCKS]


def logits(bundle: Path, clip: np.ndarray, native_products: bool) -> np.ndarray:
    """After the prompt and each of STEPS given tokens."""
    tokens = np.random.default_rng(2).integers(0, 200, STEPS)
    with Pipeline.open(bundle, threads=1, native_products=native_products) as pipeline:
        (audio,) = pipeline.segments(clip)
        layout = pipeline.lay_out([Turn("user", "hm ?", 1)], [audio], parse_level("keep50"), STEPS)
        prefix = pipeline.prefix(layout, [pipeline.merge(pipeline.encode(audio), layout.level)])
        decoder = pipeline.decoder(len(prefix) + STEPS)
        found = [decoder.prefill([prefix]).copy()]
        found += [decoder.step(pipeline.embeddings[[token]]).copy() for token in tokens]
    return np.stack(found)


def test_every_product_of_a_bundle_is_ours(quantised):
    stored = (quantised / "decoder.gqa.onnx").read_bytes()
    changed = with_native_products(stored)
    assert set(domains(stored)) == {THEIR_DOMAIN} and set(domains(changed)) == {library.OP_DOMAIN}
    assert len(domains(changed)) == len(domains(stored))
    assert with_native_products(changed) is changed  # there is nothing left to change


def test_all_else_of_the_graph_stays(quantised):
    stored = (quantised / "decoder.gqa.onnx").read_bytes()
    before, after = onnx.load_from_string(stored), onnx.load_from_string(with_native_products(stored))
    for node in after.graph.node:
        if node.op_type == BLOCKS:
            node.domain = THEIR_DOMAIN
    assert after.graph == before.graph
    domains_of = [[opset.domain for opset in model.opset_import] for model in (before, after)]
    assert domains_of[1] == [*domains_of[0], library.OP_DOMAIN]


def test_answers_are_onnxruntimes(quantised, make_clip):
    answers = []
    for native in (True, False):
        with Session.open(quantised, native_products=native, threads=1) as session:
            answers.append(session.generate(make_clip(5), "hm ?", "keep25", max_new_tokens=8).token_ids)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("flags, changed", [([], True), (["--no-native-products"], False)])
def test_the_flag_reaches_every_engine(quantised, make_clip, tmp_path, monkeypatch, flags, changed):
    graphs = []

    def noted(model: bytes) -> bytes:
        graphs.append(model)
        return with_native_products(model)

    monkeypatch.setattr(ort, "with_native_products", noted)
    soundfile.write(tmp_path / "clip.wav", make_clip(2), 16_000)
    command = ["run", str(quantised), str(tmp_path / "clip.wav"), "--prompt", "hm ?", "--max-new-tokens", "1"]
    assert main([*command, *flags]) == 0
    assert len(graphs) == (3 if changed else 0)


def test_as_near_to_products_in_float32_as_onnxruntime(make_bundle, make_clip):
    """Both round activations to int8; where a value lies between two codes, the last bits decide."""
    bundles = {}
    for level in (0, 4):
        export = {"accuracy_level": level, "lm_head_precision": "int4"}
        bundles[level] = make_bundle("qwen2_audio", "int4", export)[1]
    exact, ours, theirs = [], [], []
    for seconds in (3, 4, 5):
        clip = make_clip(seconds)
        exact.append(logits(bundles[0], clip, native_products=True))
        ours.append(logits(bundles[4], clip, native_products=True))
        theirs.append(logits(bundles[4], clip, native_products=False))
    error = np.std(np.stack(ours) - exact)
    assert 0 < error < 1.1 * np.std(np.stack(theirs) - exact)


def test_graphs_without_quantised_products_are_opened_as_they_are(qwen):
    stored = (qwen[1] / "decoder.gqa.onnx").read_bytes()
    assert with_native_products(stored) is stored


@pytest.mark.parametrize(
    "attributes",
    [
        {"accuracy_level": 0},  # multiplies in float32
        {"bits": 2},
        {"K": 48, "block_size": 16},  # rows that are not unpacked evenly
    ],
)
def test_products_of_another_kind_stay(attributes):
    model = Product(20, 64, 4, 32).model(THEIR_DOMAIN, **attributes).SerializeToString()
    assert with_native_products(model, "avx2") is model


def test_products_with_group_indices_stay():
    model = Product(20, 64, 4, 32).model(THEIR_DOMAIN)
    model.graph.node[0].input.extend(["", "g_idx"])
    stored = model.SerializeToString()
    assert with_native_products(stored, "avx2") is stored


def test_products_in_float16_stay():
    model = Product(20, 64, 4, 32).model(THEIR_DOMAIN)
    (scales,) = [tensor for tensor in model.graph.initializer if tensor.name == "scales"]
    half = onnx.numpy_helper.from_array(np.ones((20, 2), np.float16), "scales")
    scales.CopyFrom(half)
    stored = model.SerializeToString()
    assert with_native_products(stored, "avx2") is stored


def test_of_8_bits_only_the_head_is_ours_where_many_rows_are_slower(make_bundle):
    _, bundle = make_bundle("qwen2_audio", "int8")
    model = onnx.load(bundle / "decoder.gqa.onnx", load_external_data=False)
    changed = onnx.load_from_string(with_native_products(model.SerializeToString(), "avx2"))
    ours = [node.input[1] for node in changed.graph.node if node.domain == library.OP_DOMAIN]
    assert ours == ["lm_head.codes"]
    assert len(domains(changed.SerializeToString())) > 1


# --- the encoder in int8 ---


@pytest.fixture(scope="module")
def int8_encoder(make_bundle) -> Path:
    return make_bundle("qwen2_audio", "float32", {"encoder_precision": "int8"})[1]


def ops(model: bytes) -> Counter:
    return Counter(node.op_type for node in onnx.load_from_string(model).graph.node)


def test_every_product_of_an_int8_encoder_is_one_node(int8_encoder):
    stored = (int8_encoder / "encoder.onnx").read_bytes()
    before, after = ops(stored), ops(with_native_products(stored, "avx512"))
    products = before["MatMulIntegerToFloat"]
    assert products > 4 and after[COLUMNS] == products
    for op in COLUMNS_CHAIN[:-1]:
        assert after[op] == before[op] - products, op
    assert with_native_products(stored, "avx2") is stored


def test_a_product_whose_parts_are_read_elsewhere_stays(int8_encoder):
    model = onnx.load(int8_encoder / "encoder.onnx", load_external_data=False)
    rounding = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(rounding.input[0]))
    stored = model.SerializeToString()
    assert ops(with_native_products(stored, "avx512"))["MatMulIntegerToFloat"] == 1


@pytest.mark.skipif(
    library.product_instructions() == NO_DOT_PRODUCTS, reason="ONNX Runtime's are faster here"
)
def test_an_int8_encoder_gives_onnxruntimes_tokens(int8_encoder, make_clip):
    answers, tokens = [], []
    for native in (True, False):
        with Session.open(int8_encoder, native_products=native, threads=1) as session:
            (audio,) = session.pipeline.segments(make_clip(5))
            tokens.append(np.array(session.pipeline.encode(audio)[0].audio_embeds))
            answers.append(session.generate(make_clip(5), "hm ?", "keep25", max_new_tokens=8).token_ids)
    assert answers[0] == answers[1]
    assert np.abs(tokens[0] - tokens[1]).max() < 0.02 * np.abs(tokens[1]).max()


# --- memory ---


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A graph of one product with 32 MiB of codes beside it."""
    model = Product(32768, 1024, 8, 32).model(THEIR_DOMAIN)
    for value, width in ((model.graph.input[0], 1024), (model.graph.output[0], 32768)):
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, [1, width]))
    path = tmp_path_factory.mktemp("large") / "large.onnx"
    onnx.save(model, path, save_as_external_data=True, location="large.weights")
    return path


@pytest.mark.parametrize("native", [True, False])
def test_weights_take_no_memory_of_their_own(large, native):
    """Mapped by us, packed into memory by ONNX Runtime."""
    before = anonymous_bytes()
    engine = OrtEngine(large, EngineOptions("cpu", threads=1, native_products=native))
    (y,) = engine.run({"x": np.ones((1, 1024), np.float32)}).values()
    grown = anonymous_bytes() - before
    assert y.shape == (1, 32768) and (grown < 16 * 2**20) == native, f"{grown / 2**20:.0f} MiB"
    engine.close()
