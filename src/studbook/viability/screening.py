"""Step 3's screen: who meets the selection suites is settled on development items alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from studbook.records import FailureCluster, Policy, Scorecard, digest
from studbook.viability.contenders import Contender, check_screening, judged_by
from studbook.viability.gates import failed, gate_in_round
from studbook.viability.words import settle

__all__ = ["Place", "joint_mean", "ranking", "screen"]


class Place(NamedTuple):
    """Where a candidate stands on development items; smaller is better.

    Attributes:
        shortfalls: Protected clusters whose difference to the champion is below -margin.
        loss: Minus its joint mean over the protected clusters, so that places sort.
        artifact: Digest of its file, which settles ties.
        manifest: Digest of its manifest.
    """

    shortfalls: int
    loss: float
    artifact: str
    manifest: str


def screen(
    contenders: Sequence[Contender], champion_development: Scorecard, cluster: FailureCluster, policy: Policy
) -> tuple[str, ...]:
    """Manifest digests of the finalists, best first: at most ``policy.gates.finalists``, often fewer.

    Only candidates that pass every hard gate are ranked; of equal files only one is. Selection scorecards are not
    looked at, so the answer is the same before and after finalists met the selection suites.

    Raises:
        OutOfOrder: if the champion's scorecard is void, an evaluator differs, or a candidate is offered twice.
    """
    rules = judged_by(policy, cluster)
    check_screening(contenders, champion_development, cluster, rules)
    passed = [c for c in contenders if not failed(gate_in_round(c, champion_development, cluster, policy))]
    places = ranking(passed, champion_development, rules)
    return tuple(place.manifest for place in places[: policy.gates.finalists])


def ranking(passed: Sequence[Contender], champion_development: Scorecard, policy: Policy) -> tuple[Place, ...]:
    """Everybody who passed the gates, best first; of equal files the first manifest digest stays."""
    places = sorted(_place(c, champion_development, policy) for c in passed)
    first = {place.artifact: place for place in reversed(places)}
    return tuple(place for place in places if first[place.artifact] is place)


def joint_mean(card: Scorecard, labels: Sequence[str]) -> float:
    """Unweighted mean over the accuracies of these task suites, 0..1."""
    tasks = card.tasks()
    return settle(math.fsum(tasks[label].mean for label in labels) / len(labels))


def _place(contender: Contender, champion_development: Scorecard, policy: Policy) -> Place:
    labels = policy.protects(champion_development.labels())
    if contender.development is None:  # the gates demand it; a type checker cannot know
        return Place(len(labels) + 1, 0.0, contender.artifact, digest(contender.manifest))
    mine, theirs = contender.development.tasks(), champion_development.tasks()
    short = [k for k in labels if settle(mine[k].mean - theirs[k].mean) < -policy.gates.margin]
    mean = joint_mean(contender.development, labels)
    return Place(len(short), -mean, contender.artifact, digest(contender.manifest))
