"""The roots and revocations of one ledger in their order, and with them the authority at every position.

A root is in force from its own entry on, that entry's line included: the line that brings a new root is signed by the
audit key that this root names, so a lab whose root has ended, or whose audit key was lost, can still be given a new one.
A revocation counts for everything that was signed at or after the position it names, also where that was found out
later; but it never unmakes a line of the ledger, nor another revocation, that stood there before it.
"""

from __future__ import annotations

from studbook.errors import DigestDiffers, RecordRefused
from studbook.records import LedgerEntry, Revocation, Root
from studbook.seal.authority import Authority
from studbook.seal.verify import follow_root, open_root, unseal

__all__ = ["AUTHORITY_KINDS", "Succession"]

# Kinds of record whose envelope the ledger has to read before it can verify what follows.
AUTHORITY_KINDS = frozenset((Root.kind(), Revocation.kind()))
_AS_IT_WAS = frozenset((Revocation.kind(), LedgerEntry.kind()))


class Succession:
    """Who held authority when.

    Args:
        entry: The first entry of the ledger.
        data: The envelope it names: the first root.
        where: The envelope's file, for errors.

    Attributes:
        root: The root in force now.

    Raises:
        RecordRefused: if it is not a root record.
        NotAuthorised: if its owners did not sign it, or it breaks a rule.
        DigestDiffers: if it is not the record that the entry names.
    """

    def __init__(self, entry: LedgerEntry, data: bytes, where: object = "") -> None:
        self.root, digest = open_root(data, where)
        _check_named(entry, digest, where)
        self._roots: list[tuple[int, str, Root]] = [(entry.sequence, entry.time[:10], self.root)]
        self._revoked: list[tuple[int, Revocation]] = []

    def enter(self, entry: LedgerEntry, data: bytes, where: object = "") -> None:
        """Take in a root or a revocation, in the order of the ledger; nothing changes if it is refused.

        What was known before is replaced and not changed, so a shallow copy taken earlier stays as it was.

        Args:
            entry: The ledger entry that carries it.
            data: The envelope.
            where: The envelope's file, for errors.

        Raises:
            StudbookError: as `follow_root` and `unseal`, or if it is not the record that the entry names.
        """
        if entry.record_kind == Root.kind():
            new = follow_root(self.root, data, entered=self._roots[-1][1], where=where)
            authority = Authority(new, (), entry.sequence, entry.time[:10], self.root)
            _check_named(entry, unseal(data, authority, where).digest, where)
            self._roots, self.root = [*self._roots, (entry.sequence, entry.time[:10], new)], new
            return
        sealed = unseal(data, self.at(entry.sequence, entry.time[:10], entry.record_kind), where)
        _check_named(entry, sealed.digest, where)
        if not isinstance(sealed.record, Revocation):
            raise RecordRefused("is neither a root nor a revocation", where=where, reason="record.kind")
        self._revoked = [*self._revoked, (entry.sequence, sealed.record)]

    def at(self, position: int, day: str = "", kind: str = "", seen: int | None = None) -> Authority:
        """The authority at one position.

        Args:
            position: Sequence number of a ledger entry, or of the next one.
            day: Its UTC day, YYYY-MM-DD; empty for a ledger line, which carries its own time.
            kind: Kind of the record to verify. Revocations and the ledger's own lines are held against what was revoked
                before them, every other kind against all that is known today.
            seen: Leave out revocations that entered at or after this position; none is left out by default.
        """
        if len(self._roots) == 1 and not self._revoked:
            return Authority(self._roots[0][2], (), position, day)
        reigned = [i for i, (since, _, _) in enumerate(self._roots) if since <= position]
        current = reigned[-1] if reigned else 0
        known = [(entered, r) for entered, r in self._revoked if seen is None or entered < seen]
        if kind in _AS_IT_WAS:
            known = [(entered, r) for entered, r in known if entered < position + (kind != Revocation.kind())]
        previous = self._roots[current - 1][2] if current else None
        return Authority(self._roots[current][2], tuple(r for _, r in known), position, day, previous)


def _check_named(entry: LedgerEntry, digest: str, where: object) -> None:
    if digest != entry.record:
        raise DigestDiffers("holds another record than the ledger says", where=where)
