"""The resource reserve: what stays free of every account once a candidate, its way back and its promotion are paid for.

The lifecycle cost of a promotion: the candidate beside the champion, which is the way back, and for storage a copy of
the champion besides; what the round has used of evaluation, and the winner's look at the sealed suites; the acts of
people that a promotion takes. Model calls and sealed openings always have a capacity, the policy's budget and gates; any
other account that the policy does not name is not checked, and the decision says so. What was reserved stands in the row.
"""

from __future__ import annotations

from typing import NamedTuple

from studbook.records import Allowance, Policy, Scorecard
from studbook.statistics import Estimate, Paired
from studbook.viability.comparisons import no_data
from studbook.viability.costs import BYTES, DECODED_BYTES, MULTIPLY_ADDS, cost
from studbook.viability.findings import Finding, row

__all__ = ["NOTHING", "Spent", "checked", "reserves", "unchecked"]

_UNITS = {"memory": DECODED_BYTES, "latency": MULTIPLY_ADDS}
_ACCOUNTS = ("memory", "latency", "model-calls", "sealed-openings", "attention")
_METHODS = {
    "memory": "decoded bytes of champion (the way back) and candidate",
    "latency": "multiply-adds of champion (the way back) and candidate on the selection suites",
    "model-calls": "model calls of all scorecards of this round's candidates",
    "sealed-openings": "openings on record and the winner's own",
    "attention": "acts of people: proposals that wait for another owner, the approvals that both stages take, and one for "
    "the way back",
}


class Spent(NamedTuple):
    """What was used up before a promotion would be paid for.

    Attributes:
        calls: Model calls of this round's candidates.
        openings: Openings of the sealed suites on record.
        waiting: Acts of people that something in the ledger waits for.
    """

    calls: int
    openings: int
    waiting: int


NOTHING = Spent(0, 0, 0)
"""Nothing was used up."""


def reserves(
    candidate: Scorecard, champion: Scorecard, candidate_bytes: int, policy: Policy, spent: Spent
) -> tuple[Finding, ...]:
    """The storage reserve and that of every account that `checked` names.

    Args:
        candidate: The candidate's scorecard on selection items.
        champion: The champion's.
        candidate_bytes: Size of the candidate's file.
        policy: The policy in force.
        spent: What was used up so far.
    """
    accounts = (_account(a, candidate, champion, policy, spent) for a in checked(policy))
    return (_storage(champion, candidate_bytes, policy), *accounts)


def checked(policy: Policy) -> tuple[Allowance, ...]:
    """The accounts with a capacity: those that the policy names, in its order, and those that its budget or gates limit."""
    named = {a.account for a in policy.reserve.accounts}
    limits = (("model-calls", policy.budget.evaluations), ("sealed-openings", policy.gates.sealed_openings))
    given = (Allowance(account=a, capacity=most, minimum=0) for a, most in limits if a not in named)  # type: ignore[arg-type]
    return (*policy.reserve.accounts, *given)


def unchecked(policy: Policy) -> tuple[str, ...]:
    """The accounts that the policy states no capacity for."""
    held = {a.account for a in checked(policy)}
    return tuple(a for a in _ACCOUNTS if a not in held)


def _storage(champion: Scorecard, candidate_bytes: int, policy: Policy) -> Finding:
    size, minimum = cost(champion, BYTES), policy.reserve.minimum_bytes
    if size is None:
        return no_data("utility", champion.artifact, "storage-reserve", minimum, "the champion's size was not measured")
    # The way back is the champion as it stands, kept as a copy of its own.
    used, capacity = 2 * size + candidate_bytes, policy.reserve.capacity_bytes
    what = "bytes of champion, candidate and the way back (a copy of the champion)"
    words = f"{capacity - used:,} bytes would stay free, the policy demands {minimum:,}"
    return _kept(champion, "storage-reserve", (used, capacity, minimum), what, words)


def _account(allowance: Allowance, candidate: Scorecard, champion: Scorecard, policy: Policy, spent: Spent) -> Finding:
    account, capacity, minimum = allowance.account, allowance.capacity, allowance.minimum
    on = f"{account}-reserve"
    used = _used(account, candidate, champion, policy, spent)
    if used is None:
        why = f"the {_UNITS[account]} of candidate and champion were not measured once each"
        return no_data("utility", champion.artifact, on, minimum, why)
    words = f"{account}: {capacity - used:,} of {capacity:,} would stay free, the policy demands {minimum:,}"
    return _kept(champion, on, (used, capacity, minimum), _METHODS[account], words)


def _used(account: str, candidate: Scorecard, champion: Scorecard, policy: Policy, spent: Spent) -> int | None:
    if account in _UNITS:
        mine, theirs = cost(candidate, _UNITS[account]), cost(champion, _UNITS[account])
        return None if mine is None or theirs is None else mine + theirs
    asked = sum(rule.approvals for rule in policy.stages) + 1
    return {
        "model-calls": spent.calls,
        "sealed-openings": spent.openings + 1,
        "attention": spent.waiting + asked,
    }[account]


def _kept(champion: Scorecard, on: str, amounts: tuple[int, int, int], what: str, words: str) -> Finding:
    """What is reserved of a capacity, and whether the minimum stays free."""
    used, capacity, minimum = amounts
    left = float(capacity - used)
    finding = row(
        "utility",
        champion.artifact,
        on,
        Paired(0, 0, 0),
        Estimate(left, left, left),
        threshold=float(minimum),
        passed=capacity - used >= minimum,
        method=f"reserved {used:,} of {capacity:,}: {what}; the difference is what stays free",
    )
    return Finding(finding, words)
