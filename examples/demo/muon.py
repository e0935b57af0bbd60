"""Muon in float32: PyTorch's own rounds to bfloat16, which costs most of a step on a CPU without it.

K. Jordan and others, "Muon: An optimizer for hidden layers in neural networks", 2024; updates scaled to
AdamW's RMS as in J. Liu and others, "Muon is scalable for LLM training", 2025.
"""

from collections.abc import Callable, Iterable
from math import sqrt

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration's quintic
ITERATIONS = 5
ADAMW_RMS = 0.2  # of AdamW's updates


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for matrices; those of one shape are updated together."""

    def __init__(
        self,
        matrices: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Without a closure: gradients are there already."""
        assert closure is None
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for matrix in group["params"]:
                shapes.setdefault(matrix.shape, []).append(matrix)
            for matrices in shapes.values():
                self._update(matrices, group)
        return None

    def _update(self, matrices: list[torch.nn.Parameter], group: dict) -> None:
        gradients = torch.stack([self._lookahead(matrix, group["momentum"]) for matrix in matrices])
        scale = ADAMW_RMS * sqrt(max(matrices[0].shape))
        for matrix, direction in zip(matrices, orthogonalised(gradients)):
            matrix.mul_(1 - group["lr"] * group["weight_decay"])
            matrix.add_(direction, alpha=-group["lr"] * scale)

    def _lookahead(self, matrix: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        """Nesterov's: the gradient on its way to the running mean."""
        assert matrix.grad is not None
        mean = self.state[matrix].setdefault("mean", torch.zeros_like(matrix))
        mean.lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(mean, momentum)


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """[N, rows, columns] with singular values near 1."""
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x
