"""The cheating candidates that are weights: small SLM1 files, each made to say what an evaluator could stumble over."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from studbook.models.checksum import checksum64
from studbook.models.shape import SlmShape
from studbook.models.slm_layout import CHECKSUM_AT
from studbook.models.slm_writer import write_slm
from studbook.models.tokenizers import EOS, ByteTokenizer

__all__ = ["broken_text", "infinite_logits", "nan_payload"]

_SHAPE = SlmShape(
    vocab_size=260,
    hidden_size=8,
    layer_count=1,
    head_count=2,
    kv_head_count=1,
    head_dim=4,
    ffn_size=8,
    max_context=512,
    rope_theta=10_000.0,
    rms_norm_epsilon=1e-5,
    tied=False,
)
_OUTPUT, _EMBEDDING = "output.weight", "tok_embeddings.weight"
# A byte that no UTF-8 text holds.
_NO_TEXT = 0xFF
# Stands once in the file, where NaN is put.
_MARK = np.float32(1234.5)


def broken_text() -> bytes:
    """A model that answers every prompt with one byte that is no UTF-8, and ends."""
    tensors = _plain()
    tensors[_EMBEDDING][_NO_TEXT] = -1.0
    tensors[_OUTPUT][_NO_TEXT] = 4.0
    tensors[_OUTPUT][EOS] = -4.0
    return _written(tensors)


def infinite_logits() -> bytes:
    """A model whose weights are finite numbers, and whose logits are not: every comparison with them is false."""
    tensors = _plain()
    tensors[_OUTPUT][:] = 3e38
    return _written(tensors)


def nan_payload() -> bytes:
    """A container with a sound checksum and one weight that is no number."""
    tensors = _plain()
    tensors[_OUTPUT][0, 0] = _MARK
    data = bytearray(_written(tensors))
    at = data.index(_MARK.tobytes())
    data[at : at + 4] = np.float32(np.nan).tobytes()
    struct.pack_into("<Q", data, CHECKSUM_AT, checksum64(bytes(data), CHECKSUM_AT))
    return bytes(data)


def _plain() -> dict[str, NDArray[np.float32]]:
    """Layers that add nothing, so that every logit follows from the last token alone."""
    tensors = {spec.name: np.zeros(spec.dims, np.float32) for spec in _SHAPE.tensors()}
    for name in tensors:
        if name == _EMBEDDING or "norm" in name:
            tensors[name][:] = 1.0
    return tensors


def _written(tensors: dict[str, NDArray[np.float32]]) -> bytes:
    return write_slm(_SHAPE, ByteTokenizer(), tensors)
