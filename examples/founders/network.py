"""The founders' network in plain torch: the pre-norm decoder of the SLM1 format, parameter names included.

RMSNorm, rotary positions on adjacent pairs, SwiGLU, tied output projection; every weight has the name and shape of the
container, rows = output dimension, so that a trained network is written without any renaming or transposing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["BOS", "EOS", "PAD", "SHAPE", "Network", "encode_batch"]

BOS, EOS, PAD = 256, 257, 258
"""Special ids of the byte tokenizer; ids 0 to 255 are bytes."""

SHAPE: dict[str, Any] = {
    "vocab_size": 260,
    "hidden_size": 64,
    "layer_count": 3,
    "head_count": 4,
    "kv_head_count": 4,
    "head_dim": 16,
    "ffn_size": 192,
    "max_context": 64,
    "rope_theta": 10000.0,
    "rms_norm_epsilon": 1e-5,
    "tied": True,
}
"""The shape of every founder: 176,832 parameters, 707,328 bytes of f32 payload."""

EMBEDDING_STD = 0.02


def encode_batch(rows: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Return inputs and targets, int64 (rows, tokens): BOS + prompt + answer, padded on the right.

    The target of every position that does not predict an answer byte or the final EOS is -100, which the loss ignores.
    """
    full = [[BOS, *prompt.encode(), *answer.encode(), EOS] for prompt, answer in rows]
    width = max(map(len, full)) - 1
    inputs = torch.full((len(rows), width), PAD)
    targets = torch.full((len(rows), width), -100)
    for place, (ids, (prompt, _)) in enumerate(zip(full, rows, strict=True)):
        start = len(prompt.encode())
        inputs[place, : len(ids) - 1] = torch.tensor(ids[:-1])
        targets[place, start : len(ids) - 1] = torch.tensor(ids[start + 1 :])
    return inputs, targets


class Network(nn.Module):
    """A decoder of shape ``SHAPE``, initialised from ``seed`` alone.

    Args:
        seed: Seed of the initial weights: matrices N(0, 1/columns), but zero for the two projections that
            write to the residual stream (wo, w2: every block starts as the identity, which halves the steps to a
            useful base and removes the plateaus of unlucky seeds), embeddings N(0, 0.02^2), norms 1.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        hidden, ffn = SHAPE["hidden_size"], SHAPE["ffn_size"]
        self.layers = SHAPE["layer_count"]

        def matrix(rows: int, columns: int, scale: float) -> Tensor:
            return torch.randn(rows, columns, generator=generator) * scale

        self.weights: dict[str, nn.Parameter] = {}
        self._add("tok_embeddings", matrix(SHAPE["vocab_size"], hidden, EMBEDDING_STD))
        for layer in range(self.layers):
            stem = f"layers.{layer}"
            self._add(f"{stem}.attn_norm", torch.ones(hidden))
            for name in ("wq", "wk", "wv"):
                self._add(f"{stem}.{name}", matrix(hidden, hidden, hidden**-0.5))
            self._add(f"{stem}.wo", torch.zeros(hidden, hidden))
            self._add(f"{stem}.ffn_norm", torch.ones(hidden))
            self._add(f"{stem}.w1", matrix(ffn, hidden, hidden**-0.5))
            self._add(f"{stem}.w3", matrix(ffn, hidden, hidden**-0.5))
            self._add(f"{stem}.w2", torch.zeros(hidden, ffn))
        self._add("norm", torch.ones(hidden))
        self.cosine, self.sine = _rotation()

    def _add(self, stem: str, value: Tensor) -> None:
        name = f"{stem}.weight"
        self.weights[name] = nn.Parameter(value)
        self.register_parameter(name.replace(".", "_"), self.weights[name])

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, f32 (rows, tokens, vocabulary), for int64 ids (rows, tokens)."""
        weight = self.weights
        state = functional.embedding(inputs, weight["tok_embeddings.weight"])
        for layer in range(self.layers):
            stem = f"layers.{layer}"
            state = state + self._attend(stem, _rms(state, weight[f"{stem}.attn_norm.weight"]))
            inner = _rms(state, weight[f"{stem}.ffn_norm.weight"])
            gate = functional.silu(inner @ weight[f"{stem}.w1.weight"].T) * (inner @ weight[f"{stem}.w3.weight"].T)
            state = state + gate @ weight[f"{stem}.w2.weight"].T
        return _rms(state, weight["norm.weight"]) @ weight["tok_embeddings.weight"].T

    def _attend(self, stem: str, inner: Tensor) -> Tensor:
        rows, tokens, hidden = inner.shape
        heads, width = SHAPE["head_count"], SHAPE["head_dim"]
        query, key, value = (
            (inner @ self.weights[f"{stem}.{name}.weight"].T).view(rows, tokens, heads, width).transpose(1, 2)
            for name in ("wq", "wk", "wv")
        )
        query, key = self._rotate(query), self._rotate(key)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed.transpose(1, 2).reshape(rows, tokens, hidden) @ self.weights[f"{stem}.wo.weight"].T

    def _rotate(self, states: Tensor) -> Tensor:
        tokens = states.shape[2]
        even, odd = states[..., 0::2], states[..., 1::2]
        cosine, sine = self.cosine[:tokens], self.sine[:tokens]
        return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), -1).flatten(-2)

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Take over the values of ``tensors``, f32 arrays by canonical name; every name must be there."""
        with torch.no_grad():
            for name, parameter in self.weights.items():
                parameter.copy_(torch.from_numpy(np.array(tensors[name], dtype=np.float32)).view_as(parameter))

    def tensors(self) -> dict[str, np.ndarray]:
        """Return copies of all weights as f32 arrays by canonical name, in canonical order."""
        return {name: parameter.detach().numpy().copy() for name, parameter in self.weights.items()}

    def right(self, rows: Sequence[tuple[str, str]], batch: int = 200) -> list[bool]:
        """Return for each (prompt, answer) whether greedy decoding gives exactly the answer and then EOS.

        Teacher-forced: the answer is right when the largest logit of every answer position is the answer's token,
        which is the same as decoding it greedily.
        """
        result: list[bool] = []
        with torch.no_grad():
            for start in range(0, len(rows), batch):
                inputs, targets = encode_batch(rows[start : start + batch])
                hits = (self(inputs).argmax(-1) == targets) | (targets == -100)
                result += hits.all(-1).tolist()
        return result


def _rms(state: Tensor, gain: Tensor) -> Tensor:
    return state * torch.rsqrt(state.square().mean(-1, keepdim=True) + SHAPE["rms_norm_epsilon"]) * gain


def _rotation() -> tuple[Tensor, Tensor]:
    """Return cosine and sine tables, f32 (context, head_dim / 2), of position * theta^(-2i / head_dim)."""
    width = SHAPE["head_dim"]
    rates = SHAPE["rope_theta"] ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(SHAPE["max_context"], dtype=torch.float64)[:, None] * rates
    return angles.cos().float(), angles.sin().float()
