"""Who may do what: the root of keys, revocations, the policy and the lock on suites. All signed by people."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from studbook.records.base import Date, Digest, JsonObject, Name, Record, Text, Zone
from studbook.records.reserves import Hysteresis, Reserve

__all__ = [
    "Budget",
    "Gates",
    "KeyGrant",
    "LicenceRule",
    "OperatorGrant",
    "OwnerKey",
    "Owners",
    "Policy",
    "PopulationRule",
    "Revocation",
    "RevokedSubject",
    "Root",
    "StageRule",
    "SuitesLock",
    "Threshold",
    "Utility",
]

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class KeyGrant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One public key and what it may sign.

    Attributes:
        key: Ed25519 public key, 64 hex digits; it is its own identity.
        owner: The person who answers for it.
        holder: ``person`` keys are never needed by a running process.
        zone: The one zone it signs for.
        kinds: The kinds of record it signs there.
    """

    key: Digest
    owner: Name
    holder: Literal["person", "process"]
    zone: Zone
    kinds: tuple[Name, ...]


class OwnerKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One root key: it signs roots of keys and nothing else.

    Attributes:
        key: Ed25519 public key, 64 hex digits.
        owner: The person who holds it; one person with two keys counts once.
    """

    key: Digest
    owner: Name


class Owners(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who must sign a root of keys.

    Attributes:
        keys: The root keys.
        threshold: How many distinct owners must sign.
    """

    keys: tuple[OwnerKey, ...]
    threshold: Annotated[int, Meta(ge=1, le=100)]


class Threshold(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many people one kind of record needs; one is enough for a kind that no threshold names.

    Attributes:
        zone: The zone of the kind.
        kind: The kind of record.
        owners: How many distinct owners, with as many distinct public keys, must sign it.
    """

    zone: Zone
    kind: Name
    owners: Annotated[int, Meta(ge=1, le=100)]


class Root(Record, frozen=True, kw_only=True, tag="root/1"):
    """The root of keys: which key may sign which kind of record in which zone, and who may change that.

    Its rules across fields (one key one zone, distinct keys, thresholds that can be reached, people's kinds) are
    checked wherever an envelope around it is verified: `studbook.seal.check_root`.

    Attributes:
        lab: A random identity of this lab, 64 hex digits.
        root_version: Counts up by one at every rotation.
        expires: The last day on which its keys may sign anything but the root after it.
        owners: The root keys and how many owners must sign.
        keys: Every grant.
        thresholds: The kinds of record that need more than one person.
    """

    zone: ClassVar[Zone] = Zone.POLICY
    lab: Digest
    root_version: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    expires: Date
    owners: Owners
    keys: tuple[KeyGrant, ...]
    thresholds: tuple[Threshold, ...]


class RevokedSubject(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is revoked.

    Attributes:
        type: A ``key`` of a grant, the bytes of an ``artifact``, a ``data`` manifest, or any other ``record``.
        digest: The public key, the artifact's SHA-256, or the record's digest; 64 hex digits.
    """

    type: Literal["key", "artifact", "data", "record"]
    digest: Digest


class Revocation(Record, frozen=True, kw_only=True, tag="revocation/1"):
    """Something counts no longer; never undone, so that a thief's revocation is the most harm a stolen key can do here.

    Attributes:
        subject: What is revoked.
        reason: Why, for people.
        since: Ledger position. What a revoked key signed at or after it does not count; what came before stands.
    """

    zone: ClassVar[Zone] = Zone.POLICY
    subject: RevokedSubject
    reason: Text
    since: Annotated[int, Meta(ge=0, le=2**53 - 1)]

    def subjects(self) -> tuple[str, ...]:
        """The artifact, if it is one."""
        return (self.subject.digest,) if self.subject.type == "artifact" else ()

    def references(self) -> tuple[str, ...]:
        """The record, if it is one."""
        return (self.subject.digest,) if self.subject.type in ("data", "record") else ()


class OperatorGrant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One operator the policy allows.

    Attributes:
        operator: Its tag, such as ``blend/1``.
        status: Outputs of an ``offline`` operator may be bred, judged and released here, but are offered to nobody outside.
        admitted: Digests of the AdmissionRecords of its outputs that made it ``routed``; none while it is ``offline``.
        bounds: Lowest and highest value allowed for a numeric parameter (each element of a list counts).
    """

    operator: Name
    status: Literal["offline", "routed"]
    admitted: tuple[Digest, ...]
    bounds: dict[str, tuple[float, float]]


class Budget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one round may use at most; enforced, not only recorded.

    Attributes:
        candidates: Candidates bred in a round.
        evaluations: Model calls (items scored) spent on candidates in a round.
        worker_seconds: Processor seconds of one worker.
        worker_bytes: Address space of one worker in bytes.
        output_bytes: Size of one candidate file in bytes.
        relative_delta: Largest ||candidate - base|| / ||base|| a candidate may have (L2 over all tensors).
        depth: Most generations between a candidate and its farthest founder; a founder is generation 0.
    """

    candidates: Annotated[int, Meta(ge=1, le=10_000)]
    evaluations: Count
    worker_seconds: Annotated[int, Meta(ge=1)]
    worker_bytes: Count
    output_bytes: Count
    relative_delta: Annotated[float, Meta(gt=0.0)]
    depth: Annotated[int, Meta(ge=1, le=10_000)]


class Gates(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The thresholds of the decision (JUDGEMENT section 2).

    Attributes:
        alpha: One-sided error rate of every test.
        margin: Non-inferiority margin m on each protected task suite, as a share of items.
        calibration_margin: Non-inferiority margin on the mean Brier score (0..2, lower is better).
        practical_minimum: Smallest effect on the target worth promoting, as a share of items.
        finalists: How many candidates, screened on development items, meet the selection suites.
        cluster_error: Smallest share of target items the champion must fail for a cluster to exist.
        maximum_bytes: Largest artifact in bytes.
        sealed_openings: How often the sealed suites may be opened.
        robustness_margin: Non-inferiority margin on the perturbed half of each robustness suite, as a share of items.
        bias_margin: How much larger than the champion's the gap between two groups may be, as a share of items.
        drift_nats: Largest mean KL divergence from the champion on drift anchors, nats a position.
        drift_alignment: Smallest linear CKA with the champion of any layer on drift anchors, 0..1.
        cost_ratio: Most multiply-adds, and fuel, that answering a cost suite may take, over the champion's; 0 asks nothing.
    """

    alpha: Annotated[float, Meta(gt=0.0, le=0.2)]
    margin: Annotated[float, Meta(gt=0.0, le=0.5)]
    calibration_margin: Annotated[float, Meta(gt=0.0, le=2.0)]
    practical_minimum: Share
    finalists: Annotated[int, Meta(ge=1, le=100)]
    cluster_error: Share
    maximum_bytes: Count
    sealed_openings: Count
    robustness_margin: Annotated[float, Meta(gt=0.0, le=0.5)]
    bias_margin: Annotated[float, Meta(gt=0.0, le=1.0)]
    drift_nats: Annotated[float, Meta(ge=0.0, le=1000.0)]
    drift_alignment: Share
    cost_ratio: Annotated[float, Meta(ge=0.0, le=1000.0)]


class Utility(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights of the net utility, in points of joint mean accuracy (1.0 = all items).

    Attributes:
        weights_version: Name of this set of weights.
        accuracy: Weight of the paired gain in joint mean.
        memory: Cost of doubling the decoded size.
        compute: Cost of doubling the multiply-adds.
        risk: Flat cost of any change of champion.
        switching_threshold: The lower bound of net utility must exceed this.
    """

    weights_version: Name
    accuracy: float
    memory: float
    compute: float
    risk: float
    switching_threshold: float


class PopulationRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may have children, and how many models are looked after (JUDGEMENT section 5).

    Attributes:
        descendants: Which models bred here may be parents: ``none``; ``admitted``: whatever a round released to shadow;
            ``diverse``: these, and whatever the newest population review keeps for diversity.
        epsilon: One model dominates another only if no paired lower bound lies below minus this share of items.
        active: Most models in channels and their ways back that a review calls usual.
        pool: Most models in the candidate pool; those above it stand for retirement.
        diverse: Most cells of the quality-diversity archive that are kept.
    """

    descendants: Literal["none", "admitted", "diverse"]
    epsilon: Annotated[float, Meta(ge=0.0, le=0.5)]
    active: Annotated[int, Meta(ge=1, le=10_000)]
    pool: Annotated[int, Meta(ge=1, le=10_000)]
    diverse: Annotated[int, Meta(ge=0, le=10_000)]


class LicenceRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One licence the policy accepts and how strict it is.

    Attributes:
        spdx: SPDX identifier.
        strictness: Of several, the strictest is inherited; 0 is the most permissive.
        combines_with: SPDX identifiers it may be combined with.
    """

    spdx: Name
    strictness: Annotated[int, Meta(ge=0, le=100)]
    combines_with: tuple[Name, ...]


class StageRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has to come before one stage, beside the gates that always stand there.

    Attributes:
        stage: The stage.
        approvals: How many distinct owners, with as many distinct public keys, must approve; for champion whoever
            promotes is one of them.
        hold_hours: Least time in the stage before it, in hours of ledger time.
    """

    stage: Literal["shadow", "canary", "champion"]
    approvals: Annotated[int, Meta(ge=0, le=100)]
    hold_hours: Annotated[int, Meta(ge=0, le=87_600)]


class Policy(Record, frozen=True, kw_only=True, tag="policy/1"):
    """Everything a round may not decide for itself; one signed document.

    Attributes:
        name: What people call it.
        policy_version: Counts up by one at every change.
        operators: The allowlist.
        recipes: The operator records a round tries, in order; each is checked against the allowlist.
        budget: What a round may use.
        gates: The thresholds of the decision.
        utility: The weights of net utility.
        reserve: What must stay free after a promotion.
        hysteresis: How slowly the champion is replaced.
        population: Who may have children, and how many models are looked after.
        licences: The licence table.
        minimum_isolation: Measures every worker must have reached.
        recompute: What shadow asks of a candidate's bytes: ``receipt`` that they, their receipt and their template fit
            each other, ``full`` that they are bred again byte for byte.
        stages: The way to champion, in order, with what each stage asks for.
        protected: Clusters on which no candidate may be inferior to the champion; none named means every task suite's.
        notes: In plain words, what this policy is for.
    """

    zone: ClassVar[Zone] = Zone.POLICY
    name: Name
    policy_version: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    operators: tuple[OperatorGrant, ...]
    recipes: tuple[JsonObject, ...]
    budget: Budget
    gates: Gates
    utility: Utility
    reserve: Reserve
    hysteresis: Hysteresis
    population: PopulationRule
    licences: tuple[LicenceRule, ...]
    minimum_isolation: tuple[Name, ...]
    recompute: Literal["receipt", "full"]
    stages: tuple[StageRule, ...]
    protected: tuple[Name, ...]
    notes: Text

    def references(self) -> tuple[str, ...]:
        """The admissions that made operators routed."""
        return tuple(dict.fromkeys(digest for grant in self.operators for digest in grant.admitted))

    def protects(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """The protected clusters, where ``labels`` are those of every frozen task suite."""
        return self.protected or labels


class SuitesLock(Record, frozen=True, kw_only=True, tag="suites-lock/1"):
    """The frozen suites that count, by digest; changing it starts a new lock signed by a person.

    Attributes:
        lock_version: Counts up by one.
        suites: Digests of the SuiteManifest records.
    """

    zone: ClassVar[Zone] = Zone.POLICY
    lock_version: Annotated[int, Meta(ge=1)]
    suites: tuple[Digest, ...]

    def references(self) -> tuple[str, ...]:
        """The suite manifests."""
        return self.suites
