"""Which evaluator judges here, and how people let another one do it.

The first evaluator that measured anything is in force until an `EvaluatorChange` names the next. What it measured is
compared with nothing of the next one, so champion and doing nothing are measured again before anything is.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from studbook.errors import NotAuthorised, OutOfOrder
from studbook.evaluation.scorecards import evaluator_sha256
from studbook.lab.desk import Desk
from studbook.lab.facts import require
from studbook.lab.judge_owners import one_owner, promotion_owners, root_of
from studbook.lab.pending import Signed, sign, signers_here
from studbook.lab.words import plain_name, plain_text
from studbook.records import (
    DriftReport,
    EvaluatorChange,
    RedTeamReport,
    RuntimeSmoke,
    Scorecard,
    SuitesLock,
    ViabilityDecision,
)
from studbook.seal import Signer

__all__ = [
    "Evaluators",
    "Judge",
    "check_change",
    "check_measured_by",
    "in_force",
    "judged_by",
    "require_in_force",
    "stale",
]

_FIELD = "evaluator.field"
_KEY = "Give whoever decides it a key: studbook key new NAME --kind evaluator-change/1 --as NAME"


class Judge(Struct, frozen=True):
    """Which evaluator judges.

    Attributes:
        evaluator: Digest of the one in force; None where nothing was measured yet.
        program: Digest of the one that this program is.
        change: Digest of the change that put it in force; None for the first.
        independent: Whether more distinct owners let it judge than a promotion takes.
        told: The same in words.
    """

    evaluator: str | None
    program: str
    change: str | None
    independent: bool
    told: str


class Evaluators:
    """The facet behind ``studbook evaluator``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def show(self) -> Judge:
        """Which evaluator is in force, who let it judge, and which one this program is."""
        return judged_by(self._desk)

    def change(self, person: str, reason: str) -> Signed:
        """A person lets the evaluator of this program judge, after the red team was run against it.

        Args:
            person: Who signs.
            reason: Why.

        Raises:
            OutOfOrder: if it is in force already, nothing was measured yet, or no report of the red team against it passed.
            NotAuthorised: if the person has no key for it here.
        """
        desk, now = self._desk, evaluator_sha256()
        before = in_force(desk)
        if before in (None, now):
            text = "nothing was measured here yet" if before is None else "this program's evaluator is in force already"
            raise OutOfOrder(text, where="evaluator", advice="Nothing has to be signed.", reason="evaluator.same")
        demanded = set(desk.policy[1].minimum_isolation)
        passed = [(d, r) for d, r in desk.unrevoked(RedTeamReport) if r.evaluator == now and r.passed]
        reports = [d for d, r in passed if demanded <= set(r.isolation)]
        if not reports:
            raise OutOfOrder(
                "no passed report of the red team against this evaluator, behind what the policy demands of workers",
                where="evaluator-change: red_team",
                advice="Run it: studbook redteam",
                reason="evaluator.red-team",
            )
        record = EvaluatorChange(
            header=desk.header,
            replaces=before,
            evaluator=now,
            suites=desk.suites_lock[0],
            red_team=reports[-1],
            independent=not one_owner(desk.workspace.authority().root, EvaluatorChange.kind()),
            reason=plain_text(reason, "--reason"),
        )
        try:
            signers_here(desk, record, plain_name(person, "--as"))
        except NotAuthorised as error:
            if error.reason != "authority.key-missing":
                raise
            raise NotAuthorised(error.message, where=error.where, advice=_KEY, reason=error.reason) from error
        _check_facts(desk, record)
        return sign(desk, record, person)


def in_force(desk: Desk) -> str | None:
    """Digest of the evaluator that judges; None where nothing was measured yet."""
    changes = [r for _, r in desk.unrevoked(EvaluatorChange)]
    return changes[-1].evaluator if changes else _first(desk)


def judged_by(desk: Desk) -> Judge:
    """The evaluator in force, with who let it judge."""
    changes = desk.unrevoked(EvaluatorChange)
    found, program = in_force(desk), evaluator_sha256()
    if found is None:
        told = "nothing was measured yet"
    elif not changes:
        told = f"the first that measured here: {found}"
    else:
        digest, record = changes[-1]
        who = "more owners than a promotion takes" if record.independent else "one owner alone, since there is no other"
        told = f"{found}, by change {digest[:12]}, signed by {who}: {record.reason}"
    if found not in (None, program):
        told += f"; this program's evaluator is {program}, which nobody let judge yet"
    change = changes[-1] if changes else None
    return Judge(found, program, change[0] if change else None, bool(change and change[1].independent), told)


def require_in_force(desk: Desk) -> None:
    """Refuse to measure anything with an evaluator that nobody let judge.

    Raises:
        OutOfOrder: ``evaluator.unadmitted``.
    """
    found, now = in_force(desk), evaluator_sha256()
    if found not in (None, now):
        raise OutOfOrder(
            f"this program's evaluator is {now[:16]}..., and {found[:16]}... is in force",
            where="evaluator",
            advice="Install the version that measured before; or run `studbook redteam`, and let people sign "
            "`studbook evaluator change`. Then champion and candidates are measured anew.",
            reason="evaluator.unadmitted",
        )


def check_measured_by(desk: Desk, record: Scorecard | RuntimeSmoke | DriftReport) -> None:
    """Refuse what another evaluator measured than the one in force when it entered.

    Args:
        desk: The lab as it was before the record.
        record: The scorecard, smoke or drift report.

    Raises:
        OutOfOrder: ``evaluator.unadmitted``.
    """
    found = in_force(desk)
    if found not in (None, record.evaluator):
        raise OutOfOrder(
            f"was measured by evaluator {record.evaluator[:16]}..., and {found[:16]}... was in force",
            where=f"{record.kind().partition('/')[0]}: evaluator",
            advice="Do not compare it with anything. Look who holds the evaluation key.",
            reason="evaluator.unadmitted",
        )


def stale(desk: Desk, record: ViabilityDecision) -> bool:
    """Whether a decision rests on what another evaluator measured than the one in force."""
    return desk.scorecard(record.champion_cards[0]).evaluator != in_force(desk)


def check_change(desk: Desk, record: EvaluatorChange, signers: Sequence[Signer]) -> None:
    """An evaluator change as it enters.

    Args:
        desk: The lab as it is before the change.
        record: The change.
        signers: Who signed it.

    Raises:
        DigestDiffers: naming the field that is not so; ``evaluator.field``.
        NotAuthorised: ``evaluator.owners`` if not more distinct owners signed it than a champion promotion takes.
    """
    _check_facts(desk, record)
    if not record.independent:
        return
    promotion = promotion_owners(desk)
    owners = {s.owner.casefold() for s in signers}
    if len(owners) <= promotion:
        raise NotAuthorised(
            f"{len(owners)} owners signed it; it takes more than the {promotion} of a champion promotion",
            where="evaluator-change",
            advice=f"Ask for more first: studbook key rotate --needs evaluator-change/1={promotion + 1} --as PERSON",
            reason="evaluator.owners",
        )


def _check_facts(desk: Desk, record: EvaluatorChange) -> None:
    report = desk.workspace.get(record.red_team, RedTeamReport)
    lock = desk.workspace.get(record.suites, SuitesLock)
    facts: dict[str, tuple[object, object]] = {
        "replaces": (record.replaces, in_force(desk)),
        "evaluator": (record.evaluator != record.replaces, True),
        "red_team: evaluator": (report.evaluator, record.evaluator),
        "red_team: passed": (report.passed and record.red_team not in desk.taken_back(), True),
        "red_team: suite": (report.suite in lock.suites, True),
        "red_team: isolation": (sorted(set(desk.policy[1].minimum_isolation) - set(report.isolation)), []),
        "suites": (record.suites, desk.suites_lock[0]),
        "independent": (record.independent, not one_owner(root_of(desk), EvaluatorChange.kind())),
    }
    require("evaluator-change", facts, _FIELD)


def _first(desk: Desk) -> str | None:
    """The evaluator of the first thing that was measured."""
    kinds: dict[str, type[Scorecard] | type[RuntimeSmoke]] = {k.kind(): k for k in (Scorecard, RuntimeSmoke)}
    for entry in desk.entries():
        if entry.record_kind in kinds and not desk.workspace.void(entry):
            return desk.workspace.get(entry.record, kinds[entry.record_kind]).evaluator
    return None
