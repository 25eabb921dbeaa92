"""Whether parents fit together: shapes and tokenizers first, then licences, then the geometry of their task vectors.

A parent with another tokenizer than the base's, such as a child whose vocabulary was pruned or extended, is held
against both tokenizers: which ids are kept, moved, dropped and added, and how many tokens the rows become.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from studbook.errors import ParentsDoNotFit, printable
from studbook.models.slm import Slm
from studbook.models.tokenizer_report import compare_tokenizers
from studbook.policy import inherited_licence
from studbook.records import Check, CompatibilityReport, Header, Measure, Policy, TaskVectorPair
from studbook.records.sources import TokenizerChange
from studbook.sandbox import Limits, run_worker

__all__ = [
    "Parent",
    "Rows",
    "check_all",
    "check_licences",
    "compare",
    "measured_pairs",
    "require",
    "tokenizer_change",
    "tokenizer_changes",
]

Rows = Sequence[tuple[str, str]]


class Parent(NamedTuple):
    """A model to be combined.

    Attributes:
        name: What people call it.
        model: The model.
        path: Its file in the store.
        licence: SPDX identifier on record, or None.
        base: Digest of its declared base, or None.
        trained: Whether a trained-source manifest names its tensors.
    """

    name: str
    model: Slm
    path: Path
    licence: str | None
    base: str | None
    trained: bool


def check_all(policy: Policy, base: Parent, parents: Sequence[Parent]) -> tuple[Check, ...]:
    """Every check that needs no arithmetic on weights, in a fixed order."""
    return tuple(check(policy, base, parents) for check in _CHECKS)


def compare(
    header: Header,
    policy: Policy,
    base: Parent,
    parents: Sequence[Parent],
    anchor: str,
    rows: Rows,
    folder: Path,
    limits: Limits,
) -> CompatibilityReport:
    """Compare parents with their base and with each other.

    Args:
        header: Record header.
        policy: Its licence table and ceilings apply.
        base: The shared base.
        parents: The parents, in order.
        anchor: Digest of the rows.
        rows: (prompt, answer) pairs from the training slice, for the interpolation barrier and the tokenizers; never
            suite items.
        folder: An empty folder for the worker that measures the geometry.
        limits: What that worker may use.
    """
    checks = check_all(policy, base, parents)
    passed = all(c.passed for c in checks)
    pairs = _geometry(base, parents, rows, folder, limits) if passed else ()
    return CompatibilityReport(
        header=header,
        base=base.model.sha256,
        parents=tuple(p.model.sha256 for p in parents),
        checks=checks,
        tokenizers=tokenizer_changes(base, parents, rows),
        pairs=pairs,
        anchor=anchor,
        passed=passed,
    )


def tokenizer_change(base: Slm, parent: Slm, texts: Sequence[str]) -> TokenizerChange:
    """One model's tokenizer against another's.

    Args:
        base: One model.
        parent: The other one, such as a child with fewer or more tokens.
        texts: Texts to try; none says only what happens to the ids.

    Raises:
        TokenizerRefused: if a text holds a lone surrogate.
    """
    found = compare_tokenizers(base.tokenizer, parent.tokenizer, texts)
    return TokenizerChange(
        parent=parent.sha256,
        kept=len(found.kept),
        moved=len(found.moved),
        dropped=len(found.dropped),
        added=len(found.added),
        text_bytes=found.text_bytes,
        base_tokens=found.parent_tokens,
        parent_tokens=found.child_tokens,
        differing=len(found.differing),
        failed=len(found.failed),
        detail=printable("; ".join(found.lines()))[:4000],
    )


def check_licences(policy: Policy, held: Sequence[tuple[str, str | None]], how: str) -> Check:
    """Whether every parent has a licence on record and the policy's table lets a child inherit from all of them.

    Args:
        policy: Its licence table applies.
        held: Name of a parent, and its SPDX identifier or None.
        how: How a parent without one is registered, for the detail.
    """
    for name, licence in held:
        if licence is None:
            detail = f"{name} has no licence on record; register it {how}"
            return Check(name="licence", passed=False, detail=detail)
    try:
        strictest = inherited_licence(policy, [licence for _, licence in held if licence])
    except ParentsDoNotFit as error:
        return Check(name="licence", passed=False, detail=error.message)
    return Check(name="licence", passed=True, detail=f"the child inherits {strictest}")


def require(report: CompatibilityReport) -> None:
    """Refuse unless every check passed.

    Raises:
        ParentsDoNotFit: naming the first check that failed and the first difference.
    """
    for check in report.checks:
        if not check.passed:
            raise ParentsDoNotFit(f"{check.name}: {check.detail}", reason=f"parents.{check.name}")


def _quantisation(_policy: Policy, base: Parent, parents: Sequence[Parent]) -> Check:
    for parent in (base, *parents):
        if parent.model.label != "f32":
            stored = f"{parent.name} is stored as {parent.model.label}"
            detail = f"{stored}; merging quantised weights is refused: use its f32 source"
            return Check(name="quantisation", passed=False, detail=detail)
    return Check(name="quantisation", passed=True, detail="all are f32")


def _tokenizer(_policy: Policy, base: Parent, parents: Sequence[Parent]) -> Check:
    for parent in parents:
        if parent.model.tokenizer_sha256 != base.model.tokenizer_sha256:
            detail = (
                f"{parent.name} has tokenizer {parent.model.tokenizer_sha256[:12]} "
                f"({parent.model.shape.vocab_size} tokens), {base.name} has {base.model.tokenizer_sha256[:12]} "
                f"({base.model.shape.vocab_size} tokens); leave it out of the parents"
            )
            return Check(name="tokenizer", passed=False, detail=detail)
    return Check(name="tokenizer", passed=True, detail="all sections are equal")


def _layout(_policy: Policy, base: Parent, parents: Sequence[Parent]) -> Check:
    expected = base.model.shape.tensors()
    for parent in parents:
        found = {spec.name: spec.dims for spec in parent.model.shape.tensors()}
        for spec in expected:
            if found.get(spec.name) != spec.dims:
                detail = (
                    f"{parent.name}: {spec.name} is {found.get(spec.name, 'absent')}, in {base.name} it is {spec.dims}; "
                    "leave it out of the parents"
                )
                return Check(name="layout", passed=False, detail=detail)
        if parent.model.layout_sha256 != base.model.layout_sha256 or parent.model.shape != base.model.shape:
            detail = f"{parent.name} differs from {base.name} in {_shape_difference(base.model, parent.model)}"
            return Check(name="layout", passed=False, detail=detail)
    return Check(name="layout", passed=True, detail=f"{len(expected)} tensors of equal shape")


def _adapter(_policy: Policy, base: Parent, parents: Sequence[Parent]) -> Check:
    for parent in parents:
        if parent.base != base.model.sha256:
            stated = f"names {parent.base[:12]} as its base" if parent.base else "names no base"
            detail = f"{parent.name} {stated}; task vectors need {base.name} ({base.model.sha256[:12]})"
            return Check(name="adapter", passed=False, detail=detail)
    return Check(
        name="adapter", passed=True, detail=f"every parent was tuned from {base.name}, no adapters are stacked"
    )


def _envelope(policy: Policy, base: Parent, parents: Sequence[Parent]) -> Check:
    largest = max((base, *parents), key=lambda p: p.model.size)
    ok = largest.model.size <= policy.gates.maximum_bytes
    detail = f"largest is {largest.name} with {largest.model.size} bytes; {policy.gates.maximum_bytes} are allowed"
    return Check(name="resource-envelope", passed=ok, detail=detail)


def _licence(policy: Policy, _base: Parent, parents: Sequence[Parent]) -> Check:
    held = [(parent.name, parent.licence) for parent in parents]
    return check_licences(policy, held, "together with its licence.manifest")


def _provenance(_policy: Policy, _base: Parent, parents: Sequence[Parent]) -> Check:
    for parent in parents:
        if not parent.trained:
            detail = f"{parent.name} has no trained-source manifest; register it together with its source.manifest"
            return Check(name="provenance", passed=False, detail=detail)
    return Check(name="provenance", passed=True, detail="every parent's tensors are named by a trained-source manifest")


_CHECKS: tuple[Callable[[Policy, Parent, Sequence[Parent]], Check], ...] = (
    _quantisation,
    _tokenizer,
    _layout,
    _adapter,
    _envelope,
    _licence,
    _provenance,
)


def _shape_difference(base: Slm, parent: Slm) -> str:
    for field in base.shape.__dataclass_fields__:
        if getattr(base.shape, field) != getattr(parent.shape, field):
            return f"{field}: {getattr(parent.shape, field)} against {getattr(base.shape, field)}"
    return "its layout digest"


def tokenizer_changes(base: Parent, parents: Sequence[Parent], rows: Rows) -> tuple[TokenizerChange, ...]:
    """Every parent whose tokenizer is not the base's, in order.

    Raises:
        TokenizerRefused: if a text holds a lone surrogate.
    """
    texts = [text for row in rows for text in row]
    others = [p.model for p in parents if p.model.tokenizer_sha256 != base.model.tokenizer_sha256]
    return tuple(tokenizer_change(base.model, model, texts) for model in others)


def _geometry(
    base: Parent, parents: Sequence[Parent], rows: Rows, folder: Path, limits: Limits
) -> tuple[TaskVectorPair, ...]:
    """Every pair of task vectors, measured in a worker: one thread, so that equal parents give equal numbers."""
    job = {"base": str(base.path.absolute()), "parents": [str(p.path.absolute()) for p in parents], "rows": list(rows)}
    answer = run_worker(
        "studbook.registry.geometry_worker", job, folder, limits, [base.path, *(p.path for p in parents)]
    )
    return measured_pairs(parents, answer.value["pairs"], len(rows))


def measured_pairs(
    parents: Sequence[Parent], found: Sequence[Mapping[str, Any]], rows: int
) -> tuple[TaskVectorPair, ...]:
    """What was measured of pairs of parents, as a report states it.

    Args:
        parents: The parents, in order.
        found: ``pairs`` as `studbook.registry.geometry_worker.work` gives them.
        rows: How many rows the barrier was measured on.
    """
    return tuple(
        TaskVectorPair(
            first=parents[pair["first"]].model.sha256,
            second=parents[pair["second"]].model.sha256,
            cosine=_measure(pair["cosine"], "ratio", "dot over norms, f64 fixed blocks"),
            sign_conflict=_measure(pair["conflict"], "share", "opposite signs where both moved"),
            barrier=_measure(pair["barrier"], "nats-per-token", f"midpoint minus mean of ends on {rows} rows"),
        )
        for pair in found
    )


def _measure(value: float, unit: str, method: str) -> Measure:
    return Measure(value=round(value, 6), unit=unit, basis="observed", method=method)
