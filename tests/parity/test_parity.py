"""Both families against PyTorch, stage by stage, at tiny sizes: every level, mode, backbone and clip length."""

import itertools

import numpy as np
import pytest

from ltbm.export.checkpoint import Checkpoint
from ltbm.export.parity import check_parity
from ltbm.export.reference import TorchReference
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.levels import ATTENTION, NAMED_RATIOS, POSITIONS, parse_level
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
def test_every_level_in_every_mode(make_bundle, family, positions, attention):
    levels = [parse_level(name, positions=positions, attention=attention) for name in NAMED_RATIOS]
    demand(lines_of(make_bundle(family), levels), STAGES | {"generate"})


@pytest.mark.parametrize("window", ["global", "0", "3"])
def test_windows(make_bundle, family, window):
    demand(lines_of(make_bundle(family), [parse_level("keep25", window=window)]), STAGES)


@pytest.mark.parametrize("seconds", [0.1, 29.99, 30, 30.01, 95])
def test_clip_lengths(make_bundle, family, make_clip, seconds):
    levels = [parse_level("full"), parse_level("keep12")]
    demand(lines_of(make_bundle(family), levels, waveform=make_clip(seconds), max_new_tokens=3), STAGES | {"generate"})


@pytest.mark.parametrize("backbone", [
    dict(num_key_value_heads=4), dict(num_key_value_heads=1), dict(drop_lm_head=True, tie_word_embeddings=True),
    dict(model_type="llama"), dict(model_type="qwen3", head_dim=32),
], ids=["multi-head", "multi-query", "tied", "llama", "qwen3"])
def test_backbones(make_bundle, family, backbone):
    demand(lines_of(make_bundle(family, **backbone), [parse_level("full"), parse_level("keep25")]), STAGES)


def test_float16(make_bundle, family):
    lines = lines_of(make_bundle(family, "float16"), [parse_level("full"), parse_level("keep25")])
    assert all(line.passed for line in lines), "\n".join(map(str, lines))


@pytest.mark.parametrize("seconds", [3, 30])
def test_the_session_answers_as_transformers_does(make_bundle, family, make_clip, seconds):
    """Prompt ids from transformers' own processor, tokens from its `generate`, nothing of ours in between."""
    checkpoint, bundle = make_bundle(family)
    reference, clip, prompt = TorchReference(Checkpoint.open(checkpoint)), make_clip(seconds), "What do you hear?"
    with Session.open(bundle) as session:
        answer = session.generate(clip, prompt, "full", max_new_tokens=12)
        eos = session.manifest.prompt.eos_token_ids
    conversation = [{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": prompt}]}]
    text = reference.processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    inputs = reference.processor(text=[text], audio=[clip], sampling_rate=16_000, return_tensors="pt")
    assert answer.prompt_token_ids == inputs["input_ids"][0].tolist()
    generated = reference.model.generate(**inputs, do_sample=False, max_new_tokens=12, eos_token_id=list(eos), pad_token_id=eos[0])
    assert answer.token_ids == generated[0, inputs["input_ids"].shape[1]:].tolist()


def test_a_clip_pays_for_its_own_length(make_bundle, family, make_clip):
    """The encoder sees the clip's frames, not the window's: 504 of 3000 for 5 s."""
    with Session.open(make_bundle(family)[1]) as session:
        (windows,) = session.features(make_clip(5))
        assert [window.input_features.shape for window in windows] == [(128, 504)]


def test_rows_in_one_batch_equal_rows_alone(make_bundle, family, make_clip):
    from ltbm.runtime.stages.encoder import encode

    with Session.open(make_bundle(family)[1]) as session:
        windows = [session.features(make_clip(seconds, seed))[0][0] for seed, seconds in enumerate((2.0, 1.99, 2.02))]
        together = encode(session.encoder, windows)
        alone = [encode(session.encoder, [window])[0] for window in windows]
    assert len(together) == 1
    for row, single in enumerate(alone):
        length = single.tokens
        assert np.abs(together[0].audio_embeds[row, :length] - single.audio_embeds[0, :length]).max() < 1e-5
