"""Many generations: rounds chained by pools of parents, from one champion to the next.

A generation looks where the champion fails most, draws parents, asks the sources for recipes, breeds them, leaves out
what repeats a known model, and holds an ordinary round. Its winner is in shadow then. To champion it goes by a person's
key alone: with ``person`` that is asked for after every win, without it the generations stop and the winner waits.

Every step looks in the ledger first, so the same command goes on where it stopped, whatever stopped it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Struct

from studbook.errors import OutOfOrder, UsageError
from studbook.lab import breeding, channels, clock, judging, rounds
from studbook.lab.desk import Desk
from studbook.lab.duplicates import duplicates
from studbook.lab.generation_pages import require_writable, write_pages
from studbook.lab.generation_rules import (
    REPEATED,
    check_generation_record,
    fits_plan,
    line_of,
    next_label,
    seed_of,
    tried_in,
)
from studbook.lab.pending import Signed, require_key
from studbook.lab.pooling import make_pool, pool_of
from studbook.lab.recipe_sources import DEFAULT, Given, check_sources, gather_recipes
from studbook.population import PoolMethod
from studbook.records import (
    CandidateManifest,
    ChampionPromotion,
    EvaluatorChange,
    GenerationRecord,
    LineageTemplate,
    ParentPool,
    RollbackRecord,
    SuitesLock,
    ViabilityDecision,
)
from studbook.records.population import Duplicate

__all__ = ["Evolution", "Plan", "evolve"]


_DONE = "done"
# Kinds of records after which a pool that was drawn before is of another day.
_TURNS = (
    GenerationRecord.kind(),
    ChampionPromotion.kind(),
    RollbackRecord.kind(),
    SuitesLock.kind(),
    EvaluatorChange.kind(),
)


class Plan(NamedTuple):
    """What is to be done in every generation.

    Attributes:
        generations: Generations there shall be in the end, those that are there already included.
        evaluations: Recipes that are run on development items in a generation, all searches together.
        sources: Where recipes come from, by name.
        method: How parents are drawn: ``niches``, ``front`` or ``all``.
        size: Parents of a generation.
        seed: Seed of the draws and the searches.
        ceiling: Name of a registered joint-training model that is shown beside the candidates.
    """

    generations: int = 3
    evaluations: int = 255
    sources: Sequence[str] = DEFAULT
    method: PoolMethod = "niches"
    size: int = 5
    seed: int = 1
    ceiling: str | None = None

    def settings(self) -> dict[str, Any]:
        """What makes two calls one line of generations: everything but how many there shall be."""
        fields = self._asdict() | {"sources": list(self.sources), "ceiling": self.ceiling or ""}
        del fields["generations"]
        return fields


class Evolution(Struct, frozen=True):
    """What the generations came to.

    Attributes:
        generations: Digest and record of every generation, oldest first.
        waiting: Why it stopped before the last one; empty where all were held.
        champion: Digest of the champion now.
        files: What was written into the folder.
    """

    generations: tuple[tuple[str, GenerationRecord], ...]
    waiting: str
    champion: str
    files: tuple[str, ...]


def evolve(
    desk: Desk, plan: Plan, person: str | None = None, folder: Path | None = None, today: date | None = None
) -> Evolution:
    """Hold generations until there are as many as asked for, or a person is needed, or nothing is left to try.

    Args:
        desk: The lab.
        plan: What is to be done.
        person: Who promotes every winner to champion; nobody by default.
        folder: Where the pages and the picture are kept up to date; nowhere by default.
        today: The day approvals must cover.

    Raises:
        UsageError: if a choice is impossible, or an extra is missing; nothing has run then.
        NotAuthorised: if the person has no key here that promotes; nothing has run then.
        StudbookError: any of its kinds, as a search or a round.
    """
    _check(desk, plan, person, folder)
    while not (waiting := _step(desk, plan, person, today or clock.today())):
        if folder is not None:
            write_pages(desk, line_of(desk, plan.settings()), folder)
    line = line_of(desk, plan.settings())
    files = write_pages(desk, line, folder) if folder is not None else ()
    return Evolution(line, waiting.removeprefix(_DONE), desk.champion(), files)


def _check(desk: Desk, plan: Plan, person: str | None, folder: Path | None) -> None:
    """Everything that can be known before the first model is scored."""
    counts = ((plan.generations, 1, 10_000), (plan.size, 2, 16), (plan.seed, 0, 2**31 - 1))
    if not plan.sources or not all(low <= value <= high for value, low, high in counts):
        raise UsageError(
            f"{plan.generations} generations of {plan.size} parents from {len(plan.sources)} sources, seed {plan.seed}",
            where="evolve",
            advice="Ask for 1 generation or more, 2 to 16 parents, a source of recipes and a seed below 2^31.",
            reason="usage.evolve",
        )
    check_sources(desk, plan.sources, plan.evaluations)
    if plan.ceiling is not None:
        rounds.require_ceiling(desk, plan.ceiling)
    if person is not None:
        channels.require_promoter(desk, person)
    require_key(desk, GenerationRecord, ViabilityDecision)
    if folder is not None:
        require_writable(folder, desk.workspace.path)


def _step(desk: Desk, plan: Plan, person: str | None, today: date) -> str:
    """Promote a winner or hold the next generation; why there is no next one, or nothing."""
    line = line_of(desk, plan.settings())
    if waiting := _promote(desk, line, person):
        return waiting
    if len(line) >= plan.generations:
        return _DONE
    label = next_label(desk, _evidence(desk), tried_in(desk, line), today)
    if not label:
        return "the champion fails at nothing that was not tried already"
    desk.progress.say(f"generation {len(line) + 1} of {plan.generations}: {label}")
    made = _generation(desk, plan, line, label, today)
    # What could not be replayed is not written.
    check_generation_record(desk, made)
    desk.workspace.commit(made)
    return ""


def _evidence(desk: Desk) -> judging.Card:
    champion = desk.champion()
    return judging.evaluate(desk, [champion], "development")[champion]


def _promote(desk: Desk, line: Sequence[tuple[str, GenerationRecord]], person: str | None) -> str:
    """Ask for the promotion of the last winner, if it stands in shadow; why it waits, or nothing."""
    if not line:
        return ""
    last = line[-1][1]
    if last.chosen is None or last.held or last.chosen == desk.champion():
        return ""
    if any(state.artifact == last.chosen for state in desk.history("champion")):
        # Somebody took it back: a person may promote it again, and nothing here does so by itself.
        return ""
    name = desk.name_of(last.chosen)
    if person is None:
        return (
            f"{name} won generation {last.number} and waits in shadow: studbook release {name} --to champion --as NAME"
        )
    try:
        done = channels.release(desk, last.chosen, "champion", person, f"won generation {last.number}")
    except OutOfOrder as error:
        return f"{name} won generation {last.number} and cannot be champion yet: {error.message}"
    if isinstance(done, Signed) and not done.committed:
        return f"{name} won generation {last.number}; its promotion waits for more people to sign"
    return ""


def _generation(
    desk: Desk, plan: Plan, line: Sequence[tuple[str, GenerationRecord]], label: str, today: date
) -> GenerationRecord:
    number = len(line) + 1
    champion, evidence, tried = desk.champion(), _evidence(desk), tried_in(desk, line)
    seed = seed_of(plan.seed, number)
    pool_digest, pool = _pool(desk, plan, label, seed, today)
    given = Given(desk, label, pool.chosen, plan.evaluations, seed)
    found = gather_recipes(given, plan.sources)
    fresh, repeated = _fresh(desk, pool, champion, found.operators, today)
    outcome = rounds.run_round(desk, label, fresh, pool.chosen, plan.ceiling, today=today) if fresh else None
    return GenerationRecord(
        header=desk.header,
        number=number,
        previous=line[-1][0] if line else None,
        settings=plan.settings(),
        champion=champion,
        evidence=evidence.digest,
        label=label,
        tried=tried,
        pool=pool_digest,
        searches=found.searches,
        duplicates=repeated,
        decision=outcome.decision if outcome else None,
        chosen=outcome.record.chosen if outcome else None,
        held=outcome.held if outcome else REPEATED,
    )


def _pool(desk: Desk, plan: Plan, label: str, seed: int, today: date) -> tuple[str, ParentPool]:
    """The pool this generation was begun with, where an earlier call drew it; a new one otherwise.

    What was bred meanwhile counts as children, so a draw from anew would not be the same, and what was searched for lost.
    """
    asked = (label, plan.method, plan.size, seed, desk.policy[0], *pool_of(desk, label, today))
    since = max((e.sequence for e in desk.entries() if e.record_kind in _TURNS), default=-1)
    for digest, pool in reversed(desk.unrevoked(ParentPool)):
        entry = desk.workspace.entry(digest)
        drawn = (pool.label, pool.method, pool.size, pool.seed, pool.policy, pool.base)
        same = (*drawn, tuple(m.artifact for m in pool.members)) == asked
        if same and entry is not None and entry.sequence > since and fits_plan(desk, digest, pool, plan.settings()):
            return digest, pool
    made = make_pool(desk, label, plan.method, plan.size, seed, today)
    return desk.workspace.commit(made), made


def _fresh(
    desk: Desk, pool: ParentPool, champion: str, operators: Sequence[Any], today: date
) -> tuple[list[Any], tuple[Duplicate, ...]]:
    """Breed everything, and keep the recipes whose children are new; no item is spent on the others."""
    herd, _, _ = rounds.start(desk, pool.label, operators, pool.chosen, today)
    orders = breeding.plan(desk, herd, operators)
    manifests = breeding.breed_all(desk, orders)
    found = duplicates(desk, pool.base, (champion, *pool.chosen), manifests)
    known = {d.manifest for d in found}
    fresh = [desk.workspace.get(_template(desk, m), LineageTemplate).operator for m in manifests if m not in known]
    for duplicate in found:
        name = breeding.manifest_of(desk, duplicate.manifest).name
        desk.progress.say(f"{name} repeats {desk.name_of(duplicate.of)} and is not evaluated")
    return fresh, found


def _template(desk: Desk, manifest: str) -> str:
    return desk.workspace.get(manifest, CandidateManifest).template
