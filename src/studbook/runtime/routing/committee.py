"""The committee: up to five models answer the same, and the answer most of them give counts; one rule, no weights.

Equal answers are counted; ties go to the answer whose best member has the higher mean log-probability, then to the lowest
revision. It holds several models at once, so it asks for a record that a host carried so many side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from studbook.errors import OutOfOrder, OverBudget, StudbookError, UsageError
from studbook.runtime.routing.running import Account, Answer, Limits, Run, Runner, active_bytes

__all__ = ["MAX_MEMBERS", "CommitteePlan", "check_committee", "committee", "majority"]

MAX_MEMBERS = 5
"""Most models of one committee."""


class CommitteePlan(NamedTuple):
    """Who is asked.

    Attributes:
        members: Revisions, each once.
        answer_tokens: Most tokens of one answer.
        limits: What all answers together may take.
        evidence: Digest of the record which shows that so many ran side by side; None for none.
        parallel: How many that record shows.
        budget: Most decoded bytes that may be active at once; None for any.
    """

    members: Sequence[str]
    answer_tokens: int
    limits: Limits
    evidence: str | None
    parallel: int
    budget: int | None = None


def check_committee(plan: CommitteePlan, bytes_of: Mapping[str, int]) -> None:
    """Refuse a committee that is too large, has no evidence, or does not fit.

    Raises:
        UsageError: for its form; ``route.committee``.
        OutOfOrder: without evidence of that many side by side; ``route.evidence``.
        OverBudget: if all of them together have more decoded bytes active than allowed; ``route.budget``.
    """
    count = len(plan.members)
    if not 2 <= len(set(plan.members)) == count <= MAX_MEMBERS or plan.answer_tokens < 1 or plan.limits.tokens < 1:
        text = f"{count} members; 2 to {MAX_MEMBERS}, each once, and at least one token"
        raise UsageError(text, reason="route.committee", advice="Name two to five modules, each once.")
    if plan.evidence is None or plan.parallel < count:
        shown = f"{plan.parallel} side by side" if plan.evidence else "nothing"
        raise OutOfOrder(
            f"{count} models shall run side by side, and {shown} was measured",
            reason="route.evidence",
            advice="Measure this host with as many modules first, and cite that record.",
        )
    taken = active_bytes(plan.members, bytes_of)
    if plan.budget is not None and taken > plan.budget:
        text = f"{taken} decoded bytes active at once; at most {plan.budget}"
        raise OverBudget(text, reason="route.budget", advice="Take fewer or smaller members.")


def committee(plan: CommitteePlan, prompt: str, runner: Runner, bytes_of: Mapping[str, int]) -> Run:
    """Ask every member and take the answer most of them give; a member that fails has no vote.

    Args:
        plan: Members, bounds and evidence.
        prompt: The text.
        runner: Who asks.
        bytes_of: Revision -> decoded bytes.

    Returns:
        The answer; none where every member failed.

    Raises:
        StudbookError: as `check_committee`.
    """
    check_committee(plan, bytes_of)
    account = Account(runner, plan.limits, bytes_of)
    votes: list[tuple[str, Answer]] = []
    reason = "route.majority"
    for member in plan.members:
        if account.spent:
            reason = "route.budget"
            break
        found = account.ask(member, prompt, plan.answer_tokens)
        if not isinstance(found, StudbookError):
            account.note(member, found, None, "route.voted")
            votes.append((member, found))
    active = active_bytes(plan.members, bytes_of)
    if not votes:
        return account.close(None, None, "route.no-vote", active)
    winner, answer = majority(votes)
    return account.close(answer.text, winner, reason, active)


def majority(votes: Sequence[tuple[str, Answer]]) -> tuple[str, Answer]:
    """The member who speaks for the answer most of them gave, and that answer.

    Args:
        votes: Revision and answer of every member that gave one, at least one.
    """
    count: dict[str, int] = {}
    for _, answer in votes:
        count[answer.text] = count.get(answer.text, 0) + 1

    def rank(vote: tuple[str, Answer]) -> tuple[int, float, str]:
        member, answer = vote
        sure = float("-inf") if answer.mean_logprob is None else answer.mean_logprob
        return -count[answer.text], -sure, member

    return min(votes, key=rank)
