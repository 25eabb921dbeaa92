"""What judges a candidate and who signs, against the last promotion of a champion: suites, evaluators, policy, keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from studbook.lab.desk import Desk
from studbook.lab.judge_owners import owned
from studbook.lab.review.facts import Change, Judges
from studbook.policy import PolicyChange, record_changes
from studbook.records import (
    ChampionPromotion,
    Policy,
    Revocation,
    Root,
    RuntimeSmoke,
    Scorecard,
    SuiteManifest,
    SuitesLock,
)

__all__ = ["judges_since"]

R = TypeVar("R", Policy, Root)


def judges_since(desk: Desk, cards: Iterable[str]) -> Judges:
    """What changed since the last promotion of a champion.

    Args:
        desk: The lab.
        cards: Digests of the scorecards that the candidate was judged by.
    """
    last = next((d for d, _ in reversed(list(desk.all(ChampionPromotion)))), None)
    entry = desk.workspace.entry(last) if last else None
    who = owned(desk)
    if entry is None:
        return Judges(since=None, entry=None, time="", suites=(), evaluators=(), policy=(), keys=(),
                      independent=who.independent, owners=who.told)  # fmt: skip
    then = desk.at(entry.sequence)
    before = {d for kind in (Scorecard, RuntimeSmoke) for d in _evaluators(then.all(kind))}
    now = {desk.scorecard(card).evaluator for card in cards}
    return Judges(
        since=last,
        entry=entry.sequence,
        time=entry.time,
        suites=_listed(_suites(then), _suites(desk)),
        evaluators=tuple(Change(what="evaluator", before="", after=e) for e in sorted(now - before)),
        policy=_fields(then, desk, Policy),
        keys=(*_fields(then, desk, Root), *_revoked(desk, entry.sequence)),
        independent=who.independent,
        owners=who.told,
    )


def _fields(then: Desk, now: Desk, kind: type[R]) -> tuple[PolicyChange, ...]:
    before, after = (next((r for _, r in reversed(list(desk.all(kind)))), None) for desk in (then, now))
    if before is None or after is None:
        # All that there were is void, or was.
        told = "none counted then" if before is None else "none counts now"
        return () if before is after else (PolicyChange(kind.kind(), told),)
    return record_changes(before, after)


def _suites(desk: Desk) -> dict[str, str]:
    """The frozen suites in force: digest -> name."""
    lock = next((r for _, r in reversed(list(desk.all(SuitesLock)))), None)
    return {d: desk.workspace.get(d, SuiteManifest).name for d in (lock.suites if lock else ())}


def _listed(before: dict[str, str], after: dict[str, str]) -> tuple[Change, ...]:
    gone = [Change(what=name, before=d, after="") for d, name in before.items() if d not in after]
    new = [Change(what=name, before="", after=d) for d, name in after.items() if d not in before]
    return (*gone, *new)


def _evaluators(found: Iterable[tuple[str, Scorecard | RuntimeSmoke]]) -> set[str]:
    return {record.evaluator for _, record in found}


def _revoked(desk: Desk, since: int) -> Iterator[PolicyChange]:
    for digest, record in desk.all(Revocation):
        entry = desk.workspace.entry(digest)
        if entry and entry.sequence > since and record.subject.type == "key":
            yield PolicyChange(f"key {record.subject.digest[:16]}", f"was revoked: {record.reason}")
