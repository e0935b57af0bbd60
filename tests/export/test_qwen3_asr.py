"""Qwen3-ASR's checkpoints: layouts, defaults and languages against transformers, and what is refused."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
from transformers import Qwen3ASRFeatureExtractor
from transformers.models.qwen3_asr.processing_qwen3_asr import LANGUAGE_CODE_TO_NAME

from ltbm.export.checkpoint import Checkpoint
from ltbm.export.families import FAMILIES
from ltbm.export.shapes import LAYER, shapes_of
from ltbm.export.specification import model_spec
from ltbm.export.writer import export_bundle
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.template import compile_template
from tests.support.qwen3_asr_original import as_original, original_name
from tests.support.tiny_asr import TEMPLATE

FAMILY = FAMILIES["qwen3_asr"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(Qwen3ASRFeatureExtractor().to_dict()))
    return tmp_path


@pytest.fixture
def copy(make_bundle, tmp_path):
    return shutil.copytree(make_bundle("qwen3_asr")[0], tmp_path / "checkpoint")


def test_the_front_end_s_defaults_are_the_extractor_s(folder):
    audio = model_spec({"model_type": "qwen3_asr"}, folder).audio
    assert audio.shortest_audio == Qwen3ASRFeatureExtractor().min_length == FAMILY.sound.shortest_audio
    assert audio.segment_frames == 800 and audio.segment_tokens == 104


def test_languages_are_those_of_the_processor():
    assert FAMILY.prompt.transcript is not None
    assert FAMILY.prompt.transcript.languages == LANGUAGE_CODE_TO_NAME


@pytest.mark.parametrize(
    "context", [None, "Jetson", [{"type": "text", "text": "Jet"}, {"type": "text", "text": "son"}]]
)
def test_the_family_s_template_is_that_of_checkpoints(context):
    """For checkpoints without one: the same text up to the answer; what a user writes is dropped."""
    sound = {"type": "audio", "audio_url": "x"}
    messages = [{"role": "user", "content": [sound, sound, {"type": "text", "text": "dropped"}]}]
    if context is not None:
        messages = [{"role": "system", "content": context}, *messages]
    texts = [
        compile_template(template, "x")(messages=messages, add_generation_prompt=True)
        for template in (FAMILY.prompt.template, TEMPLATE)
    ]
    assert texts[0] == texts[1] and "dropped" not in texts[0]


@pytest.mark.parametrize("layout", ["transformers", "original"])
def test_every_tensor_is_accounted_for(make_bundle, tmp_path, layout):
    checkpoint, bundle = make_bundle("qwen3_asr")
    if layout == "original":
        checkpoint = as_original(checkpoint, tmp_path / "checkpoint")
        bundle = export_bundle(checkpoint, tmp_path / "bundle", progress=lambda line: None)
    tensors = load_file(checkpoint / "model.safetensors")
    assert set(Bundle.open(bundle).manifest.tensors) == set(tensors)
    opened = Checkpoint.open(checkpoint)
    shapes = shapes_of(model_spec(opened.config, opened.path))
    stored = {opened.names[name]: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert stored == {name: shapes[LAYER.sub("layers.*.", name)] for name in stored}


@pytest.mark.parametrize(
    "rename,prefix",
    [
        (lambda name: "base." + name, "base.model."),
        (lambda name: original_name(name) if "tower" in name else name, "thinker.audio_tower."),
    ],
    ids=["unknown", "mixed"],
)
def test_an_unknown_layout_names_what_it_begins_with(copy, tmp_path, rename, prefix):
    tensors = load_file(copy / "model.safetensors")
    renamed = {rename(name): tensor for name, tensor in tensors.items()}
    save_file(renamed, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match="begin with .*no layout of this family; known: model.audio_tower.*thinker."
    ) as caught:
        export_bundle(copy, tmp_path / "bundle", progress=lambda line: None)
    line = str(caught.value)
    assert prefix in line.split("no layout")[0] and "\n" not in line and not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "change,words",
    [
        ({"audio_config": {"n_window": 100}}, "n_window 100"),
        ({"audio_config": {"n_window_infer": 400}}, "n_window_infer 400"),
        ({"audio_config": {"model_type": "voxtral_encoder"}}, "audio tower 'voxtral_encoder'"),
        ({"audio_config": {"activation_function": "relu"}}, "encoder activation 'relu'"),
        ({"text_config": {"model_type": "qwen3_moe"}}, "LLM type 'qwen3_moe'"),
    ],
)
def test_a_part_that_the_record_does_not_state_is_refused_by_its_name(folder, change, words):
    for config in (change, {"thinker_config": change}):
        with pytest.raises(ValueError, match=words):
            model_spec({"model_type": "qwen3_asr"} | config, folder)


def test_a_head_that_classifies_is_refused(copy, tmp_path):
    """The forced aligner, which gives times and no text."""
    tensors = load_file(copy / "model.safetensors")
    tensors["score.weight"] = tensors.pop("model.multi_modal_projector.linear_1.weight")
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="begin with .*score"):
        export_bundle(copy, tmp_path / "bundle", progress=lambda line: None)
