"""Who may change what judges: another evaluator, fewer or other gating suites, a policy that lets more pass.

Each takes strictly more distinct owners than a champion promotion. Where one person owns every key for it nobody can be
asked beside them; then it counts as not independent, and whoever reads about it is told (docs/adr/0019).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from studbook.errors import NotAuthorised, OutOfOrder
from studbook.lab.desk import Desk
from studbook.lab.frozen import GATING_ROLES
from studbook.policy import loosened, stage_rule
from studbook.records import ChampionPromotion, EvaluatorChange, Policy, Record, Root, SuiteManifest, SuitesLock
from studbook.seal import Signer

__all__ = [
    "Owned",
    "check_lock",
    "check_owners",
    "lacking",
    "loosens",
    "one_owner",
    "owned",
    "promotion_owners",
    "root_of",
]

_KINDS = (EvaluatorChange, SuitesLock, Policy)


class Owned(Struct, frozen=True):
    """Who could change what judges.

    Attributes:
        independent: More than one person has to say yes to each such change.
        told: The same in words.
    """

    independent: bool
    told: str


def one_owner(root: Root, kind: str) -> bool:
    """Whether one person alone owns the root and every key for a kind: then nobody can be asked beside them."""
    holders = {g.owner for g in root.keys if kind in g.kinds}
    return len(holders | {k.owner for k in root.owners.keys}) == 1


def owned(desk: Desk) -> Owned:
    """Whether changes of evaluator, suites and thresholds take more people than a promotion, as the lab is."""
    root = root_of(desk)
    alone = [kind.kind() for kind in _KINDS if one_owner(root, kind.kind())]
    if not alone:
        return Owned(True, "evaluator, gating suites and looser thresholds take more owners than a promotion")
    return Owned(False, f"one owner alone can change what judges, by {', '.join(alone)} (independent: false)")


def root_of(desk: Desk) -> Root:
    """The root in force as the lab is seen: now, or before an entry."""
    return desk.workspace.ledger.authority(desk.position).root


def promotion_owners(desk: Desk) -> int:
    """Distinct owners that a champion promotion takes, by the root's threshold and by the policy in force."""
    asked = next((t.owners for t in root_of(desk).thresholds if t.kind == ChampionPromotion.kind()), 1)
    return max(asked, stage_rule(desk.policy[1], "champion").approvals)


def loosens(desk: Desk, record: Record) -> tuple[str, ...]:
    """What a lock of suites or a policy makes easier to pass, against the one in force; empty for anything else.

    Args:
        desk: The lab as it is before the record.
        record: The record.
    """
    if isinstance(record, SuitesLock):
        before = [lock for _, lock in desk.all(SuitesLock)][-1:]
        gone = [d for lock in before for d in lock.suites if d not in record.suites]
        named = (desk.workspace.get(d, SuiteManifest) for d in gone)
        return tuple(f"suite {m.name}" for m in named if m.role in GATING_ROLES)
    policies = [p for _, p in desk.all(Policy)] if isinstance(record, Policy) else []
    return loosened(policies[-1], record) if isinstance(record, Policy) and policies else ()


def lacking(desk: Desk, record: Record, signers: Sequence[Signer]) -> str:
    """What signatures a record lacks that loosens what judges; empty when it lacks none.

    Args:
        desk: The lab as it is before the record.
        record: The record.
        signers: Who signed it.
    """
    if not isinstance(record, SuitesLock | Policy) or one_owner(root_of(desk), record.kind()):
        return ""
    if not (found := loosens(desk, record)):
        return ""
    owners, promotion = {s.owner.casefold() for s in signers}, promotion_owners(desk)
    if len(owners) > promotion:
        return ""
    return (
        f"{len(owners)} owners signed it; it loosens {', '.join(found)}, and that takes more than the {promotion} of a "
        "champion promotion"
    )


def check_lock(desk: Desk, record: SuitesLock, where: object) -> None:
    """Refuse a lock of suites that does not follow the newest one, or names a suite twice.

    Args:
        desk: The lab as it is before the lock.
        record: The lock.
        where: Its file or record, for errors.

    Raises:
        OutOfOrder: ``order.lock-overtaken`` or ``order.lock-twice``.
    """
    newest = max((lock.lock_version for _, lock in desk.all(SuitesLock)), default=0)
    # The version of a lock that a stolen key signed may be used again, or left out.
    most = 1 + sum(entry.record_kind == SuitesLock.kind() for entry in desk.entries())
    if not newest < record.lock_version <= most:
        raise OutOfOrder(
            f"is version {record.lock_version} of the suites' lock, and version {newest} is in force",
            where=where,
            advice="Delete it, and freeze the suites again.",
            reason="order.lock-overtaken",
        )
    if len(set(record.suites)) != len(record.suites):
        advice = "Freeze the suites again: studbook suite freeze FOLDER ..."
        raise OutOfOrder("names a suite twice", where=where, advice=advice, reason="order.lock-twice")


def check_owners(desk: Desk, record: Record, signers: Sequence[Signer]) -> None:
    """Refuse what loosens what judges without more distinct owners than a champion promotion takes.

    Args:
        desk: The lab as it is before the record.
        record: The record.
        signers: Who signed it.

    Raises:
        NotAuthorised: ``judge.owners``.
    """
    if words := lacking(desk, record, signers):
        raise NotAuthorised(
            words,
            where=record.kind().partition("/")[0],
            advice=f"Give more owners a key: studbook key new NAME --kind {record.kind()} --as PERSON; then each signs: "
            "studbook approve RECORD --as NAME",
            reason="judge.owners",
        )
