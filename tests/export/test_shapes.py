"""Tables and tokenizers that do not fit each other: what transformers makes of the configuration is right."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from ltbm.export.checkpoint import Checkpoint
from ltbm.export.layouts import EMBEDDINGS, LM_HEAD
from ltbm.export.shapes import LAYER, shapes_of
from ltbm.export.specification import model_spec
from ltbm.export.writer import export_bundle
from ltbm.runtime.cli import main
from ltbm.runtime.sampling import Sampling
from ltbm.runtime.session import Session

PADDED = 400  # rows of the tables; the tokenizer knows 263 tokens


@pytest.fixture
def copy(qwen, tmp_path):
    return shutil.copytree(qwen[0], tmp_path / "checkpoint")


def test_shapes_are_those_that_transformers_makes(make_bundle, family):
    folder, _ = make_bundle(family, model_type="qwen3", head_dim=24)
    checkpoint = Checkpoint.open(folder)
    shapes = shapes_of(model_spec(checkpoint.config, checkpoint.path))
    with safe_open(folder / "model.safetensors", "pt") as stream:
        stored = {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118
    assert stored == {name: shapes[LAYER.sub("layers.*.", name)] for name in stored}


@pytest.mark.parametrize("names", [[EMBEDDINGS], [LM_HEAD], [EMBEDDINGS, LM_HEAD]])
def test_a_table_that_is_longer_than_the_configuration_says(copy, tmp_path, capsys, names):
    tensors = load_file(copy / "model.safetensors")
    for name in names:
        tensors[name] = torch.cat([tensors[name], torch.zeros(28, 64)])
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert main(["export", str(copy), str(tmp_path / "bundle"), "--no-parity"]) == 1
    error = capsys.readouterr().err
    assert "[300, 64], its config.json makes it [272, 64]" in error and "vocab_size in it to 300" in error
    assert error.count("\n") == 1 and [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_weight_of_another_size(copy, tmp_path):
    tensors = load_file(copy / "model.safetensors")
    name = "audio_tower.layers.0.fc1.weight"
    tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"fc1.weight \[63, 32\], its config.json makes it \[64, 32\]"):
        export_bundle(copy, tmp_path / "bundle", progress=lambda line: None)


def test_a_token_beyond_the_table(copy, tmp_path, capsys):
    tokenizer = Tokenizer.from_file(str(copy / "tokenizer.json"))
    added = [f"<new {i}>" for i in range(12)]
    tokenizer.add_tokens(added)
    tokenizer.save(str(copy / "tokenizer.json"))
    assert main(["export", str(copy), str(tmp_path / "bundle"), "--no-parity"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    first = 272 - (tokenizer.get_vocab_size() - 12)  # of the added ones that has no row
    assert f"{12 - first} tokens" in error and f"first '<new {first}>' (272)" in error
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_padded_vocabulary_runs(make_bundle):
    """Rows without a token have no text, and are drawn like others: what transformers decodes is right."""
    from transformers import AutoProcessor

    folder, bundle = make_bundle("qwen2_audio", vocab_size=PADDED)
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    clip = np.sin(np.arange(16_000) / 9).astype(np.float32)
    drawn = []
    with Session.open(bundle) as session:
        for seed in range(8):
            answer = session.generate(clip, "?", max_new_tokens=20, sampling=Sampling(5.0, seed=seed))
            assert answer.text == tokenizer.decode(answer.token_ids, skip_special_tokens=True)
            drawn += answer.token_ids
        prompt = session.pipeline.prompter.prompt_ids("?", 1)
        assert max(drawn) >= len(tokenizer) > max(prompt)


def test_the_configuration_of_another_checkpoint(copy, tmp_path):
    raw = json.loads((copy / "config.json").read_text())
    raw["text_config"]["num_attention_heads"] = 8
    (copy / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="config.json makes it"):
        export_bundle(copy, tmp_path / "bundle", progress=lambda line: None)
