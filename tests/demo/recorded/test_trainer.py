"""A short training run under an ear of random weights: the loss falls, and stock transformers load it."""

import io

import numpy as np
import pytest
import torch
from transformers import Qwen2AudioEncoder, Qwen2AudioEncoderConfig, Qwen2AudioForConditionalGeneration

from ltbm.demo.recorded import data
from ltbm.demo.recorded.ear import ENCODER, Ear
from ltbm.demo.recorded.evaluate import answer_examples, score
from ltbm.demo.recorded.metrics import RATIOS
from ltbm.demo.recorded.model import load_model, save_model
from ltbm.demo.recorded.muon import Muon
from ltbm.demo.recorded.packing import EAR_POSITIONS, EAR_WIDTH, sinusoids
from ltbm.demo.recorded.recordings import read_pool
from ltbm.demo.recorded.scenes import held_out_scene
from ltbm.demo.recorded.train import Recipe, train

pytestmark = pytest.mark.slow

SMOKE = Recipe(steps=12, warmup_steps=3, scenes=24, batch=4, rise=3)


@pytest.fixture(scope="module")
def ear():
    torch.manual_seed(0)
    encoder = Qwen2AudioEncoder(Qwen2AudioEncoderConfig(**ENCODER))
    table = sinusoids(EAR_POSITIONS, EAR_WIDTH)
    encoder.embed_positions.weight.data = torch.from_numpy(table)
    return Ear(encoder)


@pytest.fixture(scope="module")
def run(recordings, ear):
    return train(SMOKE, read_pool(recordings, "train"), ear, io.StringIO())


def test_the_loss_falls_and_the_ear_stays(run, ear):
    model, losses = run
    assert len(losses) == SMOKE.steps and np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    for name, weight in model.model.audio_tower.state_dict().items():
        assert torch.equal(weight, ear.encoder.state_dict()[name]), name


@torch.inference_mode()
def test_the_ear_s_tokens_are_the_stock_encoder_s_of_a_whole_segment(ear, pool):
    scene = held_out_scene(pool, 1)
    tokens = ear.tokens(scene.waveform)
    features = ear.features(scene.waveform, sampling_rate=16_000, return_tensors="pt")["input_features"]
    mask = torch.zeros(1, 1, 1500, 1500)
    mask[..., 2 * len(tokens) :] = torch.finfo(torch.float32).min
    stock = ear.encoder(features, attention_mask=mask).last_hidden_state[0, : len(tokens)]
    np.testing.assert_allclose(tokens, stock, rtol=0, atol=1e-3)


def test_a_packed_checkpoint_loads_and_answers(run, pool, tmp_path):
    model, _ = run
    save_model(model, tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 12e6
    loaded = load_model(tmp_path)
    assert isinstance(loaded, Qwen2AudioForConditionalGeneration)
    before, after = dict(model.named_parameters()), dict(loaded.named_parameters())
    for name, weight in before.items():
        assert (after[name] - weight).abs().max() <= weight.abs().max() / 100, name
    examples = [data.make_example(held_out_scene(pool, 0), Ear(loaded.model.audio_tower))]
    assert score(examples, answer_examples(loaded, examples)).keys() == RATIOS.keys()


def test_muon_is_pytorch_s_but_for_rounding():
    torch.manual_seed(0)
    weights = torch.randn(64, 32)
    ours, theirs = torch.nn.Parameter(weights.clone()), torch.nn.Parameter(weights.clone())
    steps = [Muon([ours], lr=0.01, weight_decay=0.01)]
    steps += [torch.optim.Muon([theirs], lr=0.01, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")]
    for _ in range(3):
        ours.grad = torch.randn(64, 32)
        theirs.grad = ours.grad.clone()
        for optimizer in steps:
            optimizer.step()
    moved = (theirs - weights).abs().max()
    assert (ours - theirs).abs().max() < 0.05 * moved
