"""The pre-norm decoder of the SLM1 format in torch, over named weights; nothing is renamed or transposed.

RMSNorm, rotary positions on adjacent pairs, grouped-query attention, SwiGLU, output projection tied or of its own. It
must agree with `studbook.models.forward` within rounding; a test holds it to that. Source: the format page, section 1.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studbook.models.shape import OUTPUT, SlmShape
from studbook.training.backend import torch

__all__ = ["EMBEDDING", "logits"]

EMBEDDING = "tok_embeddings.weight"

# A torch tensor: torch is an extra, so its types are not known where this is checked.
Tensor = Any


def logits(shape: SlmShape, weights: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    """Logits, f32 (rows, tokens, vocabulary), of int64 ids (rows, tokens).

    Args:
        shape: Dimensions of the model.
        weights: f32 tensors by canonical name, rows are outputs.
        ids: Padding may stand at the end of a row: attention is causal.
    """
    state = torch.nn.functional.embedding(ids, weights[EMBEDDING])
    turn = _rotation(shape, ids.shape[1])
    for layer in range(shape.layer_count):
        stem = f"layers.{layer}"
        inner = _rms(shape, state, weights[f"{stem}.attn_norm.weight"])
        state = state + _attend(shape, weights, stem, inner, turn)
        inner = _rms(shape, state, weights[f"{stem}.ffn_norm.weight"])
        gate = torch.nn.functional.silu(inner @ weights[f"{stem}.w1.weight"].T)
        state = state + (gate * (inner @ weights[f"{stem}.w3.weight"].T)) @ weights[f"{stem}.w2.weight"].T
    last = weights[EMBEDDING] if shape.tied else weights[OUTPUT]
    return _rms(shape, state, weights["norm.weight"]) @ last.T


def _attend(shape: SlmShape, weights: Mapping[str, Tensor], stem: str, inner: Tensor, turn: Tensor) -> Tensor:
    rows, tokens, hidden = inner.shape

    def heads(name: str, count: int) -> Tensor:
        made = inner @ weights[f"{stem}.{name}.weight"].T
        return made.view(rows, tokens, count, shape.head_dim).transpose(1, 2)

    query = _rotate(heads("wq", shape.head_count), turn)
    key, value = _rotate(heads("wk", shape.kv_head_count), turn), heads("wv", shape.kv_head_count)
    if (shared := shape.head_count // shape.kv_head_count) > 1:
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    return mixed.transpose(1, 2).reshape(rows, tokens, hidden) @ weights[f"{stem}.wo.weight"].T


def _rotation(shape: SlmShape, tokens: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine, f32 (tokens, head_dim / 2), of position * theta^(-2i / head_dim), computed in f64."""
    rates = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim)
    angles = torch.arange(tokens, dtype=torch.float64)[:, None] * rates
    return angles.cos().float(), angles.sin().float()


def _rotate(states: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    even, odd = states[..., 0::2], states[..., 1::2]
    cosine, sine = turn
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), -1).flatten(-2)


def _rms(shape: SlmShape, state: Tensor, gain: Tensor) -> Tensor:
    return state * torch.rsqrt(state.square().mean(-1, keepdim=True) + shape.rms_norm_epsilon) * gain
