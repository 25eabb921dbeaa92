"""The rules of proposals and their ends; pure functions of records and of who signed them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from studbook.errors import NotAuthorised, OutOfOrder
from studbook.records import CodeChangeClosing, CodeChangeProposal
from studbook.seal import Signer

__all__ = ["Waiting", "check_closing", "check_proposal", "waiting"]


class Waiting(NamedTuple):
    """A proposal that nobody closed.

    Attributes:
        digest: Its digest.
        record: The proposal.
    """

    digest: str
    record: CodeChangeProposal


def waiting(
    proposals: Iterable[tuple[str, CodeChangeProposal]], closings: Iterable[tuple[str, CodeChangeClosing]]
) -> tuple[Waiting, ...]:
    """Every proposal without an end, oldest first.

    Args:
        proposals: Digest and record of every proposal that counts.
        closings: The same of every closing that counts.
    """
    ended = {record.proposal for _, record in closings}
    return tuple(Waiting(digest, record) for digest, record in proposals if digest not in ended)


def check_proposal(record: CodeChangeProposal) -> None:
    """Refuse a proposal that cites no record, or one twice.

    Raises:
        OutOfOrder: ``proposal.evidence``.
    """
    if not record.evidence or len(set(record.evidence)) != len(record.evidence):
        raise OutOfOrder(
            "cites one record twice" if record.evidence else "cites no evidence",
            where="code-change-proposal: evidence",
            advice="Name every record once.",
            reason="proposal.evidence",
        )


def check_closing(
    record: CodeChangeClosing, authors: Sequence[Signer], signers: Sequence[Signer], still: Iterable[Waiting]
) -> None:
    """Refuse to let a proposal be closed by whoever made it, by itself, or twice.

    Args:
        record: The closing.
        authors: Who signed the proposal.
        signers: Who signs the closing.
        still: The proposals without an end.

    Raises:
        OutOfOrder: ``proposal.closed`` if it does not wait; ``proposal.release`` if what was released is not named, or
            something is named that was declined, or the proposal stands for its own release.
        NotAuthorised: ``proposal.author`` if an owner or a key of the proposal stands under its end too.
    """
    where = "code-change-closing"
    if record.proposal not in {found.digest for found in still}:
        advice = "See what waits: studbook proposal list"
        raise OutOfOrder(
            "closes a proposal that does not wait", where=f"{where}: proposal", advice=advice, reason="proposal.closed"
        )
    if (record.outcome == "released") != bool(record.release.strip()) or record.release == record.proposal:
        raise OutOfOrder(
            f"says {record.outcome}, and {record.release[:80] or 'nothing'} is named as its release",
            where=f"{where}: release",
            advice="Name the reviewed revision or version that has it with --release; nothing for one that was declined.",
            reason="proposal.release",
        )
    owners, keys = {a.owner.casefold() for a in authors}, {a.key for a in authors}
    for signer in signers:
        if signer.owner.casefold() in owners or signer.key in keys:
            raise NotAuthorised(
                f"{signer.owner} made the proposal, and cannot end the wait for it",
                where=f"{where}: closed_by",
                advice="Have another owner close it; give them a key if need be: studbook key new NAME --kind "
                f"{record.kind()} --as PERSON",
                reason="proposal.author",
            )
