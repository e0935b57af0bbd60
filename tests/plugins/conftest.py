"""Fixtures of the op's tests."""

import numpy as np
import pytest

from tests.support.hard_rows import clip, hard_rows


@pytest.fixture(scope="session")
def make_clip():
    return clip


@pytest.fixture(scope="session", params=hard_rows(), ids=lambda name: name.replace(" ", "-"))
def hard_row(request):
    return hard_rows()[request.param]


@pytest.fixture(scope="session")
def ragged_batch():
    def make(rng, batch, tokens, dim, dtype):
        """x [B, T, D] with NaN, infinities and noise after each row's length, lengths, targets."""
        lengths = rng.integers(0, tokens + 1, batch)
        lengths[0] = tokens
        x = rng.choice(np.array([np.nan, np.inf, -np.inf, 9.0]), (batch, tokens, dim)).astype(dtype)
        for row, length in enumerate(lengths):
            x[row, :length] = clip(length, dim, row)
        return x, lengths, np.array([rng.integers(min(n, 1), n + 1) for n in lengths])

    return make
