"""What a policy may ask for before a stage beside the gates: approvals by people, and time in the stage before.

An approval is good for one stage, one candidate, one decision and one place in the candidate's life. A decision names the
policy, the suites and the champion it was made under, so with any of them the approvals fall too.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from studbook.errors import OutOfOrder
from studbook.lab.approvals import require_unrevoked
from studbook.lab.desk import Desk
from studbook.lab.pending import Signed, sign
from studbook.lab.words import plain_name, plain_text
from studbook.policy import stage_rule
from studbook.records import Gate, StageApproval, ViabilityDecision
from studbook.release import decided_against, gate, stage_before
from studbook.seal import Signer

__all__ = [
    "Stage",
    "Vote",
    "approvals_gate",
    "approve_stage",
    "check_approval",
    "decision_for",
    "distinct",
    "hold_gate",
    "standing",
    "votes",
]


Stage = Literal["shadow", "canary", "champion"]


class Vote(NamedTuple):
    """One signature that approves.

    Attributes:
        owner: Who answers for the key.
        key: The public key, 64 hex digits.
        record: Digest of the approval; None for the signature of whoever promotes.
    """

    owner: str
    key: str
    record: str | None


def approve_stage(desk: Desk, artifact: str, stage: Stage, person: str, reason: str) -> Signed:
    """A person agrees that the winner of a round enters a stage.

    Args:
        desk: The lab.
        artifact: Digest of the candidate.
        stage: The stage.
        person: Who approves; their key signs.
        reason: Why, for people.

    Raises:
        OutOfOrder: if no decision in force chose it, it was revoked, or it does not stand before that stage.
        NotAuthorised: if the person's key is not at hand.
    """
    stage_rule(desk.policy[1], stage)
    decision, _ = decision_for(desk, artifact)
    record = StageApproval(
        header=desk.header,
        stage=stage,
        artifact=artifact,
        decision=decision,
        standing=standing(desk, artifact),
        approved_by=plain_name(person, "--as"),
        reason=plain_text(reason, "--reason"),
    )
    check_approval(desk, record)
    return sign(desk, record, person)


def decision_for(desk: Desk, artifact: str) -> tuple[str, ViabilityDecision]:
    """Digest and record of the newest decision that chose an artifact for the channels and was not revoked.

    Raises:
        OutOfOrder: if none did; ``order.decision``.
    """
    chosen = [(d, r) for d, r in desk.unrevoked(ViabilityDecision) if r.chosen == artifact]
    found = [(d, r) for d, r in chosen if r.action != "package"]
    if chosen and not found:
        raise OutOfOrder(
            f"{desk.name_of(artifact)} won as a specialist alone, and enters no channel",
            where=artifact[:12],
            advice="Package it: studbook package make ID. For a channel hold a round without --specialist.",
            reason="order.specialist",
        )
    if not found:
        raise OutOfOrder(
            f"no decision chose {desk.name_of(artifact)}",
            where=artifact[:12],
            advice="Only the winner of a round is released; `studbook show` says why it was not chosen.",
            reason="order.decision",
        )
    return found[-1]


def check_approval(desk: Desk, record: StageApproval) -> None:
    """Whether an approval speaks of what is so: the decision, the champion, policy and suites, and where it stands.

    Args:
        desk: The lab as it is before the approval.
        record: The approval.

    Raises:
        OutOfOrder: naming what is not so.
    """
    require_unrevoked(desk, record.artifact)
    channels, name = desk.channels(), desk.name_of(record.artifact)
    decision = desk.workspace.get(record.decision, ViabilityDecision)
    if decision.chosen != record.artifact:
        raise OutOfOrder(
            f"the decision it rests on did not choose {name}", where="stage-approval: decision", reason="order.decision"
        )
    holds, detail = decided_against(decision, channels["champion"].artifact, desk.policy[0], desk.suites_lock[0])
    if not holds:
        raise OutOfOrder(
            f"{name} {detail}", where="stage-approval: decision", advice="Run the round again.", reason="order.decision"
        )
    before = None if record.stage == "shadow" else stage_before(desk.policy[1], record.stage)
    missing = before is not None and channels[before].artifact != record.artifact
    if missing or channels[record.stage].artifact == record.artifact:
        text = f"is not in {before}" if missing else f"is in {record.stage} already"
        advice = "Approve it for shadow before it enters, and for every later stage while it is in the one before."
        where, reason = f"--for {record.stage}", f"order.{before or record.stage}"
        raise OutOfOrder(f"{name} {text}", where=where, advice=advice, reason=reason)
    if record.standing != standing(desk, record.artifact):
        raise OutOfOrder(
            f"{name} moved since", advice="Look at it again, and approve it anew.", reason="order.standing"
        )


def standing(desk: Desk, artifact: str) -> str | None:
    """Digest of the last move that put an artifact where it is, or took it away; None if it never moved."""
    found: list[tuple[int, str]] = []
    for channel in desk.channels():
        before: str | None = None
        for state in desk.history(channel):
            entry = desk.workspace.entry(state.record) if state.record else None
            if entry is not None and artifact in (before, state.artifact):
                found.append((entry.sequence, entry.record))
            before = state.artifact
    return max(found)[1] if found else None


def votes(desk: Desk, stage: str, artifact: str, decision: str) -> list[Vote]:
    """Every signature that approves a candidate for a stage, oldest first; of approvals that count no longer, none.

    Args:
        desk: The lab.
        stage: The stage.
        artifact: Digest of the candidate.
        decision: Digest of the decision that chose it.
    """
    wanted = (stage, artifact, decision, standing(desk, artifact))
    found = []
    for digest, record in desk.unrevoked(StageApproval):
        entry = desk.workspace.entry(digest)
        if (record.stage, record.artifact, record.decision, record.standing) == wanted:
            assert entry is not None
            found += [Vote(s.owner, s.key, digest) for s in desk.workspace.sealed(entry).signers]
    return found


def distinct(found: Iterable[Vote]) -> list[Vote]:
    """The signatures that count: each of another owner and of another key than those before it.

    One root never lists a key for two owners, but a later one may list it for somebody else.
    """
    owners: set[str] = set()
    keys: set[str] = set()
    counted = []
    for vote in found:
        if vote.owner.casefold() not in owners and vote.key not in keys:
            owners.add(vote.owner.casefold())
            keys.add(vote.key)
            counted.append(vote)
    return counted


def approvals_gate(desk: Desk, stage: str, artifact: str, decision: str, promoter: Signer | None = None) -> Gate:
    """Whether enough people approved.

    Args:
        desk: The lab.
        stage: The stage.
        artifact: Digest of the candidate.
        decision: Digest of the decision that chose it.
        promoter: Who promotes, and with which key; that counts as one. None before anybody does.
    """
    policy_digest, policy = desk.policy
    needed = stage_rule(policy, stage).approvals
    own = [Vote(promoter.owner, promoter.key, None)] if promoter else []
    counted = distinct([*own, *votes(desk, stage, artifact, decision)])
    people = ", ".join(f"{v.owner} by {v.record[:12] if v.record else 'promoting'}" for v in counted) or "nobody"
    rest = "; whoever promotes is one more" if stage == "champion" and promoter is None else ""
    detail = f"{len(counted)} of {needed} distinct owners: {people}{rest}"
    if len(counted) < needed:
        return gate("approvals", None, None, "person", detail)
    records = [v.record for v in counted if v.record]
    return gate("approvals", True, records[-1] if records else policy_digest, "person", detail)


def hold_gate(desk: Desk, stage: Literal["canary", "champion"], artifact: str, now: datetime) -> Gate:
    """Whether a candidate was in the stage before long enough, by the ledger's time of the move that put it there.

    Args:
        desk: The lab.
        stage: The stage it shall enter.
        artifact: Digest of the candidate.
        now: The time of the promotion, in UTC.
    """
    before = stage_before(desk.policy[1], stage)
    state = desk.channels()[before]
    entry = desk.workspace.entry(state.record) if state.record and state.artifact == artifact else None
    if entry is None:
        return gate("hold", None, None, "time", f"is not in {before}")
    hours = stage_rule(desk.policy[1], stage).hold_hours
    until = datetime.fromisoformat(entry.time) + timedelta(hours=hours)
    if now >= until:
        # No time of day: the template it enters is the same in every run.
        return gate("hold", True, state.record, "time", f"was in {before} for the {hours} hours that are asked")
    detail = f"is in {before} since {entry.time} and stays for {hours} hours, until {until:%Y-%m-%dT%H:%M:%S.%fZ}"
    return gate("hold", None, state.record, "time", detail)
