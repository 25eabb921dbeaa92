"""Whether checkpoints fit together: architecture, constants, tokenizers, shapes, licences; no weight is read.

The report informs: a merge of checkpoints checks its own recipe, which may bring different vocabularies together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from studbook.errors import BytesLie, ParentsDoNotFit, printable
from studbook.models.checkpoint import Checkpoint
from studbook.models.vocabulary import Vocabulary, read_vocabulary, vocabulary_diff
from studbook.models.vocabulary_policy import vocabulary_tensors
from studbook.records import Check, CompatibilityReport, Header, Policy, digest
from studbook.records.sources import TokenizerChange
from studbook.registry.compatibility import check_licences

__all__ = ["CheckpointParent", "compare_checkpoints"]

# Fields of a config that change what equal weights compute; the names are those of transformers.
_CONSTANTS: Final = (
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "rms_norm_eps",
    "layer_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "sliding_window",
)
_SHOWN: Final = 80
_MOST: Final = 4000


class CheckpointParent(NamedTuple):
    """A checkpoint to be combined.

    Attributes:
        name: What people call it.
        model: The checkpoint, open.
        files: Its files by relative path.
        licence: SPDX identifier on record, or None.
    """

    name: str
    model: Checkpoint
    files: Mapping[str, Path]
    licence: str | None


def compare_checkpoints(
    header: Header, policy: Policy, base: CheckpointParent, parents: Sequence[CheckpointParent]
) -> CompatibilityReport:
    """Compare checkpoints with their base and with each other.

    Args:
        header: Record header.
        policy: Its licence table applies.
        base: The model they were tuned from, or any of them.
        parents: The parents, in order.

    Raises:
        BytesLie: if a vocabulary file breaks a rule.
        UsageError: if a file is gone.
    """
    checks = (
        _architecture(base, parents),
        _config(base, parents),
        _tokenizer(base, parents),
        _layout(base, parents),
        check_licences(policy, [(parent.name, parent.licence) for parent in parents], "with --licence"),
    )
    return CompatibilityReport(
        header=header,
        base=base.model.sha256,
        parents=tuple(p.model.sha256 for p in parents),
        checks=checks,
        tokenizers=tuple(_change(base, p) for p in parents if not _alike(base, p)),
        pairs=(),
        anchor=digest([]),
        passed=all(c.passed for c in checks),
    )


def _architecture(base: CheckpointParent, parents: Sequence[CheckpointParent]) -> Check:
    wanted = _kind(base.model)
    for parent in parents:
        if (found := _kind(parent.model)) != wanted:
            detail = f"{parent.name} is {found}, {base.name} is {wanted}; leave it out of the parents"
            return Check(name="architecture", passed=False, detail=_cut(detail))
    return Check(name="architecture", passed=True, detail=_cut(f"all are {wanted}"))


def _config(base: CheckpointParent, parents: Sequence[CheckpointParent]) -> Check:
    """Constants that both state; what one of them leaves to its library's default cannot be compared."""
    for parent in parents:
        pairs = [(f, _setting(parent.model.config, f), _setting(base.model.config, f)) for f in _CONSTANTS]
        pairs.append(("tied head", parent.model.tied, base.model.tied))
        for field, there, here in pairs:
            if None not in (there, here) and there != here:
                detail = (
                    f"{parent.name} has {field} {_short(there)}, {base.name} has {_short(here)}: equal weights compute "
                    "something else there"
                )
                return Check(name="config", passed=False, detail=_cut(detail))
    return Check(name="config", passed=True, detail="no stated constant that weights depend on differs")


def _tokenizer(base: CheckpointParent, parents: Sequence[CheckpointParent]) -> Check:
    for parent in parents:
        if not _alike(base, parent):
            detail = (
                f"{parent.name} has tokenizer {parent.model.tokenizer_sha256[:12]} ({_rows(parent.model)}), {base.name} "
                f"has {base.model.tokenizer_sha256[:12]} ({_rows(base.model)}); leave it out, or write a recipe whose "
                "vocabulary policy is base or union"
            )
            return Check(name="tokenizer", passed=False, detail=_cut(detail))
    return Check(name="tokenizer", passed=True, detail="all tokenizer files are equal")


def _layout(base: CheckpointParent, parents: Sequence[CheckpointParent]) -> Check:
    """Names and shapes; rows of the vocabulary are a matter of the tokenizer."""
    expected = _shapes(base.model)
    for parent in parents:
        found = _shapes(parent.model)
        for name in sorted(expected.keys() | found.keys()):
            if found.get(name) != expected.get(name):
                there, here = (str(shapes.get(name, "absent")) for shapes in (found, expected))
                detail = f"{parent.name}: {name} is {there}, in {base.name} it is {here}; leave it out of the parents"
                return Check(name="layout", passed=False, detail=_cut(detail))
    return Check(name="layout", passed=True, detail=f"{len(expected)} tensors of equal shape")


def _shapes(model: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor; of the vocabulary's without the rows, where the config says how many there are."""
    try:
        tables = set(vocabulary_tensors(model, model.vocab_size)) if model.vocab_size else set()
    except ParentsDoNotFit:
        tables = set()
    return {n: model.dims(n)[1:] if n in tables else model.dims(n) for n in model.names}


def _change(base: CheckpointParent, parent: CheckpointParent) -> TokenizerChange:
    """What changes for ids; texts would need the tokenizers library."""
    kept = moved = dropped = added = 0
    try:
        here, there = _vocabulary(base), _vocabulary(parent)
    except BytesLie as error:
        if error.reason != "vocabulary.file":
            raise
        detail = f"{error}; what changes is not known"
    else:
        common = here.ids.keys() & there.ids.keys()
        kept, moved = len(common), sum(here.ids[t] != there.ids[t] for t in common)
        dropped, added = len(here.ids) - kept, len(there.ids) - kept
        # Other files, such as a chat template, may differ where the vocabulary does not.
        detail = "; ".join(vocabulary_diff(here, there)) or "the same tokens; another tokenizer file differs"
    return TokenizerChange(
        parent=parent.model.sha256,
        kept=kept,
        moved=moved,
        dropped=dropped,
        added=added,
        text_bytes=0,
        base_tokens=0,
        parent_tokens=0,
        differing=0,
        failed=0,
        detail=_cut(detail),
    )


def _vocabulary(parent: CheckpointParent) -> Vocabulary:
    """Its tokens; ids beyond the embedding are a matter of breeding."""
    return read_vocabulary(parent.files, 2**31, parent.name)


def _alike(base: CheckpointParent, parent: CheckpointParent) -> bool:
    one, other = base.model, parent.model
    return (one.tokenizer_sha256, one.vocab_size) == (other.tokenizer_sha256, other.vocab_size)


def _kind(model: Checkpoint) -> str:
    kind = model.config.get("model_type")
    return ", ".join(model.architectures) or (kind if isinstance(kind, str) else "unknown")


def _setting(config: Mapping[str, Any], field: str) -> object:
    inner = config.get("text_config")
    return inner.get(field) if isinstance(inner, dict) and field not in config else config.get(field)


def _rows(model: Checkpoint) -> str:
    return f"{model.vocab_size} rows" if model.vocab_size else "rows not stated"


def _short(value: object) -> str:
    return str(value)[:_SHOWN]


def _cut(text: str) -> str:
    return printable(text)[:_MOST]
