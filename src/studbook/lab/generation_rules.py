"""What follows from the ledger about generations: their line, the cluster that is next, and what a record may claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from studbook.lab.descendants import bred_parents
from studbook.lab.desk import Desk
from studbook.lab.duplicates import duplicates
from studbook.lab.facts import require
from studbook.lab.judging import Card
from studbook.lab.pooling import pool_of
from studbook.lab.sources import slice_of
from studbook.records import (
    CandidateManifest,
    FailureCluster,
    GenerationRecord,
    LineageTemplate,
    ParentPool,
    SearchReceipt,
    ViabilityDecision,
)

__all__ = ["check_generation_record", "line_of", "next_label", "tried_in"]

Line = tuple[tuple[str, GenerationRecord], ...]


def line_of(desk: Desk, settings: Mapping[str, Any]) -> Line:
    """The newest line of generations with some settings that the champion still stands at the end of, oldest first."""
    held = {d: r for d, r in desk.unrevoked(GenerationRecord) if r.settings == settings}
    if not held:
        return ()
    digest = list(held)[-1]
    if desk.champion() not in (held[digest].champion, held[digest].chosen):
        return ()
    found = [(digest, held[digest])]
    while (previous := found[-1][1].previous) is not None and previous in held:
        found.append((previous, held[previous]))
    return tuple(reversed(found))


def tried_in(desk: Desk, line: Sequence[tuple[str, GenerationRecord]]) -> tuple[str, ...]:
    """Clusters that the last generations of a line tried in vain against the champion there is."""
    champion = desk.champion()
    return tuple(r.label for _, r in line if r.champion == champion)


def next_label(desk: Desk, evidence: Card, tried: Sequence[str], today: date) -> str:
    """The cluster the champion fails most, of those that were not tried and have a training slice; empty if none.

    Args:
        desk: The lab.
        evidence: The champion's development scorecard.
        tried: Clusters to leave out.
        today: The day approvals must cover.
    """
    least = desk.policy[1].gates.cluster_error
    wrong = {k: 1.0 - r.mean for k, r in evidence.card.tasks().items() if k not in tried and r.correct}
    for label in sorted(wrong, key=lambda k: (-wrong[k], k)):
        if wrong[label] < least or wrong[label] <= 0.0:
            return ""
        if slice_of(desk, label, pool_of(desk, label, today)[0]) is not None:
            return label
    return ""


def check_generation_record(desk: Desk, record: GenerationRecord) -> None:
    """Hold a generation against everything it cites, in the lab as it was.

    Args:
        desk: The lab as it was before the record.
        record: The generation.

    Raises:
        DigestDiffers: naming the field that differs; ``generation.field``.
    """
    get = desk.workspace.get
    previous = get(record.previous, GenerationRecord) if record.previous else None
    line = line_of(desk, record.settings)
    card = desk.scorecard(record.evidence)
    pool, policy = get(record.pool, ParentPool), desk.policy[1]
    decision = get(record.decision, ViabilityDecision) if record.decision else None
    wrong = {k: 1.0 - r.mean for k, r in card.tasks().items() if k not in record.tried}
    found = [get(d, SearchReceipt) for d in record.searches]
    clusters = {get(s.cluster, FailureCluster) for s in found}
    clusters |= {get(decision.cluster, FailureCluster)} if decision else set()
    worse = [
        k
        for k, share in wrong.items()
        if (-share, k) < (-wrong.get(record.label, 0.0), record.label) and slice_of(desk, k, pool.base)
    ]
    facts: dict[str, tuple[object, object]] = {
        "number": (record.number, previous.number + 1 if previous else 1),
        "previous": (record.previous, line[-1][0] if line and previous else None),
        "settings": (record.settings, previous.settings if previous else record.settings),
        "champion": (record.champion, desk.champion()),
        "evidence": ((card.artifact, card.role), (record.champion, "development")),
        "tried": (record.tried, tried_in(desk, line) if previous else ()),
        "label": (worse, []),
        "label: failures": (wrong.get(record.label, 0.0) >= policy.gates.cluster_error, True),
        "pool": (pool.label, record.label),
        "searches": (
            {(c.label, c.champion) for c in clusters},
            {(record.label, record.champion)} if clusters else set(),
        ),
        "searches: all": (sorted(record.searches), sorted(_searched(desk, record.pool, pool))),
        "searches: parents": ([s.parents for s in found], [pool.chosen] * len(found)),
        "chosen": (record.chosen, decision.chosen if decision else None),
        "decision": (_foreign(desk, decision, pool), []),
        "duplicates": (record.duplicates, _again(desk, record, pool)),
    }
    require("generation", facts, "generation.field")


def _searched(desk: Desk, digest: str, pool: ParentPool) -> list[str]:
    """Every search that was made with a pool's seed for its parents since it was drawn: none may be left out."""
    entry = desk.workspace.entry(digest)
    since = {e.record for e in desk.entries()[entry.sequence if entry else 0 :]}
    made = desk.unrevoked(SearchReceipt)
    return [d for d, s in made if d in since and s.seed == pool.seed and s.parents == pool.chosen]


def _foreign(desk: Desk, decision: ViabilityDecision | None, pool: ParentPool) -> list[str]:
    """Candidates of a decision that were merged from somebody who was not drawn."""
    rows = decision.standings if decision else ()
    return [s.artifact for s in rows if not set(bred_parents(desk, [s.manifest])) <= set(pool.chosen)]


def _again(desk: Desk, record: GenerationRecord, pool: ParentPool) -> tuple[object, ...]:
    """The duplicates found again, where the bytes are still there; as recorded where a record let them go."""
    templates = [desk.workspace.get(d.manifest, CandidateManifest).template for d in record.duplicates]
    if not templates:
        return ()
    used = [desk.workspace.get(t, LineageTemplate) for t in templates]
    artifacts = [desk.workspace.get(d.manifest, CandidateManifest).artifact.sha256 for d in record.duplicates]
    needed = {pool.base, *(d.of for d in record.duplicates), *artifacts}
    if not used or not all(desk.workspace.blob_path(a).is_file() for a in needed):
        return record.duplicates
    found: list[object] = []
    for duplicate in record.duplicates:
        found += duplicates(desk, pool.base, (duplicate.of,), (duplicate.manifest,))
    return tuple(found)
