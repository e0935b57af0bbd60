import numpy as np
import pytest
import torch

from ltbm.runtime.sampling import Sampler, Sampling

LOGITS = np.random.default_rng(0).normal(0, 3, 50).astype(np.float32)
NONE = np.array([], np.int64)


def test_greedy_is_the_lowest_index_of_the_largest():
    assert Sampler(Sampling(), NONE).next_token(np.array([0, 2, 2, 1], np.float32)) == 1


def test_the_same_seed_draws_the_same():
    draws = [
        [Sampler(Sampling(temperature=1.0, seed=seed), NONE).next_token(LOGITS) for _ in range(1)]
        for seed in (3, 3)
    ]
    assert draws[0] == draws[1]


@pytest.mark.parametrize(
    "options",
    [
        dict(temperature=0.7),
        dict(temperature=1.5, top_k=5),
        dict(temperature=1.0, top_p=0.8),
        dict(temperature=0.9, top_k=12, top_p=0.6),
        dict(temperature=1.0, top_p=1e-6),
    ],
)
def test_draws_follow_transformers_distribution(options):
    from transformers.generation.logits_process import (
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    scores = TemperatureLogitsWarper(options["temperature"])(None, torch.from_numpy(LOGITS)[None])
    if options.get("top_k"):
        scores = TopKLogitsWarper(options["top_k"])(None, scores)
    if options.get("top_p"):
        scores = TopPLogitsWarper(options["top_p"])(None, scores)
    expected = scores.softmax(-1)[0].numpy()
    sampler, draws = Sampler(Sampling(seed=0, **options), NONE), 4000
    counts = np.bincount([sampler.next_token(LOGITS) for _ in range(draws)], minlength=50) / draws
    assert not counts[expected == 0].any()
    assert np.abs(counts - expected).max() < 0.03


def test_repetition_penalty_equals_transformers():
    from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

    prompt = np.array([4, 7, 7, 9])
    scores = RepetitionPenaltyLogitsProcessor(1.7)(
        torch.from_numpy(prompt)[None], torch.from_numpy(LOGITS)[None]
    )[0].numpy()
    sampler = Sampler(Sampling(repetition_penalty=1.7), prompt)
    sampler._work = np.empty_like(LOGITS)
    assert np.array_equal(sampler._penalised(LOGITS), scores)


def test_every_token_of_the_prompt_is_penalised():
    logits = np.array([1.0, 5.0, 4.0, 3.0], np.float32)
    for prompt, token in (([1], 2), ([2, 1], 3), ([0], 1)):
        assert Sampler(Sampling(repetition_penalty=10.0), np.array(prompt)).next_token(logits) == token


def test_a_drawn_token_is_penalised_next_time():
    sampler = Sampler(Sampling(repetition_penalty=100.0), NONE)
    logits = np.array([3.0, 2.0, 1.0], np.float32)
    assert [sampler.next_token(logits) for _ in range(3)] == [0, 1, 2]


def test_refuses_logits_that_are_not_finite():
    with pytest.raises(ValueError, match="not finite"):
        Sampler(Sampling(), NONE).next_token(np.full(4, np.nan, np.float32))


@pytest.mark.parametrize(
    "options",
    [dict(temperature=-1), dict(top_k=-1), dict(top_p=0), dict(top_p=1.1), dict(repetition_penalty=0)],
)
def test_refuses_options_out_of_range(options):
    with pytest.raises(ValueError):
        Sampling(**options)
