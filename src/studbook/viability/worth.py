"""Step 4: is a change of champion worth what it costs, and is there room for it and its way back?"""

from __future__ import annotations

import math
from typing import NamedTuple

from studbook.records import Policy, Scorecard, UtilityTerm, digest
from studbook.statistics import Estimate, Paired
from studbook.viability.comparisons import joint, no_data
from studbook.viability.costs import DECODED_BYTES, MULTIPLY_ADDS, ratio
from studbook.viability.findings import Finding, row
from studbook.viability.reserve import NOTHING, Spent, reserves
from studbook.viability.words import points, settle, told_apart

__all__ = ["Worth", "worth"]


class Worth(NamedTuple):
    """What a candidate is worth against the champion.

    Attributes:
        terms: The terms of the lower bound of its net utility.
        net: Their sum; 0 when it could not be computed.
        findings: Net utility against the switching threshold, and every reserve that the policy asks for.
    """

    terms: tuple[UtilityTerm, ...]
    net: float
    findings: tuple[Finding, ...]


def worth(
    candidate: Scorecard, champion: Scorecard, candidate_bytes: int, policy: Policy, spent: Spent = NOTHING
) -> Worth:
    """Net utility and reserve of one candidate; doing nothing has gain 0 and cost 0.

    net = accuracy x lower bound of the paired gain in joint mean - memory x max(0, log2 of the ratio of decoded bytes)
    - compute x log2 of the ratio of multiply-adds - risk, in shares of items; it has to exceed the switching threshold.

    Args:
        candidate: The candidate's scorecard on selection items.
        champion: The champion's.
        candidate_bytes: Size of the candidate's file.
        policy: The policy in force.
        spent: What the round and the lab used up, for the accounts that the policy names.
    """
    memory, compute = ratio(candidate, champion, DECODED_BYTES), ratio(candidate, champion, MULTIPLY_ADDS)
    kept = reserves(candidate, champion, candidate_bytes, policy, spent)
    if memory is None or compute is None:
        why = "decoded bytes and multiply-adds of candidate and champion were not measured once each by one method"
        missing = no_data("utility", champion.artifact, "net-utility", policy.utility.switching_threshold, why)
        return Worth((), 0.0, (missing, *kept))
    pair, gain = joint(candidate, champion, policy.protects(champion.labels()), policy.gates.alpha)
    terms = _terms(gain.lower, memory, compute, policy, digest(candidate))
    net = settle(math.fsum(term.contribution for term in terms))
    return Worth(terms, net, (_net_utility(pair, gain, net, champion.artifact, policy), *kept))


def _terms(lower: float, memory: float, compute: float, policy: Policy, card: str) -> tuple[UtilityTerm, ...]:
    weights = policy.utility
    quantities = (
        ("joint-mean-gain-lower-bound", weights.accuracy, lower, 1.0),
        ("memory-doublings", weights.memory, max(0.0, math.log2(memory)), -1.0),
        ("compute-doublings", weights.compute, math.log2(compute), -1.0),
        ("risk-of-a-change", weights.risk, 1.0, -1.0),
    )
    return tuple(
        UtilityTerm(
            name=name,
            weight=weight,
            quantity=settle(quantity),
            contribution=settle(sign * weight * quantity),
            scorecard=card,
        )
        for name, weight, quantity, sign in quantities
    )


def _net_utility(pair: Paired, gain: Estimate, net: float, champion: str, policy: Policy) -> Finding:
    threshold, weight = policy.utility.switching_threshold, policy.utility.accuracy
    costs = net - weight * gain.lower
    estimate = Estimate(weight * gain.value + costs, net, weight * gain.upper + costs)
    finding = row(
        "utility",
        champion,
        "net-utility",
        pair,
        estimate,
        threshold=threshold,
        passed=net > threshold,
        method=f"weights {policy.utility.weights_version}: accuracy x joint-mean gain - memory x max(0, log2 ratio of "
        "decoded bytes) - compute x log2 ratio of multiply-adds - risk; the lower bound has to exceed the threshold",
    )
    found, needed = told_apart(net, threshold)
    return Finding(
        finding,
        f"net utility lower bound {found}, switching threshold {needed} (joint mean {points(gain.value)}, "
        f"lower bound {points(gain.lower)}; costs {points(costs)})",
    )
