"""Proposals of code in this lab: writing one, ending one, and the gate that stands while one waits."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from studbook.errors import UsageError, printable
from studbook.lab.desk import Desk
from studbook.lab.pending import Signed, sign, signers_here
from studbook.lab.words import plain_name, plain_sentence, plain_text
from studbook.proposals import Waiting, check_closing, check_proposal, waiting
from studbook.records import CodeChangeClosing, CodeChangeProposal, Gate
from studbook.release import gate
from studbook.seal import Signer

__all__ = ["Proposals", "Proposed", "check_ending", "check_proposed", "proposal_gates", "still_waiting"]


class Proposed(Struct, frozen=True):
    """A proposal as `studbook proposal list` shows it.

    Attributes:
        proposal: Its digest.
        capability: The missing capability.
        rationale: Why it is needed.
        evidence: Digests of the records that show it.
        proposed_by: Who made it.
    """

    proposal: str
    capability: str
    rationale: str
    evidence: tuple[str, ...]
    proposed_by: str


class Proposals:
    """The facet behind ``studbook proposal``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def new(self, capability: str, rationale: str, evidence: Sequence[str], person: str) -> Signed:
        """Write down what an experiment or a decision needs of the code; promotions stop until another owner closes it.

        Args:
            capability: The missing capability.
            rationale: Why it is needed.
            evidence: Digests, or unique starts of them, of the records that show it.
            person: Who proposes; a key of theirs signs.

        Raises:
            UsageError: if the evidence is no record here, or nothing is said.
            OutOfOrder: if a record is cited twice; ``proposal.evidence``.
            NotAuthorised: if no key of the person may sign it here.
        """
        desk = self._desk
        record = CodeChangeProposal(
            header=desk.header,
            capability=plain_sentence(capability, "CAPABILITY"),
            rationale=plain_sentence(rationale, "--why"),
            evidence=tuple(_record(desk, name) for name in evidence),
            proposed_by=plain_name(person, "--as"),
        )
        check_proposal(record)
        return sign(desk, record, person)

    def close(self, proposal: str, person: str, reason: str, release: str = "") -> Signed:
        """End the wait for a proposal: its capability was released, or, where no release is named, declined.

        Args:
            proposal: Its digest, or the unique start of it.
            person: Who closes it; never who made it.
            reason: Why.
            release: The reviewed revision or version that has the capability.

        Raises:
            UsageError: if there is no such record, or no reason is given.
            OutOfOrder: if it does not wait; ``proposal.closed``.
            NotAuthorised: if the person made it, ``proposal.author``; or has no key here.
        """
        desk = self._desk
        record = CodeChangeClosing(
            header=desk.header,
            proposal=_record(desk, proposal),
            outcome="released" if release else "declined",
            release=plain_text(release, "--release"),
            closed_by=plain_name(person, "--as"),
            reason=plain_sentence(reason, "--reason"),
        )
        # Asked before the key: who made it has one, and is to be told why it does not help.
        check_ending(desk, record, [Signer("", person)])
        check_ending(desk, record, [Signer(key.public, person) for key in signers_here(desk, record, person)])
        return sign(desk, record, person)

    def list(self) -> tuple[Proposed, ...]:
        """Every proposal that waits, oldest first."""
        return tuple(
            Proposed(w.digest, w.record.capability, w.record.rationale, w.record.evidence, w.record.proposed_by)
            for w in still_waiting(self._desk)
        )


def still_waiting(desk: Desk) -> tuple[Waiting, ...]:
    """Every proposal that waits. A revoked closing ends nothing; a proposal is not ended by revoking it."""
    return waiting(desk.all(CodeChangeProposal), desk.unrevoked(CodeChangeClosing))


def proposal_gates(desk: Desk) -> tuple[Gate, ...]:
    """The gate before shadow and champion where this lab ever proposed code; none where it never did."""
    made = [digest for digest, _ in desk.all(CodeChangeProposal)]
    if not made:
        return ()
    if still := still_waiting(desk):
        first = still[0]
        more = f", and {len(still) - 1} more" if len(still) > 1 else ""
        detail = f"proposal {first.digest[:16]} waits for another owner than {first.record.proposed_by}{more}"
        return (gate("code-changes", None, None, "person", detail),)
    ends = [digest for digest, _ in desk.unrevoked(CodeChangeClosing)]
    return (
        gate("code-changes", True, ends[-1], "person", f"{len(made)} proposals of code, each closed by another owner"),
    )


def check_proposed(_desk: Desk, record: CodeChangeProposal) -> None:
    """A proposal as it enters; see `studbook.proposals.check_proposal`."""
    check_proposal(record)


def check_ending(desk: Desk, record: CodeChangeClosing, signers: Sequence[Signer]) -> None:
    """A closing as it enters: of a proposal that waits, and by nobody who signed that.

    Args:
        desk: The lab as it is before the closing.
        record: The closing.
        signers: Who signs it.

    Raises:
        StudbookError: as `studbook.proposals.check_closing`.
    """
    entry = desk.workspace.entry(record.proposal)
    own = entry is not None and entry.record_kind == CodeChangeProposal.kind()
    authors = desk.workspace.sealed(entry).signers if entry is not None and own else ()
    check_closing(record, authors, signers, still_waiting(desk))


def _record(desk: Desk, name: str) -> str:
    found = {e.record for e in desk.entries() if len(name) >= 8 and e.record.startswith(name)}
    if len(found) != 1:
        advice = "Name it by its digest, or eight or more digits of it; `studbook log` lists every record."
        raise UsageError("is not one record of this lab", where=printable(name), advice=advice, reason="usage.name")
    return found.pop()
