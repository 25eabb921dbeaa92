"""The populations of a lab: who behaves how, who dominates whom, who is kept and for what, who stands for retirement.

Nothing is moved by a review. It says what is so; `gc` frees bytes, `withdraw` takes back, and people do both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from studbook.errors import OutOfOrder
from studbook.evaluation.scorecards import evaluator_sha256
from studbook.lab import judging
from studbook.lab.admissions import admitted_to_channels
from studbook.lab.desk import Desk
from studbook.lab.facts import require
from studbook.lab.frozen import of_role
from studbook.lab.pooling import bits_of, descriptor_role
from studbook.population import Scored, Standing, archive_of, cells, elites, errors_of, nearest, novelty_ppm, standings
from studbook.records import (
    ArchiveRecord,
    ModelSource,
    NoveltyRecord,
    PopulationReview,
    RuntimeSmoke,
    Scorecard,
    SuiteManifest,
)
from studbook.records.population import Descriptor, Neighbour, Resident

__all__ = ["Reviewed", "check_novelty", "check_review", "review"]

_MICRO = 1_000_000
Home = Literal["active", "pool", "diverse", "cold"]


class Reviewed(NamedTuple):
    """A review with its novelty record.

    Attributes:
        digest: Digest of the review.
        review: The review.
        novelty: The novelty record.
    """

    digest: str
    review: PopulationReview
    novelty: NoveltyRecord


def review(desk: Desk) -> Reviewed:
    """Describe every model that can be compared, rank them, and write both records down.

    Founders are scored on the descriptor suites if they were not; of candidates only those count that were scored before.

    Raises:
        OutOfOrder: if no suite is frozen or no model is registered.
        StudbookError: any of its kinds, if a worker fails.
    """
    role = descriptor_role(desk)
    founders = [a for a in desk.sources() if not desk.revoked(a)]
    judging.evaluate(desk, founders, role)
    suites = tuple(s.digest for s in of_role(desk, role) if s.manifest.dimension == "task")
    if not suites:
        raise OutOfOrder(
            f"no {role} suite of tasks is frozen, and nothing else tells models apart",
            where="suites lock",
            advice="Freeze one: studbook suite freeze FOLDER ...",
            reason="order.suite",
        )
    cards = _cards(desk, evaluator_sha256(), role, suites)
    rows = _describe({a: d for a, (d, _) in cards.items()}, {a: c for a, (_, c) in cards.items()})
    novelty = NoveltyRecord(
        header=desk.header, evaluator=evaluator_sha256(), role="development" if role == "development" else "descriptor",
        suites=suites, rows=rows,
    )  # fmt: skip
    novelty_digest = desk.workspace.commit(novelty)
    made = _review(desk, novelty_digest, novelty)
    return Reviewed(desk.workspace.commit(made), made, novelty)


def check_novelty(desk: Desk, record: NoveltyRecord) -> None:
    """Describe every model again, from the scorecards a novelty record cites, in the lab as it was.

    Args:
        desk: The lab as it was before the record.
        record: The novelty record.

    Raises:
        DigestDiffers: naming the field that differs; ``novelty.field``.
    """
    tasks = [d for d in desk.suites_lock[1].suites if desk.workspace.get(d, SuiteManifest).dimension == "task"]
    held = {d: desk.workspace.get(d, SuiteManifest).role for d in tasks}
    cards = _cards(desk, record.evaluator, record.role, record.suites)
    facts: dict[str, tuple[object, object]] = {
        "role": (record.role, descriptor_role(desk)),
        "suites": (record.suites, tuple(d for d in tasks if held[d] == record.role)),
        "rows": ([(r.artifact, r.scorecard) for r in record.rows], [(a, d) for a, (d, _) in cards.items()]),
    }
    require("novelty-record", facts, "novelty.field")
    again = _describe({a: d for a, (d, _) in cards.items()}, {a: c for a, (_, c) in cards.items()})
    require("novelty-record", {"rows: descriptors": (record.rows, again)}, "novelty.field")


def check_review(desk: Desk, record: PopulationReview) -> None:
    """Review again from the novelty record a review cites; equal or something was changed.

    Args:
        desk: The lab as it was before the record.
        record: The review.

    Raises:
        DigestDiffers: naming the field that differs; ``review.field``, or ``novelty.field`` where the novelty record is
            not of the models and answers there are.
    """
    novelty = desk.workspace.get(record.novelty, NoveltyRecord)
    # A record of other days would describe a field that has changed since.
    check_novelty(desk, novelty)
    again = _review(desk, record.novelty, novelty)
    facts = {name: (getattr(record, name), getattr(again, name)) for name in ("policy", "residents")}
    require("population-review", facts, "review.field")


def _cards(desk: Desk, evaluator: str, role: str, suites: Sequence[str]) -> dict[str, tuple[str, Scorecard]]:
    """Every model that counts with its scorecard on some task suites, in order of the scorecards."""
    models = {a for a, (_, m) in desk.sources().items() if isinstance(m.source, ModelSource)}
    models |= {c.artifact.sha256 for _, c in desk.candidates() if c.purpose == "candidate"}
    models = {a for a in models if not desk.revoked(a)}
    found: dict[str, tuple[str, Scorecard]] = {}
    for number, card in desk.all(Scorecard):
        tasks = tuple(r.suite for r in card.results if r.dimension == "task")
        scored = all(r.verdict in ("pass", "fail") for r in card.results)
        same = (card.role, card.evaluator, tasks) == (role, evaluator, tuple(suites))
        if same and scored and card.artifact in models:
            found[card.artifact] = number, card
    return found


def _describe(digests: Mapping[str, str], cards: Mapping[str, Scorecard]) -> tuple[Descriptor, ...]:
    bits = {a: bits_of(card) for a, card in cards.items()}
    rows = []
    for artifact, card in cards.items():
        near = nearest(bits[artifact], {a: b for a, b in bits.items() if a != artifact})
        tasks = [r for r in card.results if r.dimension == "task"]
        wrong = errors_of(bits[artifact], [value for r in tasks for value in r.logliks])
        rows.append(
            Descriptor(
                artifact=artifact,
                scorecard=digests[artifact],
                correct=bits[artifact],
                errors=" ".join(map(str, wrong)),
                nearest=tuple(Neighbour(artifact=a, distance_ppm=d) for a, d in near),
                novelty_ppm=novelty_ppm(near),
            )
        )
    return tuple(rows)


def _review(desk: Desk, novelty_digest: str, novelty: NoveltyRecord) -> PopulationReview:
    policy_digest, policy = desk.policy
    cards = {r.artifact: desk.scorecard(r.scorecard) for r in novelty.rows}
    known = next((c.labels() for c in cards.values()), ())
    # Suites that describe need not ask for every skill that is protected.
    labels = tuple(k for k in policy.protects(known) if k in known) or known
    correct = {a: {k: c.tasks()[k].correct for k in labels} for a, c in cards.items()}
    shares = {a: {k: bits.count("1") / len(bits) for k, bits in row.items()} for a, row in correct.items()}
    able = _able(desk, cards)
    rule = policy.population
    ranked = standings([Scored(a, correct[a], a in able) for a in cards], rule.epsilon, policy.gates.alpha)
    cell_of = cells(shares)
    mean = {a: sum(row.values()) / len(row) for a, row in shares.items()}
    best = elites({a: cell for a, cell in cell_of.items() if a in able}, mean)
    homes = _homes(desk, list(cards), set(best.values()), mean, rule.diverse)
    pool = [s for s in ranked if homes[s.artifact] == "pool"]
    stay = set(archive_of(pool, rule.pool))
    leaving = {s.artifact for s in pool} - _needed(desk)
    why = {s.artifact: _retire(s, stay, best, rule.pool) if s.artifact in leaving else "" for s in ranked}
    residents = tuple(
        Resident(
            artifact=s.artifact,
            population=homes[s.artifact],
            rank=s.rank,
            crowding_ppm=s.crowding_ppm,
            cell=cell_of[s.artifact],
            mean_ppm=round(mean[s.artifact] * _MICRO),
            worst_ppm=round(min(shares[s.artifact].values()) * _MICRO),
            retire=why[s.artifact],
        )
        for s in ranked
    )  # fmt: skip
    return PopulationReview(header=desk.header, policy=policy_digest, novelty=novelty_digest, residents=residents)


def _retire(standing: Standing, stay: set[str], best: Mapping[str, str], capacity: int) -> str:
    artifact, rank = standing.artifact, standing.rank
    if artifact not in stay:
        return f"the candidate pool holds {capacity}, and others stand before it"
    if rank == 0:
        return "it breaks a constraint: no passed smoke, or it was quarantined"
    if rank > 1 and artifact not in best.values():
        return f"it stands in front {rank} and is the best of no cell"
    return ""


def _able(desk: Desk, cards: Mapping[str, Scorecard]) -> set[str]:
    """Models that run and were not quarantined; the smoke of any evaluator counts."""
    smoked = {s.artifact for _, s in desk.all(RuntimeSmoke) if s.passed} | set(desk.registered())
    rows = (c for _, r in desk.unrevoked(ArchiveRecord) for c in r.candidates)
    bad = {c.artifact for c in rows if c.action == "quarantine"}
    return {a for a in cards if a in smoked and a not in bad}


def _homes(desk: Desk, models: Sequence[str], best: set[str], mean: Mapping[str, float], most: int) -> dict[str, Home]:
    """Which population every model lives in: channels first, then who may have children, then elites, then the rest."""
    channels = desk.channels().values()
    active = {s.artifact for s in channels} | {s.way_back.artifact for s in channels if s.way_back}
    pool = {*desk.registered(), *(a.artifact for _, a in admitted_to_channels(desk))}
    rest = sorted((a for a in best if a not in active | pool), key=lambda a: (-mean[a], a))
    kept = set(rest[:most])
    return {a: "active" if a in active else "pool" if a in pool else "diverse" if a in kept else "cold" for a in models}


def _needed(desk: Desk) -> set[str]:
    """What a channel points at or goes back to, and everything that descends from: none of it can retire."""
    channels = desk.channels().values()
    held = [s.artifact for s in channels] + [s.way_back.artifact for s in channels if s.way_back]
    bases = {m.source.base for _, m in desk.sources().values() if isinstance(m.source, ModelSource)}
    return {a for artifact in held if artifact for a in desk.ancestry(artifact)} | {b for b in bases if b}
