"""The names that tensors have in checkpoints: every known layout gives the same weights."""

import shutil

import pytest
from safetensors.torch import load_file, save_file

from ltbm.export.layouts import HUB, TRANSFORMERS_5
from ltbm.export.writer import export_bundle
from ltbm.runtime.bundle import Bundle

BACK = {here: stored for stored, here in TRANSFORMERS_5.prefixes.items()}


def transformers_5_name(name: str) -> str:
    prefix = next(here for here in BACK if name.startswith(here))
    return BACK[prefix] + name.removeprefix(prefix)


def renamed(folder, tmp_path, rename):
    copy = shutil.copytree(folder, tmp_path / "checkpoint")
    tensors = {rename(name): value for name, value in load_file(copy / "model.safetensors").items()}
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    return copy, set(tensors)


def test_transformers_5_names_export_the_same_weights(make_bundle, family, tmp_path):
    checkpoint, bundle = make_bundle(family)
    copy, names = renamed(checkpoint, tmp_path, transformers_5_name)
    other = export_bundle(copy, tmp_path / "bundle", progress=lambda line: None)
    before, after = (Bundle.open(path).manifest for path in (bundle, other))
    for file in ("encoder.weights", "merge.weights", "decoder.weights", "embeddings.npy"):
        assert before.files[file] == after.files[file]
    assert set(after.tensors) == names


@pytest.mark.parametrize(
    "rename,prefix",
    [
        (lambda name: "base." + name, "base.audio_tower."),
        (lambda name: transformers_5_name(name) if "tower" in name else name, "model.audio_tower."),
    ],
    ids=["unknown", "mixed"],
)
def test_an_unknown_layout_names_what_it_begins_with(make_bundle, tmp_path, rename, prefix):
    copy, _ = renamed(make_bundle("qwen2_audio")[0], tmp_path, rename)
    with pytest.raises(ValueError, match="begin with .*no layout of this family; known") as caught:
        export_bundle(copy, tmp_path / "bundle", progress=lambda line: None)
    line = str(caught.value)
    assert prefix in line.split("no layout")[0]
    assert str(HUB) in line and "\n" not in line and not (tmp_path / "bundle").exists()
