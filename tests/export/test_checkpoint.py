import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ltbm.export.checkpoint import Checkpoint
from ltbm.export.specification import model_spec
from ltbm.export.writer import export_bundle


@pytest.fixture
def copy(qwen, tmp_path):
    return shutil.copytree(qwen[0], tmp_path / "checkpoint")


def edit_config(folder, change) -> None:
    raw = json.loads((folder / "config.json").read_text())
    change(raw)
    (folder / "config.json").write_text(json.dumps(raw))


def edit_tensors(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def export(folder, tmp_path, **options):
    return export_bundle(folder, tmp_path / "bundle", progress=lambda line: None, **options)


def test_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        Checkpoint.open(tmp_path / "none" / "deep" / "path")


def test_a_hub_id_without_a_hub():
    with pytest.raises(FileNotFoundError, match="the hub gave no such checkpoint"):
        Checkpoint.open("nobody/nothing-at-all")


def test_a_folder_without_a_configuration(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json"):
        Checkpoint.open(tmp_path)


def test_pickles_are_never_loaded(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="pickle"):
        Checkpoint.open(copy)


def test_an_incomplete_download(copy):
    (copy / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError, match="model-00001-of-00002.safetensors.*incomplete"):
        Checkpoint.open(copy)


def test_shards_and_bfloat16_are_read(copy):
    tensors = {
        name: value.to(torch.bfloat16) for name, value in load_file(copy / "model.safetensors").items()
    }
    names = sorted(tensors)
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for shard, part in shards.items():
        save_file({name: tensors[name] for name in part}, copy / shard)
    weight_map = {name: shard for shard, part in shards.items() for name in part}
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (copy / "model.safetensors").unlink()
    checkpoint = Checkpoint.open(copy)
    for name in names:
        taken = checkpoint.take(name, "test")
        assert taken.dtype.name == "bfloat16"
        assert (taken[:].astype("float32") == tensors[name].float().numpy()).all()
        assert (taken[1:3] == taken[:][1:3]).all()


def test_a_shard_that_is_cut(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors is cut or garbled"):
        Checkpoint.open(copy)


def test_a_file_of_another_kind(copy):
    (copy / "model.safetensors").write_bytes(b"<!doctype html>")
    with pytest.raises(ValueError, match="no safetensors file, or cut"):
        Checkpoint.open(copy)


def test_a_family_that_is_not_supported(copy):
    edit_config(copy, lambda raw: [raw.clear(), raw.update(model_type="whisper")])
    with pytest.raises(
        ValueError, match="'whisper' is not supported; supported: qwen2_audio, audioflamingo3"
    ):
        checkpoint = Checkpoint.open(copy)
        model_spec(checkpoint.config, checkpoint.path)


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda raw: raw["text_config"].update(hidden_act="relu"), "activation 'relu'"),
        (
            lambda raw: raw["text_config"].update(num_attention_heads={"a": 1}),
            "config.json: num_attention_heads {'a': 1} is not a whole number",
        ),
        (
            lambda raw: raw["text_config"].update(hidden_size=[]),
            r"config.json: hidden_size \[\] is not a whole number",
        ),
        (
            lambda raw: raw.update(text_config="x"),
            "config.json: text_config is 'x', not an object of settings",
        ),
        (lambda raw: raw.update(audio_config=[1]), "config.json: audio_config is"),
        (lambda raw: raw["text_config"].update(model_type=["qwen2"]), "LLM type .* is not supported"),
        (lambda raw: raw["text_config"].update(rope_scaling=3), "config.json: rope_scaling is '3'"),
        (lambda raw: raw["text_config"].update(eos_token_id={"a": 1}), "config.json: eos_token_id"),
        (lambda raw: raw["text_config"].update(use_sliding_window=True, sliding_window=64), "sliding window"),
        (
            lambda raw: raw["text_config"].update(
                rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
            ),
            "rope type 'linear'",
        ),
        (lambda raw: raw["audio_config"].update(activation_function="relu"), "encoder activation"),
        (lambda raw: raw["text_config"].update(model_type="mistral"), "LLM type 'mistral'"),
    ],
)
def test_variants_that_are_not_supported(copy, tmp_path, change, words):
    edit_config(copy, change)
    with pytest.raises(ValueError, match=words):
        export(copy, tmp_path)
    assert not (tmp_path / "bundle").exists()


def test_an_unknown_tensor_fails_the_export_and_is_named(copy, tmp_path):
    edit_tensors(copy, lambda tensors: tensors.update({"language_model.model.surprise": torch.ones(2)}))
    with pytest.raises(ValueError, match="language_model.model.surprise"):
        export(copy, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


def test_a_missing_tensor_fails_the_export_and_is_named(copy, tmp_path):
    edit_tensors(copy, lambda tensors: tensors.pop("audio_tower.layers.1.fc2.weight"))
    with pytest.raises(KeyError, match="audio_tower.layers.1.fc2.weight"):
        export(copy, tmp_path)


def test_a_missing_head_that_is_not_tied(copy, tmp_path):
    edit_tensors(copy, lambda tensors: tensors.pop("language_model.lm_head.weight"))
    with pytest.raises(ValueError, match="does not tie"):
        export(copy, tmp_path)


def test_knowingly_unused_tensors_are_listed(copy, tmp_path):
    name = "language_model.model.rotary_emb.inv_freq"
    edit_tensors(copy, lambda tensors: tensors.update({name: torch.ones(8)}))
    manifest = json.loads((export(copy, tmp_path) / "manifest.json").read_text())
    assert manifest["tensors"][name] == "unused: recomputed from rope_theta"


def test_a_weight_beyond_float16_is_refused(copy, tmp_path):
    edit_tensors(copy, lambda tensors: tensors["language_model.model.layers.0.mlp.up_proj.weight"].fill_(1e6))
    with pytest.raises(ValueError, match="mlp.up_proj.weight reaches 1e\\+06.*float32"):
        export(copy, tmp_path, precision="float16")
