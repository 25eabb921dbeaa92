"""What judges a candidate and who signs, against the last promotion of a champion: suites, evaluators, policy, keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from studbook.lab.desk import Desk
from studbook.lab.review.facts import Change, Judges
from studbook.records import (
    ChampionPromotion,
    Policy,
    Record,
    Revocation,
    Root,
    RuntimeSmoke,
    Scorecard,
    SuiteManifest,
    SuitesLock,
)

__all__ = ["differences", "judges_since"]

# Fields that tell the elements of a list apart, where they are distinct.
_IDENTITIES = ("key", "operator", "spdx", "kind")


def judges_since(desk: Desk, cards: Iterable[str]) -> Judges:
    """What changed since the last promotion of a champion.

    Args:
        desk: The lab.
        cards: Digests of the scorecards that the candidate was judged by.
    """
    last = next((d for d, _ in reversed(list(desk.all(ChampionPromotion)))), None)
    entry = desk.workspace.entry(last) if last else None
    if entry is None:
        return Judges(since=None, entry=None, time="", suites=(), evaluators=(), policy=(), keys=())
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
    )


def differences(old: Record | None, new: Record | None) -> tuple[Change, ...]:
    """The fields in which two records of one kind differ, header left out; elements of a list by what names them.

    Args:
        old: The record before, or None.
        new: The record after, or None.
    """
    before, after = (dict(_flat(_values(record))) for record in (old, new))
    fields = dict.fromkeys((*before, *after))
    pairs = ((f, before.get(f, ""), after.get(f, "")) for f in fields)
    return tuple(Change(what=f, before=a, after=b) for f, a, b in pairs if a != b)


def _values(record: Record | None) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(record) if record is not None else {}
    fields.pop("header", None)
    return fields


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, f"{path}.{name}" if path else str(name))
        return
    many = value if isinstance(value, list | tuple) and any(isinstance(v, dict) for v in value) else ()
    for number, inner in enumerate(many):
        place = f"{path}[{_identity(many, number)}]"
        yield place, "listed"
        yield from _flat(inner, place)
    if not many:
        yield path, value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _identity(many: Any, number: int) -> str:
    """What names an element among the others: the first field that is distinct in all of them, or its place."""
    for field in _IDENTITIES:
        found = [v.get(field) if isinstance(v, dict) else None for v in many]
        if isinstance(found[number], str) and len({*map(str, found)}) == len(found):
            return str(found[number])[:16]
    return str(number)


def _fields(then: Desk, now: Desk, kind: type[Record]) -> tuple[Change, ...]:
    newest = [next((r for _, r in reversed(list(desk.all(kind)))), None) for desk in (then, now)]
    return differences(*newest)


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


def _revoked(desk: Desk, since: int) -> Iterator[Change]:
    for digest, record in desk.all(Revocation):
        entry = desk.workspace.entry(digest)
        if entry and entry.sequence > since and record.subject.type == "key":
            yield Change(what=f"key {record.subject.digest[:16]}", before="", after=f"revoked: {record.reason}")
