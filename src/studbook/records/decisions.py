"""Why: the failure cluster that started a round, the decision that ended it, and what became of the losers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from studbook.records.base import Digest, Moment, Name, Record, Text, Zone
from studbook.records.sources import Check

__all__ = [
    "Action",
    "ArchiveRecord",
    "ArchivedCandidate",
    "Away",
    "Comparison",
    "ConfirmationRecord",
    "Excluded",
    "FailureCluster",
    "NoOp",
    "Retired",
    "SealedOpening",
    "Standing",
    "UtilityTerm",
    "ViabilityDecision",
]

Away = Literal["archive", "archive-for-diversity", "merge-compress", "quarantine"]
"""What becomes of a candidate that is not promoted."""
Action = Literal["promote-to-shadow", "package", Away]
"""What becomes of a candidate; ``package`` is a specialist, which is released as a package and never as a whole."""


class FailureCluster(Record, frozen=True, kw_only=True, tag="failure-cluster/1"):
    """Where the champion fails, what may be learned from, and what judges the answer.

    Attributes:
        label: The cluster.
        champion: Digest of the champion that fails there.
        evidence: Digest of the development scorecard that shows it.
        failed: Development items of this label it got wrong.
        of: Development items of this label.
        data: Digest of the approved data manifest the training slice comes from.
        training_slice: Digest of the slice: all a breeding worker may ever see.
        suites: Digests of the SuiteManifests that judge this label.
        contamination: Digest of the ContaminationReceipt.
        scope: What a specialist shall answer for, sorted, the label among it: nothing else is protected, and its winner
            can only be packaged. None for a round whose winner serves everybody.
    """

    zone: ClassVar[Zone] = Zone.DECISIONS
    label: Name
    champion: Digest
    evidence: Digest
    failed: int
    of: int
    data: Digest
    training_slice: Digest
    suites: tuple[Digest, ...]
    contamination: Digest
    scope: tuple[Name, ...]

    def subjects(self) -> tuple[str, ...]:
        """The champion."""
        return (self.champion,)

    def references(self) -> tuple[str, ...]:
        """Evidence, data, suites and contamination receipt."""
        return (self.evidence, self.data, *self.suites, self.contamination)


class Comparison(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One paired comparison of a candidate with somebody else on shared items.

    Attributes:
        test: ``non-inferiority``, ``superiority``, ``parent``, ``utility`` or ``shown`` (no gate).
        against: Digest of the other artifact.
        on: Cluster label, ``joint-mean``, ``worst-skill`` or ``calibration``.
        items: Shared items.
        wins: Items only the candidate got right.
        losses: Items only the other got right.
        difference: Candidate minus other (share of items; mean Brier improvement for calibration).
        lower: One-sided lower confidence bound of the difference.
        upper: One-sided upper confidence bound.
        p_value: P value before correction; 1 where the test has none.
        threshold: What lower (or the corrected p value) had to reach.
        passed: Whether it did.
        method: Formula in words.
        scorecards: Digests of the scorecards it was computed from: the candidate's, and the other's where there is one.
    """

    test: Literal["non-inferiority", "superiority", "parent", "utility", "shown"]
    against: Digest
    on: Name
    items: int
    wins: int
    losses: int
    difference: float
    lower: float
    upper: float
    p_value: float
    threshold: float
    passed: bool
    method: Text
    scorecards: tuple[Digest, ...]


class UtilityTerm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One term of the net utility.

    Attributes:
        name: What it stands for.
        weight: From the policy.
        quantity: What it is multiplied with.
        contribution: weight x quantity, negative for costs.
        scorecard: Digest of the scorecard (or manifest) the quantity comes from.
    """

    name: Name
    weight: float
    quantity: float
    contribution: float
    scorecard: Digest


class Standing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far one candidate came, and why no further.

    Attributes:
        manifest: Digest of its CandidateManifest.
        artifact: Digest of its file.
        name: Its name.
        family: Its mutation family.
        gates: Hard gates, one row each.
        screen_rank: Rank on development items among those that passed the gates, from 1; 0 when not ranked.
        screen_mean: Joint mean on development items, 0..1.
        development: Digest of its development scorecard, if it got one.
        selection: Digest of its selection scorecard, if it was a finalist.
        comparisons: Every comparison it was judged by.
        utility: Terms of the lower bound of its net utility.
        net_utility: Their sum; 0 when it was not computed.
        action: What becomes of it.
        reasons: In plain words with numbers.
    """

    manifest: Digest
    artifact: Digest
    name: Name
    family: Name
    gates: tuple[Check, ...]
    screen_rank: int
    screen_mean: float
    development: Digest | None
    selection: Digest | None
    comparisons: tuple[Comparison, ...]
    utility: tuple[UtilityTerm, ...]
    net_utility: float
    action: Action
    reasons: tuple[Text, ...]

    @property
    def won(self) -> bool:
        """Whether it is the winner of its decision."""
        return self.action in ("promote-to-shadow", "package")


class Excluded(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A registered model that was not offered as a parent.

    Attributes:
        artifact: Its digest.
        name: Its name.
        reason: Why not.
    """

    artifact: Digest
    name: Name
    reason: Text


class NoOp(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Doing nothing, which is a candidate with gain 0 and cost 0.

    Attributes:
        chosen: Whether it won.
        reasons: The numbers that made it better, or that it lost to.
    """

    chosen: bool
    reasons: tuple[Text, ...]


class Retired(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A former champion that nobody needs to keep: the champion is better, and there are more than the policy keeps.

    Attributes:
        artifact: Its digest.
        name: Its name.
        scorecard: Digest of its selection scorecard.
        reasons: Why, with numbers.
    """

    artifact: Digest
    name: Name
    scorecard: Digest
    reasons: tuple[Text, ...]


class ViabilityDecision(Record, frozen=True, kw_only=True, tag="viability-decision/1"):
    """Candidates against the champion, the parents and doing nothing: a pure function of the records it cites.

    Attributes:
        cluster: Digest of the FailureCluster.
        policy: Digest of the Policy.
        suites: Digest of the SuitesLock.
        champion: Digest of the champion.
        champion_cards: Digests of its development and selection scorecards.
        parents: Digests of the parents that stood as baselines.
        parent_cards: Digests of their selection scorecards.
        excluded: Registered models that were not offered, with reasons.
        standings: One a candidate, in the order they were bred.
        retired: Former champions that stand for retirement; people withdraw them, a decision moves nothing.
        as_of: Ledger time the waits of the policy were measured at; null where it has none.
        action: What to do: ``keep`` is a champion that stands although a finalist is no worse, ``merge-compress`` one
            that such a finalist of far fewer bytes could replace, ``package`` the winner of a round for a specialist,
            ``no-op`` doing nothing for any other reason.
        chosen: Digest of the winner, or null.
        best_parent: Digest of the parent with the highest joint mean on selection items.
        no_op: How doing nothing fared.
        assumptions: What would have to hold for this to be right, and what could not have been seen.
    """

    zone: ClassVar[Zone] = Zone.DECISIONS
    cluster: Digest
    policy: Digest
    suites: Digest
    champion: Digest
    champion_cards: tuple[Digest, ...]
    parents: tuple[Digest, ...]
    parent_cards: tuple[Digest, ...]
    excluded: tuple[Excluded, ...]
    standings: tuple[Standing, ...]
    retired: tuple[Retired, ...]
    as_of: Moment | None
    action: Literal["promote-to-shadow", "package", "keep", "merge-compress", "no-op"]
    chosen: Digest | None
    best_parent: Digest | None
    no_op: NoOp
    assumptions: tuple[Text, ...]

    def subjects(self) -> tuple[str, ...]:
        """Champion, parents, candidates and former champions that stand for retirement, each once."""
        judged, gone = (s.artifact for s in self.standings), (r.artifact for r in self.retired)
        return tuple(dict.fromkeys((self.champion, *self.parents, *judged, *gone)))

    def references(self) -> tuple[str, ...]:
        """Every record it was computed from."""
        cards = (d for s in self.standings for d in (s.manifest, s.development, s.selection) if d)
        former = (r.scorecard for r in self.retired)
        return (self.cluster, self.policy, self.suites, *self.champion_cards, *self.parent_cards, *cards, *former)


class ArchivedCandidate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One candidate that was not promoted.

    Attributes:
        manifest: Digest of its CandidateManifest.
        artifact: Digest of its file.
        action: archive (also for diversity, or as a smaller equal of the champion), or quarantine.
        reasons: Why.
        scorecards: Digests of its scorecards.
    """

    manifest: Digest
    artifact: Digest
    action: Away
    reasons: tuple[Text, ...]
    scorecards: tuple[Digest, ...]


class ArchiveRecord(Record, frozen=True, kw_only=True, tag="archive-record/1"):
    """The losers of one decision, with reasons and scorecards.

    Attributes:
        decision: Digest of the ViabilityDecision.
        candidates: One each.
    """

    zone: ClassVar[Zone] = Zone.DECISIONS
    decision: Digest
    candidates: tuple[ArchivedCandidate, ...]

    def subjects(self) -> tuple[str, ...]:
        """The candidates, each once."""
        return tuple(dict.fromkeys(c.artifact for c in self.candidates))

    def references(self) -> tuple[str, ...]:
        """The decision, manifests and scorecards."""
        rest = (d for c in self.candidates for d in (c.manifest, *c.scorecards))
        return (self.decision, *rest)


class SealedOpening(Record, frozen=True, kw_only=True, tag="sealed-opening/1"):
    """The sealed suites are about to be opened: written before the look, so that no look is free.

    Attributes:
        decision: Digest of the ViabilityDecision whose winner is looked at; null where a person looked by `suite open`.
        candidate: Digest of the winner, or of the model that a person looked at.
        opening: Which opening this is, from 1.
        of: How many the policy allows.
    """

    zone: ClassVar[Zone] = Zone.DECISIONS
    decision: Digest | None
    candidate: Digest
    opening: Annotated[int, Meta(ge=1)]
    of: int

    def subjects(self) -> tuple[str, ...]:
        """The model that is looked at."""
        return (self.candidate,)

    def references(self) -> tuple[str, ...]:
        """The decision, if there is one."""
        return (self.decision,) if self.decision else ()


class ConfirmationRecord(Record, frozen=True, kw_only=True, tag="confirmation-record/1"):
    """The one look of a winner at the sealed suites.

    Attributes:
        decision: Digest of the ViabilityDecision.
        candidate: Digest of the winner.
        opening: Which opening of the sealed suites this is, from 1.
        of: How many the policy allows.
        champion_card: Digest of the champion's sealed scorecard.
        candidate_card: Digest of the winner's sealed scorecard.
        comparisons: Superiority on the target and on the joint mean, and safety; every protected suite shown.
        passed: All gating comparisons hold.
    """

    zone: ClassVar[Zone] = Zone.DECISIONS
    decision: Digest
    candidate: Digest
    opening: Annotated[int, Meta(ge=1)]
    of: int
    champion_card: Digest
    candidate_card: Digest
    comparisons: tuple[Comparison, ...]
    passed: bool

    def subjects(self) -> tuple[str, ...]:
        """The winner."""
        return (self.candidate,)

    def references(self) -> tuple[str, ...]:
        """Decision and sealed scorecards."""
        return (self.decision, self.champion_card, self.candidate_card)
