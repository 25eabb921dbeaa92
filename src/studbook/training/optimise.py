"""AdamW over a list of weights, written out: the library's own pulls in its compiler, which wants a folder to write to.

Source: Loshchilov and Hutter, Decoupled weight decay regularization, arXiv 1711.05101, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studbook.training.backend import torch

__all__ = ["AdamW"]

Tensor = Any
_EPSILON = 1e-8


class AdamW:
    """AdamW with bias correction and decoupled weight decay.

    Args:
        weights: f32 leaves of any shape; they change in place.
        betas: Decay of the running mean and of the running square.
        decay: Weight decay, multiplied by the rate.
    """

    def __init__(self, weights: Sequence[Tensor], betas: tuple[float, float], decay: float) -> None:
        self.weights, self.betas, self.decay, self.taken = weights, betas, decay, 0
        self._mean = [torch.zeros_like(weight) for weight in weights]
        self._square = [torch.zeros_like(weight) for weight in weights]

    def step(self, gradients: Sequence[Tensor], rate: float) -> None:
        """Move every weight once against its gradient."""
        self.taken += 1
        first, second = self.betas
        with torch.no_grad():
            for weight, slope, mean, square in zip(self.weights, gradients, self._mean, self._square, strict=True):
                mean.mul_(first).add_(slope, alpha=1.0 - first)
                square.mul_(second).addcmul_(slope, slope, value=1.0 - second)
                scale = (square / (1.0 - second**self.taken)).sqrt_().add_(_EPSILON)
                weight.mul_(1.0 - rate * self.decay)
                weight.addcdiv_(mean, scale, value=-rate / (1.0 - first**self.taken))
