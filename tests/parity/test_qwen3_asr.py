"""Qwen3-ASR against PyTorch at tiny sizes: stages, token counts, transformers' own transcripts."""

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from ltbm.export.checkpoint import Checkpoint
from ltbm.export.parity import check_parity
from ltbm.export.reference import TorchReference
from ltbm.export.writer import export_bundle
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.levels import NAMED_RATIOS, parse_level
from ltbm.runtime.session import Session
from ltbm.runtime.stages.encoder import segment_tokens
from ltbm.runtime.stages.segments import Segment
from tests.support.qwen3_asr_original import as_original

BOUND = 1e-4  # largest absolute difference of encoder, projector and logits in float32
LENGTHS = (0.1, 1, 2, 7.9, 8, 8.085, 8.1, 29.99, 30.01, 61)  # seconds; 8.085 ends within a hop
STEPS = 5


def tokens_of(samples: int) -> int:
    """13 of every whole second, and of the rest what three strides of two leave; written down anew."""
    frames = max(samples, 8000) // 160
    rest = frames % 100
    for _ in range(3):
        rest = -(-rest // 2)
    return 13 * (frames // 100) + rest


@pytest.fixture(scope="module")
def pair(make_bundle):
    """Untied: a tied one of this size says the same token again and again."""
    return make_bundle("qwen3_asr", tie_word_embeddings=False)


@pytest.fixture(scope="module")
def reference(pair):
    return TorchReference(Checkpoint.open(pair[0]))


@pytest.fixture(scope="module")
def processor(pair):
    return AutoProcessor.from_pretrained(pair[0])


@pytest.fixture(scope="module")
def answering(pair):
    with Session.open(pair[1]) as session:
        yield session


def generated(reference, inputs, eos) -> list[int]:
    """transformers' own greedy tokens of its own processor's inputs."""
    out = reference.model.generate(
        **inputs, do_sample=False, max_new_tokens=STEPS, eos_token_id=list(eos), pad_token_id=eos[0]
    )
    return out[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize(
    "frames,tokens", [(50, 7), (100, 13), (800, 104), (1234, 161), (3000, 390), (6170, 802)]
)
def test_tokens_by_the_published_formula(pair, frames, tokens):
    audio = Bundle.open(pair[1]).manifest.audio
    rows = [min(800, frames - start) for start in range(0, frames, 800)]
    assert sum(map(audio.tokens, rows)) == tokens_of(160 * frames) == tokens


@pytest.mark.parametrize("seconds,names", [(0.1, ["keep50"]), (8.1, list(NAMED_RATIOS)), (30.01, ["full"])])
def test_every_stage(pair, make_clip, seconds, names):
    """What the engines make of each stage, and greedy tokens against the reference."""
    levels = [parse_level(name) for name in names]
    opened = Checkpoint.open(pair[0]), Bundle.open(pair[1])
    lines = check_parity(*opened, levels, make_clip(seconds), max_new_tokens=3)
    wanted = {"features", "encoder", "merge plan", "projector", "prefill", "greedy tokens"}
    assert wanted <= {line.stage for line in lines}
    for line in lines:
        assert line.passed, str(line)
        if line.stage in ("encoder", "projector", "prefill", "decode"):
            assert line.difference < BOUND, str(line)


@pytest.mark.parametrize("seconds", LENGTHS)
def test_transcripts_are_those_of_transformers(reference, processor, answering, make_clip, seconds):
    """Prompt ids and features from its processor, tokens from its `generate`; the level is the bundle's."""
    clip = make_clip(seconds)
    answer = answering.generate(clip, "", max_new_tokens=STEPS)
    inputs = dict(processor.apply_transcription_request(clip))
    assert answer.level == "full" and answer.tokens_in == tokens_of(len(clip))
    assert answer.prompt_token_ids == inputs["input_ids"][0].tolist()
    assert answer.token_ids == generated(reference, inputs, answering.manifest.prompt.eos_token_ids)
    raw = processor.decode(answer.token_ids, skip_special_tokens=True)
    assert answer.text == processor.extract_transcription(raw)


@pytest.mark.parametrize(
    "options", [{"prompt": "Jetson, ltbm"}, {"language": "en"}, {"prompt": "x", "language": "zh"}]
)
def test_context_and_language_stand_where_the_processor_puts_them(
    processor, reference, answering, make_clip, options
):
    clip = make_clip(2)
    answer = answering.generate(
        clip, options.get("prompt", ""), max_new_tokens=STEPS, language=options.get("language", "")
    )
    inputs = dict(processor.apply_transcription_request(clip, **options))
    assert answer.prompt_token_ids == inputs["input_ids"][0].tolist()
    assert answer.token_ids == generated(reference, inputs, answering.manifest.prompt.eos_token_ids)
    assert answer.language == {"en": "English", "zh": "Chinese", None: ""}[options.get("language")]


def test_blocks_alone_are_those_of_the_whole_clip(pair, reference, processor, answering, make_clip):
    """transformers' tower over 30.01 s at once, ours over rows of 8 s."""
    clip = make_clip(30.01)
    inputs = processor.apply_transcription_request(clip)
    with torch.no_grad():
        whole = reference.model.model.audio_tower(
            inputs["input_features"], input_features_mask=inputs["input_features_mask"]
        ).last_hidden_state
    (audio,) = answering.pipeline.segments(clip)
    ours = np.concatenate(segment_tokens(answering.pipeline.encode(audio)))
    assert [segment.tokens for segment in audio] == [104, 104, 104, 79]
    assert ours.shape == whole.shape and np.abs(ours - whole.numpy()).max() < BOUND


def test_a_segment_on_its_own_ends_in_zeros(answering, make_clip):
    """As a listener makes it: what fills its last second is not the log-mel of silence."""
    segment = Segment(make_clip(1.005), answering.manifest.audio)
    assert (segment.frame_length, segment.frames, segment.tokens) == (100, 100, 13)
    segment = Segment(make_clip(1.1), answering.manifest.audio)
    assert (segment.frame_length, segment.frames, segment.tokens) == (110, 200, 15)
    assert segment.input_features[:, :110].any() and not segment.input_features[:, 110:].any()


def test_two_audios(reference, processor, answering, make_clip):
    """The processor takes one audio a prompt; the model itself takes the features of two."""
    clips = [make_clip(2.5), make_clip(9, seed=1)]
    with pytest.raises(ValueError, match="must match 1:1"):
        processor(text=["<|audio_pad|><|audio_pad|>"], audio=clips, sampling_rate=16_000)
    answer = answering.generate(clips, "", max_new_tokens=STEPS)
    assert answer.tokens_in == sum(tokens_of(len(clip)) for clip in clips)
    single = [processor.apply_transcription_request(clip) for clip in clips]
    frames = max(inputs["input_features"].shape[-1] for inputs in single)
    features = {}
    for name in ("input_features", "input_features_mask"):
        rows = [inputs[name].numpy() for inputs in single]
        padded = [np.pad(row, [(0, 0)] * (row.ndim - 1) + [(0, frames - row.shape[-1])]) for row in rows]
        features[name] = np.concatenate(padded)
    eos = answering.manifest.prompt.eos_token_ids
    assert answer.token_ids == reference.generated(answer.prompt_token_ids, features, STEPS, eos)


def test_the_floor_is_that_of_the_whole_clip(reference, processor, answering, make_clip):
    """A loud second half lifts the floor under the first: features, and then tokens, are the processor's."""
    clip = make_clip(16.5)
    clip[: 8 * 16_000] /= 3000
    inputs = dict(processor.apply_transcription_request(clip))
    theirs = inputs["input_features"][0].numpy()
    (whole,) = answering.pipeline.segments(clip)
    (alone,) = answering.pipeline.segments(clip[: 8 * 16_000])
    ours = np.concatenate([segment.input_features for segment in whole], axis=1)
    assert np.abs(ours - theirs).max() < BOUND
    assert np.abs(alone[0].input_features[:, :-2] - theirs[:, :798]).max() > 0.5
    assert whole[0].digest != alone[0].digest
    answer = answering.generate(clip, "", max_new_tokens=STEPS)
    assert answer.token_ids == generated(reference, inputs, answering.manifest.prompt.eos_token_ids)


def test_a_head_that_is_the_embedding_table(make_bundle, make_clip):
    """As published: no LM head of its own."""
    checkpoint, bundle = make_bundle("qwen3_asr")
    opened = Checkpoint.open(checkpoint), Bundle.open(bundle)
    lines = check_parity(*opened, [parse_level("full")], make_clip(1), max_new_tokens=3)
    assert "lm_head.weight" not in opened[1].manifest.tensors
    assert [str(line) for line in lines if not line.passed] == []


def test_the_original_layout_is_the_same_model(pair, make_clip, tmp_path):
    """Names, nested configuration and Whisper's extractor of the model's own repository."""
    original = as_original(pair[0], tmp_path / "original")
    other = export_bundle(original, tmp_path / "bundle", progress=lambda line: None)
    before, after = (Bundle.open(path).manifest for path in (pair[1], other))
    for file in ("encoder.weights", "merge.weights", "decoder.weights", "embeddings.npy"):
        assert before.files[file] == after.files[file]
    for part in ("audio", "encoder", "decoder", "default_level"):
        assert getattr(before, part) == getattr(after, part)
    assert before.prompt.transcript == after.prompt.transcript
    lines = check_parity(
        Checkpoint.open(original), Bundle.open(other), [parse_level("keep25")], make_clip(0.3)
    )
    assert [str(line) for line in lines if not line.passed] == []
    with Session.open(pair[1]) as one, Session.open(other) as two:
        answers = [session.generate(make_clip(9), "a", max_new_tokens=STEPS) for session in (one, two)]
    assert answers[0].prompt_token_ids == answers[1].prompt_token_ids
    assert answers[0].token_ids == answers[1].token_ids
