"""Both families against PyTorch, stage by stage, at tiny sizes: every level, mode,
backbone and clip length."""

import itertools
import shutil

import numpy as np
import onnx
import pytest
from transformers import AutoProcessor

from ltbm.export.checkpoint import Checkpoint
from ltbm.export.parity import check_parity
from ltbm.export.reference import TorchReference
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.levels import ATTENTION, NAMED_RATIOS, POSITIONS, parse_level
from ltbm.runtime.pipeline import Pipeline
from ltbm.runtime.session import Session

BOUND = 1e-4  # largest absolute difference of encoder and logits in float32


def lines_of(pair, levels, **options):
    return check_parity(Checkpoint.open(pair[0]), Bundle.open(pair[1]), levels, **options)


def demand(lines, stages) -> None:
    assert stages <= {line.stage for line in lines}
    for line in lines:
        assert line.passed, str(line)
        if line.stage in ("encoder", "projector", "prefill", "decode"):
            assert line.difference < BOUND, str(line)


STAGES = {"features", "encoder", "merge plan", "projector", "prefill", "decode", "greedy tokens"}


@pytest.mark.parametrize("positions,attention", list(itertools.product(POSITIONS, ATTENTION)))
def test_every_level_in_every_mode(make_bundle, positions, attention):
    levels = [parse_level(name, positions=positions, attention=attention) for name in NAMED_RATIOS]
    demand(lines_of(make_bundle("qwen2_audio"), levels), STAGES | {"generate"})


def test_every_level_of_audio_flamingo(make_bundle):
    """Its encoder and decoder are Qwen2-Audio's graphs: modes, of which the decoder knows, are run above."""
    levels = [parse_level(name) for name in NAMED_RATIOS]
    demand(lines_of(make_bundle("audioflamingo3"), levels), STAGES | {"generate"})


@pytest.mark.parametrize("window", ["global", "0", "3"])
def test_windows(make_bundle, family, window):
    demand(lines_of(make_bundle(family), [parse_level("keep25", window=window)]), STAGES)


@pytest.mark.parametrize("seconds", [0.1, 29.99, 30, 30.01, 61])
def test_clip_lengths(make_bundle, family, make_clip, seconds):
    levels = [parse_level("full"), parse_level("keep12")]
    demand(
        lines_of(make_bundle(family), levels, waveform=make_clip(seconds), max_new_tokens=3),
        STAGES | {"generate"},
    )


@pytest.mark.parametrize(
    "backbone",
    [
        dict(num_key_value_heads=4),
        dict(num_key_value_heads=1),
        dict(drop_lm_head=True, tie_word_embeddings=True),
        dict(model_type="llama"),
        dict(model_type="qwen3", head_dim=32),
    ],
    ids=["multi-head", "multi-query", "tied", "llama", "qwen3"],
)
def test_backbones(make_bundle, backbone):
    levels = [parse_level("full"), parse_level("keep25")]
    demand(lines_of(make_bundle("qwen2_audio", **backbone), levels), STAGES)


def test_float16(make_bundle, family):
    lines = lines_of(make_bundle(family, "float16"), [parse_level("full"), parse_level("keep25")])
    assert all(line.passed for line in lines), "\n".join(map(str, lines))


PRECISIONS = {
    "int4": ("int4", {}),
    "int4, float32 products": ("int4", dict(accuracy_level=0)),
    "int4, float16 activations": ("int4", dict(activations="float16")),
    "int4, float16 encoder": ("int4", dict(encoder_precision="float16", lm_head_precision="float16")),
    "int4 asymmetric": ("int4", dict(symmetric=False, block_size=16)),
    "int4 for TensorRT": ("int4", dict(target="tensorrt")),
    "int8": ("int8", {}),
    "int8 asymmetric": ("int8", dict(symmetric=False)),
    "int4 LM head alone": ("float32", dict(lm_head_precision="int4", lm_head_chunks=3)),
}


@pytest.mark.parametrize(
    "family,name", [("qwen2_audio", name) for name in PRECISIONS] + [("audioflamingo3", "int4")]
)
def test_quantised(make_bundle, family, name):
    """Every flavour computes with the weights it was given; how far those are from float32 is a figure."""
    precision, export = PRECISIONS[name]
    lines = lines_of(make_bundle(family, precision, export), [parse_level("keep25")], max_new_tokens=4)
    assert all(line.passed for line in lines), "\n".join(map(str, lines))
    rounded = [line for line in lines if line.stage.endswith("rounded")]
    plain = [line for line in lines if line.stage in ("prefill", "decode")]
    assert len(rounded) == len(plain) == 2 * (3 if "TensorRT" in name else 5)
    for near, far in zip(sorted(rounded, key=str), sorted(plain, key=str)):
        standard = near.flavour in ("std24", "trt24", "concat20") or export.get("accuracy_level") == 0
        if standard and "float16" not in name and "TensorRT" not in name:  # in float32 throughout
            assert near.difference < BOUND and far.difference > 100 * BOUND, f"{near}\n{far}"


INT8_ENCODER = dict(encoder_precision="int8")


@pytest.mark.parametrize("family", ["qwen2_audio", "audioflamingo3", "voxtral", "qwen2_5_omni", "qwen3_asr"])
def test_int8_encoder(make_bundle, family):
    """The rounding is a figure; that the engine computes with it is held tightly."""
    lines = lines_of(make_bundle(family, export=INT8_ENCODER), [parse_level("full"), parse_level("keep25")])
    assert all(line.passed for line in lines), "\n".join(map(str, lines))
    far, near = (line for line in lines if line.stage.startswith("encoder"))
    assert near.stage == "encoder rounded"
    assert near.difference < far.difference / 3, f"{near}\n{far}"  # a tie of two codes may turn


def test_codes_of_the_encoder_in_a_wrong_order_are_found(make_bundle, tmp_path):
    checkpoint, bundle = make_bundle("qwen2_audio", export=INT8_ENCODER)
    broken = shutil.copytree(bundle, tmp_path / "bundle")
    part = weight_bytes(broken, "encoder", "layers.1.fc1.codes").reshape(-1, 2)
    part[:] = part[:, ::-1].copy()
    lines = check_parity(
        Checkpoint.open(checkpoint), Bundle.open(broken), [parse_level("full")], max_new_tokens=2
    )
    assert not all(line.passed for line in lines if line.stage == "encoder rounded")


def weight_bytes(bundle, stage: str, name: str) -> np.memmap:
    """The bytes of one tensor of a bundle's stage, to write to."""
    graph = next(bundle.glob(f"{stage}*.onnx"))
    tensors = onnx.load(graph, load_external_data=False).graph.initializer
    (tensor,) = [tensor for tensor in tensors if tensor.name == name]
    place = {entry.key: entry.value for entry in tensor.external_data}
    offset = int(place["offset"])
    return np.memmap(bundle / place["location"], np.uint8, "r+")[offset : offset + int(place["length"])]


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_codes_in_a_wrong_order_are_found(make_bundle, tmp_path, precision):
    """Neighbours swapped in every byte or pair of one matrix: within the bound of int4,
    but not what was given."""
    checkpoint, bundle = make_bundle("qwen2_audio", precision)
    broken = shutil.copytree(bundle, tmp_path / "bundle")
    part = weight_bytes(broken, "decoder", "layers.1.self_attn.o_proj.codes")
    part[:] = part << 4 | part >> 4 if precision == "int4" else part.reshape(-1, 2)[:, ::-1].ravel()
    lines = check_parity(
        Checkpoint.open(checkpoint), Bundle.open(broken), [parse_level("full")], max_new_tokens=2
    )
    for flavour in ("gqa", "std24", "trt24", "ort24", "concat20"):
        assert not all(
            line.passed for line in lines if line.stage.endswith("rounded") and line.flavour == flavour
        )


@pytest.mark.parametrize(
    "export,skipped", [({}, "encoder"), (dict(encoder_precision="float16"), "decoder")], ids=["all", "LLM"]
)
def test_bfloat16_says_what_it_cannot_compare(make_bundle, export, skipped):
    lines = lines_of(make_bundle("qwen2_audio", "bfloat16", export), [parse_level("full")])
    (line,) = [line for line in lines if line.skipped]
    assert line.stage == skipped and "no bfloat16 on the CPU" in str(line) and line.passed
    assert not {"prefill", "decode"} & {line.stage for line in lines}


@pytest.mark.parametrize("seconds", [3, 30])
def test_the_session_answers_as_transformers_does(make_bundle, family, make_clip, seconds):
    """Prompt ids from transformers' own processor, tokens from its `generate`, nothing of ours in between."""
    checkpoint, bundle = make_bundle(family)
    reference, clip, prompt = (
        TorchReference(Checkpoint.open(checkpoint)),
        make_clip(seconds),
        "What do you hear?",
    )
    with Session.open(bundle) as session:
        answer = session.generate(clip, prompt, "full", max_new_tokens=12)
        eos = session.manifest.prompt.eos_token_ids
    conversation = [{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": prompt}]}]
    processor = AutoProcessor.from_pretrained(checkpoint)
    text = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], audio=[clip], sampling_rate=16_000, return_tensors="pt")
    assert answer.prompt_token_ids == inputs["input_ids"][0].tolist()
    generated = reference.model.generate(
        **inputs, do_sample=False, max_new_tokens=12, eos_token_id=list(eos), pad_token_id=eos[0]
    )
    assert answer.token_ids == generated[0, inputs["input_ids"].shape[1] :].tolist()


def test_a_clip_pays_for_its_own_length(make_bundle, family, make_clip):
    """The encoder sees the clip's frames, not the segment's: 504 of 3000 for 5 s."""
    with Pipeline.open(make_bundle(family)[1]) as pipeline:
        (audio,) = pipeline.segments(make_clip(5))
        assert [mel.shape for mel in pipeline.features(audio)] == [(128, 504)]


@pytest.mark.parametrize("export", [{}, INT8_ENCODER], ids=["float32", "int8"])
def test_rows_in_one_batch_equal_rows_alone(make_bundle, family, make_clip, export):
    with Pipeline.open(make_bundle(family, export=export)[1]) as pipeline:
        clips = [make_clip(1.99, seed) for seed in range(3)]
        segments = [segment for (segment,) in pipeline.segments(clips)]
        (together,) = pipeline.encode(segments)
        alone = [pipeline.encode([segment])[0] for segment in segments]
    for row, single in enumerate(alone):
        length = single.tokens
        assert np.abs(together.audio_embeds[row, :length] - single.audio_embeds[0, :length]).max() < 1e-5


def test_rows_of_other_lengths_are_run_apart_and_masked_where_they_are_not(make_bundle, family, make_clip):
    """Equal frames and tokens, but not equal lengths: an int8 encoder would take the first's for all."""
    with Pipeline.open(make_bundle(family)[1]) as pipeline:
        clips = [make_clip(seconds, seed) for seed, seconds in enumerate((2.0, 1.99))]
        segments = [segment for (segment,) in pipeline.segments(clips)]
        alone = pipeline.encode(segments)
        features = np.stack([segment.input_features for segment in segments])
        lengths = np.array([segment.frame_length for segment in segments], np.int32)
        engine = pipeline.engines.get("encoder")
        together = engine.run({"input_features": features, "frame_lengths": lengths})["audio_embeds"]
    assert [group.rows for group in alone] == [1, 1]
    for row, single in enumerate(alone):
        length = single.tokens
        assert np.abs(together[row, :length] - single.audio_embeds[0, :length]).max() < 1e-5
