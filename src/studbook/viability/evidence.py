"""Whether a scorecard is evidence at all: whose it is, what it was measured on, and whether it is complete.

Every check is phrased positively, so that a value that is not a number fails it.
"""

from __future__ import annotations

from collections.abc import Iterable

from studbook.errors import OutOfOrder
from studbook.records import Check, Scorecard, SuiteResult
from studbook.records.evaluation import Role

__all__ = ["INTEGRITY", "card_checks", "check_evaluator", "require"]

INTEGRITY = "integrity/"
"""Names of checks whose failure says that something was interfered with begin with this."""

_WORST_BRIER = 2_000_000


def card_checks(card: Scorecard | None, artifact: str, role: Role, reference: Scorecard) -> tuple[Check, ...]:
    """Check one scorecard against the champion's of the same role, one row a question.

    Args:
        card: The scorecard, or None when there is none.
        artifact: Digest of the artifact it has to belong to.
        role: Role it has to have.
        reference: The champion's scorecard; suites, items, lengths and calls have to equal its own.
    """
    if card is None:
        return (Check(name=f"evidence/{role}", passed=False, detail=f"no {role} scorecard: no data never promotes"),)
    measured = [r for r in card.results if r.verdict in ("pass", "fail")]
    return (
        _measured(card, role),
        _row(f"{INTEGRITY}{role}-owner", card.artifact == artifact and card.role == role, f"belongs to {artifact}"),
        _row(f"evidence/{role}-evaluator", card.evaluator == reference.evaluator, f"evaluator {card.evaluator}"),
        _row(f"{INTEGRITY}{role}-suites", _identity(card) == _identity(reference), "met the champion's suites"),
        _items(card, role),
        _calls(measured, role, reference),
        _results(measured, role, reference),
        _agreement(card, role, complete=len(measured) == len(card.results)),
    )


def require(card: Scorecard, artifact: str, role: Role, reference: Scorecard) -> None:
    """Refuse a champion's or parent's scorecard that nothing can be compared with.

    Raises:
        OutOfOrder: naming the first check of `card_checks` that fails.
    """
    for check in card_checks(card, artifact, role, reference):
        if not check.passed:
            raise OutOfOrder(
                f"the {role} scorecard of {artifact} cannot be used ({check.name}): {check.detail}",
                where="scorecard",
                advice="Evaluate it again with the lab's present evaluator and the suites of the lock.",
            )


def check_evaluator(cards: Iterable[Scorecard | None]) -> None:
    """Refuse scorecards of different evaluators; the first one given is the reference.

    Raises:
        OutOfOrder: naming the artifact that another evaluator scored.
    """
    present = [card for card in cards if card is not None]
    for card in present:
        if card.evaluator != present[0].evaluator:
            raise OutOfOrder(
                f"{card.artifact} was scored by evaluator {card.evaluator}, the champion by {present[0].evaluator}; "
                "scorecards of different evaluators are never compared",
                where="scorecard: evaluator",
                advice="Evaluate champion, parents and candidates again with one evaluator.",
                reason="order.evaluator",
            )


def _row(name: str, passed: bool, detail: str) -> Check:
    return Check(name=name, passed=bool(passed), detail=detail if passed else f"does not hold: {detail}")


def _identity(card: Scorecard) -> list[tuple[str, str, str, str]]:
    return [(r.suite, r.cluster, r.dimension, r.items_before) for r in card.results]


def _measured(card: Scorecard, role: Role) -> Check:
    for r in card.results:
        if r.verdict not in ("pass", "fail"):
            return Check(
                name=f"evidence/{role}", passed=False, detail=f"{r.cluster} says {r.verdict}: {r.detail[:1000]}"
            )
    return _row(f"evidence/{role}", bool(card.results), f"{len(card.results)} suites measured")


def _items(card: Scorecard, role: Role) -> Check:
    changed = [r.cluster for r in card.results if r.items_before != r.items_after]
    detail = f"items of {', '.join(changed) or 'every suite'} equal before and after the run"
    return _row(f"{INTEGRITY}{role}-items", not changed, detail)


def _calls(measured: list[SuiteResult], role: Role, reference: Scorecard) -> Check:
    expected = {r.suite: r.expected_calls for r in reference.results}
    for r in measured:
        if not (r.actual_calls == r.expected_calls == expected.get(r.suite, -1) and r.actual_calls >= 1):
            detail = f"{r.cluster}: {r.actual_calls} model calls made of {expected.get(r.suite, 0)} expected"
            return _row(f"{INTEGRITY}{role}-calls", False, detail)
    return _row(f"{INTEGRITY}{role}-calls", True, f"{sum(r.actual_calls for r in measured)} model calls, all expected")


def _results(measured: list[SuiteResult], role: Role, reference: Scorecard) -> Check:
    items = {r.suite: len(r.correct) for r in reference.results}
    for r in measured:
        lengths = {len(r.correct), len(r.logliks), len(r.briers)}
        if r.dimension == "cost":
            lengths.add(len(r.written.split()))
        if not (lengths == {items.get(r.suite, 0)} and lengths != {0}):
            detail = f"{r.cluster}: {sorted(lengths)} results for {items.get(r.suite, 0)} items"
            return _row(f"{INTEGRITY}{role}-results", False, detail)
        if not (min(r.briers) >= 0 and max(r.briers) <= _WORST_BRIER and max(r.logliks) <= 0):
            return _row(f"{INTEGRITY}{role}-results", False, f"{r.cluster}: scores within their range")
    return _row(f"{INTEGRITY}{role}-results", True, f"{sum(len(r.correct) for r in measured)} results, one an item")


def _agreement(card: Scorecard, role: Role, *, complete: bool) -> Check:
    sampled, agreed = card.agreement.sampled, card.agreement.agreed
    # A run that was cut short may not have reached its sample; it cannot pass anyway, but it is no sign of tampering.
    passed = agreed == sampled and (sampled >= 1 or not complete)
    return _row(f"{INTEGRITY}{role}-agreement", passed, f"generating and scoring agree on {agreed} of {sampled} items")
