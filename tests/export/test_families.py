"""What each family assumes where config.json says nothing, against transformers' classes and optimum."""

import json

import onnx
import pytest
from optimum.utils import NormalizedConfigManager
from transformers import AutoConfig, WhisperFeatureExtractor

from ltbm.export.configuration import LLM_DEFAULTS, WHISPER_FEATURES
from ltbm.export.families import FAMILIES
from ltbm.export.specification import model_spec

FEATURES = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128}
PARTS = [{}, {"text_config": {"num_hidden_layers": 3}}, {"audio_config": {"num_mel_bins": 128}}]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(FEATURES))
    return tmp_path


@pytest.mark.parametrize("given", PARTS, ids=["nothing", "LLM's layers", "mel bands"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_defaults_are_those_of_transformers(kind, given, folder):
    """The same specification from a few lines as from all that the class makes of them."""
    family = FAMILIES[kind]
    part = dict(given)
    if family.audio_token_id is None:
        part["audio_token_id"] = 24
    if "audio_config" in part:
        part["audio_config"] = {"model_type": family.audio_type} | part["audio_config"]
    raw = {"model_type": kind} | ({family.section: part} if family.section_type else part)
    theirs = json.loads(AutoConfig.for_model(**json.loads(json.dumps(raw))).to_json_string(use_diff=False))
    assert model_spec(raw, folder) == model_spec(theirs, folder)


@pytest.mark.parametrize("kind", LLM_DEFAULTS)
def test_backbones_have_the_sizes_that_optimum_reads(kind):
    defaults = LLM_DEFAULTS[kind]
    normal = NormalizedConfigManager.get_normalized_config_class("qwen2")(AutoConfig.for_model(kind))
    assert (normal.num_layers, normal.hidden_size) == (
        defaults["num_hidden_layers"],
        defaults["hidden_size"],
    )
    assert (normal.num_attention_heads, normal.vocab_size) == (
        defaults["num_attention_heads"],
        defaults["vocab_size"],
    )


def test_the_front_end_is_what_the_extractor_assumes():
    extractor = WhisperFeatureExtractor()
    assert {name: getattr(extractor, name) for name in WHISPER_FEATURES} == WHISPER_FEATURES


@pytest.mark.parametrize(
    "change,words",
    [
        ({"audio_config": {"model_type": "voxtral_encoder"}}, "audio tower 'voxtral_encoder'.*musicflamingo"),
        ({"audio_config": {"scale_embedding": True}}, "scale_embedding True"),
        ({"projector_hidden_act": "silu"}, "projector activation 'silu'"),
        ({"text_config": {"model_type": "llama", "partial_rotary_factor": 0.5}}, "partial_rotary_factor 0.5"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2}}, "rope type 'linear' of the time"),
    ],
)
def test_a_part_that_the_record_does_not_state_is_refused_by_its_name(folder, change, words):
    with pytest.raises(ValueError, match=words):
        model_spec({"model_type": "musicflamingo"} | change, folder)


def test_a_front_end_without_a_rate_has_the_extractor_s(folder):
    assert model_spec({"model_type": "qwen2_audio"}, folder).audio.sampling_rate == 16_000


def test_twenty_minutes_of_music(folder):
    """As the processor's max_audio_len bounds it: 40 segments, or 60 where it says 30 minutes."""
    spec = model_spec({"model_type": "musicflamingo"}, folder)
    assert spec.audio.max_segments == 40 and spec.audio.numbered_segments
    (folder / "processor_config.json").write_text(json.dumps({"max_audio_len": 1800}))
    spec = model_spec({"model_type": "musicflamingo"}, folder)
    assert spec.audio.max_segments * spec.audio.segment_tokens == 45_000


@pytest.mark.parametrize("graph", ["encoder", "decoder.gqa", "decoder.trt24", "decoder.concat20"])
def test_audio_flamingo_and_qwen_share_graphs(make_bundle, graph):
    """So tests that build or run these of one family are tests of both."""
    graphs = []
    for family in ("qwen2_audio", "audioflamingo3"):
        model = onnx.load(make_bundle(family)[1] / f"{graph}.onnx", load_external_data=False)
        nodes = [(node.op_type, *node.input, *node.output) for node in model.graph.node]
        weights = [(tensor.name, tensor.data_type, *tensor.dims) for tensor in model.graph.initializer]
        graphs.append((nodes, weights))
    assert graphs[0] == graphs[1]
