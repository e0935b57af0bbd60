"""The next token from the logits: greedy, or sampled with temperature, top-k, top-p, repetition penalty."""

from dataclasses import dataclass

import numpy as np

from .numbers import LARGEST_SEED, check_finite, check_whole

SMALLEST_TEMPERATURE = 1e-3  # above 0: the logits are divided by it
HIGHEST_TEMPERATURE = 100.0  # all tokens are equally likely long before
REPETITION_PENALTIES = (0.01, 100.0)
CANDIDATE_SHARES = (1e-2, 1e-4, 1e-7, 0.0)
"""Of the likeliest token's weight: how far down top-p looks before it looks further, for sorting 150,000
tokens takes ten milliseconds."""
BLOCK = 512  # tokens: about the root of a vocabulary


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; the defaults are greedy.

    temperature: 0 is greedy, above 0 divides the logits
    top_k: the draw is among so many likeliest tokens, 0 for all
    top_p: the draw is among the likeliest tokens whose probabilities reach this sum
    repetition_penalty: above 1 makes tokens already in the prompt or the answer less likely (CTRL,
        arXiv 1909.05858)
    seed: of the draw; None is different every time
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self):
        temperature = check_finite("temperature", self.temperature, 0, HIGHEST_TEMPERATURE)
        if 0 < temperature < SMALLEST_TEMPERATURE:
            raise ValueError(
                f"temperature {temperature} is neither 0 (greedy) nor at least {SMALLEST_TEMPERATURE}"
            )
        check_whole("top_k", self.top_k, 0)
        check_finite("top_p", self.top_p, 0, 1, above=True)
        check_finite("repetition_penalty", self.repetition_penalty, *REPETITION_PENALTIES)
        if self.seed is not None:
            check_whole("seed", self.seed, 0, LARGEST_SEED)


GREEDY = Sampling()


class Sampler:
    """Draws one token a step; holds the generator, the tokens seen so far and the memory it works in."""

    def __init__(self, options: Sampling, prompt_token_ids: np.ndarray):
        self.options = options
        # Only where they serve: numpy loads what is behind them at its first use, 30 ms of the first request.
        self._generator = np.random.default_rng(options.seed) if options.temperature else None
        penalised = options.repetition_penalty != 1
        self._seen = np.unique(prompt_token_ids) if penalised else np.empty(0, np.int64)
        self._work = np.empty(0, np.float32)

    def next_token(self, logits: np.ndarray) -> int:
        """The next token's id from logits [V] float32; ValueError if none of them is a number."""
        if self._work.shape != logits.shape:
            self._work = np.empty(logits.shape, np.float32)
        logits = self._penalised(logits)
        token = int(logits.argmax())  # that of a NaN, if there is one
        if not np.isfinite(logits[token]):
            raise ValueError(
                "the decoder's logits are not finite; this model may overflow in float16: export with "
                "--precision float32"
            )
        if self.options.temperature > 0:
            token = self._draw(logits, logits[token])
        if self.options.repetition_penalty != 1 and token not in self._seen:
            self._seen = np.append(self._seen, token)
        return token

    def _penalised(self, logits: np.ndarray) -> np.ndarray:
        if self.options.repetition_penalty == 1:
            return logits
        values = logits[self._seen]
        penalty = np.float32(self.options.repetition_penalty)
        np.copyto(self._work, logits)
        self._work[self._seen] = np.where(values < 0, values * penalty, values / penalty)
        return self._work

    def _draw(self, logits: np.ndarray, best: np.float32) -> int:
        """Temperature, then top-k, then top-p, in transformers' order."""
        weights = np.subtract(logits, best, out=self._work)
        weights /= np.float32(self.options.temperature)
        np.exp(weights, out=weights)
        if not self.options.top_k and self.options.top_p == 1:
            return self._draw_of_all(weights)
        tokens = self._candidates(weights)
        return int(tokens[_index_at(weights[tokens], self._uniform())])

    def _draw_of_all(self, weights: np.ndarray) -> int:
        """Which block of tokens first, then which of its tokens: one pass over the vocabulary."""
        starts = np.arange(0, len(weights), BLOCK)
        sums = np.add.reduceat(weights, starts, dtype=np.float64)
        start = int(starts[_index_at(sums, self._uniform())])
        return start + _index_at(weights[start : start + BLOCK], self._uniform())

    def _uniform(self) -> float:
        """The next random number in [0, 1)."""
        assert self._generator is not None, "made for every temperature above 0"
        return self._generator.random()

    def _candidates(self, weights: np.ndarray) -> np.ndarray:
        """The tokens [n] among which the draw is, likeliest first, of all the weights [V].

        Sorts only as many as it takes.
        """
        top_k = self.options.top_k
        top_p = self.options.top_p
        total = weights.sum(dtype=np.float64)
        tokens = np.arange(len(weights))
        for share in CANDIDATE_SHARES:
            tokens = np.flatnonzero(weights >= share)
            enough = len(tokens) >= top_k if top_k else weights[tokens].sum(dtype=np.float64) >= top_p * total
            if enough:
                break
        tokens = tokens[np.argsort(-weights[tokens], kind="stable")]
        if top_k:
            tokens = tokens[:top_k]
        sums = np.cumsum(weights[tokens], dtype=np.float64)
        demanded = top_p * sums[-1] if top_k else top_p * total
        return tokens[: int(np.searchsorted(sums, demanded)) + 1]


def _index_at(weights: np.ndarray, share: float) -> int:
    """The index under which the running sum of `weights` passes `share` [0, 1) of their sum."""
    sums = np.cumsum(weights, dtype=np.float64)
    return int(np.searchsorted(sums, share * sums[-1], side="right"))
