"""What rests on records that count no longer: which of it was in order when it entered, and what still has effect.

A revocation voids what a stolen key signed, also backwards. An honest record that was made on it before the theft was
known does not hold any more, and nobody can take it out of the ledger. It is told apart from a lie by holding it against
the lab as everybody had to see it when it entered, without the revocations that came later.
"""

from __future__ import annotations

from studbook.errors import StudbookError
from studbook.lab.desk import Desk
from studbook.lab.replay import check_record
from studbook.records import (
    KINDS,
    ChampionPromotion,
    LedgerEntry,
    ReleaseRecord,
    Revocation,
    RollbackRecord,
)
from studbook.seal import Sealed

__all__ = ["in_force", "was_in_order"]

_MOVES = frozenset(kind.kind() for kind in (ReleaseRecord, ChampionPromotion, RollbackRecord))


def was_in_order(desk: Desk, entry: LedgerEntry, sealed: Sealed | None) -> bool:
    """Whether a record that does not hold today held for all that was known when it entered.

    Args:
        desk: The lab.
        entry: The record's entry.
        sealed: What came out of its envelope, if it was verified already.
    """
    later = [e for e in desk.entries() if e.record_kind == Revocation.kind() and e.sequence > entry.sequence]
    if not later:
        return False
    try:
        check_record(desk.as_seen(entry.sequence).at(entry.sequence), entry, sealed)
    except StudbookError:
        return False
    return True


def in_force(desk: Desk) -> dict[str, str]:
    """The records by whose leave a channel points where it points now: digest -> channel.

    They are the move, its admission or evidence, and all that these cite; but no other move, for what a channel was
    before is over.
    """
    found: dict[str, str] = {}
    for channel, state in desk.channels().items():
        pending = [state.record] if state.record else []
        while pending:
            digest = pending.pop()
            entry = desk.workspace.entry(digest)
            if digest in found or entry is None:
                continue
            found[digest] = channel
            if not desk.workspace.void(entry):
                pending += _cited(desk, entry)
    return found


def _cited(desk: Desk, entry: LedgerEntry) -> list[str]:
    """What a record rests on: of a rollback the move it restores, else what it cites and is no move."""
    record = desk.workspace.get(entry.record, KINDS[entry.record_kind])
    if isinstance(record, RollbackRecord):
        return [record.restored] if record.restored else []
    entries = (desk.workspace.entry(digest) for digest in record.references())
    return [e.record for e in entries if e is not None and e.record_kind not in _MOVES]
