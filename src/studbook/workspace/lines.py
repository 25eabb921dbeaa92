"""The ledger's next line: what it says, when, and that what it cites stands before it; its time never runs backwards."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from studbook.errors import OutOfOrder
from studbook.ledger import Draft
from studbook.records import Blob, LedgerEntry, Record

__all__ = ["check_references", "entry_time", "new_entry"]

# A clock that is kept right is set back by less; machines that share a disk differ by less.
_STEP = timedelta(minutes=5)


def entry_time(now: datetime, entries: Sequence[LedgerEntry]) -> datetime:
    """The time of the next entry: now, or that of the entry before it while the clock is a few minutes behind that.

    Args:
        now: What the clock says, in UTC.
        entries: The entries before it, oldest first.

    Raises:
        OutOfOrder: if the clock is further behind; ``ledger.clock``. Either it is wrong now, or it was ahead before; a
            wait that is measured in ledger time would end too early unnoticed.
    """
    if not entries:
        return now
    last = datetime.fromisoformat(entries[-1].time)
    if last - now > _STEP:
        raise OutOfOrder(
            f"the clock says {now:%Y-%m-%dT%H:%M:%SZ}, and the last entry entered at {entries[-1].time}",
            where=f"ledger entry {entries[-1].sequence}",
            advice="Set the clock right. If it was ahead when that entry was written, nothing enters before that time has "
            "come; or restore a backup from before.",
            reason="ledger.clock",
        )
    return max(now, last)


def check_references(record: Record, held: Callable[[str], bool], where: object) -> None:
    """Refuse a record that cites one which does not stand before it in the ledger.

    Args:
        record: The record.
        held: Whether the ledger holds a record of this digest before it.
        where: Its file or kind, for errors.

    Raises:
        OutOfOrder: naming the field and the first such digest; ``order.reference``.
    """
    for cited in record.references():
        if not held(cited):
            field = next((f for f in record.__struct_fields__ if cited in repr(getattr(record, f))), "references")
            raise OutOfOrder(
                f"{field} cites {cited[:16]}..., which the ledger does not hold before it",
                where=f"{where}: {field}",
                advice="Enter what it cites first; a record of another lab, or of another time, is not cited here.",
                reason="order.reference",
            )


def new_entry(
    record: Record, digest: str, draft: Draft, time: datetime, envelope: Blob, blobs: Sequence[Blob]
) -> LedgerEntry:
    """The entry of a record that shall be the next line.

    Args:
        record: The record.
        digest: Its digest.
        draft: The lines it will follow.
        time: When it enters, in UTC.
        envelope: Its envelope.
        blobs: Files that enter with it.
    """
    return LedgerEntry(
        header=record.header,
        sequence=draft.sequence,
        previous=draft.head,
        time=time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        host="".join(c for c in platform.node() if c.isprintable())[:255],
        record_zone=record.zone,
        record_kind=record.kind(),
        record=digest,
        envelope=envelope,
        blobs=tuple(blobs),
    )
