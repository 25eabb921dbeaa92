"""Tokenizer extend: more merges, each new token starting as the mean of its two parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.vocabulary_rows import Count, VocabularyOperator
from studbook.errors import OutsideAllowlist, ParentsDoNotFit
from studbook.models.bpe import BpeTokenizer
from studbook.models.tokenizers import SPECIAL
from studbook.tensors.gather import NEW, OWN, RowPlan

__all__ = ["TokenizerExtend"]

_MOST_PAIRS = 65_536


class TokenizerExtend(VocabularyOperator, frozen=True, tag="tokenizer-extend/1"):
    """Append merges to the vocabulary; the row of each new token is the mean of the rows of its parts.

    Formula:
        child row = parent row for every token there is; row of a new token = (0 + row(left) + row(right)) / 2

        Sums and quotient are one f32 operation each. A part may be a new token that stands before. Rows of the embedding
        and, where it is not tied, of the output projection are added; no other tensor changes.

    Source:
        Mean initialisation of added tokens: Hewitt, Initializing new word embeddings for pretrained language models
        (2021), here over the parts of a token; tokenizer section BPE1 of the SLM1 container.

    Base:
        The parent itself; the bound is measured against the base with rows added in the same way.

    Attributes:
        left: Token id of the left part of every new token.
        right: Token id of its right part; bytes are 0..255, words 260 and up, new tokens follow the parent's last id.

    Bound:
        ||p - base|| over all rows, the added ones included; 0 where the parent is the base.

    When to use:
        Before training or merging towards text that the vocabulary cuts into too many tokens.

    Failure modes:
        The child is a little worse than its parent until it is trained: it now meets tokens it has never seen. Order
        counts: a new merge is tried after all old ones, so it can only join what these leave.
    """

    family: ClassVar[str] = "tokenizer-extend"

    left: Annotated[tuple[Count, ...], Meta(max_length=_MOST_PAIRS)]
    right: Annotated[tuple[Count, ...], Meta(max_length=_MOST_PAIRS)]

    @classmethod
    def of(cls, pairs: Sequence[tuple[int, int]]) -> Self:
        """The record that appends these (left id, right id) pairs."""
        return cls(left=tuple(left for left, _ in pairs), right=tuple(right for _, right in pairs))

    def validate(self, parents: int | None = None) -> None:
        """As `Operator.validate`; also the pairs must be pairs, each once, of tokens that have bytes.

        Raises:
            OutsideAllowlist: as `Operator.validate`, or for a special token or a pair that stands twice.
            ParentsDoNotFit: as `Operator.validate`, or if ``left`` and ``right`` have other lengths.
        """
        super().validate(parents)
        if len(self.left) != len(self.right):
            message = f"{len(self.right)} values for {len(self.left)} tokens"
            raise ParentsDoNotFit(message, where=f"{self.tag()}: right", reason="operator.pairs")
        for field in ("left", "right"):
            for place, part in enumerate(getattr(self, field)):
                if part in SPECIAL:
                    message = f"{part} is a special token and no part of a word"
                    raise OutsideAllowlist(message, where=f"{self.tag()}: {field}[{place}]", reason="operator.pairs")
        if len(set(self._pairs)) != len(self._pairs):
            raise OutsideAllowlist("a pair stands twice", where=f"{self.tag()}: left", reason="operator.pairs")

    @property
    def _pairs(self) -> tuple[tuple[int, int], ...]:
        return tuple(zip(self.left, self.right, strict=True))

    def plan(self, rows: int) -> RowPlan:
        """See `VocabularyOperator.plan`."""
        means = {}
        for place, pair in enumerate(self._pairs, start=rows):
            if max(pair) >= place:
                raise self._misfit(f"token {max(pair)} does not exist when token {place} is made of it", "left, right")
            means[place] = tuple((OWN, part) for part in pair)
        index = np.concatenate([np.arange(rows), np.full(len(means), NEW)]).astype(np.int64)
        return RowPlan(index, means=means)

    def retokenized(self, tokenizer: BpeTokenizer) -> BpeTokenizer:
        """See `VocabularyOperator.retokenized`."""
        return tokenizer.extended(self._pairs)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """One new token, and two."""
        return (cls(left=(1,), right=(2,)), cls(left=(0, 2), right=(1, 2)))
