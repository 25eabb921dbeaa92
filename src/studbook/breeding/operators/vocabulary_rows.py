"""What operators share that change an SLM1 model's vocabulary: rows are gathered, nothing else is touched."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Annotated, ClassVar

from msgspec import Meta

from studbook.breeding.operators.base import Each, Operator, Survey
from studbook.breeding.operators.bounds import distance
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.errors import ParentsDoNotFit, TokenizerRefused, UsageError
from studbook.models.bpe import BpeTokenizer
from studbook.models.shape import OUTPUT, SlmShape
from studbook.models.tokenizers import Tokenizer
from studbook.tensors.gather import Gathered, RowPlan
from studbook.tensors.sources import TensorSource

__all__ = ["Count", "VocabularyOperator"]

_EMBEDDING = "tok_embeddings.weight"
_MOST = 999_999
# The range is stated as `studbook.breeding.operators.parameters` states its own.
Count = Annotated[
    int,
    Meta(
        description="a number of tokens, or the place of one",
        extra={"low": 0, "high": _MOST},
        extra_json_schema={"minimum": 0, "maximum": _MOST},
    ),
]


class VocabularyOperator(Operator, frozen=True):
    """An operator whose child is its one parent with the vocabulary's rows gathered by a plan."""

    parents_needed: ClassVar[tuple[int, int]] = (1, 1)

    @abstractmethod
    def plan(self, rows: int) -> RowPlan:
        """Where the child's rows come from, for a parent of so many rows.

        Raises:
            ParentsDoNotFit: if the record does not fit that number.
        """

    @abstractmethod
    def retokenized(self, tokenizer: BpeTokenizer) -> BpeTokenizer:
        """The child's tokenizer.

        Raises:
            ParentsDoNotFit: if the record does not fit the parent's.
        """

    def check(self, inputs: Inputs) -> None:
        """As `Operator.check`; also the vocabulary's tensors must be there and fit the record.

        Raises:
            OutsideAllowlist: as `Operator.check`.
            ParentsDoNotFit: as `Operator.check`, or if the embedding is missing or has other rows than planned.
        """
        super().check(inputs)
        self._plans(inputs.base)

    def reference(self, inputs: Inputs) -> TensorSource:
        """The base with its rows gathered in the same way."""
        return self._view(inputs.base)

    def remake(self, shape: SlmShape, tokenizer: Tokenizer) -> tuple[SlmShape, Tokenizer]:
        """Shape and tokenizer of the child.

        Raises:
            ParentsDoNotFit: if the tokenizer has no merges, is not the shape's, or does not fit the record.
        """
        if not isinstance(tokenizer, BpeTokenizer):
            raise ParentsDoNotFit(
                "a byte tokenizer has no merges",
                where=self.tag(),
                advice="Use a model whose tokenizer section is BPE1.",
                reason="parents.tokenizer",
            )
        if tokenizer.vocab_size != shape.vocab_size:
            raise self._misfit(f"the tokenizer has {tokenizer.vocab_size} tokens, the shape {shape.vocab_size}")
        try:
            child = self.retokenized(tokenizer)
        except (TokenizerRefused, UsageError) as error:
            raise self._misfit(str(error)) from error
        if child.vocab_size != self.plan(shape.vocab_size).rows:
            raise self._misfit(f"{child.vocab_size} tokens, but other rows are planned")
        return replace(shape, vocab_size=child.vocab_size), child

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """The gathered parent."""
        return Survey(view=self._view(inputs.parents[0]))

    def survey_model(self, inputs: Inputs, each: Each) -> dict[str, Survey]:
        """The gathered parent, once for all tensors."""
        survey = Survey(view=self._view(inputs.parents[0]))
        return dict.fromkeys(inputs.names, survey)

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        view = survey.view or self._view(inputs.parents[0])
        return view.read(name, start, stop).copy()

    def _bound(self, inputs: Inputs) -> float:
        return distance(Inputs(base=self._view(inputs.base), parents=(self._view(inputs.parents[0]),)))

    def _view(self, source: TensorSource) -> TensorSource:
        return Gathered(source, self._plans(source))

    def _plans(self, source: TensorSource) -> dict[str, RowPlan]:
        names = [name for name in (_EMBEDDING, OUTPUT) if name in source.names]
        if _EMBEDDING not in names:
            raise self._misfit("the embedding is missing", _EMBEDDING)
        counts = [source.dims(name)[0] for name in names]
        if len(set(counts)) > 1:
            raise self._misfit(f"{counts[1]} rows; {_EMBEDDING} has {counts[0]}", OUTPUT)
        return dict.fromkeys(names, self.plan(counts[0]))

    def _misfit(self, message: str, field: str = "") -> ParentsDoNotFit:
        return ParentsDoNotFit(
            message,
            where=f"{self.tag()}: {field}" if field else self.tag(),
            advice="Make the record from the tokenizer of this very parent.",
            reason="parents.vocabulary",
        )
