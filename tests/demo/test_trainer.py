"""A short training run under an encoder of random weights: the loss falls, and stock transformers load it."""

import io

import numpy as np
import pytest
import torch
from transformers import Qwen2AudioEncoder, Qwen2AudioEncoderConfig, Qwen2AudioForConditionalGeneration

from ltbm.demo import data, language
from ltbm.demo.encoder import ENCODER, AudioEncoder
from ltbm.demo.evaluate import answer_examples, score
from ltbm.demo.metrics import RATIOS
from ltbm.demo.model import WIDTH, load_model, make_model, save_model
from ltbm.demo.muon import Muon
from ltbm.demo.packing import ENCODER_POSITIONS, ENCODER_WIDTH, sinusoids
from ltbm.demo.recordings import read_pool
from ltbm.demo.scenes import held_out_scene
from ltbm.demo.train import Recipe, language_loss, train

pytestmark = pytest.mark.slow

SMOKE = Recipe(steps=12, warmup_steps=3, scenes=24, batch=4, rise=3)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    encoder = Qwen2AudioEncoder(Qwen2AudioEncoderConfig(**ENCODER))
    table = sinusoids(ENCODER_POSITIONS, ENCODER_WIDTH)
    encoder.embed_positions.weight.data = torch.from_numpy(table)
    return AudioEncoder(encoder)


@pytest.fixture(scope="module")
def run(recordings, encoder):
    return train(SMOKE, read_pool(recordings, "train"), encoder, io.StringIO())


def test_the_loss_falls_and_the_encoder_stays(run, encoder):
    model, losses = run
    assert len(losses) == SMOKE.steps and np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    for name, weight in model.model.audio_tower.state_dict().items():
        assert torch.equal(weight, encoder.tower.state_dict()[name]), name


@torch.inference_mode()
def test_the_encoder_s_tokens_are_the_stock_encoder_s_of_a_whole_segment(encoder, pool):
    scene = held_out_scene(pool, 1)
    tokens = encoder.tokens(scene.waveform)
    features = encoder.features(scene.waveform, sampling_rate=16_000, return_tensors="pt")["input_features"]
    mask = torch.zeros(1, 1, 1500, 1500)
    mask[..., 2 * len(tokens) :] = torch.finfo(torch.float32).min
    stock = encoder.tower(features, attention_mask=mask).last_hidden_state[0, : len(tokens)]
    np.testing.assert_allclose(tokens, stock, rtol=0, atol=1e-3)


@torch.inference_mode()
def test_packed_dialogues_see_the_clip_and_themselves_only(encoder, pool):
    """The loss of a packed batch is the mean of its dialogues, each through the stock forward on its own."""
    model = make_model(encoder).eval()
    scenes = sorted((held_out_scene(pool, number) for number in range(12)), key=lambda scene: scene.seconds)
    examples = [data.make_example(scene, encoder) for scene in (scenes[0], scenes[1], scenes[-1])]
    assert len(examples[-1].audio) > len(examples[0].audio)
    tokenizer = data.make_tokenizer()
    classifier = torch.nn.Linear(WIDTH, data.BACKGROUND + 1)
    packed, _ = language_loss(model, classifier, data.make_batch(examples, tokenizer, draw=3))
    total, count = 0.0, 0
    for example in examples:
        for prompt, answer in data.dialogues(example.events, example.seed, draw=3):
            loss, said = _stock_loss(model, tokenizer, example, prompt, answer)
            total += loss * said
            count += said
    assert float(packed) == pytest.approx(total / count, rel=1e-4)


def _stock_loss(model, tokenizer, example, prompt: str, answer: str) -> tuple[float, int]:
    """Mean loss and number of an answer's tokens."""
    before = tokenizer.encode(data.PREFIX).ids
    asked = tokenizer.encode(data.DIALOGUE.format(prompt=prompt)).ids
    said = tokenizer.encode(answer + language.TURN_END).ids
    embed = model.get_input_embeddings()
    audio = model.model.multi_modal_projector(torch.from_numpy(example.audio).float())
    embeds = torch.cat([embed(torch.tensor(before)), audio, embed(torch.tensor(asked + said))])
    labels = [data.IGNORE] * (len(before) + len(audio) + len(asked)) + said
    output = model(inputs_embeds=embeds[None], labels=torch.tensor([labels]))
    return float(output.loss), len(said)


def test_a_packed_checkpoint_loads_and_answers(run, pool, tmp_path):
    model, _ = run
    save_model(model, tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 12e6
    loaded = load_model(tmp_path)
    assert isinstance(loaded, Qwen2AudioForConditionalGeneration)
    before, after = dict(model.named_parameters()), dict(loaded.named_parameters())
    for name, weight in before.items():
        assert (after[name] - weight).abs().max() <= weight.abs().max() / 100, name
    examples = [data.make_example(held_out_scene(pool, 0), AudioEncoder(loaded.model.audio_tower))]
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
