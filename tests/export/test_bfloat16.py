"""bfloat16, which ONNX Runtime does not compute on the CPU: what is stored,
and the graphs under ONNX's own reference."""

import shutil

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from safetensors.torch import load_file, save_file

from ltbm.export.writer import export_bundle
from ltbm.runtime.bundle import Bundle


@pytest.fixture
def bfloat16_checkpoint(qwen, tmp_path_factory):
    folder = shutil.copytree(qwen[0], tmp_path_factory.mktemp("bfloat16") / "checkpoint")
    tensors = {
        name: tensor.to(torch.bfloat16) for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_bfloat16_tables_are_kept_bit_for_bit(bfloat16_checkpoint, tmp_path):
    out = export_bundle(bfloat16_checkpoint, tmp_path / "bundle", "int4", progress=lambda line: None)
    assert Bundle.open(out).manifest.precision.embeddings == "bfloat16"
    table = load_file(bfloat16_checkpoint / "model.safetensors")["language_model.model.embed_tokens.weight"]
    assert (np.load(out / "embeddings.npy") == table.view(torch.int16).numpy().view(np.uint16)).all()


def test_bfloat16_weights_are_kept_bit_for_bit(bfloat16_checkpoint, tmp_path):
    """What cannot run on the CPU can be compared: the stored matrices are the checkpoint's."""
    out = export_bundle(bfloat16_checkpoint, tmp_path / "bundle", "bfloat16", progress=lambda line: None)
    tensors = load_file(bfloat16_checkpoint / "model.safetensors")
    for flavour in Bundle.open(out).manifest.flavours:
        stored = {
            tensor.name: tensor for tensor in onnx.load(out / f"decoder.{flavour}.onnx").graph.initializer
        }
        down = stored["layers.1.mlp.down_proj.weight"]
        assert down.data_type == onnx.TensorProto.BFLOAT16
        want = tensors["language_model.model.layers.1.mlp.down_proj.weight"].T.contiguous()
        assert down.raw_data == want.view(torch.int16).numpy().tobytes()


def compare(bundles: list, name: str, output: str, inputs: dict) -> float:
    """The largest difference between bfloat16 under ONNX's reference and float32,
    as a share of the largest value."""
    narrow, wide = (bundle / f"{name}.onnx" for bundle in bundles)
    past = {key: value.astype(ml_dtypes.bfloat16) for key, value in inputs.items() if key.startswith("past.")}
    got = ReferenceEvaluator(onnx.load(narrow)).run([output], inputs | past)[0]
    want = onnxruntime.InferenceSession(wide).run([output], inputs)[0]
    assert got.dtype == want.dtype == np.float32 and got.shape == want.shape
    return np.abs(got - want).max() / np.abs(want).max()


@pytest.fixture
def bundles(make_bundle, family):
    return [make_bundle(family, precision)[1] for precision in ("bfloat16", "float32")]


def test_the_encoder_computes(bundles):
    mels = np.random.default_rng(0).standard_normal((1, 128, 40)).astype(np.float32)
    assert (
        0
        < compare(
            bundles,
            "encoder",
            "audio_embeds",
            {"input_features": mels, "frame_lengths": np.array([36], np.int32)},
        )
        < 0.03
    )


def test_the_decoder_computes(bundles):
    random, d = np.random.default_rng(0), Bundle.open(bundles[0]).manifest.decoder
    cached, new = 3, 7
    past = {
        f"past.{layer}.{part}": random.standard_normal((1, d.kv_heads, cached, d.head_dim)).astype(np.float32)
        for layer in range(d.layers)
        for part in ("key", "value")
    }
    inputs = {
        "inputs_embeds": random.standard_normal((1, new, d.hidden_size)).astype(np.float32),
        "position_ids": np.arange(cached, cached + new)[None],
        "key_bias": random.random((1, cached + new)).astype(np.float32),
        "last_index": np.array([new - 1], np.int32),
    }
    assert 0 < compare(bundles, "decoder.concat20", "logits", inputs | past) < 0.06
