"""The decoder in numpy, float32 with BLAS products: batches of sequences of one length, with or without a cache.

Sequences of one batch have equal lengths, so there is no padding to mask and none to pay for. The definition of every
step is in `reference`. Adjacent pairs are read as complex numbers: a rotation by an angle is then one multiplication.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studbook.models.shape import OUTPUT
from studbook.models.slm import Slm

__all__ = ["Cache", "Decoder"]

F32 = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class _Layer:
    attn_norm: F32  # (hidden,)
    qkv: F32  # (hidden + 2 kv, hidden): wq over wk over wv
    wo: F32
    ffn_norm: F32
    gates: F32  # (2 ffn, hidden): w1 over w3
    w2: F32


class Cache:
    """Keys and values of the positions fed so far, for one batch.

    Args:
        slm: The model.
        batch: Number of sequences.
        positions: Most positions they may hold.
    """

    def __init__(self, slm: Slm, batch: int, positions: int) -> None:
        shape = slm.shape
        dims = (shape.layer_count, 2, batch, shape.kv_head_count, positions, shape.head_dim)
        self.stored = np.zeros(dims, dtype=np.float32)
        self.length = 0


class Decoder:
    """The weights of one model, decoded to f32 once, and the pass over them.

    Args:
        slm: The model.
    """

    def __init__(self, slm: Slm) -> None:
        self.slm = slm
        self.shape = slm.shape
        self.embedding = slm.dense("tok_embeddings.weight")
        self.norm = slm.dense("norm.weight")
        self.output = self.embedding if slm.shape.tied else slm.dense(OUTPUT)
        self.layers = [self._layer(index) for index in range(slm.shape.layer_count)]
        self._turns = np.empty((0, slm.shape.head_dim // 2), dtype=np.complex64)

    def _layer(self, index: int) -> _Layer:
        def part(name: str) -> F32:
            return self.slm.dense(f"layers.{index}.{name}.weight")

        qkv = np.concatenate([part("wq"), part("wk"), part("wv")])
        gates = np.concatenate([part("w1"), part("w3")])
        return _Layer(part("attn_norm"), qkv, part("wo"), part("ffn_norm"), gates, part("w2"))

    def run(self, ids: Ids, rows: Ids | None = None, cache: Cache | None = None, taps: list[F32] | None = None) -> F32:
        """Feed a batch and return the residual stream before the final norm.

        Args:
            ids: Token ids (sequences, tokens), fed from the end of the cache, or from position 0.
            rows: Which of the sequences * tokens rows are wanted, row-major; all if not given.
            cache: Keys and values of earlier positions; extended.
            taps: Gets the residual stream after each layer, f32 (rows, hidden); of the last layer the wanted rows.

        Returns:
            f32 (rows, hidden). Values that overflow come out as NaN or infinity, never as an exception.
        """
        x: F32 = self.embedding[ids.reshape(-1)]
        last = len(self.layers) - 1
        with np.errstate(all="ignore"):
            for index, layer in enumerate(self.layers):
                mixed = self._attention(layer, self._normed(x, layer.attn_norm), ids.shape, cache, index)
                if index == last and rows is not None:  # later steps do not mix positions
                    x, mixed = x[rows], mixed[rows]
                x = x + mixed @ layer.wo.T
                x += self._feed_forward(layer, self._normed(x, layer.ffn_norm))
                if taps is not None:
                    taps.append(x)
        if cache is not None:
            cache.length += ids.shape[1]
        return x

    def logits(self, x: F32) -> F32:
        """Logits f32 (rows, vocabulary) of residual rows f32 (rows, hidden)."""
        with np.errstate(all="ignore"):
            projected: F32 = self._normed(x, self.norm) @ self.output.T
        return projected

    def _normed(self, x: F32, gain: F32) -> F32:
        squares = np.einsum("ij,ij->i", x, x) * np.float32(1 / self.shape.hidden_size)
        scale = np.reciprocal(np.sqrt(squares + np.float32(self.shape.rms_norm_epsilon)))
        normed: F32 = x * scale[:, np.newaxis]
        normed *= gain
        return normed

    def _feed_forward(self, layer: _Layer, x: F32) -> F32:
        both = x @ layer.gates.T
        gate, up = both[:, : self.shape.ffn_size], both[:, self.shape.ffn_size :]
        sigmoid = np.exp(-gate)
        sigmoid += 1
        np.divide(gate, sigmoid, out=sigmoid)
        sigmoid *= up
        fed: F32 = sigmoid @ layer.w2.T
        return fed

    def _attention(self, layer: _Layer, x: F32, batch: tuple[int, ...], cache: Cache | None, index: int) -> F32:
        shape, (count, tokens) = self.shape, batch
        start = cache.length if cache else 0
        heads, shared, width = shape.head_count, shape.kv_head_count, shape.head_dim
        qkv = (x @ layer.qkv.T).reshape(count, tokens, heads + 2 * shared, width)
        turned = qkv[:, :, : heads + shared].view(np.complex64)
        turned *= self._turn(start, start + tokens)[:, np.newaxis]
        qkv[:, :, :heads] *= np.float32(1 / np.sqrt(width))
        by_head = qkv.transpose(0, 2, 1, 3)
        keys, values = by_head[:, heads : heads + shared], by_head[:, heads + shared :]
        if cache is not None:
            stored = cache.stored[index]
            stored[0, :, :, start : start + tokens] = keys
            stored[1, :, :, start : start + tokens] = values
            keys, values = stored[0, :, :, : start + tokens], stored[1, :, :, : start + tokens]
        # Query heads that share a key head become rows of one product.
        grouped = by_head[:, :heads].reshape(count, shared, heads // shared * tokens, width)
        scores = grouped @ keys.swapaxes(2, 3)
        mixed = self._softmax(scores, tokens) @ values
        return mixed.reshape(count, heads, tokens, width).transpose(0, 2, 1, 3).reshape(count * tokens, -1)

    def _softmax(self, scores: F32, tokens: int) -> F32:
        positions = scores.shape[-1]
        if tokens > 1:
            seen = np.arange(positions) <= np.arange(positions - tokens, positions)[:, np.newaxis]
            by_token = scores.reshape(*scores.shape[:2], -1, tokens, positions)
            np.copyto(by_token, np.float32(-np.inf), where=~seen)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        return scores

    def _turn(self, start: int, stop: int) -> NDArray[np.complex64]:
        if len(self._turns) < stop:  # grown as asked for: the context length of a file sizes nothing
            pairs = np.arange(self.shape.head_dim // 2)
            rates = self.shape.rope_theta ** (-2 * pairs / self.shape.head_dim)
            angles = np.arange(2 * stop)[:, np.newaxis] * rates
            self._turns = (np.cos(angles) + 1j * np.sin(angles)).astype(np.complex64)
        return self._turns[start:stop]
