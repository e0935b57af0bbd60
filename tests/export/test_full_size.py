"""The path of tests/full_size.py at a thousandth of the size: shards, processes of their own;
and what the real sizes would take."""

import json
import math

import pytest
from safetensors.numpy import load_file

from ltbm.export.writer import Export

pytestmark = pytest.mark.slow
CLASSES = {
    "qwen2_audio": "Qwen2AudioForConditionalGeneration",
    "audioflamingo3": "AudioFlamingo3ForConditionalGeneration",
    "musicflamingo": "MusicFlamingoForConditionalGeneration",
    "voxtral": "VoxtralForConditionalGeneration",
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
}


@pytest.fixture
def full_size(monkeypatch):
    from tests import full_size

    monkeypatch.setattr(full_size, "SHARD_BYTES", 100_000)
    return full_size


def narrow(full_size, family: str) -> dict:
    sizes = full_size.full_size(family, layers=2)
    llm = sizes["llm"] | dict(
        hidden_size=64,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=96,
        vocab_size=640,
        max_position_embeddings=4096,
    )
    ids = {token: place - 151_643 + 600 for token, place in sizes["special_ids"].items()}
    encoder = dict(layers=2, width=64, heads=2, ffn=4 * 64)  # four widths, as published
    return {"encoder": encoder, "llm": llm, "special_ids": ids}


@pytest.mark.parametrize("family", CLASSES)
def test_the_shapes_are_the_models(full_size, family, tmp_path):
    """Every name and shape of the written checkpoint is one that transformers has for this configuration,
    and the other way round, but for the pictures of Qwen2.5-Omni."""
    import transformers

    full_size.write_checkpoint(tmp_path / "checkpoint", family, narrow(full_size, family))
    assert len(list((tmp_path / "checkpoint").glob("*.safetensors"))) > 2
    model_class = getattr(transformers, CLASSES[family])
    _, said = model_class.from_pretrained(tmp_path / "checkpoint", output_loading_info=True)
    missing = [name for name in said.pop("missing_keys") if not name.startswith("model.visual.")]
    assert not missing and not any(said.values()), said


def test_no_two_tensors_are_equal(full_size, tmp_path):
    """TensorRT keeps equal weights once: a plan would be too small."""
    full_size.write_checkpoint(tmp_path / "checkpoint", "qwen2_audio", narrow(full_size, "qwen2_audio"))
    values = []
    for shard in (tmp_path / "checkpoint").glob("*.safetensors"):
        values += [tensor.tobytes() for tensor in load_file(shard).values()]
    assert len(values) == len(set(values))


@pytest.mark.parametrize(
    "family,tokens", [("qwen2_audio", (750, 188)), ("musicflamingo", (750, 188)), ("voxtral", (375, 94))]
)
def test_export_open_and_answer(full_size, family, tokens, tmp_path):
    figures = full_size.prove(
        tmp_path, family, "int4", narrow(full_size, family), levels=("keep25",), threads=1
    )
    assert figures["bundle_gb"] < 0.02 and 0.03 < figures["export"]["peak_rss_gib"] < 1.0
    assert figures["export"]["peak_anonymous_gib"] < figures["export"]["peak_rss_gib"]
    answer = figures["run_keep25"]
    assert (answer["tokens_in"], answer["tokens_out"]) == tokens and answer["decode_tokens_per_s"] > 0
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(
    "family,precision,disk,memory",
    [
        ("qwen2_audio", "int4", 8.65e9, 0.75e9),
        ("qwen2_audio", "float16", 16.8e9, 2.0e9),
        ("audioflamingo3", "int4", 8.44e9, 0.75e9),
        ("musicflamingo", "int4", 8.51e9, 0.75e9),
        ("voxtral", "int4", 6.00e9, 0.75e9),
    ],
)
def test_what_the_real_sizes_take(full_size, family, precision, disk, memory, tmp_path):
    """From headers alone: the file of weights is a hole. Those in int4 were exported once:
    8.649, 8.444, 8.505 and 5.996 GB."""
    sizes, header, end = full_size.full_size(family), {}, 0
    for name, shape in full_size.tensor_shapes(family, sizes["encoder"], sizes["llm"]):
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    full_size.write_configuration(tmp_path / "checkpoint", family, sizes)
    with open(tmp_path / "checkpoint" / "model.safetensors", "wb") as stream:
        head = json.dumps(header).encode()
        stream.write(len(head).to_bytes(8, "little") + head)
        stream.truncate(8 + len(head) + end)
    estimate = Export(tmp_path / "checkpoint", precision).estimate(tmp_path / "bundle")
    assert abs(estimate.disk - disk) < 0.005 * disk
    assert estimate.memory < memory
