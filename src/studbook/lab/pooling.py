"""The parents of a generation: who is in the pool, how they are weighed, who is drawn; and the same again for `verify`."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import date, datetime, timedelta

from studbook.errors import OutOfOrder, StudbookError
from studbook.evaluation.scorecards import evaluator_sha256
from studbook.lab import approvals, clock, judging
from studbook.lab.descendants import descendants
from studbook.lab.desk import Desk
from studbook.lab.facts import require
from studbook.lab.frozen import of_role
from studbook.lab.offering import shared_base
from studbook.lab.sources import compare_parents
from studbook.population import PoolMethod, Ready, draw_parents
from studbook.records import CompatibilityReport, LineageTemplate, ParentPool, Scorecard, SuiteManifest, digest
from studbook.records.evaluation import Role
from studbook.records.population import PoolMember
from studbook.registry.compatibility import require as require_fit

__all__ = ["bits_of", "check_pool", "children_of", "descriptor_role", "make_pool", "pool_of"]


def descriptor_role(desk: Desk) -> Role:
    """The role of the suites that describe: ``descriptor`` where task suites of it are frozen, else development."""
    frozen = (desk.workspace.get(suite, SuiteManifest) for suite in desk.suites_lock[1].suites)
    return "descriptor" if any((m.role, m.dimension) == ("descriptor", "task") for m in frozen) else "development"


def bits_of(card: Scorecard) -> str:
    """A scorecard's answers over its task suites, in order: one character an item."""
    return "".join(r.correct for r in card.results if r.dimension == "task")


def children_of(desk: Desk) -> Counter[str]:
    """How many candidates were bred from every model."""
    found: Counter[str] = Counter()
    for _, candidate in desk.candidates():
        if candidate.purpose == "candidate":
            found.update(set(desk.workspace.get(candidate.template, LineageTemplate).parents))
    return found


def pool_of(desk: Desk, label: str, today: date) -> tuple[str, tuple[str, ...]]:
    """Base and pool for a cluster: approved parents first, then models bred here that may have children.

    Raises:
        OutOfOrder: if nobody is approved.
    """
    founders = approvals.select(desk, label, "", today).parents
    base = shared_base(desk, founders)
    approved = approvals.select(desk, label, base, today).parents
    bred = tuple(a for a in descendants(desk) if base in desk.ancestry(a))
    if len(approved) + len(bred) < 2:
        raise OutOfOrder(
            f"{len(approved) + len(bred)} models may be parents for {label}",
            advice="Register models and approve them: studbook approve NAME --as PERSON",
            reason="order.approval",
        )
    return base, approved + bred


def make_pool(desk: Desk, label: str, method: PoolMethod, size: int, seed: int, today: date) -> ParentPool:
    """Weigh everybody who may be a parent, and draw some; the pool itself is not written yet.

    A champion that may be a parent is always one, and the first: what is there already must not be lost by a draw.

    Args:
        desk: The lab.
        label: The failure cluster.
        method: How the others are drawn.
        size: Parents that are wanted.
        seed: Seed of the draws.
        today: The day approvals must cover.

    Raises:
        StudbookError: any of its kinds, if nobody is approved or a model cannot be scored.
    """
    base, members = pool_of(desk, label, today)
    role = descriptor_role(desk)
    report_digest, report = compare_parents(desk, base, members, None)
    require_fit(report)
    cards = judging.evaluate(desk, members, role)
    digests = [cards[a].digest for a in members]
    suites = tuple(s.digest for s in of_role(desk, role) if s.manifest.dimension == "task")
    return _drawn(desk, ParentPool(
        header=desk.header, label=label, base=base, policy=desk.policy[0], method=method, size=size, seed=seed,
        evaluator=evaluator_sha256(), suites=suites, compatibility=report_digest, chosen=(),
        members=tuple(_member(a, d) for a, d in zip(members, digests, strict=True)),
    ))  # fmt: skip


def check_pool(desk: Desk, record: ParentPool) -> None:
    """Weigh and draw again, from the scorecards a pool cites, in the lab as it was.

    Args:
        desk: The lab as it was before the record.
        record: The pool.

    Raises:
        DigestDiffers: naming the field that differs; ``pool.field``.
        OutOfOrder: if nobody was approved.
    """
    cards = [desk.scorecard(m.scorecard) for m in record.members]
    members = (record.base, tuple(m.artifact for m in record.members))
    report = desk.workspace.get(record.compatibility, CompatibilityReport)
    facts: dict[str, tuple[object, object]] = {
        "policy": (record.policy, desk.policy[0]),
        "members.artifact": (tuple(m.artifact for m in record.members), tuple(c.artifact for c in cards)),
        "compatibility": (
            (report.passed, report.base, report.parents),
            (True, record.base, tuple(m.artifact for m in record.members)),
        ),
        "evaluator": ({record.evaluator}, {c.evaluator for c in cards}),
        "suites": ({record.suites}, {tuple(r.suite for r in c.results if r.dimension == "task") for c in cards}),
        "members": (members, _everybody(desk, record, members)),
    }
    require("parent-pool", facts, "pool.field")
    again = _drawn(desk, record)
    require(
        "parent-pool",
        {"members": (record.members, again.members), "chosen": (record.chosen, again.chosen)},
        "pool.field",
    )


def _everybody(desk: Desk, record: ParentPool, stated: tuple[str, tuple[str, ...]]) -> tuple[str, tuple[str, ...]]:
    """Base and pool as approvals give them: nobody may be left out of a draw.

    Approvals are asked for when a generation begins, so the day before the record entered will do as well.
    """
    entry = desk.workspace.entry(digest(record))
    day = datetime.fromisoformat(entry.time).date() if entry else clock.today()
    found = []
    for asked in (day, day - timedelta(days=1)):
        with suppress(StudbookError):
            found.append(pool_of(desk, record.label, asked))
    return stated if stated in found else found[0] if found else ("", ())


def _member(artifact: str, card: str) -> PoolMember:
    return PoolMember(artifact=artifact, scorecard=card, children=0, weight_ppm=0)


def _drawn(desk: Desk, pool: ParentPool) -> ParentPool:
    """The same pool with children counted, weights and choice made from its own scorecards."""
    children, champion = children_of(desk), desk.champion()
    ready = [Ready(m.artifact, bits_of(desk.scorecard(m.scorecard)), children[m.artifact]) for m in pool.members]
    report = desk.workspace.get(pool.compatibility, CompatibilityReport)
    conflicts = {frozenset((p.first, p.second)): p.sign_conflict.value for p in report.pairs}
    draw = draw_parents(ready, pool.method, pool.size, pool.seed, champion, conflicts)
    members = tuple(
        PoolMember(artifact=r.artifact, scorecard=m.scorecard, children=r.children, weight_ppm=w)
        for m, r, w in zip(pool.members, ready, draw.weights_ppm, strict=True)
    )
    fields = {name: getattr(pool, name) for name in pool.__struct_fields__}
    return ParentPool(**{**fields, "members": members, "chosen": draw.chosen})
