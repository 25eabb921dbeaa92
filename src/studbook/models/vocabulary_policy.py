"""What to do with models whose vocabularies differ: refuse, take the base's tokens, take all tokens, or pad.

The rules for rows of a token that a model lacks are those of mergekit 0.1.5 (``tokenizer/embed.py``): the one model that
has it gives its row; else the base's row if the base has it; else the mean over the models that have it, f32, in their
order. Ids of the union follow the tokenizers library: new tokens are added behind the last id. Where mergekit takes new
tokens in the order of a hash table, which differs from run to run, they are taken here model by model, by ascending id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal

import numpy as np

from studbook.errors import ParentsDoNotFit, UsageError
from studbook.models.vocabulary import AddedToken, Vocabulary, vocabulary_diff
from studbook.tensors.gather import NEW, Gathered, RowPlan
from studbook.tensors.sources import TensorSource
from studbook.tensors.storage import Storage

__all__ = ["Arrangement", "VocabularyPolicy", "arrange", "arranged", "vocabulary_tensors"]

_MAX_MULTIPLE: Final = 65_536
# Last parts of the names under which the tensors of a vocabulary's size are known.
_ENDINGS: Final = (
    "tok_embeddings.weight",
    "output.weight",
    "embed_tokens.weight",
    "lm_head.weight",
    "lm_head.bias",
    "word_embeddings.weight",
    "wte.weight",
    "shared.weight",
    "embed_in.weight",
    "embed_out.weight",
    "predictions.bias",
    "predictions.decoder.weight",
    "predictions.decoder.bias",
)


class VocabularyPolicy(StrEnum):
    """How models with different vocabularies are brought together."""

    REFUSE = "refuse"
    BASE = "base"
    UNION = "union"
    PAD_TO = "pad_to"


@dataclass(frozen=True, eq=False)
class Arrangement:
    """One vocabulary for all models.

    Attributes:
        vocab: Token -> id of the child, in ascending order of the ids.
        size: Its ``vocab_size``: rows of the child's embedding, padding included.
        plans: Rows for the base, then for each model: origin 0 is the model itself, k + 1 is the k-th of base and models.
        tokenizer_json: The child's ``tokenizer.json``; None where the base's files serve as they are.
    """

    vocab: Mapping[str, int]
    size: int
    plans: tuple[RowPlan, ...]
    tokenizer_json: bytes | None


def arrange(
    policy: str,
    base: Vocabulary,
    models: Sequence[Vocabulary],
    multiple_of: int | None = None,
    *,
    lacking: Literal["base", "average"] = "base",
    storage: Storage | None = None,
) -> Arrangement:
    """Rows of every model for one common vocabulary.

    ``refuse`` demands equal vocabularies. ``base`` gives every model the base's tokens. ``union`` adds the tokens that
    the base lacks. ``pad_to`` demands equal tokens and changes only the number of rows. A base with more rows than
    tokens keeps that many; a row that is padding in the child is the model's own where it is padding there too, else the
    base's, else the mean of the rows up to the last token.

    Args:
        policy: ``refuse``, ``base``, ``union`` or ``pad_to``.
        base: The vocabulary the others are held against.
        models: The others, each model once, without the base.
        multiple_of: The number of rows is rounded up to a multiple of this, 1..65536; ``pad_to`` needs it.
        lacking: Whose row a model gets for a token that several others have: the base's if it has it, or the mean of all
            that have it (what mergekit does when a recipe names no base).
        storage: How the gathered tensors are stored; None keeps the models' storage, so that means are rounded to it.

    Raises:
        ParentsDoNotFit: if the policy does not allow the difference, with the first differences; or if tokens cannot be
            added to the base's tokenizer.
        UsageError: if the policy is unknown or ``multiple_of`` does not fit it.
    """
    kind = _policy(policy, multiple_of)
    everyone = (base, *models)
    if kind in (VocabularyPolicy.REFUSE, VocabularyPolicy.PAD_TO):
        _refuse_differences(base, models, rows_too=kind is VocabularyPolicy.REFUSE)
    vocab, document = dict(base.ids), None
    if kind is VocabularyPolicy.UNION:
        vocab, document = _union(base, models)
    last = max(vocab.values(), default=-1)
    step = multiple_of or 1
    size = -(-max(base.size, last + 1) // step) * step
    rows = _Rows(vocab, size, last, everyone, lacking, storage)
    return Arrangement(vocab, size, tuple(rows.plan(model) for model in range(len(everyone))), document)


def arranged(arrangement: Arrangement, sources: Sequence[TensorSource], sizes: Sequence[int]) -> list[TensorSource]:
    """The models as views with the common vocabulary; a model whose rows stay as they are is returned itself.

    Args:
        arrangement: From `arrange`.
        sources: The base, then the models, in the order of `arrange`.
        sizes: Their ``vocab_size``.

    Raises:
        ParentsDoNotFit: if the models do not have the same tensors of the vocabulary's size, or rows of other lengths.
        UsageError: if the number of sources differs from the number of plans.
    """
    if not len(sources) == len(sizes) == len(arrangement.plans):
        message = f"{len(arrangement.plans)} models were arranged; {len(sources)} are given"
        raise UsageError(message, reason="vocabulary.models")
    names = vocabulary_tensors(sources[0], sizes[0])
    for source, size in zip(sources[1:], sizes[1:], strict=True):
        if vocabulary_tensors(source, size) != names:
            found = ", ".join(vocabulary_tensors(source, size))
            message = f"the vocabulary's tensors are {found}; in the base they are {', '.join(names)}"
            advice = "Models with a tied and an untied head cannot be combined; save them alike first."
            raise ParentsDoNotFit(message, advice=advice, reason="vocabulary.tensors")
    views: list[TensorSource] = []
    for source, size, plan in zip(sources, sizes, arrangement.plans, strict=True):
        views.append(source if plan.same(size) else Gathered(source, dict.fromkeys(names, plan), sources))
    return views


def vocabulary_tensors(source: TensorSource, size: int) -> tuple[str, ...]:
    """Names of the tensors with one row a token: the embedding and, where it is not tied, the head and its bias.

    Args:
        source: The model.
        size: Its ``vocab_size``.

    Raises:
        ParentsDoNotFit: if there is none, or one that is named like one has another number of rows.
    """
    found = tuple(n for n in source.names if any(n == e or n.endswith(f".{e}") for e in _ENDINGS))
    for name in found:
        if source.dims(name)[0] != size:
            message = f"{source.dims(name)[0]} rows; vocab_size is {size}"
            raise ParentsDoNotFit(message, where=name, reason="vocabulary.rows")
    if not found:
        advice = "Only models whose embedding has a known name can get another vocabulary."
        raise ParentsDoNotFit(
            "no tensor of the vocabulary's size was found", advice=advice, reason="vocabulary.tensors"
        )
    return found


class _Rows:
    """Finds where every row of one model comes from."""

    def __init__(
        self,
        vocab: Mapping[str, int],
        size: int,
        last: int,
        everyone: Sequence[Vocabulary],
        lacking: str,
        storage: Storage | None,
    ) -> None:
        self.vocab, self.size, self.last, self.everyone = vocab, size, last, everyone
        self.lacking, self.storage = lacking, storage
        self.tokens = set(vocab.values())
        self.used = [set(v.ids.values()) for v in everyone]

    def plan(self, model: int) -> RowPlan:
        """The rows of one of base and models, by its place."""
        own = self.everyone[model]
        index, origin = np.full(self.size, NEW, np.int64), np.zeros(self.size, np.int64)
        means: dict[int, tuple[tuple[int, int], ...]] = {}
        for token, row in self.vocab.items():
            if (mine := own.ids.get(token)) is not None:
                index[row] = mine
                continue
            givers = self._givers(token)
            if len(givers) == 1:
                origin[row], index[row] = givers[0]
            else:
                means[row] = givers
        for row in set(range(self.size)) - self.tokens:
            for place, donor in ((0, model), (1, 0)):
                if row < self.everyone[donor].size and row not in self.used[donor]:
                    index[row], origin[row] = row, place
                    break
        return RowPlan(index, origin, means, average=self.last + 1, storage=self.storage)

    def _givers(self, token: str) -> tuple[tuple[int, int], ...]:
        having = tuple((k + 1, v.ids[token]) for k, v in enumerate(self.everyone) if token in v.ids)
        return having[:1] if self.lacking == "base" and having[0][0] == 1 else having


def _policy(policy: str, multiple_of: int | None) -> VocabularyPolicy:
    if policy not in tuple(VocabularyPolicy):
        message = f"unknown vocabulary policy {policy!r}; known are {', '.join(VocabularyPolicy)}"
        raise UsageError(message, where="vocabulary: policy", reason="vocabulary.policy")
    kind = VocabularyPolicy(policy)
    wanted = kind is VocabularyPolicy.PAD_TO
    if (multiple_of is None and wanted) or (multiple_of is not None and kind is VocabularyPolicy.REFUSE):
        message = f"{kind} {'needs' if wanted else 'takes no'} multiple_of"
        raise UsageError(message, where="vocabulary: multiple_of", reason="vocabulary.multiple")
    if multiple_of is not None and not 1 <= multiple_of <= _MAX_MULTIPLE:
        message = f"{multiple_of} is not between 1 and {_MAX_MULTIPLE}"
        raise UsageError(message, where="vocabulary: multiple_of", reason="vocabulary.multiple")
    return kind


def _refuse_differences(base: Vocabulary, models: Sequence[Vocabulary], *, rows_too: bool) -> None:
    for model in models:
        found = vocabulary_diff(base, model if rows_too else replace(model, size=base.size))
        if found:
            raise ParentsDoNotFit(
                "; ".join(found),
                where=f"vocabulary of {model.name}",
                advice="Leave this parent out, or choose the policy base or union for the vocabulary.",
                reason="vocabulary.differs",
            )


def _union(base: Vocabulary, models: Sequence[Vocabulary]) -> tuple[dict[str, int], bytes | None]:
    """All tokens, and the base's ``tokenizer.json`` with the new ones added; None if there is nothing new."""
    added = {token.content: token for token in base.added}
    first = {token.content: token for model in reversed(models) for token in model.added}
    # The library adds no empty token.
    plain = [t for model in models for t in model.ids if t and t not in base.ids and t not in first]
    special = [token.content for model in models for token in model.added if token.content]
    fresh = dict.fromkeys([*plain, *(token for token in special if token not in base.ids)])
    promoted = [token for token in dict.fromkeys(special) if token in base.ids and token not in added]
    if not fresh and not promoted:
        return dict(base.ids), None
    if base.document is None:
        advice = "Write the base's tokenizer.json with the tokenizers library, or choose the policy base."
        message = "has no tokenizer.json that tokens could be added to"
        raise ParentsDoNotFit(message, where=base.name, advice=advice, reason="vocabulary.file")
    vocab = dict(base.ids)
    for number, token in enumerate(fresh, start=base.last + 1):
        vocab[token] = number
        # What the library makes of plain text: matched as it stands after normalisation, in any place.
        flags = first[token].flags if token in first else (False, False, False, True, False)
        added[token] = AddedToken(number, token, flags)
    for token in promoted:
        added[token] = AddedToken(vocab[token], token, first[token].flags)
    listed = sorted(added.values(), key=lambda token: token.id)
    _check_loads_alike(base, listed)
    document = {**base.document, "added_tokens": [token.entry() for token in listed]}
    return vocab, json.dumps(document, ensure_ascii=False, indent=2).encode()


def _check_loads_alike(base: Vocabulary, listed: Sequence[AddedToken]) -> None:
    """The library numbers added tokens itself; refuse a file whose ids it would not read back."""
    model = set(base.ids) - {token.content for token in base.added if token.id >= base.plain}
    highest = -1
    for token in listed:
        if token.content in model:
            highest = max(highest, token.id)
            continue
        expected = highest + 1 if highest >= base.plain else base.plain
        if token.id != expected:
            message = f"token {token.content!r} would be read back as id {expected}, not {token.id}"
            advice = "The base's ids have gaps, so none can be added; choose the policy base."
            raise ParentsDoNotFit(message, where=base.name, advice=advice, reason="vocabulary.gap")
        highest = max(highest, token.id)
