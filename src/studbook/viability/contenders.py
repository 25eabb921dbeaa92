"""Who stands in a round: contenders, baselines, and the terms that are the same for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from studbook.errors import OutOfOrder
from studbook.records import (
    CandidateManifest,
    ContaminationReceipt,
    DriftReport,
    FailureCluster,
    LineageTemplate,
    OperatorReceipt,
    Policy,
    RuntimeSmoke,
    Scorecard,
    SuitesLock,
    digest,
)
from studbook.records.evaluation import Role
from studbook.viability.evidence import check_evaluator, require
from studbook.viability.situation import ALONE, Situation

__all__ = [
    "Baseline",
    "Contender",
    "Round",
    "check_contenders",
    "check_judges",
    "check_labels",
    "check_screening",
    "judged_by",
]


@dataclass(frozen=True)
class Contender:
    """One candidate with everything that is known about it.

    Attributes:
        manifest: Its manifest.
        smoke: Its runtime smoke, if it got that far.
        receipt: Its operator receipt.
        template: The lineage template declared before the run.
        development: Its scorecard on development items, if it got that far.
        selection: Its scorecard on selection items; read for finalists only.
        drift: Its drift reports beside the champion.
        slices: Digests of the training slices that it, or whom it descends from, was taught.
        receipts: Their comparisons with the suites in force.
    """

    manifest: CandidateManifest
    smoke: RuntimeSmoke | None
    receipt: OperatorReceipt
    template: LineageTemplate
    development: Scorecard | None
    selection: Scorecard | None
    drift: tuple[DriftReport, ...] = ()
    slices: tuple[str, ...] = ()
    receipts: tuple[ContaminationReceipt, ...] = ()

    @property
    def artifact(self) -> str:
        """Digest of the candidate's file."""
        return self.manifest.artifact.sha256


@dataclass(frozen=True)
class Baseline:
    """A parent that has to be beaten.

    Attributes:
        artifact: Its digest.
        name: What people call it.
        card: Its scorecard on selection items.
    """

    artifact: str
    name: str
    card: Scorecard


@dataclass(frozen=True)
class Round:
    """What every candidate of one round is judged by.

    Attributes:
        policy: The policy in force.
        cluster: The failure cluster the round was started for.
        development: The champion's scorecard on development items.
        selection: The champion's scorecard on selection items.
        parents: The parents as baselines.
        situation: What the ledger says beside the records that are compared.
    """

    policy: Policy
    cluster: FailureCluster
    development: Scorecard
    selection: Scorecard
    parents: tuple[Baseline, ...]
    situation: Situation = ALONE

    @property
    def rules(self) -> Policy:
        """What the round is judged by, see `judged_by`."""
        return judged_by(self.policy, self.cluster)

    @property
    def protected(self) -> tuple[str, ...]:
        """Labels on which nobody may be inferior to the champion."""
        return self.rules.protects(self.selection.labels())

    @property
    def champion(self) -> str:
        """Digest of the champion."""
        return self.cluster.champion

    def check(self, suites: SuitesLock, contenders: Sequence[Contender]) -> None:
        """Refuse a round whose reference points cannot carry a comparison.

        Raises:
            OutsideAllowlist: if the policy protects no cluster.
            OutOfOrder: if a scorecard of the champion or a parent is void or of other suites, if evaluators differ,
                if a suite is not in the lock, or if a candidate is offered twice.
        """
        _check_champion(self.development, self.rules, self.cluster)
        check_evaluator((self.development, self.selection, *(p.card for p in self.parents)))
        require(self.selection, self.champion, "selection", self.selection)
        check_labels(self.selection, self.rules, self.cluster)
        for parent in self.parents:
            require(parent.card, parent.artifact, "selection", self.selection)
        _check_lock(suites, self)
        check_contenders(contenders, self.development)


def judged_by(policy: Policy, cluster: FailureCluster) -> Policy:
    """The rules a round is judged by: the policy's, but a specialist's round protects its own clusters alone.

    Its winner replaces nobody, so no wait for the champion holds it, and none is a smaller champion.
    """
    if not cluster.scope:
        return policy
    at_once = replace(policy.hysteresis, cooldown_hours=0, window_days=0, window_decisions=0, smaller_by=0.0)
    return replace(policy, protected=cluster.scope, hysteresis=at_once)


def check_contenders(contenders: Sequence[Contender], development: Scorecard) -> None:
    """Refuse contenders that no decision could be recomputed from.

    Raises:
        OutOfOrder: if one stands in the list twice, or was scored by another evaluator than the champion.
    """
    manifests = [digest(contender.manifest) for contender in contenders]
    if twice := next((m for m in manifests if manifests.count(m) > 1), None):
        raise OutOfOrder(f"candidate {twice} is offered twice", where="contenders", advice="Offer each manifest once.")
    check_evaluator((development, *(card for c in contenders for card in (c.development, c.selection))))


def check_screening(
    contenders: Sequence[Contender], development: Scorecard, cluster: FailureCluster, policy: Policy
) -> None:
    """The part of `Round.check` that holds before anybody met the selection suites.

    Raises:
        OutsideAllowlist, OutOfOrder: as `Round.check`.
    """
    _check_champion(development, policy, cluster)
    check_contenders(contenders, development)


def _check_champion(development: Scorecard, policy: Policy, cluster: FailureCluster) -> None:
    require(development, cluster.champion, "development", development)
    check_labels(development, policy, cluster)


def check_labels(card: Scorecard, policy: Policy, cluster: FailureCluster) -> None:
    """Refuse a scorecard of the champion that `check_judges` refuses the suites of."""
    check_judges(card.role, [(r.dimension, r.cluster) for r in card.results], policy, cluster.label)


def check_judges(role: Role, suites: Sequence[tuple[str, str]], policy: Policy, label: str) -> None:
    """Refuse suites of a role without exactly one task suite for every label that gates.

    Args:
        role: The role.
        suites: Dimension and label of each of its suites.
        policy: The policy in force.
        label: The target cluster.

    Raises:
        OutOfOrder: naming the label, or the missing calibration suite (not needed on development items).
    """
    labels = [cluster for dimension, cluster in suites if dimension == "task"]
    wanted = (*policy.protects(tuple(dict.fromkeys(labels))), label)
    if missing := next((wants for wants in wanted if labels.count(wants) != 1), None):
        raise OutOfOrder(
            f"{labels.count(missing)} {role} task suites have the label {missing}; exactly one is needed",
            where="suites lock",
            advice=f"{_FREEZE} Or have the policy protect other clusters.",
            reason="order.suite",
        )
    if role != "development" and not any(dimension == "calibration" for dimension, _ in suites):
        text = f"there is no {role} suite for calibration"
        raise OutOfOrder(text, where="suites lock", advice=_FREEZE, reason="order.suite")


def _check_lock(suites: SuitesLock, circle: Round) -> None:
    used = {r.suite for card in (circle.development, circle.selection) for r in card.results}
    if loose := sorted((used | set(circle.cluster.suites)) - set(suites.suites)):
        raise OutOfOrder(f"suite {loose[0]} is not in the suites lock", where="suites-lock: suites", advice=_FREEZE)


_FREEZE = "Freeze the suite, have its lock signed, and evaluate champion, parents and candidates on it."
