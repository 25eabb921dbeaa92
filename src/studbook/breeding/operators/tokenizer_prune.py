"""Tokenizer prune: fewer merges, and only the rows of the tokens that are left."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.vocabulary_rows import Count, VocabularyOperator
from studbook.errors import OutsideAllowlist, ParentsDoNotFit
from studbook.models.bpe import BpeTokenizer
from studbook.models.tokenizers import FIRST_WORD
from studbook.tensors.gather import RowPlan

__all__ = ["TokenizerPrune"]

_MOST_RUNS = 65_536


class TokenizerPrune(VocabularyOperator, frozen=True, tag="tokenizer-prune/1"):
    """Keep the merges of lowest rank and drop the tokens that text can no longer become.

    Formula:
        child row = parent row, for the byte and special tokens and for every kept word, in the parent's order

        Rows of the embedding and, where it is not tied, of the output projection are copied; no other tensor changes.
        A word is kept if the kept merges can make it of bytes.

    Source:
        The BPE1 tokenizer section of the SLM1 container, whose merges are applied lowest rank first.

    Base:
        The parent itself; the bound is measured against the base with the same rows.

    Attributes:
        merges: How many merges are kept, lowest ranks first.
        words: How many words (ids 260 and up) the parent's vocabulary has.
        first: First word of every run of kept words; word 0 is id 260.
        last: Last word of every run.

    Bound:
        ||p - base|| over the kept rows and all other tensors; 0 where the parent is the base.

    When to use:
        To make a small model smaller: the embedding is often most of it. Measure tokens per byte on real text before
        and after, then train or merge on.

    Failure modes:
        Text becomes more tokens, so that less of it fits the context; a model that was never trained on the shorter
        tokens of a text answers worse. A byte tokenizer has no merges to drop.
    """

    family: ClassVar[str] = "tokenizer-prune"

    merges: Count
    words: Count
    first: Annotated[tuple[Count, ...], Meta(max_length=_MOST_RUNS)]
    last: Annotated[tuple[Count, ...], Meta(max_length=_MOST_RUNS)]

    @classmethod
    def of(cls, tokenizer: BpeTokenizer, merges: int) -> Self:
        """The record that keeps so many merges of this tokenizer.

        Raises:
            UsageError: if the tokenizer has fewer.
            TokenizerRefused: if what is left breaks a rule of the section.
        """
        _, kept = tokenizer.pruned(merges)
        first, last = _runs([number - FIRST_WORD for number in kept])
        return cls(merges=merges, words=len(tokenizer.words), first=first, last=last)

    def validate(self, parents: int | None = None) -> None:
        """As `Operator.validate`; also the runs must ascend and lie in the vocabulary.

        Raises:
            OutsideAllowlist: as `Operator.validate`, or for runs that overlap or end beyond ``words``.
            ParentsDoNotFit: as `Operator.validate`, or if ``first`` and ``last`` have other lengths.
        """
        super().validate(parents)
        if len(self.first) != len(self.last):
            message = f"{len(self.last)} values for {len(self.first)} runs"
            raise ParentsDoNotFit(message, where=f"{self.tag()}: last", reason="operator.runs")
        edges = [edge for run in zip(self.first, self.last, strict=True) for edge in run]
        rising = all(a <= b if place % 2 == 0 else a < b for place, (a, b) in enumerate(pairwise(edges)))
        if not rising or (edges and edges[-1] >= self.words):
            message = f"the runs do not ascend within {self.words} words"
            raise OutsideAllowlist(message, where=f"{self.tag()}: first", reason="operator.runs")

    def plan(self, rows: int) -> RowPlan:
        """See `VocabularyOperator.plan`."""
        if self.words >= rows:
            raise self._misfit(f"{rows} rows; the record is of a vocabulary with {self.words} words", "words")
        head = rows - self.words
        pairs = zip(self.first, self.last, strict=True)
        parts = [np.arange(head), *(np.arange(head + first, head + last + 1) for first, last in pairs)]
        return RowPlan(np.concatenate(parts).astype(np.int64))

    def retokenized(self, tokenizer: BpeTokenizer) -> BpeTokenizer:
        """See `VocabularyOperator.retokenized`."""
        if len(tokenizer.words) != self.words:
            raise self._misfit(f"the tokenizer has {len(tokenizer.words)} words, not {self.words}", "words")
        child, kept = tokenizer.pruned(self.merges)
        if _runs([number - FIRST_WORD for number in kept]) != (self.first, self.last):
            raise self._misfit(f"{self.merges} merges make other words than the record keeps", "first")
        return child

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """The last of two words dropped, and a middle one, and the only one."""
        return (
            cls(merges=1, words=2, first=(0,), last=(0,)),
            cls(merges=1, words=2, first=(1,), last=(1,)),
            cls(merges=0, words=1, first=(), last=()),
        )


def _runs(numbers: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ascending numbers as the first and the last of every unbroken run."""
    first = tuple(n for place, n in enumerate(numbers) if not place or numbers[place - 1] != n - 1)
    last = tuple(n for place, n in enumerate(numbers) if place + 1 == len(numbers) or numbers[place + 1] != n + 1)
    return first, last
