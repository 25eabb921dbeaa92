"""The verbs that only look, one method each; `Lab` has them with all others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studbook.lab import history, reading, storage
from studbook.lab.audit import Verification, verify
from studbook.lab.audit_artifact import ArtifactAudit, audit_artifact
from studbook.lab.budget import Account, accounts
from studbook.lab.desk import Desk
from studbook.lab.history import Logged
from studbook.lab.review import Pack, review_pack
from studbook.records import LedgerEntry, Record

__all__ = ["Looks"]


class Looks:
    """What says how a lab stands, and changes nothing in it."""

    desk: Desk

    def verify(self) -> Verification:
        """Check every file and every record; changes nothing."""
        return verify(self.desk)

    def show(self, name: str) -> list[tuple[LedgerEntry, Record]]:
        """One record, or every record about one model."""
        return reading.show(self.desk, name)

    def lineage(self, name: str) -> reading.Ancestor:
        """The ancestry of a model."""
        return reading.lineage(self.desk, name)

    def list(self, what: str | None = None) -> list[dict[str, Any]]:
        """What the lab holds."""
        return reading.listing(self.desk, what)

    def diff(self, first: str, second: str) -> dict[str, Any]:
        """Two models side by side."""
        return reading.difference(self.desk, first, second)

    def log(self, kinds: Sequence[str] = (), zone: str = "", about: str = "", since: str = "") -> tuple[Logged, ...]:
        """What entered the ledger, oldest first; all of it, or what speaks about a model."""
        return history.log(self.desk, kinds, zone, about, since)

    def at(self, time: str, proof: Path | None = None, channel: str = "champion") -> history.Moment:
        """What the channels pointed at when; with the proof that the entry which says so is in the ledger."""
        return history.at(self.desk, time, proof, channel)

    def descendants(self, name: str = "", *, revoked: bool = False) -> tuple[history.Descendant, ...]:
        """Everything made from a model or from data, at any depth; or from anything that was revoked."""
        return history.descendants(self.desk, name, only_revoked=revoked)

    def audit(self, name: str) -> ArtifactAudit:
        """What one artifact is, what made and judged it, what could change that, and what must be kept."""
        return audit_artifact(self.desk, name)

    def review_pack(self, name: str, folder: Path | None = None) -> Pack:
        """Write one folder that a person reads before signing a promotion; needs no key and signs nothing."""
        return review_pack(self.desk, name, folder)

    def budget(self) -> tuple[Account, ...]:
        """What the lab has of everything it can run out of, and what is reserved; computed from the ledger."""
        return accounts(self.desk)

    def du(self) -> tuple[storage.Usage, ...]:
        """What the lab takes on disk, by zone and kind."""
        return storage.usage(self.desk)
