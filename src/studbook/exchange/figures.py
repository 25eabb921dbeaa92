"""The numbers of a dossier, each with unit, basis, method and the digests it comes from; and what was not measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from studbook.exchange.dossier import Dossier
from studbook.records import CandidateManifest, Rung, Scorecard, SuiteManifest, SuiteResult
from studbook.statistics import clopper_pearson

__all__ = ["CONFIDENCE", "UNITS", "Figure", "figures", "limits", "measured", "unmeasured"]

CONFIDENCE = 0.95
"""Two-sided confidence of the bounds of a share."""
_MILLION = 1_000_000
_NO_ITEMS = "no items"
UNITS = {
    "calibration": "brier-0-2",
    "net-utility": "utility",
    "storage-reserve": "bytes",
    "memory-reserve": "decoded-bytes",
    "latency-reserve": "multiply-adds",
    "model-calls-reserve": "model-calls",
    "sealed-openings-reserve": "sealed-openings",
    "attention-reserve": "acts-of-people",
}
"""What a comparison is on -> the unit of its difference; everything else compares shares of items."""


class Figure(Struct, frozen=True, kw_only=True):
    """One number about a model.

    Attributes:
        label: What it is.
        value: The number.
        unit: Its unit.
        basis: ``observed``, ``estimated`` or ``reported``.
        method: How it was obtained.
        on: Name and role of the suite, or ``no items``.
        suites: Digests of the SuiteManifests it was measured on.
        record: Digest of the record that holds it.
        low: Lower bound, or None.
        high: Upper bound, or None.
    """

    label: str
    value: float
    unit: str
    basis: Literal["observed", "estimated", "reported"]
    method: str
    on: str
    suites: tuple[str, ...]
    record: str
    low: float | None = None
    high: float | None = None


def figures(dossier: Dossier) -> tuple[Figure, ...]:
    """Every number on record, in the order: suites, costs, distance from the base, comparisons, reported by others."""
    measured_here = (*_results(dossier), *_costs(dossier), *_distance(dossier), *_differences(dossier))
    return (*measured_here, *_reported(dossier))


def unmeasured(dossier: Dossier) -> tuple[str, ...]:
    """What no record says, in sentences."""
    found = [] if dossier.smoke else ["Whether it loads and runs: no passed runtime smoke is on record."]
    roles = {card.role for _, card in dossier.cards}
    for role in ("development", "selection"):
        if role not in roles:
            found.append(f"Skill on {role} suites: no scorecard is on record.")
    for _, card in dossier.cards:
        for result in card.results:
            if result.verdict in ("error", "no-data"):
                name = dossier.suites[result.suite].name
                found.append(f"Skill on {name}: the run ended with {result.verdict}: {result.detail}")
    if not any(found_.role == "sealed" for found_ in dossier.compared):
        found.append("Skill on sealed suites: they were not opened for this model.")
    if Rung.ASSISTANT not in dossier.evidence:
        found.append("Quality as an assistant: no evidence for this rung of the gate ladder is on record.")
    return (
        *found,
        "Safety: no safety review is on record.",
        "Bias, toxicity, and languages and tasks outside the suites named here.",
        "Speed, memory and energy on any device; costs above are counted from shapes and files.",
    )


def limits(dossier: Dossier) -> tuple[str, ...]:
    """What the model is on record as not doing."""
    return dossier.manifest.unsupported


def _results(dossier: Dossier) -> Iterator[Figure]:
    for record, card in dossier.cards:
        for result in card.results:
            if result.correct and result.verdict in ("pass", "fail"):
                yield measured(dossier.suites[result.suite], result, record, card)


def measured(suite: SuiteManifest, result: SuiteResult, record: str, card: Scorecard) -> Figure:
    """What a scorecard says of one suite: a share with exact bounds, or a mean Brier score, which has none here.

    Args:
        suite: The suite.
        result: Its result, with at least one item.
        record: Digest of the scorecard.
        card: The scorecard.
    """
    items, low, high = len(result.correct), None, None
    if result.dimension != "calibration":
        exact = suite.scorer == "exact-match"
        label, unit, value = "items answered exactly" if exact else "items answered right", "share", result.mean
        low, high = clopper_pearson(result.right, items, (1 - CONFIDENCE) / 2)
        by = "teacher-forced exact match" if exact else suite.scorer
        method = f"{result.right} of {items} items by {by}; exact Clopper-Pearson bounds, 95 %"
    else:
        label, unit, value = "mean Brier score", "brier-0-2", sum(result.briers) / items / _MILLION
        method = f"multi-class Brier score, mean over the answer's tokens, then over {items} items; lower is better"
    return Figure(
        label=label,
        value=value,
        unit=unit,
        basis="observed",
        method=f"{method}; evaluator {card.evaluator[:16]}; verdict {result.verdict}",
        on=f"{suite.name} ({card.role})",
        suites=(result.suite,),
        record=record,
        low=low,
        high=high,
    )


def _reported(dossier: Dossier) -> Iterator[Figure]:
    """What somebody else reports; no gate reads it."""
    for record, found in dossier.reported:
        yield Figure(
            label=f"{found.benchmark}, as others report it",
            value=found.measure.value,
            unit=found.measure.unit,
            basis=found.measure.basis,
            method=f"{found.measure.method}; {found.citation}; not measured here, and no gate reads it",
            on=_NO_ITEMS,
            suites=(),
            record=record,
        )


def _costs(dossier: Dossier) -> Iterator[Figure]:
    """Of the last card: what is counted from shapes is the same in all, and work depends on the items."""
    for record, card in dossier.cards[-1:]:
        for cost in card.cost:
            yield Figure(
                label="cost",
                value=cost.value,
                unit=cost.unit,
                basis=cost.basis,
                method=cost.method,
                on=f"all {card.role} suites",
                suites=tuple(result.suite for result in card.results),
                record=record,
            )


def _distance(dossier: Dossier) -> Iterator[Figure]:
    if dossier.making is not None and isinstance(dossier.manifest, CandidateManifest):
        yield Figure(
            label="distance from the base",
            value=dossier.making.receipt.delta_norm,
            unit="l2-norm",
            basis="observed",
            method="square root of the sum of squared differences over all tensors",
            on=_NO_ITEMS,
            suites=(),
            record=dossier.manifest.receipt,
        )


def _differences(dossier: Dossier) -> Iterator[Figure]:
    for found in dossier.compared:
        row = found.comparison
        yield Figure(
            label=f"{row.test} over {found.against}",
            value=row.difference,
            unit=UNITS.get(row.on, "share"),
            basis="observed",
            method=f"{row.method}; {row.items} items; {'passed' if row.passed else 'not passed'}",
            on=f"{row.on} ({found.role})",
            suites=found.suites,
            record=found.record,
            low=row.lower,
            high=row.upper,
        )
