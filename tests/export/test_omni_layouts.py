"""Qwen2.5-Omni's layouts: the whole repository, its thinker alone, the names of transformers 5; no other."""

import json
import re
import shutil

import pytest
from safetensors.torch import load_file, save_file

from ltbm.export.layouts import OMNI, OMNI_THINKER, OMNI_THINKER_5
from ltbm.export.writer import export_bundle
from ltbm.runtime.bundle import Bundle

WEIGHTS = ("encoder.weights", "merge.weights", "decoder.weights", "embeddings.npy")


@pytest.fixture(scope="module")
def pair(make_bundle):
    return make_bundle("qwen2_5_omni")


def copied(folder, tmp_path, rename):
    """The checkpoint with other names; tensors whose name is None are left out."""
    copy = shutil.copytree(folder, tmp_path / "checkpoint")
    tensors = {rename(name): value for name, value in load_file(copy / "model.safetensors").items()}
    tensors.pop(None, None)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    return copy, set(tensors)


def of_thinker(name: str) -> str | None:
    return name.removeprefix("thinker.") if name.startswith("thinker.") else None


def exported(checkpoint, tmp_path):
    return Bundle.open(export_bundle(checkpoint, tmp_path / "bundle", progress=lambda line: None)).manifest


def test_all_of_the_repository_is_accounted_for(pair):
    """As transformers stores it: with talker, vocoder and pictures, which no graph takes."""
    uses = Bundle.open(pair[1]).manifest.tensors
    assert set(uses) == set(load_file(pair[0] / "model.safetensors"))
    unused = {name for name, use in uses.items() if use.startswith("unused: ")}
    parts = ("talker.", "token2wav.", "thinker.visual.", "thinker.audio_tower.audio_bos_eos_token.")
    assert unused == {name for name in uses if name.startswith(parts)}
    assert all(any(name.startswith(part) for name in unused) for part in parts)


def test_the_thinker_alone(pair, tmp_path):
    """Its configuration is then the section alone, as its class saves it."""
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker

    folder = tmp_path / "checkpoint"
    shutil.copytree(pair[0], folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    Thinker.from_pretrained(pair[0]).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "qwen2_5_omni_thinker"
    manifest = exported(folder, tmp_path)
    assert manifest.family == "qwen2_5_omni"
    assert set(manifest.tensors) == set(load_file(folder / "model.safetensors"))
    before = Bundle.open(pair[1]).manifest
    assert [manifest.files[name] for name in WEIGHTS] == [before.files[name] for name in WEIGHTS]


def test_names_of_transformers_5(pair, tmp_path):
    def rename(name: str) -> str | None:
        alone = of_thinker(name)
        if alone is None or alone.startswith("lm_head"):
            return alone
        return "model." + re.sub(r"^model\.", "language_model.", alone)

    copy, names = copied(pair[0], tmp_path, rename)
    manifest = exported(copy, tmp_path)
    before = Bundle.open(pair[1]).manifest
    assert set(manifest.tensors) == names
    assert [manifest.files[name] for name in WEIGHTS] == [before.files[name] for name in WEIGHTS]


def test_a_head_that_is_the_embeddings(pair, tmp_path):
    copy, _ = copied(pair[0], tmp_path, lambda name: None if "thinker.lm_head" in name else name)
    uses = exported(copy, tmp_path).tensors
    assert uses["thinker.model.embed_tokens.weight"] == "embeddings, tied to the LM head"


@pytest.mark.parametrize(
    "rename,prefixes",
    [
        (lambda name: "base." + name, ["base.thinker."]),
        (
            lambda name: of_thinker(name) if "audio_tower" in name else name,
            ["audio_tower.", "thinker.model."],
        ),
        (lambda name: name.replace("thinker.model.", "model."), ["model.layers.", "thinker.audio_tower."]),
    ],
    ids=["unknown", "tower of the other", "LLM of the other"],
)
def test_a_mixed_layout_is_refused(pair, tmp_path, rename, prefixes):
    copy, _ = copied(pair[0], tmp_path, rename)
    with pytest.raises(ValueError, match="begin with .*no layout of this family; known") as caught:
        export_bundle(copy, tmp_path / "bundle", progress=lambda line: None)
    line = str(caught.value)
    assert all(prefix in line.split("no layout")[0] for prefix in prefixes)
    assert all(str(layout) in line for layout in (OMNI, OMNI_THINKER, OMNI_THINKER_5))
    assert "\n" not in line and not (tmp_path / "bundle").exists()
