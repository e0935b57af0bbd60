"""Folders that people have: which weights are taken, held against transformers; what is refused, and how."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ltbm.export.checkpoint import Checkpoint
from ltbm.export.writer import export_bundle
from ltbm.runtime.cli import main

NORM = "language_model.model.norm.weight"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 9\n"


@pytest.fixture
def copy(qwen, tmp_path):
    return shutil.copytree(qwen[0], tmp_path / "checkpoint")


def marked(folder, value: float) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors with one of them filled, so that it is known where it came from."""
    tensors = load_file(folder / "model.safetensors")
    tensors[NORM] = torch.full_like(tensors[NORM], value)
    return tensors


def save(tensors, path) -> None:
    save_file(tensors, path, metadata={"format": "pt"})


def save_shards(tensors, folder) -> None:
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )


def taken_by_transformers(folder) -> float:
    from transformers import Qwen2AudioForConditionalGeneration

    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    (name,) = [name for name, _ in model.named_parameters() if name.endswith("language_model.norm.weight")]
    return float(model.get_parameter(name).detach()[0])


def taken_by_the_export(folder) -> float:
    return float(Checkpoint.open(folder).take(NORM, "test")[:][0])


def test_one_file_beside_older_shards(copy, tmp_path):
    save_shards(marked(copy, 5.0), copy)
    save(marked(copy, 7.0), copy / "model.safetensors")
    assert taken_by_the_export(copy) == taken_by_transformers(copy) == 7.0
    said = []
    export_bundle(copy, tmp_path / "bundle", progress=said.append)
    (note,) = [line for line in said if "as transformers does" in line]
    assert "took model.safetensors" in note and "not model.safetensors.index.json, model-00001" in note


def test_shards_alone(copy):
    save_shards(marked(copy, 5.0), copy)
    (copy / "model.safetensors").unlink()
    assert taken_by_the_export(copy) == taken_by_transformers(copy) == 5.0


def test_an_index_of_another_checkpoint(copy):
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    assert taken_by_the_export(copy) == taken_by_transformers(copy)
    (copy / "model.safetensors").rename(copy / "one.safetensors")
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    with pytest.raises(ValueError, match="lacks the tensor a, which its index names"):
        Checkpoint.open(copy)


def test_shards_without_their_index(copy):
    save_shards(marked(copy, 5.0), copy)
    for name in ("model.safetensors", "model.safetensors.index.json"):
        (copy / name).unlink()
    with pytest.raises(FileNotFoundError, match="has model-00001-of-00002.safetensors, model-00002-of-00002"):
        Checkpoint.open(copy)


INDICES = [b"{", b"[]", b"{}", b'{"weight_map": 3}', b'{"weight_map": {"a": "../b.safetensors"}}']


@pytest.mark.parametrize("index", INDICES)
def test_an_index_that_is_none(copy, index):
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_bytes(index)
    with pytest.raises(ValueError, match="model.safetensors.index.json"):
        Checkpoint.open(copy)


def test_an_adapter_is_to_be_merged_first(copy):
    (copy / "adapter_config.json").write_text("{}")
    save({"base_model.model.x.lora_A.weight": torch.ones(2, 2)}, copy / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="adapter beside them.*merge_and_unload.*if it is merged already"):
        Checkpoint.open(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(
        ValueError, match="is an adapter .adapter_config.json, adapter_model.safetensors.*merge"
    ):
        Checkpoint.open(copy)


def test_an_adapter_s_own_folder_has_no_configuration(tmp_path, capsys):
    (tmp_path / "adapter_config.json").write_text("{}")
    assert main(["export", str(tmp_path), str(tmp_path / "bundle")]) == 1
    error = capsys.readouterr().err
    assert "is an adapter (adapter_config.json)" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"]
)
def test_pointers_of_git_lfs(copy, tmp_path, capsys, name):
    (copy / name).write_text(POINTER)
    assert main(["export", str(copy), str(tmp_path / "bundle")]) == 1
    error = capsys.readouterr().err
    assert f"{copy} holds git-lfs pointers in place of {name}: run `git lfs pull`" in error
    assert error.count("\n") == 1 and not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", ["decoder.weights", "tokenizer.json", "manifest.json"])
def test_a_bundle_with_pointers_of_git_lfs(qwen, tmp_path, capsys, name):
    bundle = shutil.copytree(qwen[1], tmp_path / "bundle")
    (bundle / name).write_text(POINTER)
    assert main(["inspect", str(bundle)]) == 1
    error = capsys.readouterr().err
    assert f"git-lfs pointers in place of {name}: run `git lfs pull`" in error and error.count("\n") == 1


def test_a_buffer_of_integers_is_a_tensor_too_many(copy, tmp_path):
    tensors = load_file(copy / "model.safetensors")
    save(tensors | {"audio_tower.position_ids": torch.arange(4)}, copy / "model.safetensors")
    with pytest.raises(ValueError, match="1 tensors of .* have no place .*: audio_tower.position_ids"):
        export_bundle(copy, tmp_path / "bundle", progress=lambda line: None)


def test_a_stored_type_that_is_not_supported(copy, tmp_path):
    tensors = load_file(copy / "model.safetensors")
    tensors[NORM] = tensors[NORM].to(torch.int8)
    save(tensors, copy / "model.safetensors")
    with pytest.raises(
        ValueError, match=f"holds {NORM} as I8, which is not supported; supported: F32, F16, BF16"
    ):
        export_bundle(copy, tmp_path / "bundle", progress=lambda line: None)
