"""The forward pass as its definition reads: one token at a time, in float64, slowly. The oracle of the fast one.

Pre-norm decoder: RMSNorm x / sqrt(mean(x^2) + eps) * g (Zhang and Sennrich 1910.07467); rotary positions on adjacent
pairs (Su et al. 2104.09864); grouped-query attention (Ainslie et al. 2305.13245) with scale 1 / sqrt(head_dim);
SwiGLU W2(silu(W1 x) * W3 x) (Shazeer 2002.05202).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from studbook.models.shape import OUTPUT
from studbook.models.slm import Slm

__all__ = ["Meter", "forward64"]

F64 = NDArray[np.float64]


class Meter:
    """Counts the multiply-adds of the products that pass through it."""

    def __init__(self) -> None:
        self.total = 0

    def times(self, matrix: F64, vector: F64) -> F64:
        """Matrix (rows, columns) times vector (columns,): f64 (rows,), and rows * columns counted."""
        self.total += matrix.size
        product: F64 = (matrix * vector).sum(axis=1)
        return product


def forward64(slm: Slm, ids: Sequence[int], meter: Meter | None = None) -> F64:
    """Logits after every token.

    Args:
        slm: The model.
        ids: Token ids, fed from position 0.
        meter: Where to count multiply-adds.

    Returns:
        f64 (tokens, vocabulary).
    """
    meter = meter or Meter()
    weights = {name: slm.dense(name).astype(np.float64) for name in slm.tensors}
    output = weights.get(OUTPUT, weights["tok_embeddings.weight"])
    cache: list[tuple[list[F64], list[F64]]] = [([], []) for _ in range(slm.shape.layer_count)]
    rows = []
    for position, token in enumerate(ids):
        x = weights["tok_embeddings.weight"][token]
        for layer, (keys, values) in enumerate(cache):
            w = {part: weights[f"layers.{layer}.{part}.weight"] for part in _PARTS}
            x = x + _attention(slm, w, _norm(slm, x, w["attn_norm"]), position, keys, values, meter)
            h = _norm(slm, x, w["ffn_norm"])
            gate = meter.times(w["w1"], h)
            x = x + meter.times(w["w2"], gate / (1 + np.exp(-gate)) * meter.times(w["w3"], h))
        rows.append(meter.times(output, _norm(slm, x, weights["norm.weight"])))
    return np.array(rows)


_PARTS = ("attn_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w1", "w3", "w2")


def _norm(slm: Slm, x: F64, gain: F64) -> F64:
    scaled: F64 = x / np.sqrt(np.mean(x * x) + slm.shape.rms_norm_epsilon) * gain
    return scaled


def _attention(
    slm: Slm, w: dict[str, F64], x: F64, position: int, keys: list[F64], values: list[F64], meter: Meter
) -> F64:
    shape = slm.shape
    query = _rotate(slm, meter.times(w["wq"], x).reshape(shape.head_count, -1), position)
    keys.append(_rotate(slm, meter.times(w["wk"], x).reshape(shape.kv_head_count, -1), position))
    values.append(meter.times(w["wv"], x).reshape(shape.kv_head_count, -1))
    group = shape.head_count // shape.kv_head_count
    outputs = []
    for head in range(shape.head_count):
        seen = np.array([key[head // group] for key in keys])
        scores = meter.times(seen, query[head]) / np.sqrt(shape.head_dim)
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        outputs.append(meter.times(np.array([value[head // group] for value in values]).T, weights))
    return meter.times(w["wo"], np.concatenate(outputs))


def _rotate(slm: Slm, heads: F64, position: int) -> F64:
    rotated = np.empty_like(heads)
    for pair in range(slm.shape.head_dim // 2):
        angle = position * slm.shape.rope_theta ** (-2 * pair / slm.shape.head_dim)
        first, second = heads[:, 2 * pair], heads[:, 2 * pair + 1]
        rotated[:, 2 * pair] = first * np.cos(angle) - second * np.sin(angle)
        rotated[:, 2 * pair + 1] = first * np.sin(angle) + second * np.cos(angle)
    return rotated
