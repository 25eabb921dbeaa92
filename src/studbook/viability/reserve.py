"""The resource reserve: what stays free of every account once a candidate, its way back and its promotion are paid for.

The lifecycle cost of a promotion: the candidate beside the champion, which is the way back, and for storage a copy of
the champion besides; what the round has used of evaluation, and the winner's look at the sealed suites; the acts of
people that a promotion takes. An account that the policy does not name is not checked, and the decision says so.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from studbook.records import Allowance, Policy, Scorecard
from studbook.statistics import Estimate, Paired
from studbook.viability.comparisons import no_data
from studbook.viability.findings import Finding, row

__all__ = ["BYTES", "DECODED_BYTES", "MULTIPLY_ADDS", "NOTHING", "Spent", "cost", "reserves", "unchecked"]

BYTES = "bytes"
"""Unit of the cost measure that holds the file's size."""
DECODED_BYTES = "decoded-bytes"
"""Unit of the cost measure that holds the size of the tensors once decoded."""
MULTIPLY_ADDS = "multiply-adds"
"""Unit of the cost measure that holds the multiply-adds of these suites."""
_UNITS = {"memory": DECODED_BYTES, "latency": MULTIPLY_ADDS}
_ACCOUNTS = ("memory", "latency", "model-calls", "sealed-openings", "attention")
_METHODS = {
    "memory": "decoded bytes left of the capacity after champion (the way back) and candidate",
    "latency": "multiply-adds on the selection suites left of the capacity after champion (the way back) and candidate",
    "model-calls": "model calls left of the capacity after all scorecards of this round's candidates",
    "sealed-openings": "openings left of the capacity after those on record and the winner's own",
    "attention": "acts of people left of the capacity after the proposals that wait for another owner, the approvals "
    "that both stages take, and one for the way back",
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
    """The storage reserve and that of every account the policy names, in its order.

    Args:
        candidate: The candidate's scorecard on selection items.
        champion: The champion's.
        candidate_bytes: Size of the candidate's file.
        policy: The policy in force.
        spent: What was used up so far.
    """
    accounts = (_account(a, candidate, champion, policy, spent) for a in policy.reserve.accounts)
    return (_storage(champion, candidate_bytes, policy), *accounts)


def unchecked(policy: Policy) -> tuple[str, ...]:
    """The accounts that the policy names no capacity for."""
    named = {a.account for a in policy.reserve.accounts}
    return tuple(a for a in _ACCOUNTS if a not in named)


def cost(card: Scorecard, unit: str) -> int | None:
    """A cost of one unit in whole numbers, rounded up; None unless it was measured once and is above 0."""
    found = [m.value for m in card.cost if m.unit == unit]
    return math.ceil(found[0]) if len(found) == 1 and 0.0 < found[0] < math.inf else None


def _storage(champion: Scorecard, candidate_bytes: int, policy: Policy) -> Finding:
    size, minimum = cost(champion, BYTES), policy.reserve.minimum_bytes
    if size is None:
        return no_data("utility", champion.artifact, "storage-reserve", minimum, "the champion's size was not measured")
    # The way back is the champion as it stands, kept as a copy of its own.
    left = policy.reserve.capacity_bytes - (2 * size + candidate_bytes)
    method = "bytes left of the capacity after champion, candidate and the way back (a copy of the champion)"
    words = f"{left:,} bytes would stay free, the policy demands {minimum:,}"
    return _kept(champion, "storage-reserve", left, minimum, method, words)


def _account(allowance: Allowance, candidate: Scorecard, champion: Scorecard, policy: Policy, spent: Spent) -> Finding:
    account, minimum, on = allowance.account, allowance.minimum, f"{allowance.account}-reserve"
    used = _used(account, candidate, champion, policy, spent)
    if used is None:
        why = f"the {_UNITS[account]} of candidate and champion were not measured once each"
        return no_data("utility", champion.artifact, on, minimum, why)
    left = allowance.capacity - used
    words = f"{account}: {left:,} of {allowance.capacity:,} would stay free, the policy demands {minimum:,}"
    return _kept(champion, on, left, minimum, _METHODS[account], words)


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


def _kept(champion: Scorecard, on: str, left: int, minimum: int, method: str, words: str) -> Finding:
    estimate = Estimate(float(left), float(left), float(left))
    finding = row(
        "utility",
        champion.artifact,
        on,
        Paired(0, 0, 0),
        estimate,
        threshold=float(minimum),
        passed=left >= minimum,
        method=method,
    )
    return Finding(finding, words)
