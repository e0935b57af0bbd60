"""The model's shapes, its windows, and packing: all on random weights."""

import itertools

import numpy as np
import pytest
import torch

from ltbm.demo import data, language
from ltbm.demo.evaluate import answer_scenes
from ltbm.demo.model import (
    SEGMENT_S,
    TRAINING_SEGMENT_S,
    encode_audio,
    feature_extractor,
    make_model,
    sinusoids,
    token_count,
    with_segment,
)
from ltbm.demo.scenes import SAMPLE_RATE, held_out_scene, split_seeds
from ltbm.demo.train import language_loss

SCENES = [held_out_scene(seed) for seed in split_seeds("test", 4)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return make_model().eval()


def test_the_position_table_is_whisper_s(model):
    table = model.model.audio_tower.embed_positions.weight
    assert table.shape == (TRAINING_SEGMENT_S * 50, 128) and not table.requires_grad
    wide = sinusoids(1500, 128)
    torch.testing.assert_close(
        table, wide[: len(table)], rtol=0, atol=1e-6
    )  # sin rounds by how threads share the work
    np.testing.assert_allclose(wide[7, [0, 64]], [np.sin(7), np.cos(7)], atol=1e-6)


@torch.inference_mode()
def test_a_longer_segment_changes_no_output(model):
    """Stock forward, 8 s against 30 s, through the stock feature extractor."""
    wide = with_segment(model, SEGMENT_S)
    for scene in SCENES:
        frames = len(scene.waveform) // data.HOP
        narrow_tokens = _stock_tokens(model, data.log_mels(scene.waveform, data.MAX_FRAMES), frames)
        full = feature_extractor()(scene.waveform, sampling_rate=SAMPLE_RATE)["input_features"][0]
        wide_tokens = _stock_tokens(wide, full, frames)
        torch.testing.assert_close(narrow_tokens, wide_tokens, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_any_bucket_gives_the_stock_tokens(model):
    for scene in SCENES:
        example = data.make_example(scene)
        features = torch.from_numpy(data.log_mels(scene.waveform, example.features.shape[1]))[None]
        tokens = encode_audio(model, features, torch.tensor([example.frames]))[
            0, : token_count(example.frames)
        ]
        stock = _stock_tokens(model, data.log_mels(scene.waveform, data.MAX_FRAMES), example.frames)
        torch.testing.assert_close(tokens, stock, rtol=0, atol=1e-5)


def _stock_tokens(model, features: np.ndarray, frames: int) -> torch.Tensor:
    """Valid tokens [L, D] of the stock encoder with the mask that the stock forward makes."""
    tower = model.model.audio_tower
    positions, tokens = (int(n) for n in tower._get_feat_extract_output_lengths(torch.tensor(frames)))
    mask = torch.zeros(1, 1, 1, features.shape[1] // 2)
    mask[..., positions:] = torch.finfo(torch.float32).min
    mask = mask.expand(-1, -1, features.shape[1] // 2, -1)
    return tower(torch.from_numpy(features)[None], attention_mask=mask).last_hidden_state[0, :tokens]


def test_token_labels_follow_the_events():
    for scene in SCENES:
        example = data.make_example(scene)
        heard = [data.CLAUSES[k] for k in example.labels if k not in (data.IGNORE, data.BACKGROUND)]
        runs = [clause for clause, _ in itertools.groupby(example.labels)]
        assert list(dict.fromkeys(heard)) == list(dict.fromkeys(map(language.describe, scene.events)))
        assert sum(k not in (data.IGNORE, data.BACKGROUND) for k in runs) == len(scene.events)
        assert (example.labels != data.IGNORE).sum() == token_count(example.frames)


@torch.inference_mode()
def test_packed_dialogues_see_the_clip_and_themselves_only(model):
    """The loss of a packed batch is the mean of its dialogues, each through the stock forward on its own."""
    scenes = [held_out_scene(seed) for seed in split_seeds("test", 40)]
    examples = [data.make_example(scene) for scene in scenes if 5 < scene.seconds <= 6][:3]
    assert len({example.frames for example in examples}) > 1
    tokenizer, classifier = data.make_tokenizer(), torch.nn.Linear(128, data.BACKGROUND + 1)
    packed, _ = language_loss(model, classifier, data.make_batch(examples, tokenizer, draw=3))
    total, count = 0.0, 0
    for example in examples:
        for prompt, answer in data.dialogues(example.scene, draw=3):
            loss, said = _stock_loss(model, tokenizer, example, prompt, answer)
            total, count = total + loss * said, count + said
    assert float(packed) == pytest.approx(total / count, rel=1e-4)


def _stock_loss(model, tokenizer, example, prompt: str, answer: str) -> tuple[float, int]:
    """Mean loss and number of an answer's tokens."""
    audio = "<|AUDIO|>" * token_count(example.frames)
    asked = tokenizer.encode(data.PREFIX + audio + data.DIALOGUE.format(prompt=prompt)).ids
    said = tokenizer.encode(answer + language.TURN_END).ids
    features = np.repeat(example.features[:, -1:], data.MAX_FRAMES, axis=1)
    features[:, : example.features.shape[1]] = example.features
    output = model(
        input_ids=torch.tensor([asked + said]),
        attention_mask=torch.ones(1, len(asked + said), dtype=torch.long),
        input_features=torch.from_numpy(features).float()[None],
        feature_attention_mask=(torch.arange(data.MAX_FRAMES) < example.frames)[None].long(),
        labels=torch.tensor([[data.IGNORE] * len(asked) + said]),
    )
    return float(output.loss), len(said)


def test_answers_do_not_depend_on_the_batch(model):
    together = answer_scenes(model, SCENES)
    alone = [answer_scenes(model, [scene])[0] for scene in SCENES]
    assert together == alone
    assert [len(texts) for texts in together] == [4] * len(SCENES)
