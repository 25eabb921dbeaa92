"""What a review pack says, as plain values: `page` and `plot` write from them, and ``review.json`` is their copy."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from studbook.exchange.figures import Figure
from studbook.policy import PolicyChange
from studbook.records import Measure

__all__ = [
    "Asked",
    "Back",
    "Change",
    "Cited",
    "Cost",
    "Forebear",
    "GateRow",
    "Judges",
    "Line",
    "Reserved",
    "Review",
    "Row",
    "Score",
    "Situation",
    "Verdict",
]

Situation = Literal["in-shadow", "chosen", "not-chosen", "first"]


class Asked(Struct, frozen=True, kw_only=True):
    """What a person is asked.

    Attributes:
        question: In one sentence.
        command: What answers yes; empty where nothing can be answered with yes.
        otherwise: What happens if nobody answers, or what answers no.
        people: Who holds a key that may sign the answer.
        needed: How many of them it takes.
    """

    question: str
    command: str
    otherwise: str
    people: tuple[str, ...]
    needed: int


class Row(Struct, frozen=True, kw_only=True):
    """One comparison of the candidate, as a record holds it.

    Attributes:
        role: Role of the suites: ``selection`` or ``sealed``.
        test: Which question it answers; ``shown`` gates nothing.
        against: Name of the other model.
        artifact: Its digest.
        on: Cluster, ``joint-mean``, ``worst-skill``, ``calibration``, ``net-utility``, or an account such as
            ``storage-reserve``.
        unit: Unit of difference and bounds.
        items: Shared items.
        wins: Items only the candidate got right.
        losses: Items only the other got right.
        difference: Candidate minus other.
        lower: One-sided lower bound.
        upper: One-sided upper bound.
        threshold: What had to be reached.
        threshold_of: What the threshold is held against: ``lower`` or ``p-value``; empty where nothing is.
        p_value: P value before correction.
        passed: Whether it was reached.
        method: Formula in words.
        record: Digest of the record that holds it.
    """

    role: str
    test: str
    against: str
    artifact: str
    on: str
    unit: str
    items: int
    wins: int
    losses: int
    difference: float
    lower: float
    upper: float
    threshold: float
    threshold_of: str
    p_value: float
    passed: bool
    method: str
    record: str


class Verdict(Struct, frozen=True, kw_only=True):
    """What the round decided.

    Attributes:
        decision: Digest of the ViabilityDecision.
        cluster: Label of its failure cluster.
        action: What it decided.
        winner: Name of whom it chose; empty where it chose to do nothing.
        own: What became of this candidate.
        reasons: Why, with numbers.
        nothing_chosen: Whether doing nothing won.
        nothing: How doing nothing fared.
        net_utility: Lower bound of the net utility; doing nothing has 0.
        switching_threshold: What it has to exceed.
        confirmation: Digest of the record of the one look at the sealed suites, or None.
        confirmed: What that look showed; None without one.
        rows: Every comparison.
    """

    decision: str
    cluster: str
    action: str
    winner: str
    own: str
    reasons: tuple[str, ...]
    nothing_chosen: bool
    nothing: tuple[str, ...]
    net_utility: float
    switching_threshold: float
    confirmation: str | None
    confirmed: bool | None
    rows: tuple[Row, ...]


class Score(Struct, frozen=True, kw_only=True):
    """What one model scored on one suite.

    Attributes:
        who: ``candidate``, ``champion``, ``parent NAME`` or ``doing nothing``.
        artifact: Digest of the model.
        figure: The number with bounds, method and record; None if it was not scored there.
    """

    who: str
    artifact: str
    figure: Figure | None


class Line(Struct, frozen=True, kw_only=True):
    """One suite, everybody side by side.

    Attributes:
        suite: Its name.
        role: Its role.
        dimension: What it measures.
        cluster: Its label.
        scores: One each, in the same order in every line.
    """

    suite: str
    role: str
    dimension: str
    cluster: str
    scores: tuple[Score, ...]


class GateRow(Struct, frozen=True, kw_only=True):
    """One gate.

    Attributes:
        stage: ``candidate`` (hard gates of the decision), ``shadow`` or ``champion``.
        name: What it asks.
        status: passed, pending or failed.
        by: Who may settle it.
        detail: In words.
        evidence: Digest of the record that settles it, or None.
    """

    stage: str
    name: str
    status: str
    by: str
    detail: str
    evidence: str | None


class Forebear(Struct, frozen=True, kw_only=True):
    """The candidate or a model it descends from, each once, nearest first.

    Attributes:
        depth: Generations up; 0 is the candidate.
        artifact: Digest.
        name: What people call it.
        how: Tag of the operator that made it; empty for a registered source.
        parents: Names of its base and parents.
        licence: SPDX identifier, or None.
        why: Where the licence comes from.
        record: Digest of the manifest that speaks for it.
        revoked: Why it counts no longer; empty if nothing was revoked.
    """

    depth: int
    artifact: str
    name: str
    how: str
    parents: tuple[str, ...]
    licence: str | None
    why: str
    record: str
    revoked: str


class Change(Struct, frozen=True, kw_only=True):
    """A suite or an evaluator that came or went.

    Attributes:
        what: Its name.
        before: Its digest at the last promotion; empty if it was not there.
        after: Its digest now; empty if it is there no longer.
    """

    what: str
    before: str
    after: str


class Judges(Struct, frozen=True, kw_only=True):
    """What judges and who signs, against the last promotion of a champion.

    Attributes:
        since: Digest of that promotion, or None if there never was one; then nothing is compared.
        entry: Its position in the ledger, or None.
        time: When it entered, UTC; empty without one.
        suites: Suites frozen or dropped.
        evaluators: Evaluators, by digest.
        policy: Fields of the policy, in words.
        keys: Fields of the root of keys, and keys revoked, in words.
        independent: Whether changes of evaluator, gating suites and looser thresholds take more than one owner.
        owners: The same in words.
    """

    since: str | None
    entry: int | None
    time: str
    suites: tuple[Change, ...]
    evaluators: tuple[Change, ...]
    policy: tuple[PolicyChange, ...]
    keys: tuple[PolicyChange, ...]
    independent: bool
    owners: str


class Cost(Struct, frozen=True, kw_only=True):
    """One cost of the candidate beside the champion's.

    Attributes:
        candidate: The candidate's.
        champion: The champion's in the same unit by the same method and basis, or None.
        record: Digest of the candidate's scorecard.
        other: Digest of the champion's, or None.
    """

    candidate: Measure
    champion: Measure | None
    record: str
    other: str | None


class Reserved(Struct, frozen=True, kw_only=True):
    """The storage reserve.

    Attributes:
        capacity: Bytes the channels may use.
        minimum: Bytes that must stay free.
        left: Bytes that would, as the decision computed them; None if it did not.
        record: Digest of the record that says so, or None.
    """

    capacity: int
    minimum: int
    left: int | None
    record: str | None


class Back(Struct, frozen=True, kw_only=True):
    """One state that a rollback can restore after a promotion, nearest first.

    Attributes:
        name: What people call the model.
        artifact: Its digest.
        record: Digest of the move that put it there.
        problem: Why it cannot be restored; empty if it is here, sound and unrevoked.
    """

    name: str
    artifact: str
    record: str
    problem: str


class Cited(Struct, frozen=True, kw_only=True):
    """A record whose envelope lies in the pack.

    Attributes:
        record: Its digest, and its file's name.
        kind: Its kind.
        entry: Its position in the ledger.
        time: When it entered, UTC.
    """

    record: str
    kind: str
    entry: int
    time: str


class Review(Struct, frozen=True, kw_only=True, tag="review/1", tag_field="kind"):
    """Everything a pack says.

    Attributes:
        lab: The lab.
        entries: Ledger entries it had.
        head: Digest of the last one.
        name: What people call the candidate.
        artifact: Its digest.
        size: Bytes of its file.
        situation: Where it stands.
        asked: What is asked.
        verdict: What the round decided; None for a first champion, which no round judged.
        scores: Suites side by side.
        reported: What others report of it; read by no gate.
        gates: Every gate.
        lineage: Where it comes from.
        data: Names and digests of the data manifests it inherits.
        judges: What changed in what judges it.
        costs: What it costs.
        reserve: The storage reserve.
        back: The way back.
        assumptions: What would have to hold.
        untested: What was not tested.
        excluded: Models that were not offered as parents, with reasons.
        records: Records in the pack.
        withheld: Digests of the sealed scorecards that stay in the lab.
        proofs: Names and digests of the records that ``proof/`` shows to be in the ledger.
        plots: Pictures.
    """

    lab: str
    entries: int
    head: str
    name: str
    artifact: str
    size: int
    situation: Situation
    asked: Asked
    verdict: Verdict | None
    scores: tuple[Line, ...]
    reported: tuple[Figure, ...]
    gates: tuple[GateRow, ...]
    lineage: tuple[Forebear, ...]
    data: tuple[tuple[str, str], ...]
    judges: Judges
    costs: tuple[Cost, ...]
    reserve: Reserved
    back: tuple[Back, ...]
    assumptions: tuple[str, ...]
    untested: tuple[str, ...]
    excluded: tuple[str, ...]
    records: tuple[Cited, ...]
    withheld: tuple[str, ...]
    proofs: tuple[tuple[str, str], ...]
    plots: tuple[str, ...]
