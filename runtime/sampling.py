"""The next token from the logits: greedy, or drawn with temperature, top-k, top-p, repetition penalty."""

from dataclasses import dataclass

import numpy as np

CANDIDATE_SHARES = (1e-2, 1e-4, 1e-7)
"""Of the likeliest token's weight: candidates are looked for down to each in turn, before among all tokens.

Sorting 150,000 tokens takes ten milliseconds.
"""

BLOCK = 512  # tokens: about the root of a vocabulary


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; the defaults are greedy.

    temperature: 0 is greedy, above 0 divides the logits
    top_k: the draw is among so many likeliest tokens, 0 for all
    top_p: the draw is among the likeliest tokens whose probabilities reach this sum
    repetition_penalty: above 1 makes tokens of the prompt and the answer less likely (CTRL, arXiv 1909.05858)
    seed: of the draw; None is different every time
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self):
        if self.temperature < 0:
            raise ValueError(f"temperature {self.temperature} is negative; 0 is greedy")
        if self.top_k < 0:
            raise ValueError(f"top_k {self.top_k} is negative; 0 keeps all tokens")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} is outside (0, 1]")
        if self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty {self.repetition_penalty} is not positive; 1 is none")


GREEDY = Sampling()


class Sampler:
    """Draws one token a step; holds the generator, the tokens seen so far and the memory it works in."""

    def __init__(self, options: Sampling, prompt_token_ids: np.ndarray):
        self.options = options
        self._work = np.empty(0, np.float32)
        # Made only where they serve: numpy loads their modules at the first use, 30 ms of the first request.
        if options.temperature > 0:
            self._generator = np.random.default_rng(options.seed)
        if options.repetition_penalty != 1:
            self._seen = np.unique(prompt_token_ids)

    def next_token(self, logits: np.ndarray) -> int:
        """The next token's id from logits [V] float32; ValueError if they are not numbers."""
        if self._work.shape != logits.shape:
            self._work = np.empty(logits.shape, np.float32)
        logits = self._penalised(logits)
        token = int(logits.argmax())  # the index of a NaN, if there is one
        if not np.isfinite(logits[token]):
            raise ValueError(
                "the decoder's logits are not finite; this model may overflow in float16: "
                "export with --precision float32"
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
        return int(tokens[_index_of_share(weights[tokens], self._generator.random())])

    def _draw_of_all(self, weights: np.ndarray) -> int:
        """Which block of tokens first, then which of its tokens: one pass over the vocabulary."""
        starts = np.arange(0, len(weights), BLOCK)
        sums = np.add.reduceat(weights, starts, dtype=np.float64)
        start = int(starts[_index_of_share(sums, self._generator.random())])
        block = weights[start : start + BLOCK]
        return start + _index_of_share(block, self._generator.random())

    def _candidates(self, weights: np.ndarray) -> np.ndarray:
        """The tokens [n] among which the draw is, likeliest first, of all the weights [V]."""
        tokens = self._likeliest(weights)
        tokens = tokens[np.argsort(-weights[tokens], kind="stable")]
        if self.options.top_k:
            tokens = tokens[: self.options.top_k]
        sums = np.cumsum(weights[tokens], dtype=np.float64)
        total = sums[-1] if self.options.top_k else weights.sum(dtype=np.float64)
        return tokens[: int(np.searchsorted(sums, self.options.top_p * total)) + 1]

    def _likeliest(self, weights: np.ndarray) -> np.ndarray:
        """Tokens, by id, that hold all the candidates: as few as are found without sorting."""
        demanded = self.options.top_p * weights.sum(dtype=np.float64)
        for share in CANDIDATE_SHARES:
            tokens = np.flatnonzero(weights >= share)
            if self.options.top_k:
                enough = len(tokens) >= self.options.top_k
            else:
                enough = weights[tokens].sum(dtype=np.float64) >= demanded
            if enough:
                return tokens
        return np.arange(len(weights))


def _index_of_share(weights: np.ndarray, share: float) -> int:
    """The index at which the running sum of `weights` passes `share` [0, 1) of their sum."""
    sums = np.cumsum(weights, dtype=np.float64)
    return int(np.searchsorted(sums, share * sums[-1], side="right"))
