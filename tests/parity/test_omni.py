"""Qwen2.5-Omni against transformers where it is unlike other families: positions, blocks, two audios."""

import numpy as np
import pytest
import torch

from ltbm.export.blocks import sinusoids
from ltbm.export.checkpoint import Checkpoint
from ltbm.export.parity import check_parity
from ltbm.export.reference import TorchReference
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.levels import NAMED_RATIOS, parse_level
from ltbm.runtime.session import Session
from tests.support.processors import processed, processor_of
from tests.support.tiny_omni import LONGEST

PROMPT = "What do you hear?"
BLOCK = 2  # seconds


@pytest.fixture(scope="module")
def pair(make_bundle):
    return make_bundle("qwen2_5_omni")


@pytest.fixture(scope="module")
def reference(pair):
    return TorchReference(Checkpoint.open(pair[0]))


@pytest.fixture(scope="module")
def processor(pair):
    return processor_of("qwen2_5_omni", pair[0])


@pytest.fixture(scope="module")
def answering(pair):
    with Session.open(pair[1]) as session:
        yield session


def test_every_level(pair, make_clip):
    """Merge plans, logits and greedy tokens of every flavour; merged tokens keep positions with gaps."""
    opened = Checkpoint.open(pair[0]), Bundle.open(pair[1])
    levels = [parse_level(name) for name in NAMED_RATIOS]
    lines = check_parity(*opened, levels, make_clip(5.3), max_new_tokens=4)
    assert {line.level for line in lines if line.stage == "greedy tokens"} == set(NAMED_RATIOS)
    assert [str(line) for line in lines if not line.passed] == []


def test_two_audios_of_one_prompt(reference, processor, answering, make_clip):
    """Both go through the processor at once; their lengths differ, and one is longer than a segment."""
    clips = [make_clip(31.1), make_clip(2.5, seed=1)]
    answer = answering.generate(clips, PROMPT, "full", max_new_tokens=5)
    inputs = processed(processor, "qwen2_5_omni", clips, PROMPT)
    assert answer.prompt_token_ids == inputs["input_ids"][0].tolist()
    eos = answering.manifest.prompt.eos_token_ids
    generated = reference.model.generate(
        **inputs, do_sample=False, max_new_tokens=5, eos_token_id=list(eos), pad_token_id=eos[0]
    )
    assert answer.token_ids == generated[0, inputs["input_ids"].shape[1] :].tolist()


def test_positions_are_those_of_plain_rope(reference, processor, make_clip):
    """Of sound and text alone all three axes count on: 0, 1, 2, ... whatever audios stand between."""
    inputs = processed(processor, "qwen2_5_omni", [make_clip(4), make_clip(2.5)], PROMPT)
    ids = inputs["input_ids"]
    no_pictures = torch.zeros(0, 3, dtype=torch.long)  # with some, or none, each audio's tokens are counted
    for grid in (None, no_pictures):
        positions, beyond = reference.model.get_rope_index(
            ids,
            image_grid_thw=grid,
            attention_mask=inputs["attention_mask"],
            audio_seqlens=inputs["feature_attention_mask"].sum(-1),
        )
        assert torch.equal(positions, torch.arange(ids.shape[1]).expand(3, 1, -1))
        assert beyond.item() == 0


def test_blocks_do_not_hear_each_other(answering, make_clip):
    """A block's tokens are the same wherever it stands, and whatever follows it, at the cut too."""
    clip = make_clip(3 * BLOCK)
    samples = BLOCK * 16_000
    (whole,) = answering.pipeline.segments(clip)
    whole[0].input_features[:, 400:] += 1.0
    changed = _encoded(answering, whole)
    (again,) = answering.pipeline.segments(clip)
    assert np.array_equal(changed[: samples // 320], _encoded(answering, again)[: samples // 320])
    assert np.abs(changed[100:] - _encoded(answering, again)[100:]).max() > 0.01


def _encoded(session, audio) -> np.ndarray:
    return session.pipeline.encode(audio)[0].audio_embeds[0].copy()


def test_positions_of_the_tower(reference):
    stored = reference.core.audio_tower.positional_embedding.positional_embedding
    assert np.abs(sinusoids(100, stored.shape[1]) - stored[:100].numpy()).max() < 1e-5  # of angles up to 100


def test_an_audio_is_as_long_as_the_extractor_takes(answering, make_clip):
    assert answering.manifest.audio.max_segments == LONGEST // 30
    with pytest.raises(ValueError, match=f"{LONGEST} s"):
        answering.generate(make_clip(LONGEST + 0.1), PROMPT, "keep6")
