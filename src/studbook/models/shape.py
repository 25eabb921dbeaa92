"""What a model is before it has weights: its dimensions, its tensors by name, and what running it costs."""

from __future__ import annotations

import hashlib
import math
import struct
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from functools import cached_property
from typing import NamedTuple

from studbook.models.checksum import fnv1a64
from studbook.models.rules import SlmRule, refusal

__all__ = ["FIRST_WORD_ID", "OUTPUT", "SlmShape", "TensorSpec"]

FIRST_WORD_ID = 260  # 256 bytes and four special tokens come first
OUTPUT = "output.weight"
_U32 = 0xFFFFFFFF
_SMOKE_WORK = 4_000_000_000  # multiply-adds
_POSITIVE: Mapping[str, SlmRule] = {
    "hidden_size": SlmRule.HIDDEN,
    "layer_count": SlmRule.LAYERS,
    "head_count": SlmRule.HEADS,
    "kv_head_count": SlmRule.KV_HEADS,
    "head_dim": SlmRule.HEAD_DIM,
    "ffn_size": SlmRule.FFN,
    "max_context": SlmRule.CONTEXT,
}
_POSITIVE_REAL: Mapping[str, SlmRule] = {"rope_theta": SlmRule.ROPE_THETA, "rms_norm_epsilon": SlmRule.EPSILON}


class TensorSpec(NamedTuple):
    """One tensor the shape calls for.

    Attributes:
        name: Canonical name, such as ``layers.0.wq.weight``.
        dims: Dimensions, row-major, rows are outputs.
    """

    name: str
    dims: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def name_hash(self) -> int:
        """FNV-1a 64 of the name, as it stands in the directory."""
        return fnv1a64(self.name)


@dataclass(frozen=True)
class SlmShape:
    """Dimensions of a model; a shape that breaks a rule cannot be built.

    Attributes:
        vocab_size: Number of token ids, at least 260.
        hidden_size: Width of the residual stream; equals head_count * head_dim.
        layer_count: Number of layers.
        head_count: Query heads.
        kv_head_count: Key and value heads; divides head_count (grouped-query attention).
        head_dim: Width of a head, even.
        ffn_size: Width of the feed-forward layer.
        max_context: Most positions one session may hold.
        rope_theta: Base of the rotary angles, rounded to f32.
        rms_norm_epsilon: Added to the mean square, rounded to f32.
        tied: The output projection is the token embedding.
        special_token_count: Always 4: begin, end, padding, unknown.
        where: The file the shape was read from, for error messages only.

    Raises:
        SlmRefused: naming the field and the rule.
    """

    vocab_size: int
    hidden_size: int
    layer_count: int
    head_count: int
    kv_head_count: int
    head_dim: int
    ffn_size: int
    max_context: int
    rope_theta: float
    rms_norm_epsilon: float
    tied: bool
    special_token_count: int = 4
    where: InitVar[object] = ""

    def __post_init__(self, where: object) -> None:
        if not FIRST_WORD_ID <= self.vocab_size <= _U32:
            raise refusal(SlmRule.VOCAB, f"{self.vocab_size}; at least {FIRST_WORD_ID}", where, "vocab_size")
        if self.special_token_count != 4:
            message = f"{self.special_token_count}; these tokenizers have exactly 4"
            raise refusal(SlmRule.SPECIAL_TOKENS, message, where, "special_token_count")
        for field, rule in _POSITIVE.items():
            if not 0 < getattr(self, field) <= _U32:
                raise refusal(rule, f"{getattr(self, field)}; must be positive, 32 bits", where, field)
        self._check_heads(where)
        for field, rule in _POSITIVE_REAL.items():
            rounded = _f32(getattr(self, field))
            if not (math.isfinite(rounded) and rounded > 0):
                raise refusal(rule, f"{getattr(self, field)}; must be finite and positive in f32", where, field)
            object.__setattr__(self, field, rounded)

    def _check_heads(self, where: object) -> None:
        heads, shared = self.head_count, self.kv_head_count
        if shared > heads:
            raise refusal(SlmRule.KV_HEADS_MANY, f"{shared}; more than {heads} heads", where, "kv_head_count")
        if heads % shared:
            message = f"{shared}; does not divide {heads} heads"
            raise refusal(SlmRule.KV_HEADS_DIVIDE, message, where, "kv_head_count")
        if self.head_dim % 2:
            raise refusal(SlmRule.HEAD_DIM_ODD, f"{self.head_dim}; must be even", where, "head_dim")
        if heads * self.head_dim != self.hidden_size:
            message = f"{heads} heads of {self.head_dim} are not {self.hidden_size}"
            raise refusal(SlmRule.HEAD_PRODUCT, message, where, "head_dim")

    @property
    def tensor_count(self) -> int:
        """Number of tensors: nine a layer, embedding, final norm, and the output projection unless tied."""
        return 9 * self.layer_count + (2 if self.tied else 3)

    @property
    def kv_size(self) -> int:
        """Width of all key heads together."""
        return self.kv_head_count * self.head_dim

    def tensors(self) -> tuple[TensorSpec, ...]:
        """Every tensor in canonical order."""
        return self._tensors

    @cached_property
    def _tensors(self) -> tuple[TensorSpec, ...]:
        specs = [TensorSpec("tok_embeddings.weight", (self.vocab_size, self.hidden_size))]
        for layer in range(self.layer_count):
            specs += self._layer(layer)
        specs.append(TensorSpec("norm.weight", (self.hidden_size,)))
        if not self.tied:
            specs.append(TensorSpec(OUTPUT, (self.vocab_size, self.hidden_size)))
        return tuple(specs)

    def _layer(self, layer: int) -> list[TensorSpec]:
        hidden, shared, ffn = self.hidden_size, self.kv_size, self.ffn_size
        parts: list[tuple[str, tuple[int, ...]]] = [
            ("attn_norm", (hidden,)),
            ("wq", (hidden, hidden)),
            ("wk", (shared, hidden)),
            ("wv", (shared, hidden)),
            ("wo", (hidden, hidden)),
            ("ffn_norm", (hidden,)),
            ("w1", (ffn, hidden)),
            ("w3", (ffn, hidden)),
            ("w2", (hidden, ffn)),
        ]
        return [TensorSpec(f"layers.{layer}.{part}.weight", dims) for part, dims in parts]

    @property
    def _matrix_elements_per_layer(self) -> int:
        return self.hidden_size * (2 * self.hidden_size + 2 * self.kv_size + 3 * self.ffn_size)

    @property
    def parameter_count(self) -> int:
        """Number of elements of all tensors."""
        hidden = self.hidden_size
        embeddings = self.vocab_size * hidden * (1 if self.tied else 2)
        return embeddings + self.layer_count * (self._matrix_elements_per_layer + 2 * hidden) + hidden

    @property
    def decoded_bytes(self) -> int:
        """Bytes of all tensors in f32."""
        return 4 * self.parameter_count

    def kv_bytes(self, context: int) -> int:
        """Bytes of an f32 key and value cache of ``context`` positions, one sequence."""
        return 2 * 4 * self.layer_count * self.kv_size * context

    @property
    def smoke_positions(self) -> int:
        """Positions of a logit digest: one less than the context, fewer where that would take more than some seconds."""
        counts = range(1, self.max_context)
        return max(1, bisect_right(counts, _SMOKE_WORK, key=lambda count: self.multiply_adds(count, count)))

    def multiply_adds(self, tokens: int, logits_positions: int) -> int:
        """Multiply-adds of one sequence from an empty cache, padding not counted.

        Counted are the products of matrices and of attention (query with keys, weights with values, each over the
        t positions seen at position t); norms, rotations and activations are elementwise and left out.

        Args:
            tokens: Tokens fed.
            logits_positions: Positions projected to the vocabulary.
        """
        matrices = tokens * self._matrix_elements_per_layer
        attention = self.hidden_size * tokens * (tokens + 1)
        return self.layer_count * (matrices + attention) + logits_positions * self.vocab_size * self.hidden_size

    def layout_sha256(self) -> str:
        """Identity of names and shapes without dtypes, so that one adapter fits every quantisation of a layout.

        SHA-256 over, for each tensor in canonical order, u64 name hash, u32 rank, four u32 dims, little-endian.
        """
        return self._layout_sha256

    @cached_property
    def _layout_sha256(self) -> str:
        hasher = hashlib.sha256()
        for spec in self.tensors():
            dims = spec.dims + (0,) * (4 - len(spec.dims))
            hasher.update(struct.pack("<QI4I", spec.name_hash, len(spec.dims), *dims))
        return hasher.hexdigest()


def _f32(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.inf
