"""Two optimisers in plain torch: Muon for matrices, AdamW for embeddings and norms (or for everything).

Muon: Nesterov momentum, then five Newton-Schulz steps towards the nearest semi-orthogonal matrix (Jordan et al. 2024,
"Muon: an optimizer for hidden layers"; coefficients 3.4445, -4.7750, 2.0315). AdamW: Loshchilov & Hutter, 1711.05101.
Written out so that a founder's training depends on nothing but this file, ``network.py`` and torch's arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["AdamW", "Muon", "is_matrix", "newton_schulz"]

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def is_matrix(name: str) -> bool:
    """Return whether Muon may train this tensor: a projection, neither the embedding nor a norm."""
    return not name.startswith("tok_embeddings") and "norm" not in name


def newton_schulz(matrix: Tensor, steps: int) -> Tensor:
    """Return ``matrix`` with its singular values pushed towards 1; same shape, f32."""
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon:
    """Muon over the given matrices: learning rate ``lr`` times sqrt(max(1, rows / columns)) times the direction.

    Args:
        weights: Matrices by name.
        momentum: Decay of the running sum of gradients; applied with Nesterov's look-ahead.
        steps: Newton-Schulz steps.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], momentum: float, steps: int) -> None:
        self.weights = weights
        self.momentum = momentum
        self.steps = steps
        self.running = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move every weight once against its gradient."""
        for name, weight in self.weights.items():
            assert weight.grad is not None
            running = self.running[name].mul_(self.momentum).add_(weight.grad)
            direction = newton_schulz(weight.grad + self.momentum * running, self.steps)
            weight -= lr * max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5 * direction


class AdamW:
    """AdamW with decoupled weight decay and bias correction.

    Args:
        weights: Tensors of any shape by name.
        betas: Decay of the running mean and of the running square.
        decay: Weight decay, multiplied by the learning rate.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], betas: tuple[float, float], decay: float) -> None:
        self.weights = weights
        self.betas = betas
        self.decay = decay
        self.taken = 0
        self.mean = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self.square = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move every weight once against its gradient."""
        self.taken += 1
        first, second = self.betas
        for name, weight in self.weights.items():
            assert weight.grad is not None
            mean = self.mean[name].mul_(first).add_(weight.grad, alpha=1 - first)
            square = self.square[name].mul_(second).addcmul_(weight.grad, weight.grad, value=1 - second)
            scale = (square / (1 - second**self.taken)).sqrt_().add_(1e-8)
            weight.mul_(1 - lr * self.decay)
            weight -= lr / (1 - first**self.taken) * (mean / scale)
