"""What follows from the ledger about generations: their line, the cluster that is next, and what a record may claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from msgspec import Struct, ValidationError, convert

from studbook.errors import DigestDiffers
from studbook.lab.descendants import bred_parents
from studbook.lab.desk import Desk
from studbook.lab.duplicates import duplicates
from studbook.lab.facts import require
from studbook.lab.judging import Card
from studbook.lab.pooling import pool_of
from studbook.lab.recipe_sources import SOURCES, asked_of
from studbook.lab.sources import slice_of
from studbook.records import (
    CandidateManifest,
    FailureCluster,
    GenerationRecord,
    LineageTemplate,
    ParentPool,
    SearchReceipt,
    SuiteManifest,
    ViabilityDecision,
)

__all__ = [
    "REPEATED",
    "Settings",
    "check_generation_record",
    "fits_plan",
    "line_of",
    "next_label",
    "searched",
    "seed_of",
    "tried_in",
]

REPEATED = "every candidate repeats a model that is known"
"""Why a generation held no round."""
_SEEDS = 10_000
Line = tuple[tuple[str, GenerationRecord], ...]


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """What makes two calls one line of generations, as a record holds it.

    Attributes:
        evaluations: Recipes that are run on development items in a generation, all searches together.
        sources: Where recipes come from, by name.
        method: How parents are drawn.
        size: Parents of a generation.
        seed: Seed of the draws and the searches.
        ceiling: Name of a model shown beside the candidates, or empty.
    """

    evaluations: int
    sources: tuple[str, ...]
    method: str
    size: int
    seed: int
    ceiling: str


def seed_of(seed: int, number: int) -> int:
    """The seed of one generation: another one each, so that the same champion is not searched around in the same way."""
    return seed * _SEEDS + number


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
    get, settings = desk.workspace.get, _settings(record.settings)
    line = line_of(desk, record.settings)
    pool = get(record.pool, ParentPool)
    decision = get(record.decision, ViabilityDecision) if record.decision else None
    found = [get(d, SearchReceipt) for d in record.searches]
    clusters = {get(s.cluster, FailureCluster) for s in found}
    clusters |= {get(decision.cluster, FailureCluster)} if decision else set()
    facts: dict[str, tuple[object, object]] = {
        "previous": (record.previous, line[-1][0] if line else None),
        "number": (record.number, line[-1][1].number + 1 if line else 1),
        "champion": (record.champion, desk.champion()),
        "tried": (record.tried, tried_in(desk, line)),
        **_target(desk, record, pool.base),
        "pool": (
            (pool.label, pool.method, pool.size, pool.seed),
            (record.label, settings.method, settings.size, seed_of(settings.seed, record.number)),
        ),
        "searches": (
            {(c.label, c.champion) for c in clusters},
            {(record.label, record.champion)} if clusters else set(),
        ),
        "searches: all": ([d for d in searched(desk, record.pool, pool) if d not in record.searches], []),
        "searches: parents": ([(s.seed, s.parents) for s in found], [(pool.seed, pool.chosen)] * len(found)),
        "searches: asked": ([_asked(s) for s in found], _due(settings, pool, desk)),
        "chosen": (record.chosen, decision.chosen if decision else None),
        "decision": (_foreign(desk, decision, pool), []),
        "duplicates": (record.duplicates, _again(desk, record, pool)),
        "duplicates: of": (_unknown(record, pool, decision), []),
        "held": (_held(record), _held_back(desk, record)),
    }
    require("generation", facts, "generation.field")


def searched(desk: Desk, digest: str, pool: ParentPool) -> list[str]:
    """Every search that was made with a pool's seed for its parents since it was drawn: none may be left out."""
    entry = desk.workspace.entry(digest)
    since = {e.record for e in desk.entries()[entry.sequence if entry else 0 :]}
    made = desk.unrevoked(SearchReceipt)
    return [d for d, s in made if d in since and s.seed == pool.seed and s.parents == pool.chosen]


def fits_plan(desk: Desk, digest: str, pool: ParentPool, settings: Mapping[str, Any]) -> bool:
    """Whether nothing was searched from a pool but what these settings ask for."""
    due = _due(_settings(settings), pool, desk)
    return all(_asked(desk.workspace.get(d, SearchReceipt)) in due for d in searched(desk, digest, pool))


def _settings(settings: Mapping[str, Any]) -> Settings:
    try:
        found = convert(settings, Settings)
    except ValidationError as error:
        raise _strange(str(error)) from error
    if unknown := [name for name in found.sources if name not in SOURCES]:
        raise _strange(f"{unknown[0]!r} is no source of recipes of this version")
    return found


def _strange(what: str) -> DigestDiffers:
    advice = "It does not say what was asked for. Do not rely on it."
    return DigestDiffers(what, where="generation: settings", advice=advice, reason="generation.field")


def _target(desk: Desk, record: GenerationRecord, base: str) -> dict[str, tuple[object, object]]:
    """The cluster has to be the one that fails most by the newest evidence there is."""
    card = desk.scorecard(record.evidence)
    held = {d: desk.workspace.get(d, SuiteManifest).role for d in desk.suites_lock[1].suites}
    suites = tuple(d for d, role in held.items() if role == "development")
    wrong = {k: 1.0 - r.mean for k, r in card.tasks().items() if k not in record.tried}
    own = wrong.get(record.label, 0.0)
    worse = [k for k, share in wrong.items() if (-share, k) < (-own, record.label) and slice_of(desk, k, base)]
    return {
        "evidence": (
            (card.artifact, card.role, tuple(r.suite for r in card.results)),
            (record.champion, "development", suites),
        ),
        "label": (worse, []),
        "label: failures": (own >= desk.policy[1].gates.cluster_error and own > 0.0, True),
    }


def _asked(found: SearchReceipt) -> tuple[object, ...]:
    space = found.space
    return found.method, found.objective, space.kind, space.layers, space.filters, found.budget


def _due(settings: Settings, pool: ParentPool, desk: Desk) -> list[tuple[object, ...]]:
    """The same of the searches that the sources make."""
    asked = asked_of(settings.sources, settings.evaluations)
    depth = desk.model(pool.base).shape.layer_count if asked else 1
    return [(r.method, r.objective, r.kind, depth if r.layered else 1, tuple(r.filters), r.evaluations) for r in asked]


def _unknown(record: GenerationRecord, pool: ParentPool, decision: ViabilityDecision | None) -> list[str]:
    """What duplicates are said to repeat, though nobody evaluated it here."""
    known = {record.champion, *pool.chosen, *(s.artifact for s in (decision.standings if decision else ()))}
    return [d.of for d in record.duplicates if d.of not in known]


def _held(record: GenerationRecord) -> object:
    """Why nothing was held or judged, as recorded; of a winner that was held back only that it was."""
    return bool(record.held) if record.chosen else record.held


def _held_back(desk: Desk, record: GenerationRecord) -> object:
    if record.chosen:
        return desk.channels()["shadow"].artifact != record.chosen
    return "" if record.decision else REPEATED


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
