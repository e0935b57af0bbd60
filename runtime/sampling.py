"""The next token from the logits: greedy, or sampled with temperature, top-k, top-p and a repetition penalty."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; the defaults are greedy.

    temperature: 0 is greedy, above 0 divides the logits
    top_k: the draw is among so many likeliest tokens, 0 for all
    top_p: the draw is among the likeliest tokens whose probabilities reach this sum
    repetition_penalty: above 1 makes tokens already in the prompt or the answer less likely (CTRL, arXiv 1909.05858)
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
    """Draws one token a step; holds the generator and the tokens seen so far."""

    def __init__(self, options: Sampling, prompt_token_ids: np.ndarray):
        self.options = options
        self._generator = np.random.default_rng(options.seed)
        self._seen = set(prompt_token_ids.tolist()) if options.repetition_penalty != 1.0 else None

    def next_token(self, logits: np.ndarray) -> int:
        """The next token's id from logits [V] float32; ValueError if none of them is a number."""
        logits = self._penalised(logits)
        if self.options.temperature == 0:
            token = int(logits.argmax())
        else:
            token = self._draw(logits)
        if not np.isfinite(logits[token]):
            raise ValueError("the decoder's logits are not finite; this model may overflow in float16: export with --precision float32")
        if self._seen is not None:
            self._seen.add(token)
        return token

    def _penalised(self, logits: np.ndarray) -> np.ndarray:
        if self._seen is None:
            return logits
        logits, seen = logits.copy(), np.fromiter(self._seen, np.int64)
        values, penalty = logits[seen], np.float32(self.options.repetition_penalty)
        logits[seen] = np.where(values < 0, values * penalty, values / penalty)
        return logits

    def _draw(self, logits: np.ndarray) -> int:
        """Temperature, then top-k, then top-p, in transformers' order."""
        candidates = np.arange(len(logits))
        if 0 < self.options.top_k < len(logits):
            candidates = np.argpartition(logits, -self.options.top_k)[-self.options.top_k:]
        candidates = candidates[np.argsort(-logits[candidates], kind="stable")]
        scaled = logits[candidates].astype(np.float64) / self.options.temperature
        weights = np.exp(scaled - scaled[0])
        weights /= weights.sum()
        kept = int(np.searchsorted(np.cumsum(weights), self.options.top_p)) + 1
        weights = weights[:kept] / weights[:kept].sum()
        return int(candidates[self._generator.choice(len(weights), p=weights)])
