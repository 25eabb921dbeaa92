"""What is let out of the selection suites: a number from the Ladder, passed or not, and the kind of reason.

Whoever makes candidates is shown this about a decision, and nothing else that was measured on those suites.
The Ladder stands nowhere in a file. It is climbed again from the decisions in the ledger, in their order: each asks first
about its champion, then about its finalists. The same task suites under the same evaluator are one exam; with other
items, or another evaluator, a ladder starts anew. `verify` derives every decision again, and with them what was let out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from msgspec import Struct

from studbook.lab.desk import Desk
from studbook.lab.pooling import bits_of
from studbook.records import Scorecard, Standing, ViabilityDecision
from studbook.statistics import Ladder, climb
from studbook.viability import is_wait

__all__ = ["Exam", "Learned", "LetOut", "ask", "in_words", "learned"]

# By the kind of question that was not passed; where and by how much is not said.
_WHY = {
    "non-inferiority": "not shown to be no worse than the champion on every protected suite",
    "superiority": "no gain is shown on the target",
    "parent": "a parent is not beaten",
    "utility": "worth less than a switch costs",
}


class Exam(NamedTuple):
    """What a ladder is climbed on.

    Attributes:
        evaluator: Digest of the evaluator.
        suites: Digests of the task suites, in order.
    """

    evaluator: str
    suites: tuple[str, ...]


class LetOut(Struct, frozen=True):
    """What is let out about one candidate.

    Attributes:
        artifact: Its digest.
        name: Its name.
        action: What becomes of it.
        released: Share of right answers that the Ladder lets out, rounded to one item; None where it met no selection
            suite, or failed a hard gate there.
        rose: Whether its own score was let out; else the number is the one that was there before.
        passed: Whether it passed every test of the round.
        why: What stopped it: of a finalist the kind of reason, of anybody else in numbers of development items.
    """

    artifact: str
    name: str
    action: str
    released: float | None
    rose: bool
    passed: bool
    why: tuple[str, ...]


class Learned(Struct, frozen=True):
    """What is let out about one decision.

    Attributes:
        decision: Digest of the ViabilityDecision.
        action: What was decided.
        chosen: Digest of the winner, or None.
        items: Items of the exam.
        champion: Share of right answers let out once the champion was asked about; None if its answers are void.
        candidates: One row each, in the order they were bred.
        why: The decision in words without numbers of selection items.
        assumptions: What would have to hold, without the comparison with the best parent.
    """

    decision: str
    action: str
    chosen: str | None
    items: int
    champion: float | None
    candidates: tuple[LetOut, ...]
    why: str
    assumptions: tuple[str, ...]


def ask(ladders: dict[Exam, Ladder], card: Scorecard) -> Ladder | None:
    """Ask the ladder of a scorecard's exam about it, and keep where that ladder stands then.

    Args:
        ladders: The ladder of every exam so far; changed.
        card: A scorecard on selection suites.

    Returns:
        The ladder after it; None, and nothing is changed, where a task suite of the scorecard was not scored.
    """
    tasks = [r for r in card.results if r.dimension == "task"]
    if not tasks or any(r.verdict not in ("pass", "fail") for r in tasks):
        return None
    exam = Exam(card.evaluator, tuple(r.suite for r in tasks))
    ladders[exam] = climb(ladders.get(exam), [float(bit) for bit in bits_of(card)])
    return ladders[exam]


def learned(desk: Desk, decision: str) -> Learned:
    """What is let out about a decision.

    Args:
        desk: The lab.
        decision: Digest of a ViabilityDecision.

    Raises:
        StudbookError: any of its kinds, if it is not on record here.
    """
    record = desk.workspace.get(decision, ViabilityDecision)
    ladders: dict[Exam, Ladder] = {}
    for digest, earlier in desk.all(ViabilityDecision):
        if digest == decision:
            break
        for card in (_champion(desk, earlier), *(c for _, c in _finalists(desk, earlier))):
            ask(ladders, card)
    champion = _champion(desk, record)
    first = ask(ladders, champion)
    waits = tuple(reason for reason in record.no_op.reasons if is_wait(reason))
    rows = {s.manifest: _finalist(s, ladders, card, waits) for s, card in _finalists(desk, record)}
    return Learned(
        decision=decision,
        action=record.action,
        chosen=record.chosen,
        items=len(bits_of(champion)),
        champion=first.released if first else None,
        candidates=tuple(rows.get(s.manifest) or _stopped(s) for s in record.standings),
        why=_why(record, waits),
        # The last assumption sets the winner beside the best parent, in numbers of selection items.
        assumptions=record.assumptions[:-1],
    )


def in_words(found: Learned) -> tuple[str, ...]:
    """One line a finalist: the number that was let out, whether it is the finalist's own, and the kind of reason."""
    return tuple(
        f"{row.name}: {row.released:.1%} on {found.items} selection items, {'a step up' if row.rose else 'no step up'}; "
        f"{'; '.join(row.why) or 'passes every test'}"
        for row in found.candidates
        if row.released is not None
    )


def _champion(desk: Desk, record: ViabilityDecision) -> Scorecard:
    return next(c for c in map(desk.scorecard, record.champion_cards) if c.role == "selection")


def _finalists(desk: Desk, record: ViabilityDecision) -> Iterator[tuple[Standing, Scorecard]]:
    """Whoever met the selection suites and failed no hard gate: of the others no score is let out."""
    met = (s for s in record.standings if s.selection and all(g.passed for g in s.gates))
    return ((s, desk.scorecard(s.selection)) for s in met if s.selection)


def _finalist(standing: Standing, ladders: dict[Exam, Ladder], card: Scorecard, waits: tuple[str, ...]) -> LetOut:
    before = tuple(ladders.values())
    after = ask(ladders, card)
    rose = after is not None and not any(after is ladder for ladder in before)
    lost = tuple(dict.fromkeys(_WHY[c.test] for c in standing.comparisons if c.test in _WHY and not c.passed))
    beaten = () if standing.won else waits or ("another finalist is worth more",)
    return _row(standing, after and after.released, rose, not lost, lost or beaten)


def _stopped(standing: Standing) -> LetOut:
    failed = tuple(f"gate {g.name.partition('/')[0]} failed" for g in standing.gates if not g.passed)
    return _row(standing, None, False, False, failed if standing.selection else standing.reasons)


def _row(standing: Standing, released: float | None, rose: bool, passed: bool, why: tuple[str, ...]) -> LetOut:
    return LetOut(standing.artifact, standing.name, standing.action, released, rose, passed, why)


def _why(record: ViabilityDecision, waits: tuple[str, ...]) -> str:
    winner = next((s for s in record.standings if s.artifact == record.chosen), None)
    if winner is not None:
        return f"{winner.name} passes every test, and is worth more than a switch costs"
    if waits:
        return "; ".join(waits)
    if not record.standings:
        return "no candidate was bred, so there is nothing to compare with the champion"
    tried = sum(s.selection is not None for s in record.standings)
    return f"no candidate passed; {tried} of {len(record.standings)} met the selection suites"
