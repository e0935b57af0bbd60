"""A short training run: the loss falls and the checkpoint loads again."""

import io

import numpy as np
import pytest
import torch

from ltbm.demo.evaluate import answer_scenes, load_model
from ltbm.demo.model import encode_audio, save_model
from ltbm.demo.scenes import held_out_scene, split_seeds
from ltbm.demo.train import Recipe, train

pytestmark = pytest.mark.slow

SMOKE = Recipe(steps=20, warmup_steps=5, scenes=120, batch=4, rise=5)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums are split among threads, so only one thread gives the same bits every time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run():
    log = io.StringIO()
    model, losses = train(SMOKE, log)
    return model, losses, log.getvalue()


def test_the_loss_falls(run):
    _, losses, _ = run
    assert len(losses) == SMOKE.steps and np.isfinite(losses).all()
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])


def test_progress_is_reported(run):
    _, _, log = run
    assert "120 scenes" in log and "warm-up 5/5" in log and "training 20/20" in log


def test_a_saved_model_loads_and_says_the_same(run, tmp_path):
    model, _, _ = run
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.config.audio_config.max_source_positions == 1500
    weights = dict(loaded.named_parameters())
    for name, weight in model.named_parameters():
        if "embed_positions" not in name:
            assert torch.equal(weights[name], weight.half().float()), name
    features, frames = torch.randn(1, 128, 400), torch.tensor([390])
    with torch.inference_mode():
        before, after = (encode_audio(m, features, frames) for m in (model, loaded))
    torch.testing.assert_close(before, after, rtol=0, atol=0.05)
    assert len(answer_scenes(loaded, [held_out_scene(split_seeds("test", 1)[0])])[0]) == 4
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 6e6


def test_the_same_seed_gives_the_same_weights():
    short = Recipe(steps=3, warmup_steps=2, scenes=60, batch=4, rise=2)
    first, second = (train(short, io.StringIO()) for _ in range(2))
    assert first[1] == second[1]
    for name, weight in first[0].state_dict().items():
        assert torch.equal(weight, second[0].state_dict()[name]), name
